"""The scripts in Redis, 1000 hints a call, beside the plain commands that move as many members.

In the full set Redis holds a million hints meanwhile, which is all that it ever holds.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measuring import Beside, Load, compare, timed
from orqestra._dispatch import Demand, Push, outbox
from orqestra.embedded.redis import EmbeddedRedis
from orqestra.queue.connection import connect
from orqestra.queue.hints import DELAYED_HINTS, READY_HINTS, Hints
from tests.support.hints import Ask
from tests.support.server import settings_for

HINTS: Final = 1000
NAMESPACE: Final = "bench"
PREFIX: Final = f"{{{NAMESPACE}}}:"
NOW_MS: Final = 1_700_000_000_000
DUE_MS: Final = NOW_MS + 60_000
PRIORITY: Final = 4
SCORE: Final = 9 - PRIORITY
HINT_BYTES: Final = 25
BARE_KEY: Final = f"{PREFIX}bare"
PARTIAL: Final = f"{PREFIX}partial"
PROCESSING: Final = f"{PREFIX}processing"
ONE_LANE: Final = (1,)
TWENTY_LANES: Final = tuple(range(1, 21))
# Those of the full set, which nothing is taken from.
STANDING_LANES: Final = tuple(range(1001, 1101))
LANES: Final = {"1 lane": ONE_LANE, "20 lanes": TWENTY_LANES}
# Those that a rebuild marks.
MANY_LANES: Final = tuple(range(2001, 3001))
LOAD: Final = Load(unit="hints", count=HINTS, rounds=50)
# A take that was forgotten long ago.
FORGOTTEN: Final = "gone:1"
LONG_AGO: Final = b"1|"


@dataclass(frozen=True, kw_only=True)
class Queue:
    """The hints of one server, the bare connection below, and the loop that they run in."""

    runner: asyncio.Runner
    hints: Hints
    redis: Any
    numbers: "itertools.count[int]"

    def fresh(self, lanes: Sequence[int]) -> Push:
        """Return a push of hints that Redis has not seen, spread over lanes."""
        [push] = self.pushes(lanes, HINTS)
        return push

    def pushes(self, lanes: Sequence[int], count: int, due_ms: int = 0) -> list[Push]:
        """Return the pushes of so many new hints."""
        ids = list(itertools.islice(self.numbers, count))
        spread = [lanes[at % len(lanes)] for at in range(count)]
        return outbox.drain([outbox.encode(ids, spread, [PRIORITY] * count, [due_ms] * count)], NOW_MS)

    def push(self, push: Push) -> None:
        assert self.runner.run(self.hints.push(push, NOW_MS))

    def take(self, lanes: Sequence[int]) -> None:
        """Take as many hints as are pushed at once; what the take before gave is done."""
        number = next(self.numbers)
        demands = [cast(Demand, Ask(HINTS, ",".join(map(str, lanes)).encode()))]
        take = self.runner.run(self.hints.take(number, NOW_MS, done=[number - 1], demands=demands))
        assert take is not None and len(take.hints[0]) == HINTS * HINT_BYTES

    def refill(self, push: Push) -> None:
        """Refill a partial lane."""

        async def phases() -> None:
            [lane] = push.lanes
            assert await self.hints.begin_refill(lane, "bench")
            assert await self.hints.add_refill(lane, "bench", push.ready)
            assert await self.hints.end_refill(lane, "bench", whole=True)

        self.runner.run(phases())

    def audit(self, push: Push) -> None:
        """Look for hints of which none is missing."""
        [lane] = push.lanes
        assert self.runner.run(self.hints.audit(lane, push.ready)) == 0

    def mark(self, lanes: Sequence[int]) -> None:
        """Mark lanes partial."""
        self.runner.run(self.hints.mark(lanes, set_epoch=False))

    def recover(self, _: object) -> None:
        """Push back what was forgotten."""
        assert self.runner.run(self.hints.recover()) == HINTS

    def forget(self, push: Push) -> None:
        """Remove the hints of a push."""
        self.runner.run(self.hints.forget(push.ready))

    def commands(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send plain commands in one go and return the answers."""

        async def send() -> list[Any]:
            pipeline = self.redis.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return cast(list[Any], await pipeline.execute())

        return self.runner.run(send())

    def clear(self, lanes: Sequence[int]) -> None:
        """Empty the lanes, none of which is partial then, and the bare keys."""
        keys = (*map(key, lanes), *map(bare_key, lanes))
        self.commands([["DEL", PARTIAL, BARE_KEY, *keys]])


