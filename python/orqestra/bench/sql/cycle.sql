-- The raw cycle: what any queue on Postgres does at least, on a table that has no more than that takes.

-- name: make_bare_table
CREATE TABLE bare (
    id       bigint PRIMARY KEY,
    state    text NOT NULL,
    priority smallint NOT NULL,
    payload  bytea NOT NULL,
    fence    bigint NOT NULL
);

-- name: make_bare_index
CREATE INDEX bare_pending ON bare (priority DESC, id) WHERE state = 'pending';

-- name: claim_bare
-- CASE, as in our own claims: a guard that an index could serve is planned as a walk of it for each row.
UPDATE bare b SET state = 'running', fence = b.fence + 1
FROM unnest(:ids::bigint[], :fences::bigint[]) AS r (id, fence)
WHERE b.id = r.id
  AND CASE WHEN b.state = 'pending' AND b.fence = r.fence THEN true ELSE false END
RETURNING b.id;

-- name: complete_bare
UPDATE bare b SET state = 'completed'
FROM unnest(:ids::bigint[], :fences::bigint[]) AS r (id, fence)
WHERE b.id = r.id
  AND CASE WHEN b.state = 'running' AND b.fence = r.fence THEN true ELSE false END
RETURNING b.id;
