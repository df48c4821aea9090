-- A person's word is for one announcement's content: the same words another day need their persons anew.
DROP TABLE confirms;
CREATE TABLE confirms (
    announcement TEXT NOT NULL,
    content TEXT NOT NULL,
    uid INTEGER NOT NULL,
    name TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (announcement, content, uid)
) WITHOUT ROWID;
