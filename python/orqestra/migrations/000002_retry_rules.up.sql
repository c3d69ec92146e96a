-- Which failures of a job are retried, and how random its delays are. Most jobs have no rules: NULL takes no
-- room in a row, and the column needs no rewrite of the table.
ALTER TABLE jobs ADD COLUMN retry_rules text;

COMMENT ON COLUMN jobs.retry_rules IS
    'model/retry_rules.py writes and reads it: "on=3,10-20,timeout never=signal:9 jitter=equal"; NULL retries every failure';
COMMENT ON COLUMN jobs.usage_us IS
    'of the last attempt: wall, user and system time in microseconds, peak memory in kB, and how many processes were killed '
    'after the main one and how many were left; these two are 0 where the array ends before them';
COMMENT ON COLUMN attempts.usage_us IS 'as of jobs';
