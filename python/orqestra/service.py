"""Every background loop is a `Service`: started, ready, woken, stopped and watched in the same way.

A subclass writes `run_once()`, one step, and nothing else of the loop. Tests call `run_once()`.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from orqestra.clock import Clock
from orqestra.log import get_logger

# Without a wake a loop looks again after a second: what a lost wake may cost.
IDLE_SECONDS = 1.0
# One connection that broke is replaced at once, so the first retry waits for nothing. The second should
# not be felt, the last should not burden a service that is coming back.
RETRY_SECOND_SECONDS = 0.1
RETRY_LAST_SECONDS = 5.0
# The whole server has this long to stop.
STOP_SECONDS = 5.0
# A loop that was cancelled gets this long to unwind before it is left behind.
CANCEL_SECONDS = 1.0

log = get_logger(__name__)


class Service(ABC):
    """One loop: a step, then a wait that a wake or a stop ends.

    `ready` is set by the first step that succeeds. `errors` counts the steps that raised,
    `last_success` is the clock's reading after the last one that did not. A wake that comes while a
    step runs leads to another step. Between start and stop the loop ends for nothing but its
    task's cancellation.
    """

    max_silence_seconds: ClassVar[float] = 10.0
    """How long the service may go without a step that succeeds and still count as healthy."""
    retry_last_seconds: ClassVar[float] = RETRY_LAST_SECONDS
    """How long the service waits at most between steps that fail: how late it is when what it needs is back."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.clock = clock
        self.ready = asyncio.Event()
        self.errors = 0
        self.last_success: float | None = None
        self._started_at: float | None = None
        self._failures_in_a_row = 0
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def run_once(self) -> float | None:
        """Do one step; return the seconds until the next, or None: only when woken (or after a second)."""

    async def finish(self) -> None:
        """Do what is left once the last step is over, inside the deadline of `stop`; nothing by default."""
        return

    @property
    def stopping(self) -> bool:
        """True from the call of `stop` on: a long step may end early."""
        return self._stopping.is_set()

    async def start(self) -> None:
        """Begin to loop. A service is started once."""
        if self._task is not None:
            raise RuntimeError(f"{self.name} was started before")
        self._started_at = self.clock.monotonic()
        self._task = asyncio.create_task(self._loop(), name=self.name)

    def wake(self) -> None:
        """Ask for a step now. Wakes that come before that step begins are one."""
        self._woken.set()

    async def pause(self, seconds: float) -> None:
        """Wait inside a step: nothing but a stop ends it early."""
        await self.clock.wait(self._stopping, seconds)

    async def stop(self, deadline_seconds: float = STOP_SECONDS) -> None:
        """Let the running step end, then `finish()`; what is not done by the deadline is cancelled."""
        self._stopping.set()
        self._woken.set()
        if self._task is None or await self.clock.wait(self._ended, deadline_seconds):
            return
        log.warning("stopped in the middle of a step", service=self.name)
        self._task.cancel()
        if not await self.clock.wait(self._ended, CANCEL_SECONDS):
            log.error("does not end", service=self.name)

    def healthy(self, now: float) -> bool:
        """Return whether it runs and its last success (or its start) is young enough at `now`."""
        if self._started_at is None or self._ended.is_set():
            return False
        since = self._started_at if self.last_success is None else self.last_success
        return now - since <= self.max_silence_seconds

    async def _loop(self) -> None:
        try:
            while not self._stopping.is_set():
                await self._step_and_wait()
            await self._finish()
        finally:
            self._ended.set()

    async def _step_and_wait(self) -> None:
        self._woken.clear()
        try:
            delay_seconds = await self.run_once()
        except Exception:  # whatever a step raises, the loop must go on
            self.errors += 1
            self._failures_in_a_row += 1
            log.exception("step failed", service=self.name, errors=self.errors)
            # Only a stop ends this wait: with wakes, a fault under load would become a busy loop.
            await self.pause(retry_delay_seconds(self._failures_in_a_row, self.retry_last_seconds))
            return
        self._failures_in_a_row = 0
        self.last_success = self.clock.monotonic()
        self.ready.set()
        await self.clock.wait(self._woken, IDLE_SECONDS if delay_seconds is None else delay_seconds)

    async def _finish(self) -> None:
        try:
            await self.finish()
        except Exception:  # the loop is over either way, and the others still have to stop
            self.errors += 1
            log.exception("finish failed", service=self.name)


def retry_delay_seconds(failures: int, last_seconds: float = RETRY_LAST_SECONDS) -> float:
    """Return the wait after the given number of failures in a row (1 or more)."""
    if failures == 1:
        return 0.0
    doublings = min(failures - 2, 16)
    return min(RETRY_SECOND_SECONDS * 2.0**doublings, last_seconds)


class ServiceGroup:
    """Services that start in the order given and stop in the opposite one, under one deadline."""

    def __init__(self, services: Sequence[Service], clock: Clock) -> None:
        self.services = tuple(services)
        self._clock = clock

    async def start(self) -> None:
        """Start all; if one can't, stop those that were started and raise what it raised."""
        try:
            for service in self.services:
                await service.start()
        except BaseException:
            await self.stop()
            raise

    async def ready(self) -> None:
        """Return once every service has had a step that succeeded; bound it with `asyncio.timeout`."""
        for service in self.services:
            await service.ready.wait()

    async def stop(self, deadline_seconds: float = STOP_SECONDS) -> None:
        """Stop all, the last started first; the deadline is for all together."""
        deadline = self._clock.monotonic() + deadline_seconds
        for service in reversed(self.services):
            await service.stop(max(0.0, deadline - self._clock.monotonic()))

    def silent(self, now: float) -> tuple[str, ...]:
        """Return the names of the services that are not healthy at `now`; empty when all is well."""
        return tuple(service.name for service in self.services if not service.healthy(now))
