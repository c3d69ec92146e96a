-- Claim, settle, cancel and retry: each one statement, guarded by state and fence.
-- Guards on `jobs` are written as CASE on purpose: no index can serve them, and the planner guesses that
-- half of the rows pass. Written plainly it would, with stale statistics, walk a partial index of `state`
-- or all of the table once for each row of the batch (docs/architecture.md).

-- name: claim_jobs
-- A row in other hands is a lost race, hence SKIP LOCKED. The session is read, not locked: a claim that
-- lands on a session closed meanwhile is found by the sweep. Answers in columns, one row of arrays; those of
-- steps are null where no job is one.
WITH locked AS (
    SELECT w.id, w.session_id, w.token, s.worker_id,
           octet_length(j.payload) + CASE WHEN j.previous_job_id IS NULL THEN 0 ELSE (
               SELECT least(coalesce(p.stdout_bytes, 0), :output_bytes) FROM jobs p WHERE p.id = j.previous_job_id
           ) END AS size
    FROM unnest(:ids::bigint[], :session_ids::bigint[], :tokens::bigint[]) AS w(id, session_id, token)
    JOIN sessions s ON s.id = w.session_id AND s.closed_at IS NULL
    JOIN jobs j ON j.id = w.id
    WHERE CASE WHEN j.state = ANY(:claimable::text[])
               THEN j.available_at <= statement_timestamp() AND j.cancel_requested_at IS NULL
               ELSE false END
    ORDER BY w.id
    FOR UPDATE OF j SKIP LOCKED
),
-- what is beyond the bytes of a batch stays where it is and is taken again
fitting AS (
    SELECT l.*, sum(size) OVER (ORDER BY id) - size AS bytes_before FROM locked l
),
claimed AS (
    UPDATE jobs j
    SET state = 'running', delayed = false, fence = j.fence + 1, token = l.token,
        session_id = l.session_id, worker_id = l.worker_id, started_at = statement_timestamp()
    FROM fitting l
    WHERE j.id = l.id AND l.bytes_before < :batch_bytes
    RETURNING j.session_id, j.id, j.fence, j.token, j.type, j.payload, j.attempt, j.timeout_ms, j.grace_ms,
              j.run_id, j.step_key, j.previous_job_id
)
SELECT coalesce(array_agg(session_id), '{}') AS session_ids, coalesce(array_agg(id), '{}') AS ids,
       coalesce(array_agg(fence), '{}') AS fences, coalesce(array_agg(token), '{}') AS tokens,
       coalesce(array_agg(type), '{}') AS types, coalesce(array_agg(payload), '{}') AS payloads,
       coalesce(array_agg(attempt), '{}') AS attempts, coalesce(array_agg(timeout_ms), '{}') AS timeouts_ms,
       coalesce(array_agg(grace_ms), '{}') AS graces_ms,
       CASE WHEN count(run_id) > 0 THEN array_agg(run_id) END AS run_ids,
       CASE WHEN count(run_id) > 0 THEN array_agg(step_key) END AS step_keys,
       CASE WHEN count(run_id) > 0 THEN array_agg(previous_job_id) END AS previous_ids
FROM claimed;

-- name: find_claimed
-- What a claim whose answer was lost has claimed, by its tokens, as it would have answered. To be asked
-- when its backend is gone.
WITH claimed AS (
    SELECT j.session_id, j.id, j.fence, j.token, j.type, j.payload, j.attempt, j.timeout_ms, j.grace_ms,
           j.run_id, j.step_key, j.previous_job_id
    FROM unnest(:ids::bigint[], :session_ids::bigint[], :tokens::bigint[]) AS w(id, session_id, token)
    JOIN jobs j ON j.id = w.id
    WHERE CASE WHEN (j.state, j.session_id, j.token) = (:running::text, w.session_id, w.token)
               THEN true ELSE false END
)
SELECT coalesce(array_agg(session_id), '{}') AS session_ids, coalesce(array_agg(id), '{}') AS ids,
       coalesce(array_agg(fence), '{}') AS fences, coalesce(array_agg(token), '{}') AS tokens,
       coalesce(array_agg(type), '{}') AS types, coalesce(array_agg(payload), '{}') AS payloads,
       coalesce(array_agg(attempt), '{}') AS attempts, coalesce(array_agg(timeout_ms), '{}') AS timeouts_ms,
       coalesce(array_agg(grace_ms), '{}') AS graces_ms,
       CASE WHEN count(run_id) > 0 THEN array_agg(run_id) END AS run_ids,
       CASE WHEN count(run_id) > 0 THEN array_agg(step_key) END AS step_keys,
       CASE WHEN count(run_id) > 0 THEN array_agg(previous_job_id) END AS previous_ids
