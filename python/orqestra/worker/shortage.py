"""What this machine lacks, learned from commands that could not be started for it.

A worker that lacks descriptors, memory, processes or disk takes no work until it may hope again: after a
second, then after twice as long each time, up to half a minute. The next job is the test.
"""

import resource
import time
from collections.abc import Callable
from typing import Final

from orqestra.model.errors import StartFailed
from orqestra.model.limits import SLOT_DESCRIPTORS, WORKER_DESCRIPTORS

PAUSE_SECONDS: Final = 1.0
PAUSE_MAX_SECONDS: Final = 30.0


class Shortage:
    """`health` is a sentence while no work is to be taken, else empty."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.health = ""
        self._monotonic = monotonic
        self._pause_seconds = PAUSE_SECONDS
        self._until = 0.0

    def met(self, reason: str) -> None:
        """Note that a command could not be started, which was not its fault."""
        if not self.health:
            self.health = reason
            self._until = self._monotonic() + self._pause_seconds
            self._pause_seconds = min(2 * self._pause_seconds, PAUSE_MAX_SECONDS)

    def over(self) -> None:
        """Note that a command could be started."""
        self._pause_seconds = PAUSE_SECONDS

    def look(self) -> bool:
        """Look at the time; return whether work may be taken again from now on."""
        if not self.health or self._monotonic() < self._until:
            return False
        self.health = ""
        return True


def check_slots(slots: int) -> None:
    """Raise StartFailed if this process and its children may not have the descriptors for so many commands."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return
    needed = slots * SLOT_DESCRIPTORS + WORKER_DESCRIPTORS
    if needed > most:
        possible = (most - WORKER_DESCRIPTORS) // SLOT_DESCRIPTORS
        fewer = f", or use --slots {possible}" if possible >= 1 else ""
        raise StartFailed(
            f"--slots {slots} needs {needed} descriptors and the hard limit is {most}: raise it (ulimit -Hn){fewer}"
        )
