"""A service that does what a test tells it."""

import asyncio
from collections.abc import Callable

from orqestra.service import Service
from tests.support.clock import ManualClock

Step = Callable[["Recorder"], float | None]


class Recorder(Service):
    """Counts its steps; what a step does is given by the test."""

    def __init__(self, clock: ManualClock, step: Step = lambda _self: None, name: str = "recorder") -> None:
        super().__init__(name, clock)
        self.step = step
        self.steps = 0
        self.stepped = asyncio.Event()
        self.finished = False

    async def run_once(self) -> float | None:
        self.steps += 1
        self.stepped.set()
        return self.step(self)

    async def finish(self) -> None:
        self.finished = True


def fail(_service: Recorder) -> float | None:
    raise ValueError("broken")
