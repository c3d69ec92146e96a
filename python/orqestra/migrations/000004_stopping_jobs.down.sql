DROP INDEX jobs_stopping;
