"""The Lua scripts on a real Redis: push, take, recover, forget. Each is idempotent and bounded."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from orqestra.model.errors import HintsUnavailable
from orqestra.queue.hints import HORIZON_MS, Cancelled, Changed, Hints, Wake
from tests.support.hints import LANE, NOW_MS, Server, packed, pushes, server_on, taken

ALL = (100, b"12")


@pytest_asyncio.fixture
async def server(redis_url: str, redis_namespace: str) -> AsyncIterator[Server]:
    async with server_on(redis_url, redis_namespace) as one:
        await one.begin()
        yield one


@pytest_asyncio.fixture
async def other(redis_url: str, redis_namespace: str) -> AsyncIterator[Server]:
    async with server_on(redis_url, redis_namespace, boot_id="two") as two:
        yield two


# Push


async def test_a_push_twice_is_one_hint(server: Server) -> None:
    for _ in range(3):
        assert await server.push((1, 4), (2, 4))

    assert await server.ready() == [1, 2]
    assert await server.partial() == {}


async def test_hints_stand_by_priority_then_by_id(server: Server) -> None:
    await server.push((5, 4), (2**62, 9), (7, 9), (1, 0), (3, 4), (0xABCDEF, 4))

    assert await server.ready() == [7, 2**62, 3, 5, 0xABCDEF, 1]
    assert taken(await server.take(1, ALL)) == [7, 2**62, 3, 5, 0xABCDEF, 1]


async def test_beyond_the_window_the_worst_fall_out_and_the_lane_is_partial(server: Server) -> None:
    await server.push(*((number, 4) for number in range(10)))
    assert await server.partial() == {}

    await server.push((20, 9), (21, 0))

    assert await server.ready() == [20, *range(9)]
    assert set(await server.partial()) == {LANE}


async def test_a_partial_lane_takes_only_what_is_better_than_its_worst(server: Server) -> None:
    await server.push((10, 4), (11, 4))
    await server.hints.mark([LANE], set_epoch=False)
    [before] = (await server.partial()).values()

    await server.push((9, 4), (12, 4), (13, 9), (14, 0))

    assert await server.ready() == [13, 9, 10, 11]
    assert (await server.partial())[LANE] != before


async def test_an_empty_partial_lane_takes_nothing(server: Server) -> None:
    await server.hints.mark([LANE], set_epoch=False)

    assert await server.push((1, 9))

    assert await server.ready() == []


async def test_a_push_of_what_a_partial_lane_has_does_not_move_its_generation(server: Server) -> None:
    await server.push((1, 4), (2, 4))
    await server.hints.mark([LANE], set_epoch=False)
    before = await server.partial()

    await server.push((1, 4))

    assert (await server.ready(), await server.partial()) == ([1, 2], before)


async def test_a_thousand_hints_over_many_lanes_fit_one_push(redis_url: str, redis_namespace: str) -> None:
    async with server_on(redis_url, redis_namespace, window=1000) as server:
        await server.begin()
        await server.push(*((number, number % 10) for number in range(1000)))
        await server.push(*((number, 4) for number in range(1000)), due_ms=NOW_MS + 1)

        assert len(await server.ready()) == 1000
        assert len(await server.delayed()) == 1000
        assert len(taken(await server.take(1, (1000, b"12")))) == 1000
        assert len((await server.take(2, now_ms=NOW_MS + 1)).promoted) == 1


async def test_delayed_hints_wait_by_their_time_and_distant_ones_are_left_to_postgres(server: Server) -> None:
    await server.push((1, 4), due_ms=NOW_MS + HORIZON_MS)
    await server.push((2, 4), due_ms=NOW_MS + HORIZON_MS + 1)
    await server.push((3, 4), due_ms=NOW_MS + 500)

    assert await server.delayed() == {1: NOW_MS + HORIZON_MS, 3: NOW_MS + 500}
    await server.push((3, 4), due_ms=NOW_MS + 900)
    assert (await server.delayed())[3] == NOW_MS + 900
    assert await server.ready() == []


# Take


async def test_a_take_keeps_to_its_budget(server: Server) -> None:
    await server.push(*((number, 4) for number in range(8)))

    assert taken(await server.take(1, (3, b"12"))) == [0, 1, 2]
    assert taken(await server.take(2, (0, b"12"))) == []
    assert taken(await server.take(3, (100, b"12"))) == [3, 4, 5, 6, 7]
    assert await server.ready() == []


async def test_the_same_number_again_gives_the_same_hints(server: Server) -> None:
    await server.push((1, 4), (2, 4), (3, 4))
    asks = [(1, b"12"), (5, b"99"), (1, b"12"), (5, b"98;97")]

    first = await server.take(1, *asks)
    await server.push((4, 9))
    again = await server.take(1, *asks)

    assert [taken(first, profile) for profile in range(4)] == [[1], [], [2], []]
    assert again.hints == first.hints
    assert await server.ready() == [4, 3]
    assert taken(await server.take(2, (1, b"12"))) == [4]


@pytest.mark.parametrize("asks", [[(5, b"99"), (5, b"12")], [(5, b"12"), (5, b"99")], [(5, b"12")]])
async def test_empty_profiles_keep_their_place_when_asked_again(server: Server, asks: list[tuple[int, bytes]]) -> None:
    await server.push((1, 4))

    first = await server.take(1, *asks)

    assert (await server.take(1, *asks)).hints == first.hints
    assert len(first.hints) == len(asks)


async def test_a_take_without_demand_still_promotes_and_tells_when_next(server: Server) -> None:
    await server.push((1, 4), due_ms=NOW_MS + 10)
    await server.push((2, 4), due_ms=NOW_MS + 30)

    take = await server.take(1, now_ms=NOW_MS + 10)

    assert (take.hints, take.promoted, take.next_due_ms) == ((), (LANE,), NOW_MS + 30)
    assert (await server.ready(), await server.processing()) == ([1], {})


async def test_what_is_due_is_promoted_before_it_is_taken_and_not_a_moment_earlier(server: Server) -> None:
    await server.push((1, 4))
    await server.push((2, 9), due_ms=NOW_MS + 500)

    early = await server.take(1, (1, b"12"), now_ms=NOW_MS + 499)
    assert (taken(early), early.promoted, early.next_due_ms) == ([1], (), NOW_MS + 500)
    due = await server.take(2, (1, b"12"), now_ms=NOW_MS + 500)
    assert (taken(due), due.promoted, due.next_due_ms) == ([2], (LANE,), None)
    assert await server.delayed() == {}


async def test_done_takes_are_forgotten_and_others_kept(server: Server) -> None:
    await server.push(*((number, 4) for number in range(4)))
    await server.take(1, (1, b"12"))
    await server.take(2, (1, b"12"), done=[])

    await server.take(3, (1, b"12"), done=[1])

    assert set(await server.processing()) == {"one:2", "one:3"}
    await server.take(4, done=[2, 3])
    assert await server.processing() == {}


async def test_queues_take_turns_whatever_their_priorities(server: Server) -> None:
    await server.push((1, 0), (2, 0), (3, 0), lane=1)
    await server.push((11, 9), (12, 9), (13, 9), lane=2)

    assert taken(await server.take(1, (4, b"1;2"))) == [1, 11, 2, 12]
    assert taken(await server.take(2, (4, b"2;1"))) == [13, 3]


async def test_the_lanes_of_one_queue_are_one_line_by_priority(server: Server) -> None:
    await server.push((5, 4), (6, 1), lane=1)
    await server.push((1, 4), (2, 9), (3, 1), lane=2)

    # Of equal priority the lane named first comes first, since it is its turn.
    assert taken(await server.take(1, (9, b"1,2"))) == [2, 5, 1, 6, 3]


async def test_profiles_that_share_a_lane_share_its_hints(server: Server) -> None:
    await server.push((1, 4), (2, 4), (3, 4))

    take = await server.take(1, (2, b"12"), (2, b"12"))

    assert (taken(take, 0), taken(take, 1)) == ([1, 2], [3])


async def test_empty_lanes_and_low_partial_lanes_are_reported(server: Server) -> None:
    await server.push((1, 4), lane=1)
    await server.push((1, 4), (2, 4), (3, 4), lane=2)
    await server.push((1, 4), (2, 4), (3, 4), (4, 4), lane=3)
    await server.hints.mark([1, 2, 3], set_epoch=False)
    generations = await server.partial()

    take = await server.take(1, (3, b"1;2;3"))

    # A quarter of the window is two hints: lane 2 keeps two, lane 3 three.
    assert take.empty == (1,)
    assert take.partial == ((1, generations[1]),)
    second = await server.take(2, (1, b"2"))
    assert second.partial == ((2, generations[2]),)


async def test_without_an_epoch_nothing_is_done(server: Server) -> None:
    await server.push((1, 4))
    await server.redis.delete(f"{server.prefix}epoch")

    assert not await server.push((2, 4))
    assert await server.hints.take(1, NOW_MS, done=[], demands=[]) is None
    assert not await server.hints.begin_refill(LANE, "1")
    assert await server.hints.recover() == 0

    await server.begin(LANE)
    assert await server.ready() == [1]
    assert set(await server.partial()) == {LANE}


# Recover and forget


async def test_a_forgotten_take_is_pushed_back(server: Server, other: Server) -> None:
    await server.push((1, 4), (2, 9), lane=1)
    await server.push((3, 4), lane=2)
    await server.take(1, (1, b"1"), (5, b"9"), (5, b"1;2"))
    await server.push((4, 4), lane=1)
    await server.take(2, (5, b"1"))

    assert await other.hints.recover() == 0
    await server.forget_time("one:1", 2100)
    assert await other.hints.recover() == 3

    assert (await server.ready(1), await server.ready(2)) == ([2, 1], [3])
    assert set(await server.processing()) == {"one:2"}
    assert await other.hints.recover() == 0


async def test_a_take_asked_again_after_it_was_recovered_gives_each_hint_once(server: Server, other: Server) -> None:
    await server.push((1, 4))
    await server.take(1, ALL)
    await server.forget_time("one:1", 2100)
    await other.hints.recover()

    assert taken(await other.take(1, ALL)) == [1]
    assert taken(await server.take(1, ALL)) == []


async def test_the_hints_of_cancelled_jobs_are_removed(server: Server) -> None:
    await server.push((1, 4), (2, 4))
    await server.push((3, 7), due_ms=NOW_MS + 1000)

    await server.hints.forget(packed((1, 4), (3, 7), (99, 4)))

    assert (await server.ready(), await server.delayed()) == ([2], {})


# The service


async def test_a_script_that_redis_has_forgotten_is_loaded_again(server: Server) -> None:
    await server.push((1, 4))
    await server.redis.script_flush()

    assert taken(await server.take(1, ALL)) == [1]
    assert await server.push((2, 4))


async def test_namespaces_do_not_see_each_other(server: Server, redis_url: str) -> None:
    await server.push((1, 4))
    async with server_on(redis_url, "elsewhere") as elsewhere:
        await elsewhere.begin()
        assert taken(await elsewhere.take(1, ALL)) == []


async def test_a_redis_that_is_not_there_is_one_error(redis_namespace: str) -> None:
    async with server_on("127.0.0.1:1", redis_namespace) as nowhere:
        for call in (nowhere.push((1, 4)), nowhere.hints.recover(), nowhere.hints.publish_changed([1])):
            with pytest.raises(HintsUnavailable, match="Redis does not serve"):
                await call


async def test_servers_hear_each_other_and_not_themselves(server: Server, other: Server) -> None:
    heard: list[object] = []
    subscribed = asyncio.Event()

    async def listen(hints: Hints) -> None:
        async for message in hints.messages(changes=True):
            subscribed.set()
            if message is not None:
                heard.append(message)
                if isinstance(message, Changed):
                    return

    async with asyncio.timeout(10):
        task = asyncio.create_task(listen(other.hints))
        await subscribed.wait()
        await other.push((9, 4), lane=9)
        await server.push((1, 4), lane=1)
        await server.hints.push(pushes([(2, 4)], lane=2, due_ms=NOW_MS + 1)[0], NOW_MS)
        await server.take(1, now_ms=NOW_MS + 1)
        await server.hints.publish_cancel([5, 6])
        await other.hints.publish_changed([8])
        await server.hints.publish_changed([7])
        await task

    assert heard == [Wake(lanes=(1,)), Wake(lanes=()), Wake(lanes=(2,)), Cancelled(ids=(5, 6)), Changed(ids=(7,))]


async def test_what_an_audit_or_a_recovery_brings_is_news_to_its_own_server_too(server: Server) -> None:
    """A push is not: whoever hands it over knows its lanes. Direct match has to, or it passes what was found."""
    subscribed, heard = asyncio.Event(), asyncio.Event()

    async def listen() -> None:
        async for message in server.hints.messages(changes=False):
            subscribed.set()
            if message is not None:
                assert message == Wake(lanes=(LANE,))
                heard.set()

    async with asyncio.timeout(10):
        listening = asyncio.create_task(listen())
        await subscribed.wait()

        await server.hints.audit(LANE, packed((1, 4)))
        await heard.wait()

        heard.clear()
        await server.take(1, ALL)
        await server.forget_time("one:1", 2100)
        assert await server.hints.recover() == 1
        await heard.wait()
        listening.cancel()
