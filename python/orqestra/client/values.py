"""What the client gives back: plain frozen values, no protobuf. Times are aware datetimes in UTC."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from orqestra.model.errors import OrqestraError
from orqestra.model.lifecycle import TERMINAL, RunState, State
from orqestra.model.retry_rules import Jitter


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """The delay before retry n is up to min(cap, base * factor^(n - 1)), as random as `jitter` says."""

    base_ms: int
    factor: float
    cap_ms: int
    jitter: Jitter


@dataclass(frozen=True, kw_only=True)
class Output:
    """What was kept of one attempt's output, and the exact totals of what was written."""

    stdout: bytes
    stderr: bytes
    stdout_bytes: int
    stderr_bytes: int
    truncated: bool


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One execution of a job that has ended. `number` is None where it did not count (lost, returned).

    `killed_processes` are descendants that did not end with the command and were killed, `left_processes`
    those that run on.
    """

    number: int | None
    fence: int
    outcome: str
    worker: str | None
    exit_code: int | None
    exit_signal: int | None
    reason: str | None
    error: str | None
    output: Output
    started_at: datetime | None
    finished_at: datetime | None
    wall_us: int
    user_us: int
    system_us: int
    max_rss_kb: int
    killed_processes: int
    left_processes: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as it was at one moment. In lists `payload` and `output` are empty and `attempts` is ()."""

    id: int
    type: str
    status: State
    queue: str
    priority: int
    attempt: int
    max_retries: int
    backoff: Backoff
    retry_on: tuple[str, ...]
    retry_never: tuple[str, ...]
    exit_code: int | None
    exit_signal: int | None
    reason: str | None
    error: str | None
    output: Output
    worker: str | None
    labels: Mapping[str, str]
    tags: tuple[str, ...]
    payload: bytes
    timeout_ms: int | None
    grace_ms: int
    idempotency_key: str | None
    run_id: int | None
    step: str | None
    fence: int
    lost: int
    returned: int
    cancel_requested: bool
    created_at: datetime | None
    available_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    killed_processes: int
    left_processes: int
    attempts: tuple[Attempt, ...]

    @property
    def ended(self) -> bool:
        """Whether it is completed, failed or cancelled."""
        return self.status in TERMINAL


@dataclass(frozen=True, kw_only=True)
class JobPage:
    """Jobs, newest first. `next` is what the next page is asked for with; None: this was the last."""

    jobs: tuple[Job, ...]
    next: int | None


class CancelOutcome(StrEnum):
    """What a cancel did: it ended a waiting job, told a running one to stop, or came too late."""

    CANCELLED = "cancelled"
    STOPPING = "stopping"
    FINISHED = "finished"
    NOT_FOUND = "not_found"


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """The answer to the cancel of one job. `status` is None if there is no such job."""

    id: int
    outcome: CancelOutcome
    status: State | None


class OutputStream(StrEnum):
    """Where a command wrote."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A piece of output of the attempt `fence`; `offset` counts bytes in what the command wrote."""

    fence: int
    stream: OutputStream
    offset: int
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The answer to one batch of a submit stream: its ids in order, or why it was refused."""

    number: int
    ids: tuple[int, ...] = ()
    error: OrqestraError | None = None


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A worker that is connected now."""

    id: str
    name: str
    session_id: int
    slots: int
    running: int
    queues: tuple[str, ...]
    labels: Mapping[str, str]
    server: str
    draining: bool
    health: str
    connected_at: datetime | None
    lease_expires_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """A definition that the server has loaded; `steps` are their keys in order."""

    name: str
    steps: tuple[str, ...]
    file: str


@dataclass(frozen=True, kw_only=True)
class BrokenFile:
    """A file that the server could not load; `line` is None for the file as a whole."""

    file: str
    line: int | None
    problem: str


@dataclass(frozen=True, kw_only=True)
class WorkflowList:
    """What the server has loaded, and what it could not load."""

    workflows: tuple[Workflow, ...]
    broken: tuple[BrokenFile, ...]


@dataclass(frozen=True, kw_only=True)
class RunStep:
    """A step of a run; `job` is None until the step is reached."""

    key: str
    job: Job | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution of a workflow, as it was at one moment. In lists `steps` is ()."""

    id: int
    workflow: str
    status: RunState
    error: str | None
    cancel_requested: bool
    created_at: datetime | None
    finished_at: datetime | None
    steps: tuple[RunStep, ...]

    @property
    def ended(self) -> bool:
        """Whether no further step will start."""
        return self.status is not RunState.RUNNING


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """Runs, newest first. `next` is what the next page is asked for with; None: this was the last."""

    runs: tuple[Run, ...]
    next: int | None
