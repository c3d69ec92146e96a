"""A service loops, wakes, survives its steps, and stops in time."""

import asyncio

import pytest

from orqestra.service import CANCEL_SECONDS, IDLE_SECONDS, ServiceGroup
from tests.support.clock import ManualClock
from tests.support.services import Recorder, fail


class Stuck(Recorder):
    """Its step ends by cancellation only, and then after `unwind` is set."""

    def __init__(self, clock: ManualClock, name: str = "stuck") -> None:
        super().__init__(clock, name=name)
        self.unwind = asyncio.Event()
        self.unwind.set()

    async def run_once(self) -> float | None:
        self.stepped.set()
        try:
            await asyncio.Event().wait()
        finally:
            await self.unwind.wait()
        return None


async def test_it_is_ready_after_its_first_step_and_waits_as_long_as_the_step_says() -> None:
    clock = ManualClock()
    service = Recorder(clock, lambda _self: 30.0)

    await service.start()

    assert await clock.waiting() == (30.0,)
    assert service.ready.is_set()
    assert service.last_success == clock.monotonic()
    await clock.advance(30.0)
    await clock.waiting()
    assert service.steps == 2
    await service.stop()


async def test_a_step_that_waits_for_a_wake_is_repeated_after_a_second_all_the_same() -> None:
    clock = ManualClock()
    service = Recorder(clock)

    await service.start()

    assert await clock.waiting() == (IDLE_SECONDS,)
    await service.stop()


async def test_a_wake_ends_the_wait() -> None:
    clock = ManualClock()
    service = Recorder(clock, lambda _self: 3600.0)
    await service.start()
    await clock.waiting()
    service.stepped.clear()

    service.wake()

    await service.stepped.wait()
    assert service.steps == 2
    await service.stop()


async def test_a_wake_during_a_step_is_not_lost() -> None:
    clock = ManualClock()

    def wake_the_first_time(service: Recorder) -> float | None:
        if service.steps == 1:
            service.wake()
        return 3600.0

    service = Recorder(clock, wake_the_first_time)

    await service.start()
    await clock.waiting()

    assert service.steps == 2
    await service.stop()


async def test_a_step_that_asks_for_the_next_at_once_lets_others_run() -> None:
    service = Recorder(ManualClock(), lambda _self: 0.0)
    await service.start()

    await service.stepped.wait()
    await service.stop()

    assert service.finished


async def test_stop_ends_a_wait_and_finishes() -> None:
    clock = ManualClock()
    service = Recorder(clock, lambda _self: 3600.0)
    await service.start()
    await clock.waiting()

    await service.stop()

    assert service.finished
    assert service.stopping
    assert not service.healthy(clock.monotonic())


async def test_stop_cancels_a_step_that_does_not_end_in_time() -> None:
    clock = ManualClock()
    service = Stuck(clock)
    await service.start()
    await service.stepped.wait()

    stopping = asyncio.create_task(service.stop(2.0))
    assert await clock.waiting() == (2.0,)
    await clock.advance(2.0)
    await stopping

    assert not service.finished


async def test_stop_leaves_behind_what_does_not_even_end_when_cancelled() -> None:
    clock = ManualClock()
    service = Stuck(clock)
    service.unwind.clear()
    await service.start()
    await service.stepped.wait()

    stopping = asyncio.create_task(service.stop(0.0))
    assert await clock.waiting() == (CANCEL_SECONDS,)
    await clock.advance(CANCEL_SECONDS)
    await stopping
    service.unwind.set()


async def test_a_service_never_started_stops_at_once() -> None:
    await Recorder(ManualClock()).stop()


async def test_a_service_is_started_once() -> None:
    service = Recorder(ManualClock())
    await service.start()

    with pytest.raises(RuntimeError, match="recorder was started before"):
        await service.start()
    await service.stop()


async def test_health_is_a_success_that_is_young_enough() -> None:
    clock = ManualClock()
    service = Recorder(clock, lambda _self: 3600.0)
    silence = service.max_silence_seconds

    assert not service.healthy(clock.monotonic())
    await service.start()
    await clock.waiting()

    assert service.healthy(clock.monotonic() + silence)
    assert not service.healthy(clock.monotonic() + silence + 0.001)
    await service.stop()


async def test_a_service_that_only_fails_is_healthy_for_a_while_after_its_start() -> None:
    clock = ManualClock()
    service = Recorder(clock, fail)
    await service.start()
    await clock.waiting()

    assert service.healthy(clock.monotonic())
    assert not service.healthy(clock.monotonic() + service.max_silence_seconds + 0.001)
    await service.stop()


async def test_a_group_starts_in_order_and_stops_in_the_opposite_one() -> None:
    clock = ManualClock()
    order: list[str] = []

    class Named(Recorder):
        async def start(self) -> None:
            order.append(f"start {self.name}")
            await super().start()

        async def finish(self) -> None:
            order.append(f"finish {self.name}")

    group = ServiceGroup([Named(clock, name="a"), Named(clock, name="b")], clock)

    await group.start()
    await group.ready()
    assert group.silent(clock.monotonic()) == ()
    await group.stop()

    assert order == ["start a", "start b", "finish b", "finish a"]
    assert group.silent(clock.monotonic()) == ("a", "b")


async def test_a_group_has_one_deadline_for_all() -> None:
    clock = ManualClock()
    first, second = Stuck(clock, "first"), Stuck(clock, "second")
    group = ServiceGroup([first, second], clock)
    await group.start()
    await first.stepped.wait()
    await second.stepped.wait()

    stopping = asyncio.create_task(group.stop(5.0))
    assert await clock.waiting() == (5.0,)
    await clock.advance(5.0)
    await stopping

    assert clock.monotonic() == 1005.0


async def test_a_group_that_cannot_start_stops_what_it_started() -> None:
    clock = ManualClock()

    class Unstartable(Recorder):
        async def start(self) -> None:
            raise OSError("no address")

    first = Recorder(clock)

    with pytest.raises(OSError, match="no address"):
        await ServiceGroup([first, Unstartable(clock)], clock).start()
    assert first.finished
