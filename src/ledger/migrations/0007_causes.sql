-- Why a delivery is held or stopped, what is to become of it, and what the ledger cannot know of it.
ALTER TABLE deliveries RENAME COLUMN wish TO desired;
ALTER TABLE deliveries ADD COLUMN cause TEXT;
ALTER TABLE deliveries ADD COLUMN misses INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN doubted TEXT;
-- Waiting counts a clock that does not stand in a ledger.
ALTER TABLE deliveries DROP COLUMN asked_until;
UPDATE deliveries SET sum = NULL;
UPDATE deliveries SET cause = CASE
    WHEN priority = 0 AND next_at IS NOT NULL THEN 'confirmation'
    WHEN priority = 0 THEN 'undecided'
    WHEN next_at IS NOT NULL THEN 'hold'
    ELSE 'review' END WHERE state = 'held';
-- Who stopped it is not on record: so nothing brings it back.
UPDATE deliveries SET cause = 'person', desired = max(desired, 1) WHERE state = 'cancelled';
UPDATE deliveries SET doubted = content WHERE state = 'unknown' AND attempt = 0;

-- The few that a start asks about.
DROP INDEX deliveries_unsettled;
CREATE INDEX deliveries_unsettled ON deliveries (state, id) WHERE state IN ('sending', 'unknown', 'accepted', 'retrying');
-- The few that wait to know whether an earlier post is out on their account.
CREATE INDEX deliveries_undecided ON deliveries (account) WHERE cause = 'undecided';
DROP INDEX deliveries_announcement;
CREATE INDEX deliveries_announcement ON deliveries (announcement, account);

ALTER TABLE announcements ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
-- A person's name, where one cancelled this occurrence alone.
ALTER TABLE occurrences ADD COLUMN stopped TEXT;
-- Where a newer post took its place: nothing more of it is planned there.
CREATE TABLE superseded (
    announcement TEXT NOT NULL,
    account TEXT NOT NULL,
    newer TEXT NOT NULL,
    PRIMARY KEY (announcement, account)
) WITHOUT ROWID;

-- A hold that begins again under its name is another one: what the first came over is still to be reviewed.
CREATE TABLE holds_now (
    id TEXT NOT NULL,
    begun INTEGER NOT NULL,
    reason TEXT NOT NULL,
    until INTEGER,
    accounts TEXT,
    owner TEXT NOT NULL,
    post TEXT,
    ended INTEGER,
    version INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (id, begun)
) WITHOUT ROWID;
INSERT INTO holds_now (id, begun, reason, until, accounts, owner, ended)
    SELECT id, begun, reason, until, accounts, owner, ended FROM holds;
DROP TABLE holds;
ALTER TABLE holds_now RENAME TO holds;
