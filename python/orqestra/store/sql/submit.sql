-- Submit: new jobs, and what is known of their keys.

-- name: submit_jobs
-- also: submit_jobs_without_keys, without ON CONFLICT DO NOTHING
-- Where no job has a key or belongs to a run none can be there already, and each row is spared a fifth of its cost.
-- Ids follow the order of submission; keys are inserted in their own order, so that two servers that
-- insert the same keys cannot deadlock. One outbox row carries the hints of all rows really inserted.
-- What jobs have in common comes once, as a kind. A job with a session is stored as running there (direct
-- match), unless the session is closed.
WITH kinds AS (
    SELECT k.*, coalesce(k.at, statement_timestamp() + k.delay_ms * interval '1 millisecond') AS available_at
    FROM unnest(:lane_ids::integer[], :queues::text[], :priorities::smallint[], :types::text[], :tags::text[],
                :max_retries::integer[], :base_ms::bigint[], :factors::float8[], :cap_ms::bigint[],
                :timeout_ms::bigint[], :grace_ms::bigint[], :delay_ms::bigint[], :at::timestamptz[],
                :run_ids::bigint[], :step_keys::text[], :previous_ids::bigint[], :retry_rules::text[])
         WITH ORDINALITY AS k(lane_id, queue, priority, type, tags, max_retries, base_ms, factor, cap_ms,
                              timeout_ms, grace_ms, delay_ms, at, run_id, step_key, previous_id, retry_rules,
                              number)
),
matched AS MATERIALIZED (
    SELECT m.id, open.worker_id, m.token
    FROM unnest(:matched::bigint[], :tokens::bigint[]) AS m(id, token)
    -- by its id: a join, planned while there were few, would walk an index
    CROSS JOIN LATERAL (
        SELECT s.worker_id FROM sessions s
        WHERE s.id = m.id AND CASE WHEN s.closed_at IS NULL THEN true ELSE false END
        LIMIT 1
    ) AS open
),
input AS MATERIALIZED (
    SELECT nextval('jobs_id_seq') AS id, ordered.*
    FROM (
        SELECT i.payload, i.key, i.position, s.id AS session_id, s.worker_id, s.token, k.*
        FROM unnest(:kind_of::bigint[], :payloads::bytea[], :keys::text[], :session_ids::bigint[])
             WITH ORDINALITY AS i(kind, payload, key, session_id, position)
        JOIN kinds k ON k.number = i.kind
        LEFT JOIN matched s ON s.id = i.session_id
        ORDER BY i.position
    ) AS ordered
),
new AS (
    INSERT INTO jobs (id, lane_id, queue, priority, type, payload, tags, idempotency_key, max_retries,
                      backoff_base_ms, backoff_factor, backoff_cap_ms, timeout_ms, grace_ms,
                      available_at, delayed, run_id, step_key, previous_job_id, retry_rules,
                      state, fence, token, session_id, worker_id, started_at)
    SELECT id, lane_id, queue, priority, type, payload, string_to_array(tags, E'\x1f'), key, max_retries,
           base_ms, factor, cap_ms, timeout_ms, grace_ms,
           available_at, available_at > statement_timestamp(), run_id, step_key, previous_id, retry_rules,
           CASE WHEN session_id IS NULL THEN 'pending' ELSE 'running' END,
           CASE WHEN session_id IS NULL THEN 0 ELSE 1 END, token, session_id, worker_id,
           CASE WHEN session_id IS NOT NULL THEN statement_timestamp() END
    FROM input
    ORDER BY key, id
    ON CONFLICT DO NOTHING
    RETURNING id, lane_id, priority, available_at, delayed, session_id
),
hints AS (
    INSERT INTO outbox (server_id, entries)
    SELECT :server_id, string_agg(
               int8send(id) || int4send(lane_id) || int2send(priority)
               || int8send(CASE WHEN delayed THEN ceil(extract(epoch FROM available_at) * 1000)::bigint ELSE 0 END),
               ''::bytea ORDER BY id)
    FROM new
    WHERE session_id IS NULL
    HAVING count(*) > 0
    RETURNING id, entries
)
SELECT (SELECT array_agg(id ORDER BY position) FROM input) AS ids,
       -- which of them are really new; null when all are
       CASE WHEN (SELECT count(*) FROM new) < (SELECT count(*) FROM input)
            THEN coalesce((SELECT array_agg(id) FROM new), '{}') END AS new_ids,
       -- the positions of those that run; null when all that were to run do
       CASE WHEN (SELECT count(session_id) FROM new) < :to_run::bigint
            THEN coalesce((SELECT array_agg(i.position) FROM input i JOIN new n ON n.id = i.id
                           WHERE n.session_id IS NOT NULL), '{}') END AS run_positions,
       (SELECT id FROM hints) AS outbox_id,
       (SELECT entries FROM hints) AS entries;

-- name: find_matched
-- What a submit whose answer was lost has stored as running, by its tokens, as `claim_jobs` would have answered it. To be
-- asked when its backend is gone.
WITH matched AS (
    SELECT j.session_id, j.id, j.fence, j.token, j.type, j.payload, j.attempt, j.timeout_ms, j.grace_ms,
           j.run_id, j.step_key, j.previous_job_id
    FROM unnest(:session_ids::bigint[], :tokens::bigint[]) AS m(session_id, token)
    JOIN jobs j ON j.session_id = m.session_id AND j.token = m.token AND j.state = :running::text
)
SELECT coalesce(array_agg(session_id), '{}') AS session_ids, coalesce(array_agg(id), '{}') AS ids,
       coalesce(array_agg(fence), '{}') AS fences, coalesce(array_agg(token), '{}') AS tokens,
       coalesce(array_agg(type), '{}') AS types, coalesce(array_agg(payload), '{}') AS payloads,
       coalesce(array_agg(attempt), '{}') AS attempts, coalesce(array_agg(timeout_ms), '{}') AS timeouts_ms,
       coalesce(array_agg(grace_ms), '{}') AS graces_ms,
       CASE WHEN count(run_id) > 0 THEN array_agg(run_id) END AS run_ids,
       CASE WHEN count(run_id) > 0 THEN array_agg(step_key) END AS step_keys,
       CASE WHEN count(run_id) > 0 THEN array_agg(previous_job_id) END AS previous_ids
FROM matched;

-- name: find_keys
SELECT idempotency_key, id FROM jobs WHERE idempotency_key = ANY(:keys::text[]);
