"""Refills of partial lanes on a real Redis: they converge, and end a mark only if nothing was left out."""

from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest
import pytest_asyncio

from orqestra.engine.link import Link
from orqestra.engine.refill import Refill
from orqestra.queue.hints import FILLING_MS
from tests.support.engine import engine_on
from tests.support.hints import LANE, Server, packed, server_on, taken


@pytest_asyncio.fixture
async def server(redis_url: str, redis_namespace: str) -> AsyncIterator[Server]:
    async with server_on(redis_url, redis_namespace) as one:
        await one.begin(LANE)
        yield one


@pytest_asyncio.fixture
async def other(redis_url: str, redis_namespace: str) -> AsyncIterator[Server]:
    async with server_on(redis_url, redis_namespace, boot_id="two") as two:
        yield two


async def reported(server: Server, number: int = 1) -> str:
    """Return the generation with which a take reports the lane."""
    [(lane, generation)] = (await server.take(number, (0, b"12"))).partial
    assert lane == LANE
    return generation


async def test_a_refill_that_had_everything_makes_the_lane_whole(server: Server) -> None:
    generation = await reported(server)

    assert await server.hints.begin_refill(LANE, generation)
    assert await server.hints.add_refill(LANE, generation, packed((1, 4), (2, 9)))
    assert await server.hints.add_refill(LANE, generation, packed((3, 4)))
    assert await server.hints.end_refill(LANE, generation, whole=True)

    assert (await server.ready(), await server.partial()) == ([2, 1, 3], {})
    await server.push((4, 0))
    assert await server.ready() == [2, 1, 3, 4]


async def test_an_empty_refill_makes_an_empty_lane_whole(server: Server) -> None:
    generation = await reported(server)

    await server.hints.begin_refill(LANE, generation)
    await server.hints.end_refill(LANE, generation, whole=True)

    assert await server.partial() == {}


async def test_a_refill_that_had_a_window_leaves_the_lane_partial_and_in_order(server: Server) -> None:
    generation = await reported(server)

    await server.hints.begin_refill(LANE, generation)
    await server.hints.add_refill(LANE, generation, packed(*((number, 4) for number in range(10))))
    await server.push((50, 0), (51, 9))
    await server.hints.end_refill(LANE, generation, whole=False)

    assert await server.ready() == [51, *range(9)]
    assert set(await server.partial()) == {LANE}
    await server.push((60, 0))
    assert 60 not in await server.ready()


async def test_what_is_pushed_while_it_is_refilled_is_kept_wherever_it_sorts(server: Server) -> None:
    generation = await reported(server)

    await server.hints.begin_refill(LANE, generation)
    await server.push((5, 4))
    await server.hints.add_refill(LANE, generation, packed((1, 4)))
    await server.push((6, 0))
    await server.hints.end_refill(LANE, generation, whole=True)

    assert (await server.ready(), await server.partial()) == ([1, 5, 6], {})


@pytest.mark.parametrize("after", ["begin", "add"])
async def test_a_mark_meanwhile_keeps_the_lane_partial(server: Server, other: Server, after: str) -> None:
    generation = await reported(server)

    await server.hints.begin_refill(LANE, generation)
    if after == "add":
        await server.hints.add_refill(LANE, generation, packed((1, 4)))
    await other.hints.mark([LANE], set_epoch=False)
    await server.hints.end_refill(LANE, generation, whole=True)

    assert set(await server.partial()) == {LANE}
    generation = await reported(server, 2)
    await server.hints.begin_refill(LANE, generation)
    await server.hints.end_refill(LANE, generation, whole=True)
    assert await server.partial() == {}


async def test_a_window_that_overflows_meanwhile_keeps_the_lane_partial(server: Server) -> None:
    generation = await reported(server)

    await server.hints.begin_refill(LANE, generation)
    await server.push(*((number, 4) for number in range(11)))
    await server.hints.end_refill(LANE, generation, whole=True)

    assert len(await server.ready()) == 10
    assert set(await server.partial()) == {LANE}


async def test_a_push_before_the_refill_begins_does_not_make_it_idle(server: Server) -> None:
    """What was left out before Postgres is read is among what is read: under steady submits it must converge."""
    generation = await reported(server)
    await server.push((1, 4))

    await server.hints.begin_refill(LANE, generation)
    await server.hints.add_refill(LANE, generation, packed((1, 4)))
    await server.hints.end_refill(LANE, generation, whole=True)

    assert (await server.ready(), await server.partial()) == ([1], {})


async def test_a_lane_that_is_whole_is_not_refilled(server: Server) -> None:
    generation = await reported(server)
    await server.hints.begin_refill(LANE, generation)
    await server.hints.end_refill(LANE, generation, whole=True)

    assert not await server.hints.begin_refill(LANE, generation)
    assert not await server.hints.add_refill(LANE, generation, packed((1, 4)))
    assert not await server.hints.end_refill(LANE, generation, whole=True)
    assert await server.ready() == []


async def test_a_refill_whose_announcement_ran_out_does_not_end_the_mark(server: Server) -> None:
    generation = await reported(server)
    await server.hints.begin_refill(LANE, generation)
    await server.redis.delete(f"{server.prefix}filling:{LANE:08x}")

    await server.push((1, 4))
    await server.hints.end_refill(LANE, generation, whole=True)

    assert (await server.ready(), set(await server.partial())) == ([], {LANE})


