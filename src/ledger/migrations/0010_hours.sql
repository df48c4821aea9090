-- A plan compares what is pending by its state and its hour: a hundred thousand rows at every reading of the folder.
DROP INDEX deliveries_state;
CREATE INDEX deliveries_state ON deliveries (occurrence, state, at);
-- SQLite sees that one state is among several only where the condition is written with OR.
DROP INDEX deliveries_unsettled;
CREATE INDEX deliveries_unsettled ON deliveries (state, id)
    WHERE state = 'sending' OR state = 'unknown' OR state = 'accepted' OR state = 'retrying';
