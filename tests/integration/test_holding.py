"""How long a batch waits for workers: only for those that end jobs right now, and never for long."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from orqestra._dispatch import Matcher
from orqestra.engine.holding import (
    FEW_JOBS,
    JUDGE_SECONDS,
    LEAST_JOBS,
    LOOK_SECONDS,
    MOST_SECONDS,
    REST,
    WINDOWS,
    Holding,
)
from orqestra.service import Service
from orqestra.store.submitting import Batch, PlacedJob
from tests.support.clock import ManualClock
from tests.support.engine import Engine, noop

pytestmark = pytest.mark.asyncio(loop_scope="module")

LANE, OTHER = 1, 2
WORKER = 1
SLOTS = 2 * LEAST_JOBS


class Step(Service):
    """What the batch waits in."""

    async def run_once(self) -> float | None:
        raise AssertionError("no test takes a step")


class Scene:
    """A worker on a lane where nothing waits, and a clock that the test moves."""

    def __init__(self, engine: Engine) -> None:
        self.clock = ManualClock()
        self.matcher = Matcher()
        self.relay = engine.relay
        self.service = Step("step", self.clock)
        self.holding = Holding(self.service, self.matcher, engine.relay)
        for lane, queue in ((LANE, "a"), (OTHER, "b")):
            self.matcher.set_lane(lane, queue, [])
        self.matcher.open_session(WORKER, SLOTS, ["a", "b"], [])
        self.found_empty()

    @property
    def now_ms(self) -> int:
        return int(self.clock.monotonic() * 1000)

    def found_empty(self) -> None:
        self.matcher.demand(self.now_ms)
        self.matcher.found_empty([LANE, OTHER])

    def give(self, jobs: int) -> None:
        """Give the worker jobs."""
        assert len(self.matcher.direct(LANE, jobs, self.now_ms)) == jobs

    def end(self, jobs: int) -> None:
        """Let the worker end some of them."""
        self.matcher.finished([WORKER] * jobs, self.now_ms)

    async def hold(
        self, jobs: int, each_look: Callable[[], None] = lambda: None, lanes: tuple[int, ...] = (LANE,)
    ) -> float:
        """Hold a batch, with something that happens before each look; return for how long it was."""
        kinds = [PlacedJob(spec=noop(), lane_id=lane) for lane in lanes]
        batch = Batch(kinds=kinds, kind_of=[1] * jobs, payloads=[b""] * jobs)
        began = self.clock.monotonic()
        held = asyncio.create_task(self.holding.hold(batch))
        async with asyncio.timeout(30):
            while True:
                looking = asyncio.create_task(self.clock.waiting())
                await asyncio.wait((held, looking), return_when=asyncio.FIRST_COMPLETED)
                looking.cancel()
                if held.done():
                    held.result()
                    return self.clock.monotonic() - began
                each_look()
                await self.clock.advance(LOOK_SECONDS)


@pytest_asyncio.fixture(loop_scope="module")
async def scene(engine: Engine) -> AsyncIterator[Scene]:
    yield Scene(engine)
    while not engine.relay.is_idle:
        await engine.relay.run_once()


async def test_where_everybody_is_free_nothing_waits(scene: Scene) -> None:
    assert await scene.hold(SLOTS) == 0


async def test_where_nothing_ends_nothing_waits(scene: Scene) -> None:
    scene.give(SLOTS)

    assert await scene.hold(LEAST_JOBS) == 0


@pytest.mark.parametrize(("jobs", "lanes"), [(LEAST_JOBS - 1, (LANE,)), (LEAST_JOBS, (LANE, OTHER))])
async def test_few_jobs_and_those_of_several_lanes_never_wait(scene: Scene, jobs: int, lanes: tuple[int, ...]) -> None:
    scene.give(SLOTS)
    scene.end(1)

    assert await scene.hold(jobs, lanes=lanes) == 0


async def test_a_batch_waits_for_slots_that_are_about_to_fall_free(scene: Scene) -> None:
    scene.give(SLOTS)
    scene.end(32)

    # Each job that ends is one slot, and two more as prefetch.
    seconds = await scene.hold(LEAST_JOBS, lambda: scene.end(32))

    assert seconds == pytest.approx(2 * LOOK_SECONDS)
    free, *_ = scene.matcher.room(LANE, scene.now_ms)
    assert free == 3 * 3 * 32 >= LEAST_JOBS


async def test_a_batch_waits_for_what_came_before_it(scene: Scene) -> None:
    scene.give(LEAST_JOBS)
    scene.end(LEAST_JOBS)
    scene.matcher.wake([LANE])
    looks = iter(range(5))

    def pass_on() -> None:
        if next(looks) == 3:
            scene.found_empty()

    assert await scene.hold(LEAST_JOBS, pass_on) == pytest.approx(4 * LOOK_SECONDS)


async def test_a_batch_waits_for_a_hint_of_this_server_that_is_on_its_way(scene: Scene) -> None:
    scene.give(LEAST_JOBS)
    scene.end(1)
    scene.relay.look_for_own()
    assert not scene.relay.is_idle

    seconds = await scene.hold(LEAST_JOBS, lambda: scene.end(8))

    assert seconds >= JUDGE_SECONDS


async def test_where_nobody_has_anything_left_there_is_nothing_to_wait_for(scene: Scene) -> None:
    scene.give(10)
    scene.end(10)

    assert await scene.hold(2 * SLOTS) == 0


async def test_a_try_in_vain_is_short_and_not_made_again_for_a_while(scene: Scene) -> None:
    scene.give(SLOTS)
    scene.end(1)

    took = await scene.hold(LEAST_JOBS)

    assert took == pytest.approx(JUDGE_SECONDS, abs=LOOK_SECONDS)
    assert await scene.hold(LEAST_JOBS) == 0
    await scene.clock.advance(REST * took + LOOK_SECONDS)
    scene.end(1)
    assert await scene.hold(LEAST_JOBS) > 0


async def test_behind_more_than_workers_take_soon_no_batch_waits(scene: Scene) -> None:
    scene.give(SLOTS)
    scene.end(SLOTS // 2)
    scene.matcher.wake([LANE])
    scene.holding.stored(WINDOWS * SLOTS // 2 + FEW_JOBS)

    assert await scene.hold(LEAST_JOBS) == 0


async def test_what_was_stored_before_counts_until_it_is_assigned(scene: Scene) -> None:
    scene.give(SLOTS)
    scene.end(SLOTS // 2)
    scene.matcher.wake([LANE])
    scene.holding.stored(FEW_JOBS + SLOTS - LEAST_JOBS)
    hints = b"".join(b"%08x5%016x" % (LANE, job_id) for job_id in range(SLOTS))

    taken = len(scene.matcher.assign(0, hints).ids)

    assert taken == SLOTS
    scene.end(1)
    assert await scene.hold(LEAST_JOBS, scene.found_empty) > 0


async def test_once_nothing_waits_what_was_stored_before_is_forgotten(scene: Scene) -> None:
    scene.holding.stored(10 * FEW_JOBS)
    assert await scene.hold(LEAST_JOBS) == 0
    scene.give(1)
    scene.end(1)
    scene.matcher.wake([LANE])

    assert await scene.hold(LEAST_JOBS, scene.found_empty) > 0


async def test_it_goes_on_while_workers_get_faster(scene: Scene) -> None:
    scene.give(SLOTS)
    scene.end(1)
    faster = iter([1] * 13 + [4] * 13 + [16] * 100)

    seconds = await scene.hold(SLOTS, lambda: scene.end(next(faster)))

    assert 2 * JUDGE_SECONDS < seconds < MOST_SECONDS
    assert scene.matcher.room(LANE, scene.now_ms)[0] >= SLOTS


async def test_no_batch_waits_for_long(scene: Scene) -> None:
    scene.give(SLOTS)
    scene.end(LEAST_JOBS)
    scene.matcher.wake([LANE])

    def go_on() -> None:
        scene.end(20)
        scene.matcher.hold(WORKER, 20)

    assert await scene.hold(LEAST_JOBS, go_on) == pytest.approx(MOST_SECONDS, abs=2 * JUDGE_SECONDS)


async def test_a_server_that_stops_holds_nothing(scene: Scene) -> None:
    scene.give(SLOTS)
    scene.end(1)
    await scene.service.stop()

    assert await scene.hold(LEAST_JOBS) == 0
