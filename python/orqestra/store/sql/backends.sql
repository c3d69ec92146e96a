-- Backends: the processes of this Postgres behind our connections.

-- name: end_backend
-- No row: it is gone, and it disappears from here only after its transaction has ended. Named by its pid and
-- its start, since a pid is used again. A role may always see and end its own. The function is what
-- pg_stat_activity reads; planning that view would take longer than all the rest.
SELECT pg_terminate_backend(pid) AS told FROM pg_stat_get_activity(:pid::integer)
WHERE backend_start = :started_at::timestamptz;
