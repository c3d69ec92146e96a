"""What programs read: the one JSON schema, told in `docs/json.md`.

Ids are integers, states are words, times RFC 3339 in UTC with microseconds. What is absent is null, never
left out. Bytes are text; where that is not all (not UTF-8), the exact bytes stand beside it as base64.
"""

import base64
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import click
import orjson

from orqestra.client import (
    Attempt,
    Cancelled,
    Job,
    JobPage,
    Output,
    Run,
    RunPage,
    Worker,
    WorkflowList,
)

Document = dict[str, Any]
EMPTY: Final[Mapping[str, None]] = dict.fromkeys(
    ("stdout", "stdout_base64", "stderr", "stderr_base64", "stdout_bytes", "stderr_bytes", "truncated")
)


def print_document(document: Document) -> None:
    """Print one document: indented on a terminal, on one line elsewhere."""
    indent = orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0
    # Text may hold lone surrogates (a name from the command line), which no JSON can.
    click.echo(orjson.dumps(_unicode(document), option=indent))


def of_job(job: Job, *, listed: bool = False) -> Document:
    """Return a job. One from a list has null for what lists do not hold: payload, output, attempts."""
    return {
        "id": job.id,
        "type": job.type,
        "status": job.status,
        "queue": job.queue,
        "priority": job.priority,
        "attempt": job.attempt,
        "max_retries": job.max_retries,
        "backoff": {
            "base_ms": job.backoff.base_ms,
            "factor": job.backoff.factor,
            "cap_ms": job.backoff.cap_ms,
            "jitter": job.backoff.jitter,
        },
        "retry": {"on": list(job.retry_on), "never": list(job.retry_never)},
        "exit_code": job.exit_code,
        "exit_signal": job.exit_signal,
        "reason": job.reason,
        "error": job.error,
        **(EMPTY if listed else _of_output(job.output)),
        "worker": job.worker,
        "labels": dict(job.labels),
        "tags": list(job.tags),
        **({"payload": None} if listed else _of_payload(job.payload)),
        "timeout_ms": job.timeout_ms,
        "grace_ms": job.grace_ms,
        "idempotency_key": job.idempotency_key,
        "run_id": job.run_id,
        "step": job.step,
        "lost": job.lost,
        "returned": job.returned,
        "cancel_requested": job.cancel_requested,
        "created_at": _of_time(job.created_at),
        "available_at": _of_time(job.available_at),
        "started_at": _of_time(job.started_at),
        "finished_at": _of_time(job.finished_at),
        "killed_processes": job.killed_processes,
        "left_processes": job.left_processes,
        "attempts": None if listed else [_of_attempt(attempt) for attempt in job.attempts],
    }


def of_page(page: JobPage) -> Document:
    """Return a page of jobs; `next` is null on the last."""
    return {"jobs": [of_job(job, listed=True) for job in page.jobs], "next": page.next}


def of_cancelled(answers: Sequence[Cancelled]) -> Document:
    """Return what a cancel did to each job."""
    return {"jobs": [{"id": answer.id, "outcome": answer.outcome, "status": answer.status} for answer in answers]}


def of_workers(workers: Sequence[Worker]) -> Document:
    """Return the workers."""
    return {"workers": [_of_worker(worker) for worker in workers]}


def of_workflows(listing: WorkflowList) -> Document:
    """Return the definitions and the files that could not be loaded."""
    return {
        "workflows": [{"name": each.name, "steps": list(each.steps), "file": each.file} for each in listing.workflows],
        "broken": [{"file": each.file, "line": each.line, "problem": each.problem} for each in listing.broken],
    }


def of_run(run: Run, *, listed: bool = False) -> Document:
    """Return a run. One from a list has null for its steps."""
    return {
        "id": run.id,
        "workflow": run.workflow,
        "status": run.status,
        "error": run.error,
        "cancel_requested": run.cancel_requested,
        "created_at": _of_time(run.created_at),
        "finished_at": _of_time(run.finished_at),
        "steps": None
        if listed
        else [
            {"key": step.key, "job": of_job(step.job) | {"attempts": None} if step.job else None} for step in run.steps
        ],
    }


def of_runs(page: RunPage) -> Document:
    """Return a page of runs; `next` is null on the last."""
    return {"runs": [of_run(run, listed=True) for run in page.runs], "next": page.next}


def of_bytes(name: str, data: bytes) -> Document:
    """Return bytes as the text `name` and, where they are not UTF-8, exactly as `name`_base64."""
    try:
        return {name: data.decode(), f"{name}_base64": None}
    except UnicodeDecodeError:
        return {
            name: data.decode(errors="replace"),
            f"{name}_base64": base64.b64encode(data).decode("ascii"),
        }


def _of_worker(worker: Worker) -> Document:
    times = {"connected_at": _of_time(worker.connected_at), "lease_expires_at": _of_time(worker.lease_expires_at)}
    return asdict(worker) | times


def _of_output(output: Output) -> Document:
    return {
        **of_bytes("stdout", output.stdout),
        **of_bytes("stderr", output.stderr),
        "stdout_bytes": output.stdout_bytes,
        "stderr_bytes": output.stderr_bytes,
        "truncated": output.truncated,
    }


def _of_payload(payload: bytes) -> Document:
    """Return the payload as it was sent, number for number; null where none came along."""
    return {"payload": orjson.Fragment(payload) if payload else None}


def _of_attempt(attempt: Attempt) -> Document:
    return {
        "number": attempt.number,
        "outcome": attempt.outcome,
        "worker": attempt.worker,
        "exit_code": attempt.exit_code,
        "exit_signal": attempt.exit_signal,
        "reason": attempt.reason,
        "error": attempt.error,
        **_of_output(attempt.output),
        "started_at": _of_time(attempt.started_at),
        "finished_at": _of_time(attempt.finished_at),
        "wall_ms": attempt.wall_us / 1000,
        "user_ms": attempt.user_us / 1000,
        "system_ms": attempt.system_us / 1000,
        "max_rss_kb": attempt.max_rss_kb,
        "killed_processes": attempt.killed_processes,
        "left_processes": attempt.left_processes,
    }


def _of_time(time: datetime | None) -> str | None:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z") if time else None


def _unicode(value: Any) -> Any:
    """Return the value with lone surrogates replaced."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {key: _unicode(each) for key, each in value.items()}
        case list():
            return [_unicode(each) for each in value]
        case _:
            return value
