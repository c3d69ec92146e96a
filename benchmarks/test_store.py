"""The statements of a job's life on a real Postgres that waits for the disk, beside those on a bare table."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.bare import Bare, make_table
from benchmarks.further import Further
from benchmarks.measuring import Beside, Load, compare, timed
from benchmarks.ours import WAITING_LANE, Ours, open_sessions
from orqestra.embedded.postgres import EmbeddedPostgres
from orqestra.engine.retention import BATCH_JOBS, BATCH_RUNS
from orqestra.engine.settlement import SLOW_BATCH
from orqestra.model import limits
from orqestra.store import migrations
from orqestra.store.database import Database

PAGE: Final = 100
SESSIONS: Final = 1000
PIECES: Final = 64
# Those that wait, for whoever looks at the first of a lane.
WAITING_JOBS: Final = 5_000

COPY: Final = "COPY or INSERT"
UPDATE: Final = "UPDATE of a bare table"
SELECT: Final = "SELECT by primary key"
DELETE: Final = "DELETE by primary key"


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is measured, behind what leads to it, in the words of both sides; and what the other side does."""

    ours: tuple[str, ...]
    bare: tuple[str, ...]
    what: str


STEPS: Final = {
    "submit": Step(ours=("submit",), bare=("submit",), what=COPY),
    "claim": Step(ours=("submit", "claim"), bare=("submit", "claim"), what=UPDATE),
    "settle": Step(ours=("submit", "claim", "settle"), bare=("submit", "claim", "settle"), what=UPDATE),
}
PEEK: Final = Step(ours=("peek",), bare=("peek",), what=SELECT)
LIST: Final = Step(ours=("page",), bare=("page",), what=SELECT)
KEYS: Final = Step(ours=("submit_with_keys",), bare=("submit",), what=COPY)
DIRECT: Final = Step(ours=("submit_as_running",), bare=("submit",), what=COPY)
LOOK: Final = Step(ours=("submit", "look_at"), bare=("submit", "look_at"), what=SELECT)
RETRY: Final = Step(
    ours=("submit_retried", "claim", "failures", "settle_slowly"), bare=("submit", "claim", "retry"), what=UPDATE
)
FOLLOW: Final = Step(
    ours=("start_runs", "claim", "successes", "settle_slowly"),
    bare=("submit", "claim", "follow"),
    what="UPDATE and COPY",
)
OUTPUT: Final = Step(
    ours=("submit", "claim", "store_output"), bare=("submit", "store_output"), what="INSERT into a bare table"
)
RENEW: Final = Step(ours=("sessions", "renew"), bare=("submit", "renew"), what=UPDATE)
RELAYED: Final = Step(ours=("add_hints", "delete_relayed"), bare=("submit", "delete_later"), what=DELETE)
COMPLETED: Final = Step(ours=("submit", "claim", "settle", "delete_completed"), bare=("submit", "delete"), what=DELETE)
FAILED: Final = Step(
    ours=("submit", "claim", "failures", "settle_slowly", "delete_failed"), bare=("submit", "delete"), what=DELETE
)
RUNS: Final = Step(
    ours=("start_short_runs", "claim", "successes", "settle_slowly", "runs_of", "delete_runs"),
    bare=("submit", "delete"),
    what=DELETE,
)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """So many statements (or transactions) in a round, each about a batch of so many `each` of a unit."""

    batch: int
    statements: int = 1
    rounds: int = 10
    unit: str = "jobs"
    each: int = 1

    @property
    def load(self) -> Load:
        return Load(unit=self.unit, count=self.batch * self.statements * self.each, rounds=self.rounds)


# One by one the statement is short beside what it takes to time it.
SHAPES: Final = {
    "1000 a statement": Shape(batch=1000, statements=1, rounds=20),
    "1 a statement": Shape(batch=1, statements=50, rounds=20),
}
LARGE: Final = {"10,000 a statement": Shape(batch=10_000, statements=1, rounds=10)}
THOUSAND: Final = Shape(batch=limits.BATCH_JOBS)
SINGLE: Final = Shape(batch=1, statements=10)
# What does not come with every job, or not with a job at all.
FURTHER: Final = {
    "submit with keys, 1000 a statement": (KEYS, THOUSAND),
    "submit as running, 1000 a statement": (DIRECT, THOUSAND),
    "submit as running, 1 a statement": (DIRECT, SINGLE),
    "look at refused ones, 1000 a statement": (LOOK, THOUSAND),
    "fail and retry, 200 a transaction": (RETRY, Shape(batch=SLOW_BATCH, statements=2)),
    "fail and retry, 1 a transaction": (RETRY, SINGLE),
    "end a step and begin the next, 200 a transaction": (FOLLOW, Shape(batch=SLOW_BATCH)),
    "store output, 64 pieces a statement": (OUTPUT, Shape(batch=PIECES, unit="bytes", each=limits.OUTPUT_CHUNK_BYTES)),
    "renew leases, 1000 a statement": (RENEW, Shape(batch=SESSIONS, unit="sessions")),
    "delete what is relayed, 1000 a transaction": (RELAYED, Shape(batch=1000, unit="rows")),
    "delete what completed long ago, 1000 a batch": (COMPLETED, Shape(batch=BATCH_JOBS)),
    "delete what failed long ago, 1000 a batch": (FAILED, Shape(batch=BATCH_JOBS)),
    "delete old runs, 50 a batch": (RUNS, Shape(batch=BATCH_RUNS, statements=2)),
}


