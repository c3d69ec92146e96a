"""What a benchmark asks Postgres itself: the raw cycle, and what became of every job."""

import asyncpg
import pytest

from orqestra.bench import audit, limit
from orqestra.bench.cycle import BATCH_JOBS, measure
from orqestra.bench.limit import Limits
from orqestra.bench.load import Wait
from orqestra.bench.progress import Unseen
from orqestra.bench.report import Verdict
from orqestra.bench.stage import Stage
from orqestra.bench.system import System
from orqestra.bench.wire import Wire
from orqestra.bench.workers import Crew, Fleet
from orqestra.client import Client
from orqestra.model.errors import StartFailed


async def schemas(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    rows = await connection.fetch("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'bench%'")
    return [row[0] for row in rows]


async def test_the_raw_cycle_counts_whole_batches_and_leaves_nothing(empty_database: str) -> None:
    jobs, seconds = await measure(empty_database, 0.2)

    assert jobs >= 2 * BATCH_JOBS and jobs % BATCH_JOBS == 0
    assert seconds >= 0.2
    connection = await asyncpg.connect(empty_database)
    assert await schemas(connection) == []
    await connection.close()


async def test_a_cycle_that_can_not_be_measured_is_an_error() -> None:
    with pytest.raises(StartFailed, match="the raw cycle can't be measured"):
        await limit.raw_cycle("postgresql://localhost:1/nowhere", 0.1)


async def test_jobs_are_read_from_the_database_that_has_them(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(
        "INSERT INTO lanes (queue, requires) VALUES ('default', '{}');"
        "INSERT INTO jobs (id, queue, lane_id, priority, type, payload, tags, max_retries, backoff_base_ms,"
        " backoff_factor, backoff_cap_ms, timeout_ms, grace_ms, available_at, delayed)"
        " SELECT n, 'default', 1, 4, 'noop', '{}', CASE WHEN n <> 2 THEN '{bench}'::text[] END, 0, 0, 1, 0, 0, 0,"
        " now(), false FROM generate_series(1, 3) n"
    )
    await connection.close()
    waits = [Wait(ids=[1, 3], began_at=0.0, heard_at=1.0)]

    [outcome] = await audit.look(database, waits, Unseen())

    assert outcome.verdict == Verdict(lost=2)


async def test_a_start_that_only_a_worker_tells_counts_as_a_second_one(database: str) -> None:
    address = "localhost:1"
    async with (
        Client(address) as client,
        Wire(address) as wire,
        Fleet(client, address, "bench", Crew(slots=1)) as fleet,
    ):
        system = System(client=client, wire=wire, address=address, limits=Limits(), database_url=database)
        stage = Stage(system=system, fleet=fleet, progress=Unseen())
        for ids in ([1, 2], [2], [2]):
            stage.fleet.starts.add(7, ids)

        first, second = await stage.look([Wait(ids=ids, began_at=0.0, heard_at=1.0) for ids in ([1], [2])])

    # Of which load they are it does not tell.
    assert (first.verdict, second.verdict) == (Verdict(lost=1, duplicated=2), Verdict(lost=1))
