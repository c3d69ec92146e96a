-- Rules that jobs had are lost with the column: every failure of theirs is retried again.
ALTER TABLE jobs DROP COLUMN retry_rules;

COMMENT ON COLUMN jobs.usage_us IS 'of the last attempt: wall, user and system time in microseconds, peak memory in kB';
COMMENT ON COLUMN attempts.usage_us IS NULL;
