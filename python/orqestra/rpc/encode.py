"""Rows as protobuf."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from orqestra.model.decision import Outcome
from orqestra.model.job import label_map
from orqestra.model.lifecycle import State
from orqestra.model.retry_rules import RetryRules, parse_rules
from orqestra.rpc.decode import JITTERS, RUN_STATES, STATES
from orqestra.store.database import Row
from orqestra.v1 import jobs_pb2, workflows_pb2

STATUSES: Final = {state: status for status, state in STATES.items()}
RUN_STATUSES: Final = {state: status for status, state in RUN_STATES.items()}
JITTER_NUMBERS: Final = {jitter: number for number, jitter in JITTERS.items()}
USAGE_FIGURES: Final = 6

Message = TypeVar("Message", jobs_pb2.Job, jobs_pb2.Attempt)
# (job, fence, stream) -> bytes kept outside the row
StoredOutput = Mapping[tuple[int, int, int], bytes]


def job_summary(row: Row) -> jobs_pb2.Job:
    """Return a job without payload, output and attempts."""
    rules = parse_rules(row["retry_rules"])
    return jobs_pb2.Job(
        id=row["id"],
        type=row["type"],
        status=STATUSES[row["state"]],
        queue=row["queue"],
        priority=row["priority"],
        attempt=row["attempt"] + (row["state"] == State.RUNNING),
        max_retries=row["max_retries"],
        backoff=_backoff(row, rules),
        retry=jobs_pb2.RetryRules(on=rules.on, never=rules.never) if rules.on or rules.never else None,
        worker=row["worker"] or "",
        labels=label_map(row["requires"] or ()),
        tags=row["tags"] or (),
        timeout_ms=row["timeout_ms"],
        grace_ms=row["grace_ms"],
        idempotency_key=row["idempotency_key"] or "",
        run_id=row["run_id"] or 0,
        step=row["step_key"] or "",
        fence=row["fence"],
        lost=row["lost_count"],
        returned=row["return_count"],
        cancel_requested=row["cancel_requested_at"] is not None,
        created_at=timestamp(row["created_at"]),
        available_at=timestamp(row["available_at"]),
        started_at=timestamp(row["started_at"]),
        finished_at=timestamp(row["finished_at"]),
        # While an attempt runs, the row still has the end of the one before, which is in `attempts`.
        **({} if row["state"] == State.RUNNING else _ending(row)),
    )


def job_whole(row: Row, attempts: Iterable[Row], stored: StoredOutput) -> jobs_pb2.Job:
    """Return a job with everything that is kept of it."""
    job = with_output(job_summary(row), row, stored)
    job.payload = row["payload"]
    for each in attempts:
        job.attempts.append(_attempt(each, number=each["number"], outcome=each["outcome"]))
        _set_output(job.attempts[-1], each, (row["id"], each["fence"]), stored)
    if row["state"] == State.COMPLETED:
        job.attempts.append(_attempt(row, number=row["attempt"], outcome=Outcome.COMPLETED))
        with_output(job.attempts[-1], row, stored)
    return job


def job_without_output(row: Row, attempts: Iterable[Row]) -> jobs_pb2.Job:
    """Return a job with its payload and attempts, all without output."""
    job = job_summary(row)
    job.payload = row["payload"]
    job.attempts.extend(_attempt(each, number=each["number"], outcome=each["outcome"]) for each in attempts)
    if row["state"] == State.COMPLETED:
        job.attempts.append(_attempt(row, number=row["attempt"], outcome=Outcome.COMPLETED))
    return job


def with_output(message: Message, row: Row, stored: StoredOutput) -> Message:
    """Add the output of the last attempt of a job that is not running."""
    if row["state"] != State.RUNNING:
        _set_output(message, row, (row["id"], row["fence"]), stored)
    return message


def run(row: Row, steps: Iterable[workflows_pb2.RunStep] = ()) -> workflows_pb2.Run:
    """Return a run."""
    return workflows_pb2.Run(
        id=row["id"],
        workflow=row["name"],
        status=RUN_STATUSES[row["state"]],
        error=row["error"] or "",
        cancel_requested=row["cancel_requested_at"] is not None,
        created_at=timestamp(row["created_at"]),
        finished_at=timestamp(row["finished_at"]),
        steps=steps,
    )


def worker(row: Row) -> jobs_pb2.Worker:
    """Return a connected worker."""
    return jobs_pb2.Worker(
        id=str(row["worker_id"]),
        name=row["name"],
        session_id=row["id"],
        slots=row["slots"],
        running=row["running_jobs"],
        queues=row["queues"],
        labels=label_map(row["labels"]),
        server=row["server_name"],
        draining=row["slots"] == 0 and not row["health"],
        health=row["health"],
        connected_at=timestamp(row["connected_at"]),
        lease_expires_at=timestamp(row["lease_expires_at"]),
    )


def timestamp(time: datetime | None) -> Timestamp | None:
    """Return a time, or None."""
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def _attempt(row: Row, *, number: int, outcome: str) -> jobs_pb2.Attempt:
    wall_us, user_us, system_us, max_rss_kb, _killed, _left = _usage(row)
    return jobs_pb2.Attempt(
        number=number,
        outcome=outcome,
        fence=row["fence"],
        worker=row["worker"] or "",
        started_at=timestamp(row["started_at"]),
        finished_at=timestamp(row["finished_at"]),
        wall_us=wall_us,
        user_us=user_us,
        system_us=system_us,
        max_rss_kb=max_rss_kb,
        **_ending(row),
    )


def _ending(row: Row) -> dict[str, Any]:
    *_times_and_memory, killed_processes, left_processes = _usage(row)
    return {
        "exit_code": row["exit_code"],
        "exit_signal": row["exit_signal"],
        "reason": row["reason"] or "",
        "error": row["error"] or "",
        "stdout_bytes": row["stdout_bytes"] or 0,
        "stderr_bytes": row["stderr_bytes"] or 0,
        "truncated": row["truncated"] or False,
        "killed_processes": killed_processes,
        "left_processes": left_processes,
    }


def _usage(row: Row) -> list[int]:
    """Return the six figures of `usage_us`; rows of plain successes have four, those of before any, or none."""
    kept = [each or 0 for each in row["usage_us"] or ()]
    return kept + [0] * (USAGE_FIGURES - len(kept))


def _backoff(row: Row, rules: RetryRules) -> jobs_pb2.Backoff:
    return jobs_pb2.Backoff(
        base_ms=row["backoff_base_ms"],
        factor=row["backoff_factor"],
        cap_ms=row["backoff_cap_ms"],
        jitter=JITTER_NUMBERS[rules.jitter],
    )


def _set_output(
    message: jobs_pb2.Job | jobs_pb2.Attempt, row: Row, attempt: tuple[int, int], stored: StoredOutput
) -> None:
    message.stdout = row["stdout"] or stored.get((*attempt, jobs_pb2.STREAM_STDOUT), b"")
    message.stderr = row["stderr"] or stored.get((*attempt, jobs_pb2.STREAM_STDERR), b"")