@pytest.fixture(scope="module")
def redis_server(runner: asyncio.Runner, directory: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(directory / "redis")
    runner.run(server.start())
    yield server
    runner.run(server.stop())


@pytest.fixture(scope="module")
def queue(runner: asyncio.Runner, redis_server: EmbeddedRedis) -> Iterator[Queue]:
    redis = connect(settings_for("postgresql://nowhere/none", redis_server.address, NAMESPACE))
    hints = Hints(redis, namespace=NAMESPACE, boot_id="bench", window=READY_HINTS)
    runner.run(hints.mark([], set_epoch=True))
    yield Queue(runner=runner, hints=hints, redis=redis, numbers=itertools.count(1))
    runner.run(redis.aclose())


@pytest.fixture(scope="module")
def full_queue(queue: Queue) -> Queue:
    """The queue with a million hints that stay."""
    queue.hints.share(len(STANDING_LANES))
    for count, due_ms in ((READY_HINTS, 0), (DELAYED_HINTS, DUE_MS)):
        for push in queue.pushes(STANDING_LANES, count, due_ms):
            queue.push(push)
    return queue


@pytest.mark.benchmark(group="hints")
@pytest.mark.parametrize("lanes", LANES)
def test_push(benchmark: BenchmarkFixture, queue: Queue, lanes: str) -> None:
    compare_push(benchmark, queue, LANES[lanes])


@pytest.mark.benchmark(group="hints")
@pytest.mark.parametrize("lanes", LANES)
def test_take(benchmark: BenchmarkFixture, queue: Queue, lanes: str) -> None:
    compare_take(benchmark, queue, LANES[lanes])


@pytest.mark.benchmark(group="hints")
def test_refill(benchmark: BenchmarkFixture, queue: Queue) -> None:
    def prepare() -> Push:
        queue.clear(ONE_LANE)
        queue.mark(ONE_LANE)
        return queue.fresh(ONE_LANE)

    def bare() -> list[list[Any]]:
        push = queue.fresh(ONE_LANE)
        return [["SET", BARE_KEY, "1", "PX", 1000], *adds(push), ["DEL", BARE_KEY]]

    compare(benchmark, LOAD, Beside(what="SET, ZADD, DEL", seconds=seconds_of(queue, bare)), queue.refill, prepare)


@pytest.mark.benchmark(group="hints")
def test_audit(benchmark: BenchmarkFixture, queue: Queue) -> None:
    queue.clear(ONE_LANE)
    known = queue.fresh(ONE_LANE)
    queue.push(known)
    queue.commands(adds(known))
    members = [member for _, member in entries(known)]

    def bare() -> list[list[Any]]:
        return [["ZMSCORE", bare_key(*ONE_LANE), *members]]

    compare(benchmark, LOAD, Beside(what="ZMSCORE", seconds=seconds_of(queue, bare)), queue.audit, lambda: known)


@pytest.mark.benchmark(group="hints")
def test_mark(benchmark: BenchmarkFixture, queue: Queue) -> None:
    def prepare() -> Sequence[int]:
        queue.clear(ONE_LANE)
        return MANY_LANES

    def bare() -> list[list[Any]]:
        return [["HSET", BARE_KEY, *itertools.chain.from_iterable((f"{lane:08x}", "1") for lane in MANY_LANES)]]

    load = Load(unit="lanes", count=len(MANY_LANES), rounds=50)
    compare(benchmark, load, Beside(what="HSET", seconds=seconds_of(queue, bare)), queue.mark, prepare)
    assert queue.commands([["HLEN", PARTIAL]]) == [len(MANY_LANES)]
    queue.clear(ONE_LANE)


@pytest.mark.benchmark(group="hints")
def test_recover(benchmark: BenchmarkFixture, queue: Queue) -> None:
    def prepare() -> None:
        queue.clear(ONE_LANE)
        taken = LONG_AGO + queue.fresh(ONE_LANE).ready
        queue.commands([["DEL", PROCESSING], *(["HSET", each, FORGOTTEN, taken] for each in (PROCESSING, BARE_KEY))])

    def bare() -> list[list[Any]]:
        return [*adds(queue.fresh(ONE_LANE)), ["HDEL", BARE_KEY, FORGOTTEN]]

    compare(benchmark, LOAD, Beside(what="ZADD, HDEL", seconds=seconds_of(queue, bare)), queue.recover, prepare)


@pytest.mark.benchmark(group="hints")
def test_forget(benchmark: BenchmarkFixture, queue: Queue) -> None:
    known = queue.fresh(ONE_LANE)
    members = [member for _, member in entries(known)]

    def prepare() -> Push:
        queue.clear(ONE_LANE)
        queue.push(known)
        queue.commands(adds(known))
        return known

    def bare() -> list[list[Any]]:
        return [["ZREM", bare_key(*ONE_LANE), *members]]

    compare(benchmark, LOAD, Beside(what="ZREM", seconds=seconds_of(queue, bare)), queue.forget, prepare)
    assert queue.commands([["EXISTS", key(*ONE_LANE), bare_key(*ONE_LANE)]]) == [0]


@pytest.mark.benchmark(group="hints")
@pytest.mark.parametrize("lanes", LANES)
def test_trim(benchmark: BenchmarkFixture, queue: Queue, lanes: str) -> None:
    chosen = LANES[lanes]
    narrow = Hints(queue.redis, namespace=NAMESPACE, boot_id="bench", window=HINTS // len(chosen))

    def trim(lanes: Sequence[int]) -> None:
        assert queue.runner.run(narrow.trim(lanes)) == HINTS

    def prepare() -> Sequence[int]:
        queue.clear(chosen)
        for _ in range(2):
            queue.push(queue.fresh(chosen))
            queue.commands(adds(queue.fresh(chosen)))
        return chosen

    def bare() -> list[list[Any]]:
        return [["ZREMRANGEBYRANK", bare_key(lane), narrow.window, -1] for lane in chosen]

    load = Load(unit="hints", count=HINTS, rounds=20)
    compare(benchmark, load, Beside(what="ZREMRANGEBYRANK", seconds=seconds_of(queue, bare)), trim, prepare)
    queue.clear(chosen)


@pytest.mark.full
@pytest.mark.benchmark(group="hints, 1,000,000 in Redis")
@pytest.mark.parametrize("lanes", LANES)
def test_push_among_many(benchmark: BenchmarkFixture, full_queue: Queue, lanes: str) -> None:
    compare_push(benchmark, full_queue, LANES[lanes])


@pytest.mark.full
@pytest.mark.benchmark(group="hints, 1,000,000 in Redis")
@pytest.mark.parametrize("lanes", LANES)
def test_take_among_many(benchmark: BenchmarkFixture, full_queue: Queue, lanes: str) -> None:
    compare_take(benchmark, full_queue, LANES[lanes])


def compare_push(benchmark: BenchmarkFixture, queue: Queue, lanes: Sequence[int]) -> None:
    def prepare() -> Push:
        queue.clear(lanes)
        return queue.fresh(lanes)

    beside = Beside(what="ZADD", seconds=seconds_of(queue, lambda: adds(queue.fresh(lanes))))
    compare(benchmark, LOAD, beside, queue.push, prepare)


def compare_take(benchmark: BenchmarkFixture, queue: Queue, lanes: Sequence[int]) -> None:
    def prepare() -> Sequence[int]:
        queue.clear(lanes)
        queue.push(queue.fresh(lanes))
        queue.commands(adds(queue.fresh(lanes)))
        return lanes

    def bare() -> list[list[Any]]:
        return [["ZPOPMIN", bare_key(lane), HINTS // len(lanes)] for lane in lanes]

    compare(benchmark, LOAD, Beside(what="ZPOPMIN", seconds=seconds_of(queue, bare)), queue.take, prepare)


def seconds_of(queue: Queue, commands: Callable[[], list[list[Any]]]) -> Callable[[], float]:
    """Return what times commands, which are made outside of the time."""

    def seconds() -> float:
        ready = commands()
        return timed(lambda: queue.commands(ready))

    return seconds


def adds(push: Push) -> list[list[Any]]:
    """Return the plain commands that add the hints of a push to bare keys."""
    commands: dict[int, list[Any]] = {lane: ["ZADD", bare_key(lane)] for lane in push.lanes}
    for lane, member in entries(push):
        commands[lane] += [SCORE, member]
    return list(commands.values())


def entries(push: Push) -> Iterator[tuple[int, bytes]]:
    """Yield the lane and the member of each hint of a push."""
    for at in range(0, len(push.ready), HINT_BYTES):
        yield int(push.ready[at : at + 8], 16), push.ready[at + 9 : at + HINT_BYTES]


def key(lane: int) -> str:
    return f"{PREFIX}ready:{lane:08x}"


def bare_key(lane: int) -> str:
    return f"{BARE_KEY}:{lane}"
