"""How long a worker that lacked something takes no work."""

from orqestra.worker.shortage import PAUSE_MAX_SECONDS, PAUSE_SECONDS, Shortage
from tests.support.clock import ManualClock

REASON = "spawn: Too many open files"


async def pause(shortage: Shortage, clock: ManualClock) -> float:
    """Meet a shortage; return how long it lasts."""
    shortage.met(REASON)
    assert shortage.health == REASON
    began = clock.monotonic()
    while not shortage.look():
        await clock.advance(PAUSE_SECONDS)
    assert shortage.health == ""
    return clock.monotonic() - began


async def test_pauses_grow_until_something_could_be_started() -> None:
    clock = ManualClock()
    shortage = Shortage(monotonic=clock.monotonic)
    assert shortage.health == ""

    assert [await pause(shortage, clock) for _ in range(7)] == [1, 2, 4, 8, 16, PAUSE_MAX_SECONDS, PAUSE_MAX_SECONDS]
    shortage.over()
    assert await pause(shortage, clock) == PAUSE_SECONDS


async def test_its_end_is_told_once_and_not_before() -> None:
    clock = ManualClock()
    shortage = Shortage(monotonic=clock.monotonic)
    assert not shortage.look()
    shortage.met(REASON)

    await clock.advance(PAUSE_SECONDS - 0.1)
    assert not shortage.look()
    await clock.advance(0.1)
    assert shortage.look()
    assert not shortage.look()


async def test_what_fails_during_a_pause_does_not_prolong_it() -> None:
    clock = ManualClock()
    shortage = Shortage(monotonic=clock.monotonic)
    shortage.met(REASON)
    await clock.advance(PAUSE_SECONDS / 2)
    shortage.met("spawn: another")

    assert shortage.health == REASON
    await clock.advance(PAUSE_SECONDS / 2)
    assert shortage.look()
    assert await pause(shortage, clock) == 2 * PAUSE_SECONDS
