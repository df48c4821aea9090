-- Posts that are being taken down: there are few, and a person is told of those that stand for long.
CREATE INDEX deliveries_taken_down ON deliveries (id) WHERE state = 'published' AND next_at IS NOT NULL;
-- What a hold keeps back by now, whenever it comes up again.
CREATE INDEX deliveries_kept_back ON deliveries (account) WHERE state = 'held' AND cause = 'hold';
