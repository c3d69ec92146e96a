-- The outbox: hints on their way to Redis, and the lanes they belong to.

-- name: add_outbox
INSERT INTO outbox (server_id, entries) VALUES (:server_id, :entries) RETURNING id;

-- name: take_outbox
-- Rows that their own server has not relayed in time. Two servers may take the same one: no harm.
SELECT id, server_id, entries FROM outbox
WHERE created_at < clock_timestamp() - :older_ms::bigint * interval '1 millisecond'
ORDER BY id LIMIT :at_most;

-- name: take_own_outbox
-- Rows of one server, however young: one whose commit had no answer is among them.
SELECT id, entries FROM outbox WHERE server_id = :server_id ORDER BY id LIMIT :at_most;

-- name: delete_outbox
DELETE FROM outbox WHERE id = ANY(:ids::bigint[]);

-- name: drop_old_outbox
-- While Redis is away: the lanes are refilled when it returns.
DELETE FROM outbox WHERE id IN (
    SELECT id FROM outbox
    WHERE created_at < clock_timestamp() - :older_ms::bigint * interval '1 millisecond'
    ORDER BY id LIMIT :at_most);

-- name: list_lanes
SELECT id, queue, requires FROM lanes WHERE id > :after ORDER BY id;

-- name: count_lanes
SELECT count(*) AS lanes FROM lanes;

-- name: add_lane
-- One at a time, so that lanes become visible in the order of their ids: list_lanes reads from the last on.
WITH alone AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended('orqestra lanes', 0)))
INSERT INTO lanes (queue, requires) SELECT :queue, :requires::text[] FROM alone
ON CONFLICT DO NOTHING RETURNING id;

-- name: find_lane
SELECT id FROM lanes WHERE queue = :queue AND requires = :requires::text[];

-- name: commit_later
-- This transaction may be forgotten in a crash: only for what does no harm when it is.
SELECT set_config('synchronous_commit', 'off', true);
