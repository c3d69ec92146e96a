-- Sessions and their leases, on the clock of this database.

-- name: wait_briefly
-- For this transaction: whoever waits longer for a lock than this many milliseconds gets an error.
SELECT set_config('lock_timeout', (:at_most_ms::integer)::text, true);

-- name: lock_workers
-- In one order for all servers, or two of them would wait for each other.
WITH ordered AS MATERIALIZED (
    SELECT DISTINCT hashtextextended('orqestra worker ' || id::text, 0) AS key
    FROM unnest(:worker_ids::uuid[]) AS w(id)
    ORDER BY key
)
SELECT pg_advisory_xact_lock(key) FROM ordered;

-- name: newest_sessions
SELECT w.id AS worker_id, (SELECT max(number) FROM sessions s WHERE s.worker_id = w.id) AS number
FROM unnest(:worker_ids::uuid[]) AS w(id);

-- name: replace_sessions
WITH old AS (
    SELECT s.id, h.incarnation
    FROM unnest(:worker_ids::uuid[], :incarnations::uuid[]) AS h(worker_id, incarnation)
    JOIN sessions s ON s.worker_id = h.worker_id AND s.closed_at IS NULL
    ORDER BY s.id
    FOR UPDATE OF s
)
UPDATE sessions s
SET closed_at = clock_timestamp(),
    closed_reason = CASE WHEN s.incarnation = o.incarnation THEN 'replaced' ELSE 'restarted' END
FROM old o
WHERE s.id = o.id;

-- name: open_sessions
-- Queues and labels are JSON, since an array of arrays has to be rectangular.
INSERT INTO sessions (worker_id, incarnation, number, name, server_id, server_name, slots, queues, labels,
                      lease_expires_at)
SELECT h.worker_id, h.incarnation, h.number, h.name, :server_id::bigint, :server_name::text, h.slots,
       ARRAY(SELECT jsonb_array_elements_text(h.queues::jsonb)),
       ARRAY(SELECT jsonb_array_elements_text(h.labels::jsonb)),
       clock_timestamp() + :lease_ms::bigint * interval '1 millisecond'
FROM unnest(:worker_ids::uuid[], :incarnations::uuid[], :numbers::bigint[], :names::text[], :slots::integer[],
            :queues::text[], :labels::text[]) AS h(worker_id, incarnation, number, name, slots, queues, labels)
RETURNING id, worker_id;

-- name: resume_jobs
-- Each new session takes over what its worker holds of its older ones, and nothing else.
WITH locked AS (
    SELECT j.id, h.session_id
    FROM unnest(:worker_ids::uuid[], :session_ids::bigint[], :ids::bigint[], :fences::bigint[], :tokens::bigint[])
             AS h(worker_id, session_id, id, fence, token)
    JOIN jobs j ON j.id = h.id
    JOIN sessions s ON s.id = j.session_id AND s.worker_id = h.worker_id
    WHERE CASE WHEN (j.state, j.fence, j.token) = ('running', h.fence, h.token) THEN true ELSE false END
    ORDER BY j.id
    FOR UPDATE OF j
)
UPDATE jobs j SET session_id = l.session_id FROM locked l WHERE j.id = l.id
RETURNING j.session_id, j.id, j.fence;

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
-- In the order of the ids, as whoever replaces or renews them.
WITH over AS (
    SELECT id FROM sessions WHERE closed_at IS NULL AND lease_expires_at < clock_timestamp()
    ORDER BY id
    FOR UPDATE
)
UPDATE sessions s SET closed_at = clock_timestamp(), closed_reason = 'lapsed'
FROM over o
WHERE s.id = o.id
RETURNING s.id;

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
