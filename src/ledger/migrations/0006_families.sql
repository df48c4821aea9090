-- Which emergency a later word belongs to and as what, and how an emergency was ended.
ALTER TABLE announcements ADD COLUMN follows TEXT;
ALTER TABLE announcements ADD COLUMN part TEXT;
ALTER TABLE announcements ADD COLUMN ended TEXT;
CREATE INDEX announcements_follows ON announcements (follows) WHERE follows IS NOT NULL;
