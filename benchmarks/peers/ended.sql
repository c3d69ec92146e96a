-- Of all jobs from an id on: how many have not ended, how many have been started once and completed, and the
-- seconds from the first start to the last end.
SELECT count(*) FILTER (WHERE finished_at IS NULL) AS unfinished,
       count(*) FILTER (WHERE state = 'completed' AND attempt = 1 AND fence = 1) AS good,
       extract(epoch FROM max(finished_at) - min(started_at)) AS seconds
FROM jobs
WHERE id >= $1;