FROM claimed;

-- name: look_at
-- What became of hints that were not claimed: only the waiting ones are of interest.
SELECT id, lane_id, priority,
       CASE WHEN delayed THEN ceil(extract(epoch FROM available_at) * 1000)::bigint ELSE 0 END AS due_ms
FROM jobs
WHERE id = ANY(:ids::bigint[])
  AND CASE WHEN state = ANY(:claimable::text[]) THEN cancel_requested_at IS NULL ELSE false END;

-- name: peek_lanes
-- The first claimable jobs of each lane, best first: what a refill puts into Redis, and what is
-- dispatched from here while Redis is away.
SELECT l.lane_id, c.priority, c.id
FROM unnest(:lane_ids::integer[]) AS l(lane_id)
CROSS JOIN LATERAL (
    (SELECT id, priority FROM jobs
     WHERE lane_id = l.lane_id AND state = 'pending' AND NOT delayed
     ORDER BY priority DESC, id LIMIT :per_lane)
    UNION ALL
    (SELECT id, priority FROM jobs
     WHERE lane_id = l.lane_id AND state IN ('pending', 'retrying') AND delayed
       AND available_at <= statement_timestamp()
     ORDER BY available_at LIMIT :per_lane)
    ORDER BY priority DESC, id LIMIT :per_lane
) AS c;

-- name: list_overdue
-- Of the first jobs of each lane, those that have been claimable for a while: their hints should be known.
SELECT l.lane_id, c.priority, c.id
FROM unnest(:lane_ids::integer[]) AS l(lane_id)
CROSS JOIN LATERAL (
    (SELECT id, priority, available_at FROM jobs
     WHERE lane_id = l.lane_id AND state = 'pending' AND NOT delayed
     ORDER BY priority DESC, id LIMIT :per_lane)
    UNION ALL
    (SELECT id, priority, available_at FROM jobs
     WHERE lane_id = l.lane_id AND state IN ('pending', 'retrying') AND delayed
       AND available_at <= statement_timestamp()
     ORDER BY available_at LIMIT :per_lane)
) AS c
WHERE c.available_at < statement_timestamp() - :older_ms::bigint * interval '1 millisecond'
ORDER BY l.lane_id, c.priority DESC, c.id;

-- name: list_delayed
-- A page of what becomes due before the horizon, soonest first; a page begins where the last one ended.
SELECT d.id, l.id AS lane_id, d.priority, ceil(extract(epoch FROM d.available_at) * 1000)::bigint AS due_ms,
       d.available_at
FROM lanes l
CROSS JOIN LATERAL (
    SELECT id, priority, available_at FROM jobs
    WHERE lane_id = l.id AND state IN ('pending', 'retrying') AND delayed
      AND available_at >= :from_at::timestamptz
      AND available_at <= statement_timestamp() + :horizon_ms::bigint * interval '1 millisecond'
    ORDER BY available_at LIMIT :page
) AS d
ORDER BY d.available_at, d.id LIMIT :page;

-- name: settle_completed
-- Plain jobs that succeeded and that nobody wants cancelled: all output is in the result, the exit code is 0.
-- What this does not return goes the slow way. A column of nothing but nothing comes empty, and unnest fills it.
-- The rows are locked as they are updated, in the order in which they are looked up: to lock them first would cost
-- a quarter more. Should a plan ever go by another order, a deadlock is tried again.
WITH done AS (
    UPDATE jobs j
    SET state = 'completed', attempt = j.attempt + 1, return_count = 0, finished_at = statement_timestamp(),
        exit_code = 0, exit_signal = NULL, reason = :exited::text, error = NULL,
        stdout = coalesce(r.stdout, ''), stderr = coalesce(r.stderr, ''),
        stdout_bytes = coalesce(octet_length(r.stdout), 0), stderr_bytes = coalesce(octet_length(r.stderr), 0),
        truncated = false,
        usage_us = ARRAY[coalesce(r.wall_us, 0), coalesce(r.user_us, 0), coalesce(r.system_us, 0),
                         coalesce(r.max_rss_kb, 0)]
    FROM (
        SELECT *
        FROM unnest(:ids::bigint[], :session_ids::bigint[], :fences::bigint[], :tokens::bigint[],
                    :stdouts::bytea[], :stderrs::bytea[],
                    :wall_us::bigint[], :user_us::bigint[], :system_us::bigint[], :max_rss_kb::bigint[])
             AS results(id, session_id, fence, token, stdout, stderr, wall_us, user_us, system_us, max_rss_kb)
        ORDER BY id
    ) AS r
    WHERE j.id = r.id
      AND CASE WHEN (j.state, j.session_id, j.fence, j.token) = (:running::text, r.session_id, r.fence, r.token)
               THEN j.cancel_requested_at IS NULL AND j.run_id IS NULL
               ELSE false END
    RETURNING j.id
)
SELECT coalesce(array_agg(id), '{}') AS ids FROM done;

