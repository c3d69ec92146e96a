-- What runs and is to be stopped, which every server asks for each second. Found through jobs_running it costs a look
-- at every job that ever ran on those sessions, for as long as an old snapshot keeps vacuum from removing their entries:
-- 0.12 s of each second after a million jobs. Hardly a job is ever in this one.
CREATE INDEX jobs_stopping ON jobs (session_id) WHERE state = 'running' AND cancel_requested_at IS NOT NULL;
