-- The whole truth of Orqestra: jobs, their attempts and output, lanes, sessions, runs and the outbox.
-- Columns that hold bytes are bytea: payload and output may contain NUL and invalid UTF-8.
-- Each index whose predicate names `state` costs two entries per job (a change of a column in an index
-- predicate is never HOT), so the ones below are the budget.

-- A lane is a queue plus the labels a worker must have ("name=value", sorted): what waits, waits in a lane.
CREATE TABLE lanes (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue      text NOT NULL,
    requires   text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    UNIQUE (queue, requires)
);

-- One execution of a workflow. `definition` is the snapshot it runs by, whatever becomes of the file.
CREATE TABLE workflow_runs (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name                text NOT NULL,
    definition          jsonb NOT NULL,
    state               text NOT NULL DEFAULT 'running'
                        CHECK (state IN ('running', 'completed', 'failed', 'cancelled')),
    error               text,
    idempotency_key     text,
    cancel_requested_at timestamptz,
    created_at          timestamptz NOT NULL DEFAULT statement_timestamp(),
    finished_at         timestamptz,
    CHECK ((state = 'running') = (finished_at IS NULL))
);
CREATE UNIQUE INDEX workflow_runs_key ON workflow_runs (idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE jobs (
    id                  bigint PRIMARY KEY,
    -- what to run
    queue               text NOT NULL,
    lane_id             integer NOT NULL,
    priority            smallint NOT NULL CHECK (priority BETWEEN 0 AND 9),
    type                text NOT NULL,
    payload             bytea NOT NULL,
    tags                text[],
    idempotency_key     text,
    max_retries         integer NOT NULL CHECK (max_retries >= 0),
    backoff_base_ms     bigint NOT NULL,
    backoff_factor      double precision NOT NULL,
    backoff_cap_ms      bigint NOT NULL,
    timeout_ms          bigint NOT NULL,
    grace_ms            bigint NOT NULL,
    run_id              bigint,
    step_key            text,
    previous_job_id     bigint,
    created_at          timestamptz NOT NULL DEFAULT statement_timestamp(),
    -- where it stands
    state               text NOT NULL DEFAULT 'pending'
                        CHECK (state IN ('pending', 'running', 'retrying', 'completed', 'failed', 'cancelled')),
    available_at        timestamptz NOT NULL,
    delayed             boolean NOT NULL,
    attempt             integer NOT NULL DEFAULT 0,
    lost_count          integer NOT NULL DEFAULT 0,
    return_count        integer NOT NULL DEFAULT 0,
    cancel_requested_at timestamptz,
    -- who may write its outcome: the fence rises by one with every claim and is never reset
    fence               bigint NOT NULL DEFAULT 0 CHECK (fence >= 0),
    token               bigint,
    session_id          bigint,
    worker_id           uuid,
    -- how its last attempt ended
    started_at          timestamptz,
    finished_at         timestamptz,
    exit_code           integer,
    exit_signal         integer,
    reason              text,
    error               text,
    stdout              bytea,
    stderr              bytea,
    stdout_bytes        bigint,
    stderr_bytes        bigint,
    truncated           boolean,
    usage_us            bigint[],
    CHECK (state <> 'retrying' OR delayed),
    CHECK (state IN ('pending', 'retrying') OR NOT delayed),
    CHECK ((state IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK (state <> 'running' OR (session_id IS NOT NULL AND token IS NOT NULL))
);
CREATE SEQUENCE jobs_id_seq AS bigint OWNED BY jobs.id;

CREATE INDEX jobs_ready ON jobs (lane_id, priority DESC, id) WHERE state = 'pending' AND NOT delayed;
CREATE INDEX jobs_delayed ON jobs (lane_id, available_at) WHERE state IN ('pending', 'retrying') AND delayed;
CREATE INDEX jobs_running ON jobs (session_id) WHERE state = 'running';
CREATE INDEX jobs_unhappy ON jobs (id) WHERE state IN ('failed', 'cancelled');
CREATE UNIQUE INDEX jobs_key ON jobs (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX jobs_step ON jobs (run_id, step_key) WHERE run_id IS NOT NULL;

COMMENT ON COLUMN jobs.delayed IS
    'true for every retrying row and for each pending row written with a future available_at; false from the claim on';
COMMENT ON COLUMN jobs.usage_us IS 'of the last attempt: wall, user and system time in microseconds, peak memory in kB';

-- Rows come and go by the thousand a second: vacuum by small steps, without pauses.
ALTER TABLE jobs SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0,
                      autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

-- Every attempt that ended other than completed. The completed one is in `jobs` itself.
CREATE TABLE attempts (
    job_id       bigint NOT NULL,
    fence        bigint NOT NULL,
    token        bigint NOT NULL,
    number       integer NOT NULL,
    outcome      text NOT NULL CHECK (outcome IN ('completed', 'failed', 'cancelled', 'lost', 'returned')),
    session_id   bigint NOT NULL,
    worker_id    uuid,
    started_at   timestamptz,
    finished_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    exit_code    integer,
    exit_signal  integer,
    reason       text,
    error        text,
    stdout       bytea,
    stderr       bytea,
    stdout_bytes bigint,
    stderr_bytes bigint,
    truncated    boolean,
    usage_us     bigint[],
    PRIMARY KEY (job_id, fence)
);

-- Output beyond what is kept in the row: pieces of one stream (1 stdout, 2 stderr) of one attempt.
CREATE TABLE job_output (
    job_id      bigint NOT NULL,
    fence       bigint NOT NULL,
    stream      smallint NOT NULL CHECK (stream IN (1, 2)),
    byte_offset bigint NOT NULL CHECK (byte_offset >= 0),
    bytes       bytea NOT NULL,
    PRIMARY KEY (job_id, fence, stream, byte_offset)
);

-- One row per committed batch: hints (22 bytes each, see docs/architecture.md) on their way to Redis.
CREATE TABLE outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server_id  bigint NOT NULL,
    entries    bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp()
);
ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- A session is one stream of one worker and holds a lease on this database's clock.
-- Room is left in each page and `lease_expires_at` is in no index, so that renewals stay HOT.
CREATE TABLE sessions (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    worker_id        uuid NOT NULL,
    incarnation      uuid NOT NULL,
    number           bigint NOT NULL,
    name             text NOT NULL,
    server_id        bigint NOT NULL,
    server_name      text NOT NULL,
    slots            integer NOT NULL,
    queues           text[] NOT NULL,
    labels           text[] NOT NULL,
    connected_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_expires_at timestamptz NOT NULL,
    closed_at        timestamptz,
    closed_reason    text CHECK (closed_reason IN ('replaced', 'restarted', 'lapsed', 'ended')),
    CHECK ((closed_at IS NULL) = (closed_reason IS NULL))
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX sessions_open ON sessions (worker_id) WHERE closed_at IS NULL;
CREATE INDEX sessions_worker ON sessions (worker_id, number);
