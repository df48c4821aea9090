-- Times are microseconds UTC. Bodies are JSON text.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE contents (hash TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE announcements (
    id TEXT PRIMARY KEY,
    file TEXT NOT NULL,
    line INTEGER NOT NULL,
    content TEXT NOT NULL REFERENCES contents (hash),
    body TEXT NOT NULL,
    edited TEXT,
    priority INTEGER NOT NULL,
    supersedes TEXT,
    planned_to INTEGER,
    withdrawn TEXT,
    first_seen INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE occurrences (
    id TEXT PRIMARY KEY,
    announcement TEXT NOT NULL REFERENCES announcements (id),
    content TEXT NOT NULL REFERENCES contents (hash),
    release INTEGER NOT NULL,
    closing TEXT
) WITHOUT ROWID;
CREATE INDEX occurrences_release ON occurrences (release);
CREATE INDEX occurrences_announcement ON occurrences (announcement, release);

CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    occurrence TEXT NOT NULL REFERENCES occurrences (id),
    announcement TEXT NOT NULL,
    account TEXT NOT NULL,
    content TEXT NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    next_at INTEGER,
    at INTEGER NOT NULL,
    expires_at INTEGER,
    wish INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    looks INTEGER NOT NULL,
    asked_until INTEGER,
    begun_at INTEGER,
    flags INTEGER NOT NULL,
    prepared TEXT,
    receipt TEXT,
    post_id TEXT,
    class TEXT,
    reason TEXT,
    lateness_us INTEGER,
    fence INTEGER NOT NULL,
    UNIQUE (occurrence, account)
);
CREATE INDEX deliveries_due ON deliveries (next_at, priority, id) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_state ON deliveries (occurrence, state);
CREATE INDEX deliveries_pending ON deliveries (occurrence) WHERE state IN ('scheduled', 'ready', 'held');
-- Of columns that never change: a step must not touch it.
CREATE INDEX deliveries_account ON deliveries (account, id);
CREATE INDEX deliveries_announcement ON deliveries (announcement);

CREATE TABLE attempts (
    delivery INTEGER NOT NULL,
    n INTEGER NOT NULL,
    slot INTEGER,
    begun INTEGER,
    ended INTEGER,
    outcome TEXT NOT NULL,
    words TEXT,
    PRIMARY KEY (delivery, n)
) WITHOUT ROWID;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    body TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
);

CREATE TABLE holds (id TEXT PRIMARY KEY, reason TEXT NOT NULL, until INTEGER, accounts TEXT, owner TEXT NOT NULL, begun INTEGER NOT NULL, ended INTEGER) WITHOUT ROWID;
CREATE TABLE confirms (content TEXT NOT NULL, uid INTEGER NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (content, uid)) WITHOUT ROWID;
CREATE TABLE requests (uid INTEGER NOT NULL, key TEXT NOT NULL, hash TEXT NOT NULL, answer TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (uid, key)) WITHOUT ROWID;

CREATE TABLE accounts (
    account TEXT PRIMARY KEY,
    newest TEXT,
    good INTEGER,
    words TEXT,
    uid TEXT,
    expires INTEGER,
    seen INTEGER
) WITHOUT ROWID;

CREATE TABLE budgets (key TEXT NOT NULL, window INTEGER NOT NULL, calls INTEGER NOT NULL, PRIMARY KEY (key, window)) WITHOUT ROWID;
