-- Finished jobs as they are left behind by short commands, one in a hundred of them failed: $1 rows, which ended
-- $2 days ago. Their ids are the next ones, as if they had come before all that follows. They are of many lengths, all
-- longer than a job that does nothing: what pages have left is of all sizes, and often enough for one of those.
INSERT INTO jobs (id, queue, lane_id, priority, type, payload, tags, max_retries, backoff_base_ms, backoff_factor,
                  backoff_cap_ms, timeout_ms, grace_ms, created_at, available_at, delayed, state, attempt, fence, token,
                  session_id, worker_id, started_at, finished_at, exit_code, reason, stdout, stderr, stdout_bytes,
                  stderr_bytes, truncated, usage_us)
SELECT nextval('jobs_id_seq'), 'default', 1, 4, 'shell',
       convert_to('{"command": "echo ' || repeat('x', (n * 7919 % 400)::integer) || n || '"}', 'UTF8'),
       ARRAY['nightly'], 3, 1000, 2, 300000, 0, 5000, ended_at, ended_at, false,
       CASE WHEN n % 100 = 50 THEN 'failed' ELSE 'completed' END, 1, 1, (random() * 1e18)::bigint, 1,
       '00000000-0000-4000-8000-000000000001', ended_at, ended_at + interval '2 ms', (n % 100 = 50)::integer, 'exited',
       convert_to(n::text, 'UTF8'), '', 7, 0, false, ARRAY[2000, 700, 900, 3500]
FROM generate_series(1, $1::bigint) AS n, LATERAL (SELECT statement_timestamp() - $2::float8 * interval '1 day') AS e(ended_at)
