"""The planner trap of batch updates, kept shut: the hot statements read `jobs` by its primary key alone.

Looked at on an empty table, after a burst that was never analyzed, and among many finished rows. Only
where the table is hardly larger than the batch may all of it be read, once; never an index of states.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, cast

import asyncpg
import pytest
import pytest_asyncio

from orqestra.embedded.postgres import EmbeddedPostgres
from orqestra.engine.claims import CLAIMABLE
from orqestra.engine.outputs import PIECES
from orqestra.model import limits
from orqestra.model.lifecycle import State
from orqestra.model.report import Reason, Report, Verdict
from orqestra.store.database import Database
from orqestra.store.queries import load_queries
from tests.support.databases import bare, fresh_database
from tests.support.engine import Engine, Worker, engine_on, failed, noop, piece, ref, succeeded
from tests.support.plans import Sql, add_jobs, custom_plan, plan_for_all_times, sort_keys, walks, ways_to_jobs

Step = Coroutine[Any, Any, object]
Reporting = Callable[[Mapping[str, Any]], Report]

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.alone]

BATCH = limits.BATCH_JOBS
SETTLE_SECONDS = 0.2
TIMES = 3
ONE_SECONDS = 0.01
# After this many executions Postgres may keep one plan for all values.
PLANNED_ONCE = 8
BURST_ROWS = 20_000
# Rows of jobs that have written nothing yet are short: so many fit where few others do.
LARGE_BURST_ROWS = 50_000
BUSY_BATCHES = 12
STUCK_SECONDS = 4
FINISHED_ROWS = 200_000
QUERIES = load_queries()
PRIMARY = {"jobs_pkey"}
# Query -> the ways to `jobs` that it may take.
ALLOWED = {
    "submit_jobs": set[str](),
    "submit_jobs_without_keys": set[str](),
    "find_keys": {"jobs_key"},
    "find_matched": {"jobs_running"},
    "claim_jobs": PRIMARY,
    "find_claimed": PRIMARY,
    "look_at": PRIMARY,
    "settle_completed": PRIMARY,
    "find_runs": PRIMARY,
    "list_steps": {"jobs_step"},
    "lock_jobs": PRIMARY,
    "lock_free_jobs": PRIMARY,
    "settle_jobs": PRIMARY,
    "resume_jobs": PRIMARY,
    "store_output": PRIMARY,
    "cancel_jobs": PRIMARY,
    "peek_lanes": {"jobs_ready", "jobs_delayed"},
    "list_cancels": {"jobs_stopping"},
}
BATCHES = ("claim_jobs", "settle_completed", "settle_jobs")
# What runs on connections that plan once for all times, whatever the tables were like then.
ONCE = ("submit_jobs", "submit_jobs_without_keys", "find_keys", "add_run", "find_run_key")
FEW_ROWS = [0, 1, 10, 60]
CONDITIONS = ["empty", "burst", "finished"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CONDITIONS)
async def condition(postgres: EmbeddedPostgres, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The DB_URL of a database in one of the conditions, in which nobody analyzes by himself."""
    async with fresh_database(postgres) as url:
        connection = await asyncpg.connect(url)
        await connection.execute("ALTER TABLE jobs SET (autovacuum_enabled = false)")
        if request.param != "empty":
            await add_jobs(connection, BURST_ROWS // 2, State.PENDING)
            await add_jobs(connection, BURST_ROWS // 2, State.RUNNING)
        if request.param == "finished":
            await add_jobs(connection, FINISHED_ROWS, State.COMPLETED)
            await connection.execute("ANALYZE jobs")
        await connection.close()
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prepared(condition: str) -> AsyncIterator[Engine]:
    async with engine_on(condition) as engine:
        yield engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def connection(prepared: Engine) -> AsyncIterator[Sql]:
    """A connection as the server opens them, with its settings."""
    async with bare(prepared.database) as connection:
        yield connection


def values_of(name: str) -> dict[str, Any]:
    """Return a whole batch of values for a query: columns of a thousand, and single ones."""
    single = {
        "server_id": 1,
        "to_run": 1,
        "claimable": CLAIMABLE,
        "waiting": CLAIMABLE,
        "running": State.RUNNING,
        "exited": Reason.EXITED,
        "batch_bytes": limits.BATCH_BYTES,
        "output_bytes": limits.OUTPUT_HEAD_BYTES + limits.OUTPUT_TAIL_BYTES,
        "per_lane": BATCH,
        "late_ms": 500,
        "lane_ids": [1, 2, 3] if name == "peek_lanes" else [1] * BATCH,
        "ids": list(range(1, BATCH + 1)),
        "worker_ids": ["00000000-0000-0000-0000-000000000001"] * BATCH,
    }
    texts = ("queues", "types", "tags", "keys", "step_keys", "retry_rules", "states", "outcomes", "reasons", "errors")
    raw = ("payloads", "stdouts", "stderrs", "bytes")
    fillers: dict[str, Any] = {**dict.fromkeys(texts, "x"), **dict.fromkeys(raw, b"x"), "at": None, "truncated": False}

    def value(parameter: str) -> Any:
        if parameter in single:
            return single[parameter]
        return [fillers.get(parameter, 1)] * BATCH

    return {parameter: value(parameter) for parameter in QUERIES[name].parameters}


@pytest.mark.parametrize("name", ALLOWED)
async def test_the_plan_for_a_batch_takes_the_allowed_way(connection: Sql, name: str) -> None:
    plan = await custom_plan(connection, QUERIES[name], values_of(name))

    rows = await connection.fetchval("SELECT count(*) FROM jobs")
    small = {"Seq Scan"} if rows <= BURST_ROWS else set()
    assert ways_to_jobs(plan) <= ALLOWED[name] | small, plan


async def test_a_batch_is_looked_up_among_short_rows_too(postgres: EmbeddedPostgres) -> None:
    """By what Postgres thinks of disks, reading all of them would be cheaper than a thousand looks."""
    async with fresh_database(postgres) as url, engine_on(url) as engine, bare(engine.database) as connection:
        await connection.execute("ALTER TABLE jobs SET (autovacuum_enabled = false)")
        await add_jobs(connection, LARGE_BURST_ROWS, State.RUNNING)
        plans = {name: await custom_plan(connection, QUERIES[name], values_of(name)) for name in BATCHES}

    assert {name: ways_to_jobs(plan) for name, plan in plans.items()} == dict.fromkeys(BATCHES, PRIMARY)


async def test_a_plan_is_made_for_the_table_as_it_is(connection: Sql) -> None:
    """A plan for all times that is made on an empty table would read all of it after a burst as well."""
    assert await connection.fetchval("SHOW plan_cache_mode") == "force_custom_plan"


@pytest.mark.parametrize("rows", FEW_ROWS)
async def test_a_plan_for_all_times_walks_nothing_though_it_was_made_for_a_few_rows(
    postgres: EmbeddedPostgres, rows: int
) -> None:
    async with fresh_database(postgres) as url, engine_on(url) as engine:
        async with bare(engine.database) as connection:
            await add_jobs(connection, rows, State.RUNNING)
        for _ in range(rows):
            await engine.connect()
        async with bare(engine.database) as connection:
            await connection.execute("VACUUM ANALYZE")
        async with engine.database.connection(planned_once=True) as statements:
            connection = cast(Sql, statements._connection)
            plans = {name: await plan_for_all_times(connection, QUERIES[name]) for name in ONCE}

    assert {name: walked for name, plan in plans.items() if (walked := walks(plan))} == {}


async def test_successes_are_locked_by_their_ids(connection: Sql) -> None:
    """As everything locks them: the sorted results lead, or both sides are sorted."""
    plan = await custom_plan(connection, QUERIES["settle_completed"], values_of("settle_completed"))

    update = plan["Plans"][0]
    [join] = update["Plans"]
    outer, _ = join["Plans"]
    assert update["Node Type"] == "ModifyTable"
    assert sort_keys(join if join["Node Type"] == "Merge Join" else outer) == [["results.id"]]


async def test_a_connection_plans_for_the_moment_again(postgres: EmbeddedPostgres) -> None:
    async with fresh_database(postgres) as url:
        database = await Database.connect(url, connections=1)
        try:
            seen = [await settings(database, planned_once=once) for once in (False, True, True, False, True, False)]
        finally:
            await database.close(1.0)

    backends, modes, scans = zip(*seen, strict=True)
    assert len(set(backends)) == 1
    assert [mode.removesuffix("_plan") for mode in modes] == [
        *("force_custom", "force_generic", "force_generic"),
        *("force_custom", "force_generic", "force_custom"),
    ]
    assert scans == ("on", "off", "off", "on", "off", "on")


async def test_of_connections_at_hand_the_one_that_plans_as_is_wanted_is_taken(postgres: EmbeddedPostgres) -> None:
    async with fresh_database(postgres) as url, engine_on(url) as engine:
        database = engine.database
        async with database.connection(planned_once=True) as once, database.connection() as anew:
            backends = once.backend, anew.backend

        seen = [(await settings(database, planned_once=once))[0] for once in (True, False, True, False)]

    assert seen == [backend.pid for backend in backends * 2 if backend is not None]


async def settings(database: Database, *, planned_once: bool) -> tuple[int, str, str]:
    """Return the backend of a connection, how it plans, and whether it may walk a table."""
    async with database.connection(planned_once=planned_once) as statements:
        row = await cast(Sql, statements._connection).fetchrow(
            "SELECT pg_backend_pid(), current_setting('plan_cache_mode'), current_setting('enable_seqscan')"
        )
    assert row is not None
    return row[0], row[1], row[2]


@pytest.mark.parametrize(("report", "seconds"), [(succeeded, SETTLE_SECONDS), (failed, SETTLE_SECONDS * 2)])
async def test_a_thousand_are_settled_in_time(prepared: Engine, report: Reporting, seconds: float) -> None:
    async def settle() -> Step:
        rows = await claimed(prepared, await prepared.connect())
        assert len(rows) == BATCH
        return accept(prepared, list(map(report, rows)))

    assert await quickest(settle) < seconds


async def accept(engine: Engine, reports: Sequence[Report]) -> None:
    assert await engine.settle(*reports) == [Verdict.ACCEPTED] * len(reports)


async def test_a_plan_made_on_the_empty_table_still_serves_after_a_burst(postgres: EmbeddedPostgres) -> None:
    """What cost nothing on no rows must stay cheap among many that nobody has analyzed."""
    async with fresh_database(postgres) as url, engine_on(url) as engine:
        worker = await engine.connect()
        connection = await asyncpg.connect(url)
        await connection.execute("ALTER TABLE jobs SET (autovacuum_enabled = false)")
        for make in (succeeded, failed) * PLANNED_ONCE:
            await engine.settle(make(await engine.running(worker)))
        await add_jobs(connection, FINISHED_ROWS, State.RUNNING)
        await connection.close()

        took: dict[str, list[float]] = {"succeeded": [], "failed": []}
        for make in (succeeded, failed) * 3:
            row = await engine.running(worker)
            began = time.perf_counter()
            await engine.settle(make(row))
            took[make.__name__].append(time.perf_counter() - began)

    assert {name: min(seconds) < ONE_SECONDS for name, seconds in took.items()} == dict.fromkeys(took, True), took


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def busy(postgres: EmbeddedPostgres) -> AsyncIterator[Engine]:
    """After many jobs, then a burst of running ones, with no statistics of either."""
    async with fresh_database(postgres) as url, engine_on(url) as engine:
        worker = await engine.connect()
        connection = await asyncpg.connect(url)
        await connection.execute("ALTER TABLE jobs SET (autovacuum_enabled = false)")
        for _ in range(BUSY_BATCHES):
            await engine.settle(*map(succeeded, await claimed(engine, worker)))
        await add_jobs(connection, BURST_ROWS, State.RUNNING)
        await connection.close()
        yield engine


async def claimed(engine: Engine, worker: Worker, count: int = BATCH) -> list[Mapping[str, Any]]:
    """Submit a batch and claim it."""
    jobs = [job_id or 0 for job_id in (await engine.store(*[noop()] * count)).ids]
    return await engine.claim(worker, *jobs)


async def quickest(prepare: Callable[[], Awaitable[Step]]) -> float:
    """Return the seconds of a step at its best, of three; a planner in the trap takes seconds or minutes each time."""
    took = []
    for _ in range(TIMES):
        step = await prepare()
        began = time.perf_counter()
        async with asyncio.timeout(STUCK_SECONDS):
            await step
        took.append(time.perf_counter() - began)
    return min(took)


# No guard may look so rare to the planner that it reads the whole table for each row of a batch.


@pytest.mark.parametrize(("report", "seconds"), [(succeeded, SETTLE_SECONDS), (failed, SETTLE_SECONDS * 2)])
async def test_reports_are_settled_in_time_without_statistics(busy: Engine, report: Reporting, seconds: float) -> None:
    async def settle() -> Step:
        return busy.settle(*map(report, await claimed(busy, await busy.connect())))

    assert await quickest(settle) < seconds


async def test_a_hello_that_holds_many_is_answered_in_time_without_statistics(busy: Engine) -> None:
    worker = await busy.connect()

    async def greet() -> Step:
        rows = await claimed(busy, worker)
        return busy.connect(worker, held=tuple(map(ref, rows)))

    assert await quickest(greet) < SETTLE_SECONDS
    assert worker.revoked == ()


async def test_output_is_stored_in_time_without_statistics(busy: Engine) -> None:
    async def store() -> Step:
        for row in await claimed(busy, await busy.connect(), PIECES):
            busy.outputs.store(piece(row, b"x" * 1000))
        return busy.outputs.run_once()

    assert await quickest(store) < SETTLE_SECONDS


async def test_many_are_cancelled_in_time_without_statistics(busy: Engine) -> None:
    async def cancel() -> Step:
        rows = await claimed(busy, await busy.connect())
        return busy.cancels.cancel([row["id"] for row in rows])

    assert await quickest(cancel) < SETTLE_SECONDS


async def test_many_are_claimed_in_time_without_statistics(busy: Engine) -> None:
    worker = await busy.connect()

    async def claim() -> Step:
        return claimed(busy, worker)

    assert await quickest(claim) < SETTLE_SECONDS * 2