-- name: find_runs
-- Jobs first, by their ids: the planner would else walk the whole index of steps.
WITH wanted AS MATERIALIZED (SELECT run_id FROM jobs WHERE id = ANY(:ids::bigint[]))
SELECT DISTINCT run_id FROM wanted WHERE run_id IS NOT NULL ORDER BY run_id;

-- name: lock_jobs
SELECT id, state, attempt, max_retries, backoff_base_ms, backoff_factor, backoff_cap_ms, retry_rules,
       lost_count, return_count, cancel_requested_at IS NOT NULL AS cancel_requested,
       fence, token, session_id, run_id, step_key, finished_at
FROM jobs
WHERE id = ANY(:ids::bigint[])
ORDER BY id
FOR UPDATE;

-- name: lock_free_jobs
-- As lock_jobs, for the sweep: a row in other hands is being settled right now.
SELECT id, state, attempt, max_retries, backoff_base_ms, backoff_factor, backoff_cap_ms, retry_rules,
       lost_count, return_count, cancel_requested_at IS NOT NULL AS cancel_requested,
       fence, token, session_id, run_id, step_key
FROM jobs
WHERE id = ANY(:ids::bigint[])
ORDER BY id
FOR UPDATE SKIP LOCKED;

-- name: find_attempts
SELECT job_id, fence, token, outcome FROM attempts WHERE job_id = ANY(:ids::bigint[]);

-- name: settle_jobs
-- The rows are locked and the decisions made; one row for each attempt that ended other than completed
-- goes to `attempts` in the same statement.
WITH decided AS (
    SELECT *
    FROM unnest(:ids::bigint[], :states::text[], :outcomes::text[], :attempts::integer[], :lost::integer[],
                :returned::integer[], :delay_ms::bigint[], :exit_codes::integer[], :exit_signals::integer[],
                :reasons::text[], :errors::text[], :stdouts::bytea[], :stderrs::bytea[], :stdout_bytes::bigint[],
                :stderr_bytes::bigint[], :truncated::boolean[], :wall_us::bigint[], :user_us::bigint[],
                :system_us::bigint[], :max_rss_kb::bigint[], :killed_processes::bigint[], :left_processes::bigint[])
         AS d(id, state, outcome, attempt, lost, returned, delay_ms, exit_code, exit_signal, reason, error,
              stdout, stderr, stdout_bytes, stderr_bytes, truncated, wall_us, user_us, system_us, max_rss_kb,
              killed_processes, left_processes)
),
kept AS (
    INSERT INTO attempts (job_id, fence, token, number, outcome, session_id, worker_id, started_at,
                          exit_code, exit_signal, reason, error, stdout, stderr, stdout_bytes, stderr_bytes,
                          truncated, usage_us)
    SELECT j.id, j.fence, j.token, CASE WHEN d.attempt > j.attempt THEN d.attempt ELSE 0 END, d.outcome,
           j.session_id, j.worker_id, j.started_at,
           d.exit_code, d.exit_signal, d.reason, d.error, d.stdout, d.stderr, d.stdout_bytes, d.stderr_bytes,
           d.truncated, ARRAY[d.wall_us, d.user_us, d.system_us, d.max_rss_kb, d.killed_processes, d.left_processes]
    FROM decided d JOIN jobs j ON j.id = d.id
    WHERE d.state <> 'completed'
    ON CONFLICT DO NOTHING
)
UPDATE jobs j
SET state = d.state, attempt = d.attempt, lost_count = d.lost, return_count = d.returned,
    available_at = CASE WHEN d.delay_ms IS NULL THEN j.available_at
                        ELSE clock_timestamp() + d.delay_ms * interval '1 millisecond' END,
    -- a retrying job always waits in the index of the delayed ones, however short its delay
    delayed = (d.state = 'retrying' OR d.state = 'pending' AND d.delay_ms > 0),
    finished_at = CASE WHEN d.delay_ms IS NULL THEN clock_timestamp() END,
    exit_code = d.exit_code, exit_signal = d.exit_signal, reason = d.reason, error = d.error,
    stdout = d.stdout, stderr = d.stderr, stdout_bytes = d.stdout_bytes, stderr_bytes = d.stderr_bytes,
    truncated = d.truncated,
    usage_us = ARRAY[d.wall_us, d.user_us, d.system_us, d.max_rss_kb, d.killed_processes, d.left_processes]
