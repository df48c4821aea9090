-- Deliveries by state, kept by the writer: `status` and the metrics must not read a year of rows.
CREATE TABLE tally (state TEXT PRIMARY KEY, deliveries INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO tally (state, deliveries) SELECT state, count(*) FROM deliveries GROUP BY state;
-- In the order they are claimed in: no sort, however long the backlog.
DROP INDEX deliveries_due;
CREATE INDEX deliveries_due ON deliveries (priority, next_at, id) WHERE next_at IS NOT NULL;
-- The few on the wire or being looked for, which a start and `status` ask about.
CREATE INDEX deliveries_unsettled ON deliveries (state, id) WHERE state IN ('sending', 'unknown');
