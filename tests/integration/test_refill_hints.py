"""Refills of partial lanes on a real Redis: they converge, and end a mark only if nothing was left out."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

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
    assert 0 < await server.redis.pttl(f"{server.prefix}filling:{LANE:08x}") <= 5000
    await server.redis.delete(f"{server.prefix}filling:{LANE:08x}")

    await server.push((1, 4))
    await server.hints.end_refill(LANE, generation, whole=True)

    assert (await server.ready(), set(await server.partial())) == ([], {LANE})


async def test_two_servers_that_refill_one_lane_lose_nothing(server: Server, other: Server) -> None:
    """The first to end takes the announcement away: a push is left out, and the second must not end the mark."""
    generation = await reported(server)
    await server.hints.begin_refill(LANE, generation)
    await other.hints.begin_refill(LANE, generation)
    await other.hints.end_refill(LANE, generation, whole=False)
    await server.push((1, 4))

    await server.hints.end_refill(LANE, generation, whole=True)

    assert (await server.ready(), set(await server.partial())) == ([], {LANE})


async def test_a_late_end_is_not_taken_for_the_end_of_another_refill(server: Server, other: Server) -> None:
    """As above, and the other server has begun anew: what was left out is not in the late one's reading."""
    generation = await reported(server)
    await server.hints.begin_refill(LANE, generation)
    await other.hints.begin_refill(LANE, generation)
    await other.hints.end_refill(LANE, generation, whole=False)
    await server.push((1, 4))
    newer = await reported(other)
    await other.hints.begin_refill(LANE, newer)

    await server.hints.end_refill(LANE, generation, whole=True)
    await other.hints.add_refill(LANE, newer, packed((1, 4)))
    await other.hints.end_refill(LANE, newer, whole=True)

    whole = LANE not in await server.partial()
    assert not whole or taken(await server.take(2, (5, b"12"))) == [1]
