"""What is known after a fault, from witnesses that no fault can silence.

| witness | what it tells | order and clock |
|---|---|---|
| history | every committed row version (`history.py`) | commit order, Postgres' clock |
| journal | starts and ends of commands, by themselves | seconds since boot |
| operations | what clients asked for and were told | monotonic seconds |
| final rows | what Postgres holds in the end | - |
| hints | what Redis holds in the end | - |
| samples | what was overdue, each second | Postgres' clock |

All run on one machine: `booted_at` turns seconds since boot into Unix seconds, which is what the rest has.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import asyncpg
import redis.asyncio

from orqestra.model.lifecycle import State

Row: TypeAlias = Mapping[str, Any]
Outcome: TypeAlias = Literal["ok", "info", "fail"]

HINT_CHARS: Final = 25
# A session whose lease is over is closed by the next tick of any server, a second later.
OVERDUE_SECONDS: Final = 2


@dataclass(frozen=True, kw_only=True)
class Change:
    """A row version: `before` is None for an insert, `after` for a delete."""

    table: str
    kind: Literal["insert", "update", "delete"]
    before: Row | None
    after: Row | None

    @property
    def images(self) -> list[Row]:
        """What the row was and is: one for an insert or a delete, two for an update."""
        return [row for row in (self.before, self.after) if row is not None]

    @property
    def row(self) -> Row:
        """The newest version there is."""
        row = self.after if self.after is not None else self.before
        assert row is not None
        return row


@dataclass(frozen=True, kw_only=True)
class Transaction:
    """What one commit changed, in the order of its statements. `lsn` is that of the commit."""

    xid: int
    lsn: int
    committed_at: datetime
    changes: tuple[Change, ...]


@dataclass(frozen=True, kw_only=True)
class JournalLine:
    """What a command told: `overlap` says that another attempt of its job was running at its start."""

    kind: Literal["start", "overlap", "end"]
    job_id: int
    fence: int
    attempt: int
    pid: int
    uptime_s: float
    digest: str | None = None
    """SHA-256 of all of its standard output, in hex; only at an end, where it is more than one line."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A call of a client. `info`: nobody knows whether it was done; `fail`: it certainly was not."""

    kind: Literal["submit", "cancel", "retry", "trigger"]
    key: str
    outcome: Outcome
    job_id: int | None
    run_id: int | None
    invoked_at: float
    answered_at: float


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What the injected fault excuses, and nothing else."""

    starts: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """How often a job may be started, least and most, by job; a retry that its policy asks for comes on top."""
    default: tuple[int, int] = (1, 1)
    overlap_after_expiry: bool = False
    """Two attempts may run at once, if the lease of the first was over before the second was claimed."""
    prefetch: int = 256
    """So many jobs may be claimed for a session beyond its slots (those that have just finished)."""
    silent: frozenset[int] = frozenset()
    """Jobs whose command is no probe: the journal does not know them."""
    repairs: frozenset[str] | None = None
    """Counters that may have counted; None: any may."""


@dataclass(frozen=True, kw_only=True)
class FinalRows:
    """The tables at rest: jobs, attempts and runs after `since_id`, all sessions and lanes.

    A job and an attempt have `output`: its standard output as stored, from the row or its pieces.
    """

    jobs: tuple[Row, ...]
    attempts: tuple[Row, ...] = ()
    runs: tuple[Row, ...] = ()
    sessions: tuple[Row, ...] = ()
    outbox: tuple[Row, ...] = ()
    lanes: tuple[Row, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What Redis holds: job ids by lane, and keys that should not be there at all."""

    ready: Mapping[int, frozenset[int]]
    delayed: frozenset[int] = frozenset()
    processing: frozenset[int] = frozenset()
    partial: frozenset[int] = frozenset()
    strange_keys: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One look at Postgres; `at` is Unix seconds on its clock."""

    at: float
    overdue_running: int
    """Jobs that run on a session which has been over for `OVERDUE_SECONDS`."""
    outbox_oldest_s: float | None
    """Age of the oldest row; None: there is none."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A process that was asked to end (SIGTERM), in Unix seconds."""

    name: str
    kind: Literal["server", "worker"]
    asked_at: float
    ended_at: float


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything about the jobs with ids above `since_id`."""

    history: tuple[Transaction, ...]
    journal: tuple[JournalLine, ...]
    operations: tuple[Operation, ...]
    final: FinalRows
    booted_at: float
    """Unix seconds at which the machine's uptime was 0."""
    since_id: int = 0
    hints: Hints | None = None
    """None: not looked at. To be read one period of the audit after everything has ended."""
    samples: tuple[Sample, ...] = ()
    stops: tuple[Stop, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    """Repairs that the servers counted."""
    window: int = 1000
    """How many hints of a lane Redis holds at most."""


def booted_at() -> float:
    """Return when this machine's uptime was 0, in Unix seconds, good to 10 ms: the probe reads the same file."""
    return time.time() - float(Path("/proc/uptime").read_text().split()[0])


def parse_journal(text: str, since_id: int = 0) -> tuple[JournalLine, ...]:
    """Read the lines of jobs above `since_id`; a last line without its end is left out, garbage is a ValueError."""
    *whole, _ = text.split("\n")
    lines = (_parse_line(number, line) for number, line in enumerate(whole, 1))
    return tuple(line for line in lines if line.job_id > since_id)


def _parse_line(number: int, text: str) -> JournalLine:
    match text.split(" "):
        case ["start" | "overlap" | "end" as kind, job_id, fence, attempt, pid, uptime]:
            digest = None
        case ["end" as kind, job_id, fence, attempt, pid, uptime, digest] if len(digest) == 64:
            pass
        case _:
            raise ValueError(f"line {number} of the journal is none: {text!r}")
    try:
        return JournalLine(
            kind=kind,
            job_id=int(job_id),
            fence=int(fence),
            attempt=int(attempt),
            pid=int(pid),
            uptime_s=float(uptime),
            digest=digest,
        )
    except ValueError as error:
        raise ValueError(f"line {number} of the journal is none: {text!r}") from error


async def read_final(dsn: str, since_id: int = 0) -> FinalRows:
    """Read what Postgres holds, in one snapshot; `since_id` is the newest job of before."""
    connection = await asyncpg.connect(dsn, server_settings={"timezone": "UTC"})
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return FinalRows(
                jobs=_rows(await connection.fetch(JOBS, since_id)),
                attempts=_rows(await connection.fetch(ATTEMPTS, since_id)),
                runs=_rows(await connection.fetch(RUNS, since_id)),
                sessions=_rows(await connection.fetch(SESSIONS)),
                outbox=_rows(await connection.fetch("SELECT * FROM outbox ORDER BY id")),
                lanes=_rows(await connection.fetch("SELECT id, queue, requires FROM lanes ORDER BY id")),
            )
    finally:
        await connection.close()


async def sample(dsn: str) -> Sample:
    """Look once at what should not be: to be called each second."""
    connection = await asyncpg.connect(dsn)
    try:
        row = await connection.fetchrow(SAMPLE, State.RUNNING, OVERDUE_SECONDS)
    finally:
        await connection.close()
    assert row is not None
    return Sample(at=row["at"], overdue_running=row["overdue_running"], outbox_oldest_s=row["outbox_oldest_s"])


async def read_hints(redis_url: str, namespace: str) -> Hints:
    """Read what Redis holds of a namespace, and the names of all keys that are none of its families."""
    client: Any = redis.asyncio.Redis.from_url(redis_url)
    prefix = f"{{{namespace}}}:"
    try:
        keys = {key.decode() async for key in client.scan_iter(count=1000)}
        lanes = {key: _lane(key.removeprefix(f"{prefix}ready:")) for key in keys if key.startswith(f"{prefix}ready:")}
        ready = {lane: await client.zrange(key, 0, -1) for key, lane in lanes.items() if lane is not None}
        delayed = await client.zrange(f"{prefix}delayed", 0, -1)
        processing = await client.hvals(f"{prefix}processing")
        partial = await client.hkeys(f"{prefix}partial")
    finally:
        await client.aclose()
    return Hints(
        ready={lane: frozenset(int(member, 16) for member in members) for lane, members in ready.items()},
        delayed=frozenset(_job(hint) for hint in delayed),
        processing=frozenset(_job(hint) for taken in processing for hint in _split_take(taken)),
        partial=frozenset(int(lane, 16) for lane in partial),
        strange_keys=frozenset(key for key in keys if not is_family(key, prefix)),
    )


def is_family(key: str, prefix: str) -> bool:
    """Whether a key is one of those that `take.lua` describes."""
    family, _, lane = key.removeprefix(prefix).partition(":")
    if not key.startswith(prefix):
        return False
    if lane:
        return family in {"ready", "filling"} and _lane(lane) is not None
    return family in {"epoch", "delayed", "processing", "partial", "audit"}


def _lane(text: str) -> int | None:
    return int(text, 16) if len(text) == 8 and set(text) <= set("0123456789abcdef") else None


def _job(hint: bytes) -> int:
    return int(hint[9:HINT_CHARS], 16)


def _split_take(value: bytes) -> Iterable[bytes]:
    _, *profiles = value.split(b"|")
    for hints in profiles:
        yield from (hints[at : at + HINT_CHARS] for at in range(0, len(hints), HINT_CHARS))


def _rows(records: Iterable[asyncpg.Record]) -> tuple[Row, ...]:
    return tuple(dict(record) for record in records)


_OUTPUT: Final = """coalesce(r.stdout, (SELECT string_agg(o.bytes, ''::bytea ORDER BY o.byte_offset)
    FROM job_output o WHERE (o.job_id, o.fence, o.stream) = ({id}, r.fence, 1))) AS output"""
JOBS: Final = f"""
SELECT r.id, r.lane_id, r.priority, r.idempotency_key, r.max_retries, r.run_id, r.step_key, r.previous_job_id,
       r.created_at, r.state, r.available_at, r.delayed, r.attempt, r.lost_count, r.return_count,
       r.cancel_requested_at, r.fence, r.token, r.session_id, r.worker_id::text, r.started_at, r.finished_at,
       r.reason, r.stdout_bytes, r.truncated, {_OUTPUT.format(id="r.id")}
FROM jobs r WHERE r.id > $1 ORDER BY r.id"""
ATTEMPTS: Final = f"""
SELECT r.job_id, r.fence, r.token, r.number, r.outcome, r.session_id, r.worker_id::text, r.reason,
       r.stdout_bytes, r.truncated, {_OUTPUT.format(id="r.job_id")}
FROM attempts r WHERE r.job_id > $1 ORDER BY r.job_id, r.fence"""
RUNS: Final = """
SELECT r.id, r.name, r.state, r.idempotency_key, r.cancel_requested_at, r.created_at, r.finished_at,
       jsonb_array_length(r.definition -> 'steps') AS steps
FROM workflow_runs r
WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.run_id = r.id AND j.id <= $1) ORDER BY r.id"""
SESSIONS: Final = """
SELECT id, worker_id::text, incarnation::text, number, name, server_id, server_name, slots, queues, labels,
       connected_at, lease_expires_at, closed_at, closed_reason
FROM sessions ORDER BY id"""
SAMPLE: Final = """
SELECT extract(epoch FROM clock_timestamp())::float8 AS at,
       (SELECT count(*) FROM jobs j JOIN sessions s ON s.id = j.session_id
        WHERE j.state = $1 AND coalesce(s.closed_at, s.lease_expires_at)
                               < clock_timestamp() - $2 * interval '1 second')::integer AS overdue_running,
       (SELECT extract(epoch FROM clock_timestamp() - min(created_at)) FROM outbox)::float8 AS outbox_oldest_s"""
