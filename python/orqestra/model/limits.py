"""Every limit that a user can meet, in one table. Names carry their unit."""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# Requests
PAYLOAD_BYTES: Final = 1 * MIB
MESSAGE_BYTES: Final = 16 * MIB
SUBMIT_JOBS: Final = 10_000
CANCEL_JOBS: Final = 10_000
WAITING_SUBMIT_BYTES: Final = 64 * MIB
PAGE_JOBS: Final = 500
PAGE_SCANNED_ROWS: Final = 100_000
ATTEMPTS_SHOWN: Final = 200

# Batches between the stages: intake, claim, Assign
BATCH_JOBS: Final = 1000
BATCH_BYTES: Final = 4 * MIB

# Names and small fields
NAME_CHARS: Final = 128
KEY_CHARS: Final = 256
TAGS: Final = 32
TAG_CHARS: Final = 64
LABELS: Final = 32
LABEL_CHARS: Final = 128
ENV_BYTES: Final = 64 * KIB
ARGUMENT_BYTES: Final = 128 * KIB - 1  # of one argument: Linux takes no longer one (MAX_ARG_STRLEN, with its NUL)
LANES: Final = 10_000

# A job
PRIORITY_MIN: Final = 0
PRIORITY_MAX: Final = 9
PRIORITY_DEFAULT: Final = 4
RETRIES_MAX: Final = 1000
RETRY_WORDS: Final = 64
DELAY_MAX_SECONDS: Final = 366 * 24 * 3600
TIMEOUT_MAX_SECONDS: Final = 30 * 24 * 3600
GRACE_DEFAULT_SECONDS: Final = 5.0
GRACE_MAX_SECONDS: Final = 3600
BACKOFF_BASE_SECONDS: Final = 1.0
BACKOFF_FACTOR: Final = 2.0
BACKOFF_FACTOR_MAX: Final = 100.0
BACKOFF_CAP_SECONDS: Final = 300.0
BACKOFF_CAP_MAX_SECONDS: Final = 24 * 3600
NICE_MAX: Final = 19
LIMIT_OPEN_FILES_MAX: Final = 1024 * 1024  # what the kernel allows unless told otherwise (fs.nr_open)
LIMIT_BYTES_MAX: Final = 1024 * 1024 * MIB * 1024  # 1 PiB: more than any machine has
LIMIT_PROCESSES_MAX: Final = 4 * 1024 * 1024  # the highest number of a process on Linux
LOST_MAX: Final = 5
RETURNS_MAX: Final = 20
RETURN_DELAY_MAX_SECONDS: Final = 30

# Output, per stream
OUTPUT_HEAD_BYTES: Final = 256 * KIB
OUTPUT_TAIL_BYTES: Final = 768 * KIB
OUTPUT_INLINE_BYTES: Final = 8 * KIB
OUTPUT_CHUNK_BYTES: Final = 64 * KIB
PREVIOUS_OUTPUT_BYTES: Final = 64 * KIB

# Workers
SLOTS_MAX: Final = 10_000
# Of a command the supervisor holds its process and its two pipes; the others are for everything else.
SLOT_DESCRIPTORS: Final = 3
WORKER_DESCRIPTORS: Final = 100
# Of a server with nobody connected, besides those to Postgres; the others are for some workers and clients.
SERVER_DESCRIPTORS: Final = 56
WORKER_QUEUES: Final = 64

# Workflows
DEFINITION_BYTES: Final = 256 * KIB
DEFINITION_DEPTH: Final = 32
DEFINITION_ALIASES: Final = 100
STEPS: Final = 1000
