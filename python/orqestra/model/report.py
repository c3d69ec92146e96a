"""What a worker says of an attempt, and what it is answered."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from orqestra.model.decision import Ending


class AttemptRef(NamedTuple):
    """Names one attempt: the claim it runs under and the secret of that claim.

    A tuple, because it is looked up a dozen times for each command: a dataclass is hashed by code in Python.
    """

    job_id: int
    fence: int
    token: int

    @property
    def named(self) -> tuple[int, int, int]:
        """The same as `orqestra._dispatch` has it."""
        return self


class Reason(StrEnum):
    """Why an attempt ended. The first nine are a worker's words, the others a server's.

    `killed_after_grace` is a timeout or a cancel whose TERM was ignored for the whole grace. `oom` and
    `resource_limit` are ends by a limit that was reached: memory, or another one of the job's own.
    """

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    OOM = "oom"
    KILLED_AFTER_GRACE = "killed_after_grace"
    RESOURCE_LIMIT = "resource_limit"
    SPAWN_FAILED = "spawn_failed"
    RETURNED = "returned"
    NOT_DELIVERED = "not_delivered"
    WORKER_LOST = "worker_lost"
    RESULT_REJECTED = "result_rejected"


class Verdict(StrEnum):
    """What became of a reported result."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    STALE = "stale"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The end of one attempt. `session_id` is the stream it came on, never what a message claims.

    `stdout` and `stderr` are None where they were stored ahead. Times are microseconds, memory is kB.
    `killed_processes` are descendants that did not end with the main process and were killed then,
    `left_processes` those that were left to run on or could not be ended.
    """

    attempt: AttemptRef
    session_id: int
    ending: Ending
    reason: Reason
    exit_code: int | None = None
    exit_signal: int | None = None
    error: str | None = None
    stdout: bytes | None = b""
    stderr: bytes | None = b""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    truncated: bool = False
    wall_us: int = 0
    user_us: int = 0
    system_us: int = 0
    max_rss_kb: int = 0
    killed_processes: int = 0
    left_processes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputPiece:
    """A piece of one stream (1 stdout, 2 stderr) to be stored before the result is."""

    attempt: AttemptRef
    session_id: int
    stream: int
    offset: int
    data: bytes
