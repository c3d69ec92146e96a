-- Workflow runs. A step's end and the next step's insertion are one transaction (store/settling.py).

-- name: add_run
INSERT INTO workflow_runs (name, definition, idempotency_key) VALUES (:name, :definition::jsonb, :key)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: find_run_key
SELECT id FROM workflow_runs WHERE idempotency_key = :key;

-- name: lock_runs
SELECT id, state, definition, cancel_requested_at IS NOT NULL AS cancel_requested
FROM workflow_runs WHERE id = ANY(:ids::bigint[]) ORDER BY id FOR UPDATE;

-- name: close_runs
-- Guarded as in jobs.sql.
UPDATE workflow_runs r SET state = ended.state, error = ended.error, finished_at = clock_timestamp()
FROM unnest(:ids::bigint[], :states::text[], :errors::text[]) AS ended(id, state, error)
WHERE r.id = ended.id AND CASE WHEN r.state = 'running' THEN true ELSE false END;

-- name: reopen_run
UPDATE workflow_runs SET state = 'running', error = NULL, finished_at = NULL
WHERE id = :id AND state = 'failed';

-- name: request_run_cancels
UPDATE workflow_runs SET cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
WHERE id = ANY(:ids::bigint[]) AND CASE WHEN state = 'running' THEN true ELSE false END;

-- name: list_steps
-- Run by run, by the index: as one condition on many runs it is thought, on a table that was never analyzed, to be true
-- of all jobs.
SELECT steps.* FROM unnest(:run_ids::bigint[]) AS runs(id)
CROSS JOIN LATERAL (
    SELECT id, state, run_id, step_key FROM jobs WHERE run_id = runs.id ORDER BY id OFFSET 0
) AS steps;

-- name: get_run
SELECT id, name, definition, state, error, cancel_requested_at, created_at, finished_at
FROM workflow_runs WHERE id = :id;

-- name: list_runs
SELECT id, name, state, error, cancel_requested_at, created_at, finished_at
FROM workflow_runs
WHERE id < :after
  AND (:name::text IS NULL OR name = :name)
  AND (cardinality(:states::text[]) = 0 OR state = ANY(:states::text[]))
ORDER BY id DESC LIMIT :page;
