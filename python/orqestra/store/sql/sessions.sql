-- Sessions and their leases, on the clock of this database.

-- name: lock_worker
SELECT pg_advisory_xact_lock(hashtextextended('orqestra worker ' || :worker_id::uuid::text, 0));

-- name: newest_session
SELECT max(number) AS number FROM sessions WHERE worker_id = :worker_id;

-- name: replace_sessions
UPDATE sessions
SET closed_at = clock_timestamp(),
    closed_reason = CASE WHEN incarnation = :incarnation THEN 'replaced' ELSE 'restarted' END
WHERE worker_id = :worker_id AND closed_at IS NULL;

-- name: open_session
INSERT INTO sessions (worker_id, incarnation, number, name, server_id, server_name, slots, queues, labels,
                      lease_expires_at)
VALUES (:worker_id, :incarnation, :number, :name, :server_id, :server_name, :slots, :queues::text[], :labels::text[],
        clock_timestamp() + :lease_ms::bigint * interval '1 millisecond')
RETURNING id;

-- name: resume_jobs
-- The new session takes over what the worker holds of its older ones, and nothing else.
WITH locked AS (
    SELECT j.id
    FROM unnest(:ids::bigint[], :fences::bigint[], :tokens::bigint[]) AS h(id, fence, token)
    JOIN jobs j ON j.id = h.id
    JOIN sessions s ON s.id = j.session_id AND s.worker_id = :worker_id
    WHERE CASE WHEN (j.state, j.fence, j.token) = ('running', h.fence, h.token) THEN true ELSE false END
    ORDER BY j.id
    FOR UPDATE OF j
)
UPDATE jobs j SET session_id = :session_id FROM locked l WHERE j.id = l.id
RETURNING j.id, j.fence;

-- name: renew_sessions
-- All that a server asks each second, in one round trip: a slow network must not make it late.
-- A row in other hands is being replaced or closed right now; it must not hold up the others.
WITH free AS (
    SELECT s.id, r.slots, r.health
    FROM unnest(:ids::bigint[], :slots::integer[], :healths::text[]) AS r(id, slots, health)
    JOIN sessions s ON s.id = r.id
    WHERE s.closed_at IS NULL AND s.server_id = :server_id
    ORDER BY s.id
    FOR UPDATE OF s SKIP LOCKED
),
renewed AS (
    UPDATE sessions s
    SET lease_expires_at = clock_timestamp() + :lease_ms::bigint * interval '1 millisecond', slots = f.slots,
        health = f.health
    FROM free f
    WHERE s.id = f.id
    RETURNING s.id
)
SELECT coalesce((SELECT array_agg(id) FROM renewed), '{}') AS renewed,
       -- Those that were silent too: a stream that is closed elsewhere must get no more work from here.
       -- A Postgres that was put back to an older state has forgotten some, and gives their ids again to others.
       coalesce((SELECT array_agg(o.id) FROM unnest(:open_ids::bigint[]) AS o(id)
                 LEFT JOIN sessions s ON s.id = o.id AND s.server_id = :server_id AND s.closed_at IS NULL
                 WHERE s.id IS NULL), '{}') AS closed,
       (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms;

-- name: close_session
-- A stream that ended with nothing running needs no lease to wait for.
UPDATE sessions s SET closed_at = clock_timestamp(), closed_reason = 'ended'
WHERE s.id = :id AND s.worker_id = :worker_id AND s.number = :number AND s.closed_at IS NULL
  AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.session_id = s.id AND j.state = 'running');

-- name: count_lapsed
SELECT count(*) FILTER (WHERE lease_expires_at < clock_timestamp()) AS lapsed, count(*) AS open
FROM sessions WHERE closed_at IS NULL;

-- name: close_lapsed
UPDATE sessions SET closed_at = clock_timestamp(), closed_reason = 'lapsed'
WHERE closed_at IS NULL AND lease_expires_at < clock_timestamp()
RETURNING id;

-- name: find_orphans
-- Running jobs whose session is closed. Read without locks: settlement guards each of them again.
-- Driven from the sessions, of which there are few: ordered by job it would walk the whole table.
SELECT j.id, j.fence, j.token, j.session_id, s.closed_reason
FROM sessions s
CROSS JOIN LATERAL (
    SELECT id, fence, token, session_id FROM jobs
    WHERE session_id = s.id AND state = 'running'
    LIMIT :at_most
) AS j
WHERE s.closed_at IS NOT NULL
LIMIT :at_most;

-- name: list_running
-- What runs on these sessions.
SELECT id, fence, token, session_id FROM jobs
WHERE session_id = ANY(:session_ids::bigint[]) AND state = 'running';

-- name: delete_sessions
-- Closed for a day, and no running job names them.
DELETE FROM sessions s
WHERE s.id IN (
    SELECT id FROM sessions c
    WHERE c.closed_at < clock_timestamp() - interval '1 day'
      AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.session_id = c.id AND j.state = 'running')
    ORDER BY id LIMIT :at_most);
