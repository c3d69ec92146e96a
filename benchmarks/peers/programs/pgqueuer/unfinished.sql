-- A finished job moves to the log.
SELECT count(*) FROM pgqueuer;
