"""Requests from protobuf to checked values."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, TypeVar

from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.job import (
    GRACE_DEFAULT_MS,
    QUEUE_DEFAULT,
    RETRIES_DEFAULT,
    JobSpec,
    JobType,
    check_kind,
    check_text,
    label_list,
)
from orqestra.model.lifecycle import RunState, State
from orqestra.model.retry import RetryPolicy
from orqestra.model.retry_rules import Jitter
from orqestra.v1 import jobs_pb2, workflows_pb2

E = TypeVar("E", bound=int)
T = TypeVar("T")

STATES: Final[dict[jobs_pb2.Status, State]] = {
    jobs_pb2.STATUS_PENDING: State.PENDING,
    jobs_pb2.STATUS_RUNNING: State.RUNNING,
    jobs_pb2.STATUS_RETRYING: State.RETRYING,
    jobs_pb2.STATUS_COMPLETED: State.COMPLETED,
    jobs_pb2.STATUS_FAILED: State.FAILED,
    jobs_pb2.STATUS_CANCELLED: State.CANCELLED,
}
RUN_STATES: Final[dict[workflows_pb2.RunStatus, RunState]] = {
    workflows_pb2.RUN_STATUS_RUNNING: RunState.RUNNING,
    workflows_pb2.RUN_STATUS_COMPLETED: RunState.COMPLETED,
    workflows_pb2.RUN_STATUS_FAILED: RunState.FAILED,
    workflows_pb2.RUN_STATUS_CANCELLED: RunState.CANCELLED,
}
JITTERS: Final[dict[jobs_pb2.Jitter, Jitter]] = {
    jobs_pb2.JITTER_FULL: Jitter.FULL,
    jobs_pb2.JITTER_EQUAL: Jitter.EQUAL,
    jobs_pb2.JITTER_NONE: Jitter.NONE,
}
PAGE_DEFAULT: Final = 50


def job_kind(job: jobs_pb2.JobSpec) -> JobSpec:
    """Return all of a job but payload and key, checked; raises InvalidInput naming field, value and what is allowed."""
    return check_kind(
        JobSpec(
            type=job.type,
            queue=job.queue or QUEUE_DEFAULT,
            priority=job.priority if job.HasField("priority") else limits.PRIORITY_DEFAULT,
            requires=label_list(job.labels) if job.labels else (),
            retries=_retries(job),
            delay_ms=job.delay_ms,
            at=_time(job) if job.HasField("at") else None,
            timeout_ms=job.timeout_ms,
            grace_ms=job.grace_ms if job.HasField("grace_ms") else GRACE_DEFAULT_MS,
            tags=tuple(job.tags),
        )
    )


def states(statuses: Iterable[jobs_pb2.Status]) -> list[State]:
    """Return the states of a filter."""
    return [_known("statuses", status, STATES) for status in statuses]


def run_states(statuses: Iterable[workflows_pb2.RunStatus]) -> list[RunState]:
    """Return the states of a filter of runs."""
    return [_known("statuses", status, RUN_STATES) for status in statuses]


def page_size(limit: int) -> int:
    """Return the size of a page; 0 is the default."""
    if not 0 <= limit <= limits.PAGE_JOBS:
        raise InvalidInput("limit", f"{limit}; 1 to {limits.PAGE_JOBS} are allowed")
    return limit or PAGE_DEFAULT


def page_start(after: int) -> int:
    """Return the `next` of the page before; 0 for the first page."""
    if after < 0:
        raise InvalidInput("after", f"{after}; the `next` of the page before, or 0, is allowed")
    return after


def check_job_filter(request: jobs_pb2.ListJobsRequest) -> None:
    """Raise InvalidInput for a filter that no job can have."""
    name_filter("queue", request.queue)
    if request.type and request.type not in list(JobType):
        shown = request.type[: limits.NAME_CHARS]
        raise InvalidInput("type", f"{shown!r} is not known; allowed are {', '.join(JobType)}")
    for tag in request.tags:
        check_text("tags", tag, limits.TAG_CHARS)


def name_filter(field: str, text: str) -> str | None:
    """Return the name to filter by, or None if there is none."""
    if text:
        check_text(field, text, limits.NAME_CHARS)
    return text or None


def key_of(text: str) -> str | None:
    """Return an idempotency key, or None if there is none."""
    if text:
        check_text("idempotency_key", text, limits.KEY_CHARS)
    return text or None


def _retries(job: jobs_pb2.JobSpec) -> RetryPolicy:
    has_rules = job.HasField("retry")
    if not has_rules and not job.HasField("backoff"):
        return RetryPolicy(max_retries=job.max_retries) if job.max_retries else RETRIES_DEFAULT
    backoff = job.backoff
    return RetryPolicy(
        max_retries=job.max_retries,
        base_ms=backoff.base_ms if backoff.HasField("base_ms") else RETRIES_DEFAULT.base_ms,
        factor=backoff.factor if backoff.HasField("factor") else RETRIES_DEFAULT.factor,
        cap_ms=backoff.cap_ms if backoff.HasField("cap_ms") else RETRIES_DEFAULT.cap_ms,
        on=tuple(job.retry.on) if has_rules else (),
        never=tuple(job.retry.never) if has_rules else (),
        jitter=_known("backoff.jitter", backoff.jitter, JITTERS) if backoff.jitter else Jitter.FULL,
    )


def _time(job: jobs_pb2.JobSpec) -> datetime:
    try:
        at = job.at.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput("at", f"{job.at.seconds} seconds since 1970 is not a time: {error}") from error
    latest = datetime.now(UTC).timestamp() + limits.DELAY_MAX_SECONDS
    if at.timestamp() > latest:
        raise InvalidInput("at", f"{at.isoformat()} is too far away; at most a year from now is allowed")
    return at


def _known(field: str, value: E, table: dict[E, T]) -> T:
    found = table.get(value)
    if found is None:
        raise InvalidInput(field, f"{value} is not known; allowed are {', '.join(map(str, table.values()))}")
    return found
