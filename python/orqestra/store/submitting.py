"""Storing jobs: the columns of the one statement that inserts a batch with its hints."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Self

import asyncpg

from orqestra.model.errors import OutcomeUnknown, StorageUnavailable
from orqestra.model.job import JobSpec
from orqestra.model.submission import Submission
from orqestra.store.database import Statements

TAG_SEPARATOR = "\x1f"
# What finished jobs have written to stdout, as far as it is at hand.
Outputs = Mapping[int, bytes]
NO_OUTPUTS: Final[Outputs] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedJob:
    """A job with its lane, and for a step of a run with what it belongs to."""

    spec: JobSpec
    lane_id: int
    run_id: int | None = None
    step_key: str | None = None
    previous_id: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Jobs to be inserted together: `kinds` are what jobs share, whose own payload and key do not count.

    `kind_of` (from 1), `payloads` and `keys` have an entry for each job; `keys` is empty where none has one.
    """

    kinds: list[PlacedJob] = field(default_factory=list)
    kind_of: list[int] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    @classmethod
    def of(cls, jobs: Sequence[PlacedJob]) -> Self:
        """Return single jobs as a batch, each of its own kind."""
        return cls(
            kinds=list(jobs),
            kind_of=list(range(1, len(jobs) + 1)),
            payloads=[job.spec.payload for job in jobs],
            keys=[job.spec.key for job in jobs],
        )

    @classmethod
    def joining(cls, parts: Iterable[tuple[Submission, Sequence[PlacedJob]]]) -> Self:
        """Return the jobs of many callers, in their order; each with the places of its kinds."""
        batch = cls()
        joined = list(parts)
        numbers: dict[int, int] = {}
        for submission, kinds in joined:
            known = [batch._number(kind, numbers) for kind in kinds]
            batch.kind_of.extend(
                known * len(submission) if len(known) == 1 else [known[kind] for kind in submission.kind_of]
            )
            batch.payloads.extend(submission.payloads)
        if any(submission.keys for submission, _ in joined):
            for submission, _ in joined:
                batch.keys.extend(submission.keys or [None] * len(submission))
        return batch

    def _number(self, kind: PlacedJob, numbers: dict[int, int]) -> int:
        """Return the number of a kind, added if it is new: those who check jobs hand out one object for each."""
        number = numbers.setdefault(id(kind.spec), len(numbers) + 1)
        if number > len(self.kinds):
            self.kinds.append(kind)
        return number

    def __len__(self) -> int:
        return len(self.payloads)

    @property
    def lane_ids(self) -> set[int]:
        """The lanes of all kinds."""
        return {kind.lane_id for kind in self.kinds}

    @property
    def may_be_known(self) -> bool:
        """Whether some job of it may be stored already: by its key, or as a step of its run."""
        return any(self.keys) or any(kind.run_id is not None for kind in self.kinds)

    def part(self, begin: int, end: int) -> "Batch":
        """Return the jobs from `begin` to `end`."""
        return Batch(
            kinds=self.kinds,
            kind_of=self.kind_of[begin:end],
            payloads=self.payloads[begin:end],
            keys=self.keys[begin:end],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Direct:
    """Which jobs of a batch are to be stored as running, and on which sessions.

    `session_ids` has an entry for each job, None where it is to wait; it is empty where all are. `tokens` has the
    token of all jobs of a session.
    """

    session_ids: Sequence[int | None] = ()
    tokens: Mapping[int, int] = field(default_factory=dict)


WAITING: Final = Direct()


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """The ids in the order of the jobs; None where a step had been inserted before.

    `hints` are the outbox rows, id and entries, of what is really new: one, unless a key was freed meanwhile.
    `running` are the places of those that were stored as running, None if all that were to be are; of one key
    that comes twice it is one of both. All others that are new wait.
    """

    ids: list[int | None]
    hints: list[tuple[int, bytes]]
    running: frozenset[int] | None = None


async def submit_jobs(statements: Statements, batch: Batch, *, server_id: int, direct: Direct = WAITING) -> Stored:
    """Insert a batch and its outbox row in one statement; known idempotency keys answer their first id.

    What is matched already is stored as running, unless its session is closed.

    Raises OutcomeUnknown, outside a transaction, also if jobs are stored and an error hides their ids.
    """
    name = "submit_jobs" if batch.may_be_known else "submit_jobs_without_keys"
    row = await statements.fetch_one(name, server_id=server_id, **_columns(batch), **_direct_columns(direct))
    assert row is not None
    stored = Stored(
        ids=list(row["ids"]),
        hints=[] if row["outbox_id"] is None else [(row["outbox_id"], row["entries"])],
        running=None if row["run_positions"] is None else frozenset(at - 1 for at in row["run_positions"]),
    )
    if row["new_ids"] is not None:
        try:
            await _find_first_ids(statements, batch, stored, server_id=server_id, new=set(row["new_ids"]))
        except (StorageUnavailable, asyncpg.PostgresError) as error:
            if statements.in_transaction:
                raise
            raise OutcomeUnknown(f"jobs are stored, but which have the keys that were known: {error}") from error
    return stored


async def _find_first_ids(
    statements: Statements, batch: Batch, stored: Stored, *, server_id: int, new: set[int]
) -> None:
    """Replace ids that were not inserted by those that their keys have already: a new snapshot sees them.

    A key that was freed meanwhile is submitted again, alone: what was inserted already has no need of it.
    """
    key_of = dict(enumerate(batch.keys))
    old = [at for at, job_id in enumerate(stored.ids) if job_id not in new]
    keys = [key for at in old if (key := key_of.get(at)) is not None]
    rows = await statements.fetch("find_keys", keys=keys) if keys else []
    known = {row["idempotency_key"]: row["id"] for row in rows}
    for at in old:
        stored.ids[at] = known.get(key_of.get(at))
    freed = [at for at in old if stored.ids[at] is None and key_of.get(at) is not None]
    if freed:
        again = Batch(
            kinds=batch.kinds,
            kind_of=[batch.kind_of[at] for at in freed],
            payloads=[batch.payloads[at] for at in freed],
            keys=[batch.keys[at] for at in freed],
        )
        stored_again = await submit_jobs(statements, again, server_id=server_id)
        stored.hints.extend(stored_again.hints)
        for at, job_id in zip(freed, stored_again.ids, strict=True):
            stored.ids[at] = job_id


def _direct_columns(direct: Direct) -> dict[str, object]:
    sessions = direct.session_ids
    return {
        "session_ids": sessions,
        "to_run": len(sessions) - sessions.count(None),
        "matched": list(direct.tokens),
        "tokens": list(direct.tokens.values()),
    }


def _columns(batch: Batch) -> dict[str, object]:
    kinds = batch.kinds
    specs = [kind.spec for kind in kinds]
    return {
        "kind_of": batch.kind_of,
        "payloads": batch.payloads,
        "keys": batch.keys,
        "lane_ids": [kind.lane_id for kind in kinds],
        "queues": [spec.queue for spec in specs],
        "priorities": [spec.priority for spec in specs],
        "types": [spec.type for spec in specs],
        "tags": [TAG_SEPARATOR.join(spec.tags) if spec.tags else None for spec in specs],
        "max_retries": [spec.retries.max_retries for spec in specs],
        "base_ms": [spec.retries.base_ms for spec in specs],
        "factors": [spec.retries.factor for spec in specs],
        "cap_ms": [spec.retries.cap_ms for spec in specs],
        "timeout_ms": [spec.timeout_ms for spec in specs],
        "grace_ms": [spec.grace_ms for spec in specs],
        "delay_ms": [spec.delay_ms for spec in specs],
        "at": [spec.at for spec in specs],
        "run_ids": [kind.run_id for kind in kinds],
        "step_keys": [kind.step_key for kind in kinds],
        "previous_ids": [kind.previous_id for kind in kinds],
        "retry_rules": [spec.retries.rules() for spec in specs],
    }
