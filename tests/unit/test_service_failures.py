"""A service whose steps fail goes on: at once, then ever later, and not too late for what others wait for."""

import asyncio
import logging

import pytest

from orqestra.engine.dispatcher import Dispatcher
from orqestra.engine.expiry import Expiry
from orqestra.engine.leases import Leases
from orqestra.service import Service, retry_delay_seconds
from tests.support.clock import ManualClock
from tests.support.services import Recorder, fail


class Urgent(Recorder):
    """Is not away for long."""

    retry_last_seconds = 0.25


class Pausing(Service):
    """Pauses for an hour inside its step."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__("pausing", clock)
        self.resumed = asyncio.Event()

    async def run_once(self) -> float | None:
        await self.pause(3600.0)
        self.resumed.set()
        return None


async def test_a_failing_step_is_logged_counted_and_retried_ever_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    service = Recorder(clock, fail)
    await service.start()

    waits = []
    for _ in range(8):
        (seconds,) = await clock.waiting()
        waits.append(round(seconds, 6))
        await clock.advance(seconds)
    await clock.waiting()

    # The first retry came at once.
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert service.errors == len(caplog.records) == len(waits) + 2
    assert not service.ready.is_set()
    assert all(record.levelno == logging.ERROR and record.exc_info for record in caplog.records)
    await service.stop()


async def test_a_success_starts_the_backoff_anew() -> None:
    clock = ManualClock()

    def fail_twice_each_time(service: Recorder) -> float | None:
        return fail(service) if service.steps % 3 else 7.0

    service = Recorder(clock, fail_twice_each_time)
    await service.start()

    waits = []
    for _ in range(4):
        (seconds,) = await clock.waiting()
        waits.append(round(seconds, 6))
        await clock.advance(seconds)

    assert waits == [0.1, 7.0, 0.1, 7.0]
    await service.stop()


async def test_wakes_do_not_shorten_the_wait_after_a_failure() -> None:
    clock = ManualClock()
    service = Recorder(clock, fail)
    await service.start()
    await clock.waiting()

    for _ in range(10):
        service.wake()
        await asyncio.sleep(0)

    assert service.steps == 2
    await service.stop()


async def test_a_service_may_be_wanted_back_sooner_than_others() -> None:
    clock = ManualClock()
    service = Urgent(clock, fail)
    await service.start()

    waits = []
    for _ in range(4):
        (seconds,) = await clock.waiting()
        waits.append(round(seconds, 6))
        await clock.advance(seconds)

    assert waits == [0.1, 0.2, 0.25, 0.25]
    await service.stop()


@pytest.mark.parametrize(("service", "seconds"), [(Leases, 0.25), (Dispatcher, 1.0), (Expiry, 1.0)])
def test_leases_dispatch_and_expiry_are_back_soon(service: type[Service], seconds: float) -> None:
    assert service.retry_last_seconds == seconds


async def test_a_wake_does_not_end_a_pause_and_a_stop_does() -> None:
    clock = ManualClock()
    service = Pausing(clock)
    await service.start()
    await clock.waiting()

    service.wake()
    await asyncio.sleep(0)
    assert not service.resumed.is_set()
    await service.stop()

    assert service.resumed.is_set()
    assert clock.monotonic() == 1000.0


def test_the_wait_after_a_failure_never_overflows() -> None:
    assert [retry_delay_seconds(failures) for failures in (1, 2)] == [0.0, 0.1]
    assert retry_delay_seconds(10**9) == 5.0
