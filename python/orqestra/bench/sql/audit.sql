-- Every job of a load, once it is over.

-- name: read_jobs
SELECT id, state, attempt, fence,
       extract(epoch FROM created_at)::float8 AS created_at,
       coalesce(extract(epoch FROM finished_at)::float8, 0) AS finished_at
FROM jobs
WHERE id BETWEEN :first AND :last AND tags @> ARRAY[:tag::text]
ORDER BY id LIMIT :chunk;
