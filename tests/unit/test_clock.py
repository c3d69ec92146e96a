"""The machine's clock, and the one that tests move by hand."""

import asyncio
import time

import pytest

from orqestra.clock import Clock, SystemClock
from tests.support.clock import ManualClock


def test_the_system_clock_tells_the_machines_time() -> None:
    clock = SystemClock()

    assert abs(clock.unix_ms() - time.time() * 1000) < 1000
    assert clock.monotonic() <= clock.monotonic()


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()])
async def test_a_wait_is_over_when_the_event_comes(clock: Clock) -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(clock.wait(event, 60.0))
    await asyncio.sleep(0)

    event.set()

    assert await waiting is True
    assert await clock.wait(event, 0.0) is True


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()])
async def test_a_wait_of_no_time_lets_the_others_run(clock: Clock) -> None:
    event = asyncio.Event()
    ran = asyncio.Event()
    other = asyncio.create_task(ran.wait())
    asyncio.get_running_loop().call_soon(ran.set)

    assert await clock.wait(event, -1.0) is False
    await other


async def test_a_wait_of_the_system_clock_ends_in_time() -> None:
    assert await SystemClock().wait(asyncio.Event(), 0.001) is False


async def test_a_wait_of_the_manual_clock_ends_when_it_is_moved() -> None:
    clock = ManualClock()
    waiting = asyncio.create_task(clock.wait(asyncio.Event(), 5.0))

    assert await clock.waiting() == (5.0,)
    await clock.advance(4.0)
    assert await clock.waiting() == (1.0,)
    await clock.advance(1.0)

    assert await waiting is False
    assert clock.monotonic() == 1005.0
