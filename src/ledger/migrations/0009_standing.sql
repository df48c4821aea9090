-- Posts that are being taken down: there are few, and a person is told of those that stand for long.
CREATE INDEX deliveries_taken_down ON deliveries (id) WHERE state = 'published' AND next_at IS NOT NULL;
