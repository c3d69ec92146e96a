"""What a worker says of an attempt, and what it is answered."""

from dataclasses import dataclass
from enum import StrEnum

from orqestra.model.decision import Ending


@dataclass(frozen=True, slots=True)
class AttemptRef:
    """Names one attempt: the claim it runs under and the secret of that claim."""

    job_id: int
    fence: int
    token: int


class Reason(StrEnum):
    """Why an attempt ended. The first six are a worker's words, the others a server's."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
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


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputPiece:
    """A piece of one stream (1 stdout, 2 stderr) to be stored before the result is."""

    attempt: AttemptRef
    session_id: int
    stream: int
    offset: int
    data: bytes
