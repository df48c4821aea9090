-- The deliveries of an emergency, on disk before they are rows: made rows of right after the acknowledgement, or at the next start.
CREATE TABLE intake (
    id INTEGER PRIMARY KEY,
    columns TEXT NOT NULL,
    deliveries BLOB NOT NULL,
    spends TEXT NOT NULL,
    sum INTEGER NOT NULL
);
