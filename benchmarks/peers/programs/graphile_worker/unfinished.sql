-- A finished job is deleted.
SELECT count(*) FROM graphile_worker._private_jobs;
