-- Checksums over a delivery's columns, and over what was prepared of it: SQLite has none of its own outside the log.
-- NULL: written before there were sums.
ALTER TABLE deliveries ADD COLUMN sum INTEGER;
ALTER TABLE deliveries ADD COLUMN prepared_sum INTEGER;
