-- Retention: what ended long ago is found by walking ids upwards, a page at a time, and deleted in small batches.
-- `states` and `after_ms` are pairs: rows that ended in such a state go so long after. A state that is not
-- among them stays. Ids are given in the order of submission, so a page whose rows are all younger than the
-- shortest of these times is the last one worth a look. Rows out of the future tell only that a clock was wrong.

-- name: find_old_jobs
-- A page of all rows, for there is no index of those that completed. A step of a run goes with its run.
WITH page AS MATERIALIZED (
    SELECT id, state, run_id, created_at, finished_at FROM jobs
    WHERE id > :after::bigint AND id <= :after::bigint + :span::bigint
    ORDER BY id LIMIT :rows::bigint
),
old AS MATERIALIZED (
    SELECT k.state, statement_timestamp() - k.after_ms * interval '1 millisecond' AS before
    FROM unnest(:states::text[], :after_ms::bigint[]) AS k(state, after_ms)
)
SELECT coalesce(array_agg(p.id) FILTER (WHERE p.run_id IS NULL AND p.finished_at < o.before), '{}') AS ids,
       count(*) AS looked,
       CASE WHEN count(*) < :rows::bigint THEN :after::bigint + :span::bigint ELSE max(p.id) END AS reached,
       coalesce(min(p.created_at) FILTER (WHERE p.created_at <= statement_timestamp())
                >= (SELECT max(before) FROM old), false) AS is_young,
       (SELECT last_value FROM jobs_id_seq) AS newest
FROM page p LEFT JOIN old o ON o.state = p.state;

-- name: find_old_unhappy_jobs
-- As find_old_jobs, for failed and cancelled ones, which have an index of their own. At the beginning of a walk
-- that will not come by there again it is asked what may yet fail or be cancelled there.
WITH page AS MATERIALIZED (
    SELECT id, state, run_id, created_at, finished_at FROM jobs
    WHERE id > :after::bigint AND id <= :after::bigint + :span::bigint AND state IN ('failed', 'cancelled')
    ORDER BY id LIMIT :rows::bigint
),
old AS MATERIALIZED (
    SELECT k.state, statement_timestamp() - k.after_ms * interval '1 millisecond' AS before
    FROM unnest(:states::text[], :after_ms::bigint[]) AS k(state, after_ms)
)
SELECT coalesce(array_agg(p.id) FILTER (WHERE p.run_id IS NULL AND p.finished_at < o.before), '{}') AS ids,
       count(*) AS looked,
       CASE WHEN count(*) < :rows::bigint THEN :after::bigint + :span::bigint ELSE max(p.id) END AS reached,
       coalesce(min(p.created_at) FILTER (WHERE p.created_at <= statement_timestamp())
                >= (SELECT max(before) FROM old), false) AS is_young,
       (SELECT last_value FROM jobs_id_seq) AS newest,
       CASE WHEN :is_begin::boolean AND (SELECT last_value FROM jobs_id_seq) >= :after::bigint + 2 * :span::bigint
            THEN (SELECT id FROM jobs
                  WHERE id > :after::bigint AND id <= :after::bigint + :span::bigint
                    AND state IN ('pending', 'retrying', 'running')
                  ORDER BY id LIMIT 1) IS NOT NULL
            ELSE false END AS is_more_to_come
FROM page p LEFT JOIN old o ON o.state = p.state;

-- name: find_old_runs
WITH page AS MATERIALIZED (
    SELECT id, state, created_at, finished_at FROM workflow_runs
    WHERE id > :after::bigint AND id <= :after::bigint + :span::bigint
    ORDER BY id LIMIT :rows::bigint
),
old AS MATERIALIZED (
    SELECT k.state, statement_timestamp() - k.after_ms * interval '1 millisecond' AS before
    FROM unnest(:states::text[], :after_ms::bigint[]) AS k(state, after_ms)
)
SELECT coalesce(array_agg(p.id) FILTER (WHERE p.finished_at < o.before), '{}') AS ids,
       count(*) AS looked,
       CASE WHEN count(*) < :rows::bigint THEN :after::bigint + :span::bigint ELSE max(p.id) END AS reached,
       coalesce(min(p.created_at) FILTER (WHERE p.created_at <= statement_timestamp())
                >= (SELECT max(before) FROM old), false) AS is_young,
       (SELECT last_value FROM workflow_runs_id_seq) AS newest
FROM page p LEFT JOIN old o ON o.state = p.state;

-- name: delete_jobs
-- Looked at again under the lock: one that was retried meanwhile stays. A row in other hands is left to the
-- next round, so nobody waits for anybody. Arrays of ids, so that all is found by its primary key.
WITH locked AS (
    SELECT j.id FROM jobs j
    WHERE j.id = ANY(:ids::bigint[])
      AND CASE WHEN j.run_id IS NULL
               THEN j.finished_at < (
                   SELECT statement_timestamp() - k.after_ms * interval '1 millisecond'
                   FROM unnest(:states::text[], :after_ms::bigint[]) AS k(state, after_ms) WHERE k.state = j.state)
               ELSE false END
    ORDER BY j.id
    FOR UPDATE OF j SKIP LOCKED
),
gone AS (
    DELETE FROM jobs WHERE id = ANY(ARRAY(SELECT id FROM locked)) RETURNING id
),
gone_attempts AS (
    DELETE FROM attempts WHERE job_id = ANY(ARRAY(SELECT id FROM locked)) RETURNING job_id
),
gone_output AS (
    DELETE FROM job_output WHERE job_id = ANY(ARRAY(SELECT id FROM locked)) RETURNING job_id
)
SELECT (SELECT count(*) FROM gone) AS gone, (SELECT count(*) FROM gone) AS jobs,
       (SELECT count(*) FROM gone_attempts) AS attempts, (SELECT count(*) FROM gone_output) AS job_output;

-- name: delete_runs
-- A run goes with all of its steps, or stays with all of them: one that is retried reads the output of the step
-- before it. Whoever brings a step back to life locks its run first, and changes it.
WITH locked AS (
    SELECT r.id FROM workflow_runs r
    CROSS JOIN LATERAL (
        SELECT statement_timestamp() - k.after_ms * interval '1 millisecond' AS before
        FROM unnest(:states::text[], :after_ms::bigint[]) AS k(state, after_ms) WHERE k.state = r.state
    ) AS old
    WHERE r.id = ANY(:ids::bigint[]) AND r.finished_at < old.before
      -- An aggregate, because the planner cannot make a join with all jobs of it; none without any step.
      AND coalesce((SELECT bool_and(coalesce(j.finished_at < old.before, false)) FROM jobs j WHERE j.run_id = r.id),
                   true)
    ORDER BY r.id
    FOR UPDATE OF r SKIP LOCKED
),
steps AS (
    DELETE FROM jobs WHERE run_id = ANY(ARRAY(SELECT id FROM locked)) RETURNING id
),
gone AS (
    DELETE FROM workflow_runs WHERE id = ANY(ARRAY(SELECT id FROM locked)) RETURNING id
),
gone_attempts AS (
    DELETE FROM attempts WHERE job_id = ANY(ARRAY(SELECT id FROM steps)) RETURNING job_id
),
gone_output AS (
    DELETE FROM job_output WHERE job_id = ANY(ARRAY(SELECT id FROM steps)) RETURNING job_id
)
SELECT (SELECT count(*) FROM gone) AS gone, (SELECT count(*) FROM gone) AS workflow_runs,
       (SELECT count(*) FROM steps) AS jobs, (SELECT count(*) FROM gone_attempts) AS attempts,
       (SELECT count(*) FROM gone_output) AS job_output;
