"""The planner trap of batch updates, kept shut: the hot statements read `jobs` by its primary key alone.

Each plan is looked at as a custom one and as a generic one, on an empty table, after a burst that was never
analyzed, and among many finished rows. The first thousand settled after each is timed as well.
"""

import time
from collections.abc import AsyncIterator
from typing import Any, cast

import asyncpg
import pytest
import pytest_asyncio

from orqestra.embedded.postgres import EmbeddedPostgres
from orqestra.engine.claims import CLAIMABLE
from orqestra.model import limits
from orqestra.model.decision import Ending
from orqestra.model.lifecycle import State
from orqestra.model.report import Report, Verdict
from orqestra.store.queries import load_queries
from tests.support.databases import fresh_database
from tests.support.engine import Engine, engine_on, failed, noop, succeeded
from tests.support.plans import Sql, add_jobs, custom_plan, generic_plan, ways_to_jobs

pytestmark = pytest.mark.asyncio(loop_scope="module")

BATCH = limits.BATCH_JOBS
SETTLE_SECONDS = 0.2
ONE_SECONDS = 0.01
# After this many executions Postgres may keep one plan for all values.
PLANNED_ONCE = 8
BURST_ROWS = 20_000
FINISHED_ROWS = 200_000
QUERIES = load_queries()
PRIMARY = {"jobs_pkey"}
# Query -> the ways to `jobs` that it may take.
ALLOWED = {
    "submit_jobs": set[str](),
    "find_keys": {"jobs_key"},
    "claim_jobs": PRIMARY,
    "look_at": PRIMARY,
    "settle_completed": PRIMARY,
    "find_runs": PRIMARY,
    "lock_jobs": PRIMARY,
    "lock_free_jobs": PRIMARY,
    "settle_jobs": PRIMARY,
    "resume_jobs": PRIMARY,
    "store_output": PRIMARY,
    "cancel_jobs": PRIMARY,
    "peek_lanes": {"jobs_ready", "jobs_delayed"},
}
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
    async with prepared.database._pool.acquire() as connection:
        yield cast(Sql, connection)


def values_of(name: str) -> dict[str, Any]:
    """Return a whole batch of values for a query: columns of a thousand, and single ones."""
    single = {
        "server_id": 1,
        "claimable": CLAIMABLE,
        "waiting": CLAIMABLE,
        "running": State.RUNNING,
        "batch_bytes": limits.BATCH_BYTES,
        "output_bytes": limits.OUTPUT_HEAD_BYTES + limits.OUTPUT_TAIL_BYTES,
        "per_lane": BATCH,
        "lane_ids": [1, 2, 3] if name == "peek_lanes" else [1] * BATCH,
        "ids": list(range(1, BATCH + 1)),
        "worker_id": "00000000-0000-0000-0000-000000000001",
        "session_id": 1,
    }
    texts = ("queues", "types", "tags", "keys", "step_keys", "states", "outcomes", "reasons", "errors")
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

    assert ways_to_jobs(plan) <= ALLOWED[name], plan


@pytest.mark.parametrize("name", ALLOWED)
async def test_the_plan_for_any_values_takes_the_allowed_way(connection: Sql, name: str) -> None:
    plan = await generic_plan(connection, QUERIES[name])

    assert ways_to_jobs(plan) <= ALLOWED[name], plan


@pytest.mark.parametrize("ending", [Ending.SUCCEEDED, Ending.FAILED])
async def test_a_thousand_are_settled_in_time(prepared: Engine, ending: Ending) -> None:
    worker = await prepared.connect()
    jobs = [job_id or 0 for job_id in (await prepared.store(*[noop()] * BATCH)).ids]
    rows = await prepared.claim(worker, *jobs)
    assert len(rows) == BATCH
    make = succeeded if ending is Ending.SUCCEEDED else failed
    reports: list[Report] = [make(row) for row in rows]

    began = time.perf_counter()
    verdicts = await prepared.settle(*reports)
    took = time.perf_counter() - began

    assert verdicts == [Verdict.ACCEPTED] * BATCH
    assert took < SETTLE_SECONDS * (1 if ending is Ending.SUCCEEDED else 2)


async def test_a_plan_made_on_the_empty_table_still_serves_after_a_burst(postgres: EmbeddedPostgres) -> None:
    """A prepared statement keeps its plan until the table is analyzed: what cost nothing on no rows must stay cheap."""
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
