DROP TABLE job_output, attempts, outbox, sessions, jobs, workflow_runs, lanes;