FROM decided d
WHERE j.id = d.id
RETURNING j.id, j.lane_id, j.priority, j.state,
          CASE WHEN j.delayed THEN ceil(extract(epoch FROM j.available_at) * 1000)::bigint ELSE 0 END AS due_ms;

-- name: cancel_jobs
-- A waiting job ends here; a running one is marked, and every end of its attempt is then `cancelled`.
WITH locked AS (
    SELECT id, state, cancel_requested_at FROM jobs WHERE id = ANY(:ids::bigint[]) ORDER BY id FOR UPDATE
),
changed AS (
    UPDATE jobs j
    SET state = CASE WHEN l.state = ANY(:waiting::text[]) THEN 'cancelled' ELSE j.state END,
        delayed = j.delayed AND l.state <> ALL(:waiting::text[]),
        finished_at = CASE WHEN l.state = ANY(:waiting::text[]) THEN clock_timestamp() END,
        reason = CASE WHEN l.state = ANY(:waiting::text[]) THEN 'cancelled' ELSE j.reason END,
        cancel_requested_at = coalesce(j.cancel_requested_at, clock_timestamp())
    FROM locked l
    WHERE j.id = l.id AND (l.state = ANY(:waiting::text[]) OR l.state = 'running')
    RETURNING j.id, j.state, j.cancel_requested_at, j.session_id, j.fence, j.token, j.lane_id, j.priority, j.run_id
)
SELECT l.id, l.state AS was, coalesce(c.state, l.state) AS state,
       coalesce(c.cancel_requested_at, l.cancel_requested_at) AS cancel_requested_at,
       c.session_id, c.fence, c.token, c.lane_id, c.priority, c.run_id
FROM locked l LEFT JOIN changed c USING (id);

-- name: retry_job
UPDATE jobs
SET state = 'pending', available_at = clock_timestamp(), delayed = false, cancel_requested_at = NULL,
    attempt = 0, lost_count = 0, return_count = 0, finished_at = NULL, started_at = NULL,
    exit_code = NULL, exit_signal = NULL, reason = NULL, error = NULL, stdout = NULL, stderr = NULL,
    stdout_bytes = NULL, stderr_bytes = NULL, truncated = NULL, usage_us = NULL
WHERE id = :id AND state = ANY(:retryable::text[])
RETURNING id, lane_id, priority, fence;

-- name: list_cancels
-- What must still be told to the workers of these sessions, and whether it was asked for a while ago.
SELECT session_id, id, fence, token,
       cancel_requested_at < clock_timestamp() - :late_ms::bigint * interval '1 millisecond' AS late
FROM jobs
WHERE state = 'running' AND session_id = ANY(:session_ids::bigint[]) AND cancel_requested_at IS NOT NULL;

-- name: read_previous_output
-- The kept stdout of finished jobs, whole: the part in the row or the stored pieces, in order.
SELECT j.id, coalesce(j.stdout, (
           SELECT string_agg(o.bytes, ''::bytea ORDER BY o.byte_offset) FROM job_output o
           WHERE o.job_id = j.id AND o.fence = j.fence AND o.stream = 1), ''::bytea) AS output
FROM jobs j
WHERE j.id = ANY(:ids::bigint[]);

-- name: store_output
-- Pieces are kept only for an attempt that still is this session's; the same piece twice is one piece.
WITH piece AS (
    SELECT p.*
    FROM unnest(:ids::bigint[], :fences::bigint[], :tokens::bigint[], :session_ids::bigint[], :streams::smallint[],
                :offsets::bigint[], :bytes::bytea[])
         AS p(id, fence, token, session_id, stream, byte_offset, bytes)
    JOIN jobs j ON j.id = p.id
    WHERE CASE WHEN (j.state, j.session_id, j.fence, j.token) = (:running::text, p.session_id, p.fence, p.token)
               THEN true ELSE false END
),
kept AS (
    INSERT INTO job_output (job_id, fence, stream, byte_offset, bytes)
    SELECT id, fence, stream, byte_offset, bytes FROM piece
    ON CONFLICT DO NOTHING
)
SELECT id, fence, stream, byte_offset FROM piece;
