"""The statements of a job's life on a real Postgres that waits for the disk, beside those on a bare table."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.bare import Bare, make_table
from benchmarks.measuring import Beside, Load, compare, timed
from orqestra.embedded.postgres import EmbeddedPostgres
from orqestra.engine.claims import CLAIMABLE
from orqestra.model import limits
from orqestra.model.job import JobSpec
from orqestra.model.lifecycle import State
from orqestra.model.report import Reason
from orqestra.store import migrations
from orqestra.store.database import Database, Row, Statements
from orqestra.store.submitting import Batch, PlacedJob, submit_jobs

LANE: Final = 1
WAITING_LANE: Final = 2
SERVER_ID: Final = 7
LEASE_MS: Final = 3_600_000
PAGE: Final = 100
NOOP: Final = JobSpec(type="noop")
# Those that wait, for whoever looks at the first of a lane.
WAITING_JOBS: Final = 5_000
STEPS: Final = ("submit", "claim", "settle")
BARE: Final = {
    "submit": "COPY or INSERT",
    "claim": "UPDATE of a bare table",
    "settle": "UPDATE of a bare table",
    "peek": "SELECT by primary key",
    "page": "SELECT by primary key",
}
# A plain success without output says nothing more than its attempt: all other columns are empty.
QUIET: Final = ("stdouts", "stderrs", "wall_us", "user_us", "system_us", "max_rss_kb")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """So many statements in a round, each about a batch."""

    batch: int
    statements: int
    rounds: int

    @property
    def load(self) -> Load:
        return Load(unit="jobs", count=self.batch * self.statements, rounds=self.rounds)


# One by one the statement is short beside what it takes to time it.
SHAPES: Final = {
    "1000 a statement": Shape(batch=1000, statements=1, rounds=20),
    "1 a statement": Shape(batch=1, statements=50, rounds=20),
}
LARGE: Final = {"10,000 a statement": Shape(batch=10_000, statements=1, rounds=10)}


@dataclass(frozen=True, kw_only=True)
class Ours:
    """Two connections to the real tables, as the server borrows them; the same words as `Bare`."""

    planned_anew: Statements
    planned_once: Statements
    session_id: int

    async def submit(self, count: int, lane: int = LANE) -> list[int]:
        kind = PlacedJob(spec=NOOP, lane_id=lane)
        batch = Batch(kinds=[kind], kind_of=[1] * count, payloads=[NOOP.payload] * count)
        stored = await submit_jobs(self.planned_once, batch, server_id=SERVER_ID)
        return [job_id for job_id in stored.ids if job_id]

    async def claim(self, ids: Sequence[int]) -> Row:
        """Return the columns of the claim."""
        [columns] = await self.planned_anew.fetch(
            "claim_jobs",
            ids=ids,
            session_ids=[self.session_id] * len(ids),
            tokens=[99] * len(ids),
            claimable=CLAIMABLE,
            batch_bytes=limits.BATCH_BYTES,
            output_bytes=limits.OUTPUT_HEAD_BYTES,
        )
        assert len(columns["ids"]) == len(ids)
        return columns

    async def settle(self, claimed: Row) -> int:
        attempts = {name: claimed[name] for name in ("ids", "session_ids", "fences", "tokens")}
        nothing: dict[str, list[Any]] = {name: [] for name in QUIET}
        [settled] = await self.planned_anew.fetch(
            "settle_completed", running=State.RUNNING, exited=Reason.EXITED, **attempts, **nothing
        )
        assert len(settled["ids"]) == len(claimed["ids"])
        return len(settled["ids"])

    async def peek(self, count: int) -> int:
        return len(await self.planned_anew.fetch("peek_lanes", lane_ids=[WAITING_LANE], per_lane=count))

    async def page(self, count: int) -> int:
        """Read the newest jobs as a list shows them."""
        anything: dict[str, Any] = {"states": [], "queue": None, "type": None, "tags": [], "labels": []}
        row = await self.planned_anew.fetch_one(
            "list_jobs", after=2**62, scan=limits.PAGE_SCANNED_ROWS, page=count, **anything
        )
        assert row is not None
        return len(await self.planned_anew.fetch("get_summaries", ids=row["ids"]))


@dataclass(frozen=True, kw_only=True)
class Store:
    """Both sides, and the loop that they run in."""

    runner: asyncio.Runner
    ours: Ours
    bare: Bare

    def parts(self, side: Ours | Bare, step: str, shape: Shape) -> list[Any]:
        """Return what a step is given, statement by statement: what the step before it returned."""
        parts: list[Any] = [shape.batch] * shape.statements
        for earlier in STEPS[: STEPS.index(step)] if step in STEPS else ():
            parts = self.run(side, earlier, parts)
        return parts

    def run(self, side: Ours | Bare, step: str, parts: Sequence[Any]) -> list[Any]:
        """Take a step with each of these, one after the other."""

        async def each() -> list[Any]:
            return [await getattr(side, step)(part) for part in parts]

        return self.runner.run(each())


@pytest.fixture(scope="module")
def store(runner: asyncio.Runner, directory: Path) -> Iterator[Store]:
    postgres = EmbeddedPostgres(directory / "postgres")
    runner.run(postgres.start())
    runner.run(migrations.up(postgres.url()))
    database = runner.run(Database.connect(postgres.url(), connections=2))
    connection = runner.run(asyncpg.connect(postgres.url()))
    lending = AsyncExitStack()
    planned_anew = runner.run(lending.enter_async_context(database.connection()))
    planned_once = runner.run(lending.enter_async_context(database.connection(planned_once=True)))
    try:
        runner.run(make_table(connection))
        session_id = runner.run(_open_session(planned_anew))
        ours = Ours(planned_anew=planned_anew, planned_once=planned_once, session_id=session_id)
        bare = Bare(connection=connection, numbers=itertools.count(1))
        runner.run(ours.submit(WAITING_JOBS, lane=WAITING_LANE))
        runner.run(bare.submit(WAITING_JOBS))
        yield Store(runner=runner, ours=ours, bare=bare)
    finally:
        runner.run(lending.aclose())
        runner.run(connection.close())
        runner.run(database.close(1.0))
        runner.run(postgres.stop())


async def _open_session(statements: Statements) -> int:
    [row] = await statements.fetch(
        "open_sessions",
        worker_ids=[uuid4()],
        incarnations=[uuid4()],
        numbers=[1],
        names=["bench"],
        slots=[1],
        queues=['["default"]'],
        labels=["[]"],
        server_id=SERVER_ID,
        server_name="bench",
        lease_ms=LEASE_MS,
    )
    return int(row["id"])


@pytest.mark.benchmark(group="store")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("step", STEPS)
def test_statement(benchmark: BenchmarkFixture, store: Store, step: str, shape: str) -> None:
    beside(benchmark, store, step, SHAPES[shape])


@pytest.mark.full
@pytest.mark.benchmark(group="store")
@pytest.mark.parametrize("shape", LARGE)
@pytest.mark.parametrize("step", STEPS)
def test_large_statement(benchmark: BenchmarkFixture, store: Store, step: str, shape: str) -> None:
    beside(benchmark, store, step, LARGE[shape])


@pytest.mark.benchmark(group="store")
def test_peek(benchmark: BenchmarkFixture, store: Store) -> None:
    beside(benchmark, store, "peek", Shape(batch=limits.BATCH_JOBS, statements=5, rounds=20))


@pytest.mark.benchmark(group="store")
def test_page(benchmark: BenchmarkFixture, store: Store) -> None:
    beside(benchmark, store, "page", Shape(batch=PAGE, statements=5, rounds=20))


def beside(benchmark: BenchmarkFixture, store: Store, step: str, shape: Shape) -> None:
    """Measure a step, in each round after the same step on the bare table."""

    def bare_seconds() -> float:
        parts = store.parts(store.bare, step, shape)
        return timed(lambda: store.run(store.bare, step, parts))

    compare(
        benchmark,
        shape.load,
        Beside(what=BARE[step], seconds=bare_seconds),
        lambda parts: store.run(store.ours, step, parts),
        lambda: store.parts(store.ours, step, shape),
    )
