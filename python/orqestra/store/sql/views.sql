-- What is read for people: one job, pages of jobs, output.

-- name: get_job
SELECT j.*, l.requires, coalesce(s.name, j.worker_id::text) AS worker
FROM jobs j
LEFT JOIN lanes l ON l.id = j.lane_id
LEFT JOIN sessions s ON s.id = j.session_id
WHERE j.id = :id;

-- name: get_jobs
SELECT j.*, l.requires, coalesce(s.name, j.worker_id::text) AS worker
FROM jobs j
LEFT JOIN lanes l ON l.id = j.lane_id
LEFT JOIN sessions s ON s.id = j.session_id
WHERE j.id = ANY(:ids::bigint[])
ORDER BY j.id;

-- name: get_attempts
-- The latest ones, oldest first.
SELECT a.*, coalesce(s.name, a.worker_id::text) AS worker
FROM (SELECT * FROM attempts WHERE job_id = :id ORDER BY fence DESC LIMIT :at_most) a
LEFT JOIN sessions s ON s.id = a.session_id
ORDER BY a.fence;

-- name: list_jobs
-- Newest first. A page looks at a bounded number of rows and may therefore be short: then `seen` and
-- `last_seen` say how many it looked at and where the next one goes on. A full one looks no further than it
-- has to: the rows come in order, and are read as they are wanted.
WITH looked AS MATERIALIZED (
    SELECT id, lane_id, state, queue, type, tags FROM jobs
    WHERE id < :after
    ORDER BY id DESC LIMIT :scan
),
fitting AS (
    SELECT k.id FROM looked k
    WHERE (cardinality(:states::text[]) = 0 OR k.state = ANY(:states::text[]))
      AND (:queue::text IS NULL OR k.queue = :queue)
      AND (:type::text IS NULL OR k.type = :type)
      AND (cardinality(:tags::text[]) = 0 OR k.tags @> :tags::text[])
      AND (cardinality(:labels::text[]) = 0
           OR k.lane_id IN (SELECT id FROM lanes WHERE requires @> :labels::text[]))
    LIMIT :page
)
SELECT (SELECT array_agg(id ORDER BY id DESC) FROM fitting) AS ids,
       CASE WHEN (SELECT count(*) FROM fitting) < :page THEN (SELECT count(*) FROM looked) END AS seen,
       CASE WHEN (SELECT count(*) FROM fitting) < :page THEN (SELECT min(id) FROM looked) END AS last_seen;

-- name: list_unhappy
-- As list_jobs, for failed and cancelled ones, which have an index of their own.
WITH looked AS MATERIALIZED (
    SELECT id, lane_id, state, queue, type, tags FROM jobs
    WHERE id < :after AND state IN ('failed', 'cancelled')
    ORDER BY id DESC LIMIT :scan
),
fitting AS (
    SELECT k.id FROM looked k
    WHERE (cardinality(:states::text[]) = 0 OR k.state = ANY(:states::text[]))
      AND (:queue::text IS NULL OR k.queue = :queue)
      AND (:type::text IS NULL OR k.type = :type)
      AND (cardinality(:tags::text[]) = 0 OR k.tags @> :tags::text[])
      AND (cardinality(:labels::text[]) = 0
           OR k.lane_id IN (SELECT id FROM lanes WHERE requires @> :labels::text[]))
    LIMIT :page
)
SELECT (SELECT array_agg(id ORDER BY id DESC) FROM fitting) AS ids,
       CASE WHEN (SELECT count(*) FROM fitting) < :page THEN (SELECT count(*) FROM looked) END AS seen,
       CASE WHEN (SELECT count(*) FROM fitting) < :page THEN (SELECT min(id) FROM looked) END AS last_seen;

-- name: get_summaries
-- Rows of a page: all of a job but its payload and output.
SELECT j.id, j.type, j.state, j.queue, j.priority, j.attempt, j.max_retries,
       j.backoff_base_ms, j.backoff_factor, j.backoff_cap_ms, j.retry_rules, j.usage_us, j.exit_code, j.exit_signal, j.reason, j.error,
       j.stdout_bytes, j.stderr_bytes, j.truncated, j.tags, j.timeout_ms, j.grace_ms, j.idempotency_key,
       j.run_id, j.step_key, j.fence, j.lost_count, j.return_count, j.cancel_requested_at,
       j.created_at, j.available_at, j.started_at, j.finished_at,
       l.requires, coalesce(s.name, j.worker_id::text) AS worker
FROM jobs j
LEFT JOIN lanes l ON l.id = j.lane_id
LEFT JOIN sessions s ON s.id = j.session_id
WHERE j.id = ANY(:ids::bigint[])
ORDER BY j.id DESC;

-- name: get_output
-- Stored pieces of one attempt from an offset on, a bounded number at a time.
SELECT stream, byte_offset, bytes FROM job_output
WHERE job_id = :id AND fence = :fence AND stream = :stream AND byte_offset >= :from_offset
ORDER BY byte_offset LIMIT :pieces;

-- name: get_whole_output
SELECT fence, stream, string_agg(bytes, ''::bytea ORDER BY byte_offset) AS bytes FROM job_output
WHERE job_id = :id AND fence = ANY(:fences::bigint[])
GROUP BY fence, stream;

-- name: list_workers
SELECT s.id, s.worker_id, s.name, s.slots, s.health, s.queues, s.labels, s.server_name, s.connected_at, s.lease_expires_at,
       (SELECT count(*) FROM jobs j WHERE j.session_id = s.id AND j.state = 'running') AS running_jobs
FROM sessions s
WHERE s.closed_at IS NULL
ORDER BY s.name, s.id;
