"""The engine of one server without its loops: a test takes each step itself, in the order it wants.

All of it is real but Redis, which is never connected to: hints end in the outbox, where tests read them.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeAlias
from uuid import UUID, uuid4

from orqestra._dispatch import Matcher
from orqestra.clock import SystemClock
from orqestra.engine.cancels import Cancels
from orqestra.engine.claims import CLAIMABLE
from orqestra.engine.core import Core
from orqestra.engine.direct import DirectMatch
from orqestra.engine.expiry import Expiry
from orqestra.engine.hellos import Greeting, Hellos
from orqestra.engine.intake import Intake
from orqestra.engine.lanes import Lanes
from orqestra.engine.leases import Leases
from orqestra.engine.link import Link
from orqestra.engine.outputs import Outputs
from orqestra.engine.pg_clock import PostgresClock
from orqestra.engine.relay import Relay
from orqestra.engine.repairs import Repairs
from orqestra.engine.sessions import Session, Sessions
from orqestra.engine.settlement import Settlement
from orqestra.model import limits
from orqestra.model.decision import Ending
from orqestra.model.job import JobSpec
from orqestra.model.report import AttemptRef, OutputPiece, Reason, Report, Verdict
from orqestra.model.submission import Submission
from orqestra.queue.connection import connect
from orqestra.queue.hints import Hints
from orqestra.store.database import Database, Row
from orqestra.store.submitting import Batch, PlacedJob, Stored, submit_jobs
from tests.support.databases import bare
from tests.support.on_wire import answers_of, is_plain, results_of, rows_of
from tests.support.server import settings_for
from tests.support.waiting import until

SERVER_ID = 7
LEASE_MS = 60_000
Claimed: TypeAlias = Row | Mapping[str, Any]
OUTPUT_BYTES = limits.OUTPUT_HEAD_BYTES + limits.OUTPUT_TAIL_BYTES
NOWHERE = "127.0.0.1:1"


@dataclass
class Peer:
    """A stream that only notes what it is told."""

    answers: list[tuple[AttemptRef, Verdict]] = field(default_factory=list)
    cancelled: list[AttemptRef] = field(default_factory=list)
    pieces: list[tuple[AttemptRef, int, int, bool]] = field(default_factory=list)
    beats: list[int] = field(default_factory=list)
    questions: list[int] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    follows: list[tuple[AttemptRef, tuple[int, int], bool]] = field(default_factory=list)

    def assign(self, jobs: bytes) -> None:
        raise AssertionError("tests of the store claim for themselves")

    def follow(self, attempt: AttemptRef, offsets: tuple[int, int], *, stop: bool) -> None:
        self.follows.append((attempt, offsets, stop))

    def answer(self, acks: bytes) -> None:
        self.answer_each(answers_of(acks))

    def answer_each(self, verdicts: Sequence[tuple[AttemptRef, Verdict]]) -> None:
        self.answers += verdicts

    def stored(self, attempt: AttemptRef, stream: int, offset: int, *, kept: bool) -> None:
        self.pieces.append((attempt, stream, offset, kept))

    def cancel(self, attempts: Sequence[AttemptRef]) -> None:
        self.cancelled += attempts

    def list_held(self, seq: int) -> None:
        self.questions.append(seq)

    def renewed(self, seq: int, now_ms: int) -> None:
        self.beats.append(seq)

    def end(self, reason: str) -> None:
        self.ended.append(reason)


@dataclass
class Worker:
    """A worker as its streams show it: one after the other, each with a higher number."""

    id: UUID = field(default_factory=uuid4)
    incarnation: UUID = field(default_factory=uuid4)
    number: int = 0
    peer: Peer = field(default_factory=Peer)
    session_id: int = 0
    revoked: tuple[AttemptRef, ...] = ()


class Engine:
    """The parts that write to Postgres, and short words for what tests do with them."""

    def __init__(self, database: Database, hints: Hints) -> None:
        clock, repairs = SystemClock(), Repairs()
        self.database = database
        self.lanes = Lanes(database)
        self.core = Core(
            clock=clock,
            database=database,
            callers=database,
            hints=hints,
            link=Link(clock, hints, self.lanes, repairs, address=NOWHERE),
            pg_clock=PostgresClock(clock),
            server_id=SERVER_ID,
            repairs=repairs,
        )
        self.changed: list[int] = []
        self.relay = Relay(self.core, lambda _lanes: None)
        self.hellos = Hellos(self.core, server_name="test", lease_ms=LEASE_MS)
        self.sessions = Sessions(self.core, Matcher(), self.hellos)
        self.direct = DirectMatch(self.core, self.sessions, self.relay, self.changed.extend)
        self.intake = Intake(self.core, self.lanes, self.relay, self.direct)
        self.settlement = Settlement(self.core, self.lanes, self.relay, self.direct, self.changed.extend)
        self.cancels = Cancels(self.core, self.relay, self.sessions, self.changed.extend)
        self.outputs = Outputs(self.core, self.sessions)
        self.leases = Leases(self.core, database, self.sessions)
        self.expiry = Expiry(self.core, self.leases, self.settlement, lease_seconds=LEASE_MS / 1000)
        self._peers: dict[int, Peer] = {}

    async def store(self, *specs: JobSpec) -> Stored:
        """Submit as one batch."""
        jobs = [PlacedJob(spec=spec, lane_id=await self.lanes.find(spec)) for spec in specs]
        async with self.database.connection() as statements:
            return await submit_jobs(statements, Batch.of(jobs), server_id=SERVER_ID)

    async def take_in(self, *calls: Sequence[JobSpec]) -> list[Any]:
        """Let callers submit at once, and store what waits then; return ids or the error for each."""
        submits = [self.intake.submit(Submission.of(jobs)) for jobs in calls]
        # Tasks begin in their order: all wait when the step begins.
        *answers, _ = await asyncio.gather(*submits, self.intake.run_once(), return_exceptions=True)
        return answers

    async def submit(self, **about: Any) -> int:
        """Submit one job that does nothing, and return its id."""
        [job_id] = (await self.store(noop(**about))).ids
        assert job_id is not None
        return job_id

    async def job(self, job_id: int) -> Row:
        """Return the row of a job."""
        [row] = await self.sql("SELECT * FROM jobs WHERE id = $1", job_id)
        return row

    async def attempts(self, job_id: int) -> list[Row]:
        """Return what is kept of the attempts of a job."""
        return await self.sql("SELECT * FROM attempts WHERE job_id = $1 ORDER BY fence", job_id)

    async def run(self, run_id: int) -> Row:
        """Return the row of a run."""
        [row] = await self.sql("SELECT * FROM workflow_runs WHERE id = $1", run_id)
        return row

    async def sql(self, text: str, *arguments: Any) -> list[Row]:
        """Run any statement on a connection of the engine's pool."""
        async with bare(self.database) as connection:
            return await connection.fetch(text, *arguments)

    async def connect(self, worker: Worker | None = None, **about: Any) -> Worker:
        """Open the next stream of a worker, which holds the attempts `held` and `finished`."""
        worker = worker or Worker()
        worker.number += 1
        greeting = Greeting(
            worker_id=worker.id,
            incarnation=worker.incarnation,
            number=worker.number,
            **{"name": "w", "slots": 4, "queues": ("default",), "labels": (), "held": (), "finished": (), **about},
        )
        peer = Peer()
        opened = await self.sessions.open(greeting, peer)
        assert opened is not None
        worker.peer, worker.session_id, worker.revoked = peer, opened.session.id, opened.revoke
        self._peers[worker.session_id] = peer
        return worker

    def session(self, worker: Worker) -> Session:
        """Return the open session of a worker."""
        session = self.sessions.get(worker.session_id)
        assert session is not None
        return session

    async def close(self, worker: Worker, reason: str = "lapsed") -> None:
        """Close a session in Postgres, as another server would."""
        await self.sql(
            "UPDATE sessions SET closed_at = clock_timestamp(), closed_reason = $2 WHERE id = $1",
            *(worker.session_id, reason),
        )

    async def claim(
        self, worker: Worker, *ids: int, token: int = 99, batch_bytes: int = limits.BATCH_BYTES
    ) -> list[Mapping[str, Any]]:
        """Claim jobs for a worker; return the rows that were."""
        [columns] = await self.database.fetch(
            "claim_jobs",
            ids=ids,
            session_ids=[worker.session_id] * len(ids),
            tokens=[token] * len(ids),
            claimable=CLAIMABLE,
            batch_bytes=batch_bytes,
            output_bytes=OUTPUT_BYTES,
        )
        return rows_of(columns)

    async def running(self, worker: Worker, **about: Any) -> Mapping[str, Any]:
        """Submit a job and claim it."""
        [row] = await self.claim(worker, await self.submit(**about))
        return row

    async def settle(self, *reports: Report) -> list[Verdict]:
        """Settle one batch and return all answers, stream by stream. What is plain comes as a stream brings it."""
        for peer in self._peers.values():
            peer.answers.clear()
        for (session_id, plain), part in groupby(reports, key=lambda each: (each.session_id, is_plain(each))):
            if plain:
                self.settlement.settle_results(results_of(session_id, part))
            else:
                self.settlement.settle(list(part))
        await self.settlement.run_once()
        return [verdict for peer in self._peers.values() for _, verdict in peer.answers]

    async def sweep(self) -> None:
        """Bring back what runs on closed sessions."""
        await self.expiry.run_once()

    async def make_due(self, *ids: int) -> None:
        """Let the time come of jobs that wait for it."""
        await self.sql("UPDATE jobs SET available_at = now() - interval '1 second' WHERE id = ANY($1::bigint[])", ids)

    async def delay_of(self, job_id: int) -> float:
        """Return in how many seconds a job is due."""
        [row] = await self.sql(
            "SELECT extract(epoch FROM available_at - clock_timestamp())::float8 AS delay FROM jobs WHERE id = $1",
            job_id,
        )
        delay: float = row["delay"]
        return delay

    async def hints(self) -> dict[int, int]:
        """Return what waits in the outbox, due time by job, and forget it; the last row decides."""
        rows = await self.sql("WITH gone AS (DELETE FROM outbox RETURNING *) SELECT entries FROM gone ORDER BY id")
        entries = b"".join(row["entries"] for row in rows)
        return {
            int.from_bytes(entries[at : at + 8]): int.from_bytes(entries[at + 14 : at + 22])
            for at in range(0, len(entries), 22)
        }