@dataclass(frozen=True, kw_only=True)
class Store:
    """Both sides, and the loop that they run in."""

    runner: asyncio.Runner
    ours: Ours
    bare: Bare

    def parts(self, side: Ours | Bare, words: Sequence[str], shape: Shape) -> list[Any]:
        """Return what the last word is given, statement by statement: what the one before it returned."""
        parts: list[Any] = [shape.batch] * shape.statements
        for word in words[:-1]:
            parts = self.run(side, word, parts)
        return parts

    def run(self, side: Ours | Bare, word: str, parts: Sequence[Any]) -> list[Any]:
        """Say a word for each of these, one after the other."""

        async def each() -> list[Any]:
            return [await getattr(side, word)(part) for part in parts]

        return self.runner.run(each())


@pytest.fixture(scope="module")
def store(runner: asyncio.Runner, directory: Path) -> Iterator[Store]:
    postgres = EmbeddedPostgres(directory / "postgres")
    runner.run(postgres.start())
    runner.run(migrations.up(postgres.url()))
    database = runner.run(Database.connect(postgres.url(), connections=3))
    connection = runner.run(asyncpg.connect(postgres.url()))
    lending = AsyncExitStack()
    planned_anew = runner.run(lending.enter_async_context(database.connection()))
    planned_once = runner.run(lending.enter_async_context(database.connection(planned_once=True)))
    try:
        runner.run(make_table(connection))
        [session_id] = runner.run(open_sessions(planned_anew, 1))
        ours = Further(database=database, planned_anew=planned_anew, planned_once=planned_once, session_id=session_id)
        bare = Bare(connection=connection, numbers=itertools.count(1))
        runner.run(ours.submit(WAITING_JOBS, lane=WAITING_LANE))
        runner.run(bare.submit(WAITING_JOBS))
        yield Store(runner=runner, ours=ours, bare=bare)
    finally:
        runner.run(lending.aclose())
        runner.run(connection.close())
        runner.run(database.close(1.0))
        runner.run(postgres.stop())


@pytest.mark.benchmark(group="store")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("step", STEPS)
def test_statement(benchmark: BenchmarkFixture, store: Store, step: str, shape: str) -> None:
    beside(benchmark, store, STEPS[step], SHAPES[shape])


@pytest.mark.full
@pytest.mark.benchmark(group="store")
@pytest.mark.parametrize("shape", LARGE)
@pytest.mark.parametrize("step", STEPS)
def test_large_statement(benchmark: BenchmarkFixture, store: Store, step: str, shape: str) -> None:
    beside(benchmark, store, STEPS[step], LARGE[shape])


@pytest.mark.benchmark(group="store")
def test_peek(benchmark: BenchmarkFixture, store: Store) -> None:
    beside(benchmark, store, PEEK, Shape(batch=limits.BATCH_JOBS, statements=5, rounds=20))


@pytest.mark.benchmark(group="store")
def test_page(benchmark: BenchmarkFixture, store: Store) -> None:
    beside(benchmark, store, LIST, Shape(batch=PAGE, statements=5, rounds=20))


@pytest.mark.benchmark(group="store")
@pytest.mark.parametrize("step", FURTHER)
def test_further(benchmark: BenchmarkFixture, store: Store, step: str) -> None:
    beside(benchmark, store, *FURTHER[step])


def beside(benchmark: BenchmarkFixture, store: Store, step: Step, shape: Shape) -> None:
    """Measure a step, in each round after the same step on the bare table."""

    def bare_seconds() -> float:
        parts = store.parts(store.bare, step.bare, shape)
        return timed(lambda: store.run(store.bare, step.bare[-1], parts))

    compare(
        benchmark,
        shape.load,
        Beside(what=step.what, seconds=bare_seconds),
        lambda parts: store.run(store.ours, step.ours[-1], parts),
        lambda: store.parts(store.ours, step.ours, shape),
    )
