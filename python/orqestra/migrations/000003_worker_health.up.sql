-- What a worker suffers from, as its last beat told; empty: nothing. Written with each renewal, in no index.
ALTER TABLE sessions ADD COLUMN health text NOT NULL DEFAULT '';
