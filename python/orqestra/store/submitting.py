"""Storing jobs: the columns of the one statement that inserts a batch with its hints."""

from collections.abc import Sequence
from dataclasses import dataclass

from orqestra.model.job import JobSpec
from orqestra.store.database import Statements

TAG_SEPARATOR = "\x1f"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedJob:
    """A job with its lane, and for a step of a run with what it belongs to."""

    spec: JobSpec
    lane_id: int
    run_id: int | None = None
    step_key: str | None = None
    previous_id: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """The ids in the order of the jobs; None where a step had been inserted before.

    `hints` are the outbox rows, id and entries, of what is really new: one, unless a key was freed meanwhile.
    """

    ids: list[int | None]
    hints: list[tuple[int, bytes]]


async def submit_jobs(statements: Statements, jobs: Sequence[PlacedJob], *, server_id: int) -> Stored:
    """Insert a batch and its outbox row in one statement; known idempotency keys answer their first id."""
    row = await statements.fetch_one("submit_jobs", server_id=server_id, **_columns(jobs))
    assert row is not None
    hints = [] if row["outbox_id"] is None else [(row["outbox_id"], row["entries"])]
    stored = Stored(ids=list(row["ids"]), hints=hints)
    if row["new_ids"] is not None:
        await _find_first_ids(statements, jobs, stored, server_id=server_id, new=set(row["new_ids"]))
    return stored


async def _find_first_ids(
    statements: Statements, jobs: Sequence[PlacedJob], stored: Stored, *, server_id: int, new: set[int]
) -> None:
    """Replace ids that were not inserted by those that their keys have already: a new snapshot sees them.

    A key that was freed meanwhile is submitted again, alone: what was inserted already has no need of it.
    """
    old = [at for at, job_id in enumerate(stored.ids) if job_id not in new]
    keys = [jobs[at].spec.key for at in old if jobs[at].spec.key is not None]
    rows = await statements.fetch("find_keys", keys=keys) if keys else []
    known = {row["idempotency_key"]: row["id"] for row in rows}
    for at in old:
        stored.ids[at] = known.get(jobs[at].spec.key)
    freed = [at for at in old if stored.ids[at] is None and jobs[at].spec.key is not None]
    if freed:
        again = await submit_jobs(statements, [jobs[at] for at in freed], server_id=server_id)
        stored.hints.extend(again.hints)
        for at, job_id in zip(freed, again.ids, strict=True):
            stored.ids[at] = job_id


def _columns(jobs: Sequence[PlacedJob]) -> dict[str, list[object]]:
    specs = [job.spec for job in jobs]
    return {
        "lane_ids": [job.lane_id for job in jobs],
        "queues": [spec.queue for spec in specs],
        "priorities": [spec.priority for spec in specs],
        "types": [spec.type for spec in specs],
        "payloads": [spec.payload for spec in specs],
        "tags": _sparse([TAG_SEPARATOR.join(spec.tags) if spec.tags else None for spec in specs]),
        "keys": _sparse([spec.key for spec in specs]),
        "max_retries": [spec.retries.max_retries for spec in specs],
        "base_ms": [spec.retries.base_ms for spec in specs],
        "factors": [spec.retries.factor for spec in specs],
        "cap_ms": [spec.retries.cap_ms for spec in specs],
        "timeout_ms": [spec.timeout_ms for spec in specs],
        "grace_ms": [spec.grace_ms for spec in specs],
        "delay_ms": [spec.delay_ms for spec in specs],
        "at": _sparse([spec.at for spec in specs]),
        "run_ids": _sparse([job.run_id for job in jobs]),
        "step_keys": _sparse([job.step_key for job in jobs]),
        "previous_ids": _sparse([job.previous_id for job in jobs]),
        "retry_rules": _sparse([spec.retries.rules() for spec in specs]),
    }


def _sparse(column: list[object]) -> list[object]:
    """Return an empty column where nothing is set: unnest fills it up with NULL."""
    return column if any(value is not None for value in column) else []