async def test_of_two_servers_one_refills_a_lane_and_ends_it_undisturbed(server: Server, other: Server) -> None:
    """Two at a time would each take the other's announcement away, and neither would ever make the lane whole."""
    assert await server.hints.begin_refill(LANE, "first")
    assert not await other.hints.begin_refill(LANE, "second")

    await server.hints.add_refill(LANE, "first", packed((1, 4)))
    assert not await other.hints.begin_refill(LANE, "second")
    await server.hints.end_refill(LANE, "first", whole=True)

    assert (await server.ready(), await server.partial()) == ([1], {})


async def test_a_refill_of_an_older_mark_keeps_no_newer_one_waiting(server: Server, other: Server) -> None:
    """It has read what there was before the mark, and cannot end it."""
    await server.hints.begin_refill(LANE, "first")
    await other.hints.mark([LANE], set_epoch=False)

    assert await other.hints.begin_refill(LANE, "second")
    await server.hints.end_refill(LANE, "first", whole=True)
    assert set(await server.partial()) == {LANE}
    await other.hints.end_refill(LANE, "second", whole=True)

    assert await server.partial() == {}


async def test_each_chunk_prolongs_the_announcement_of_its_own_refill(server: Server, other: Server) -> None:
    filling = f"{server.prefix}filling:{LANE:08x}"
    await server.hints.begin_refill(LANE, "first")
    assert 0 < await server.redis.pttl(filling) <= FILLING_MS
    await server.redis.pexpire(filling, 100)

    await other.hints.add_refill(LANE, "second", packed((1, 4)))
    assert await server.redis.pttl(filling) <= 100
    await server.hints.add_refill(LANE, "first", packed((2, 4)))

    assert 100 < await server.redis.pttl(filling) <= FILLING_MS


async def test_a_refill_whose_server_is_silent_is_begun_by_another_and_loses_nothing(
    server: Server, other: Server
) -> None:
    """The second to end finds no announcement of its own: a push was left out, and it must not end the mark."""
    await server.hints.begin_refill(LANE, "first")
    await server.redis.delete(f"{server.prefix}filling:{LANE:08x}")
    assert await other.hints.begin_refill(LANE, "second")
    await other.hints.end_refill(LANE, "second", whole=False)
    await server.push((1, 4))

    await server.hints.end_refill(LANE, "first", whole=True)

    assert (await server.ready(), set(await server.partial())) == ([], {LANE})


async def test_a_late_end_is_not_taken_for_the_end_of_another_refill(server: Server, other: Server) -> None:
    """As above, and the other server has begun anew: what was left out is not in the late one's reading."""
    await server.hints.begin_refill(LANE, "first")
    await server.redis.delete(f"{server.prefix}filling:{LANE:08x}")
    await other.hints.begin_refill(LANE, "second")
    await other.hints.end_refill(LANE, "second", whole=False)
    await server.push((1, 4))
    await other.hints.begin_refill(LANE, "third")

    await server.hints.end_refill(LANE, "first", whole=True)
    await other.hints.add_refill(LANE, "third", packed((1, 4)))
    await other.hints.end_refill(LANE, "third", whole=True)

    whole = LANE not in await server.partial()
    assert not whole or taken(await server.take(2, (5, b"12"))) == [1]


async def test_a_late_end_that_cuts_what_another_refill_added_spoils_it(server: Server, other: Server) -> None:
    """What is behind the window when the late one ends is gone, though the other one counts on it."""
    await server.hints.begin_refill(LANE, "late")
    await server.redis.delete(f"{server.prefix}filling:{LANE:08x}")
    await server.hints.add_refill(LANE, "late", packed(*((number, 9) for number in range(10))))
    await other.hints.begin_refill(LANE, "other")
    await other.hints.add_refill(LANE, "other", packed(*((number, 4) for number in range(20, 24))))

    await server.hints.end_refill(LANE, "late", whole=False)
    taken(await server.take(2, (10, b"12")))
    await other.hints.end_refill(LANE, "other", whole=True)

    assert (await server.ready(), set(await server.partial())) == ([], {LANE})


async def test_a_refill_that_cannot_read_postgres_is_done_as_soon_as_it_can(server: Server, database: str) -> None:
    async with engine_on(database) as engine:
        job_id = await engine.submit()
        lane = (await engine.job(job_id))["lane_id"]
        await server.hints.mark([lane], set_epoch=False)
        link = Link(engine.core.clock, server.hints, engine.lanes, engine.core.repairs, address="")
        link.up = True
        refill = Refill(replace(engine.core, hints=server.hints, link=link))
        await refill.run_once()
        refill.ask([(lane, "generation")])
        await engine.sql("ALTER TABLE jobs RENAME TO gone")

        with pytest.raises(asyncpg.UndefinedTableError):
            await refill.run_once()

        assert not await server.redis.exists(f"{server.prefix}filling:{lane:08x}")
        await engine.sql("ALTER TABLE gone RENAME TO jobs")
        await refill.run_once()
        assert (await server.ready(lane), lane in await server.partial()) == ([job_id], False)
