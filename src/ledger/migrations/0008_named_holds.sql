-- A hold is for the accounts its names mean while it stands, and not only for those they meant when it began.
ALTER TABLE holds ADD COLUMN named TEXT;
