"""All lanes together: what Redis holds is bounded, whatever waits and in however many lanes."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from orqestra.model import limits
from orqestra.queue import hints
from tests.support.hints import LANE, NOW_MS, Server, server_on
from tests.support.server import RunningServer, Sql, running_server, settings_for

MILLION = 1_000_000


@pytest_asyncio.fixture
async def server(redis_url: str, redis_namespace: str) -> AsyncIterator[Server]:
    """A server whose lanes hold ten hints as long as they are few."""
    async with server_on(redis_url, redis_namespace, window=10) as one:
        await one.begin()
        yield one


@pytest.mark.parametrize("lanes", [1, 2, 7, 100, limits.LANES])
def test_the_lanes_share_a_million(lanes: int) -> None:
    shared = hints.Hints(Redis(), namespace="unused", boot_id="one", window=MILLION)

    shared.share(lanes)

    assert shared.window >= 1
    assert lanes * shared.window + hints.DELAYED_HINTS <= MILLION


async def test_few_lanes_have_the_window_that_was_set(server: Server) -> None:
    server.hints.share(5)

    assert server.hints.window == 10


async def test_a_lane_is_cut_to_a_window_that_has_shrunk(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await server.push(*((number, 4) for number in range(10)))
    await server.push((1, 4), (2, 4), lane=7)
    monkeypatch.setattr(hints, "READY_HINTS", 12)
    server.hints.share(3)

    assert await server.hints.trim([LANE, 7, 8]) == 6

    assert await server.ready() == [0, 1, 2, 3]
    assert await server.ready(7) == [1, 2]
    assert set(await server.partial()) == {LANE}
    assert await server.hints.trim([LANE, 7, 8]) == 0


async def test_a_cut_during_a_refill_keeps_the_lane_partial(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await server.hints.mark([LANE], set_epoch=False)
    assert await server.hints.begin_refill(LANE, "one")
    await server.push(*((number, 4) for number in range(10)))
    monkeypatch.setattr(hints, "READY_HINTS", 4)
    server.hints.share(1)
    assert await server.hints.trim([LANE]) == 6

    await server.hints.end_refill(LANE, "one", whole=True)

    assert set(await server.partial()) == {LANE}


async def test_of_delayed_hints_those_that_are_due_soonest_stay(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "DELAYED_HINTS", 3)

    for number in (5, 1, 4, 2, 3):
        await server.push((number, 4), due_ms=NOW_MS + number * 1000)

    assert sorted(await server.delayed()) == [1, 2, 3]


async def test_a_server_that_learns_of_lanes_shrinks_its_window_and_all_jobs_run(
    database: str, redis_url: str, redis_namespace: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "READY_HINTS", 20)
    queues = [f"q{number}" for number in range(5)]
    async with running_server(settings_for(database, redis_url, redis_namespace)) as running:
        ids = [job_id for queue in queues for job_id in await running.submit_many(30, queue=queue)]

        await run_all(running, queues, len(ids))

    assert await sql.fetchval("SELECT count(*) FROM jobs WHERE state = 'completed'") == len(ids)


async def run_all(server: RunningServer, queues: list[str], count: int) -> None:
    async with server.worker(slots=7, queues=queues) as worker:
        stream = await worker.open()
        done = 0
        while done < count:
            jobs = (await stream.next("assign")).jobs
            await stream.finish(jobs)
            done += len(jobs)