@asynccontextmanager
async def engine_on(url: str) -> AsyncIterator[Engine]:
    """Yield an engine on a database."""
    redis = connect(settings_for(url, NOWHERE, "unused"))
    database = await Database.connect(url, connections=6)
    try:
        engine = Engine(database, Hints(redis, namespace="unused", boot_id="test", window=10))
        # The one loop that runs: a test that opens a stream waits for it.
        await engine.hellos.start()
        yield engine
        await engine.hellos.stop()
    finally:
        await database.close(1.0)
        await redis.aclose()


def noop(**about: Any) -> JobSpec:
    """Return a job that does nothing, with changes."""
    return JobSpec(**{"type": "noop", **about})


def ref(row: Claimed) -> AttemptRef:
    """Return the attempt of a claimed row."""
    return AttemptRef(row["id"], row["fence"], row["token"])


def report(row: Claimed, ending: Ending, **about: Any) -> Report:
    """Return what the worker of a claimed row says of its end."""
    given = {"attempt": ref(row), "session_id": row["session_id"], "ending": ending, "reason": Reason.EXITED}
    exit_code = 0 if ending is Ending.SUCCEEDED else None
    return Report(**{**given, "exit_code": exit_code, **about})


def succeeded(row: Claimed, **about: Any) -> Report:
    return report(row, Ending.SUCCEEDED, **about)


def failed(row: Claimed, **about: Any) -> Report:
    return report(row, Ending.FAILED, **{"exit_code": 1, **about})


def returned(row: Claimed, **about: Any) -> Report:
    return report(row, Ending.RETURNED, **{"reason": Reason.RETURNED, **about})


def piece(row: Claimed, data: bytes, offset: int = 0, stream: int = 1) -> OutputPiece:
    """Return a piece of the output of a claimed row."""
    return OutputPiece(attempt=ref(row), session_id=row["session_id"], stream=stream, offset=offset, data=data)


async def lose(engine: Engine, worker: Worker, row: Claimed, reason: str = "lapsed") -> Worker:
    """Let the worker of a claimed row vanish and the sweep find it; return the worker on a new stream."""
    await engine.close(worker, reason)
    await engine.sweep()
    return await engine.connect(worker)


async def until_blocked(engine: Engine) -> None:
    """Return once a statement of this database waits for a lock."""

    async def is_blocked() -> bool:
        return bool(
            await engine.sql(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )

    await until(is_blocked)
