"""Holding: a batch of new jobs waits a moment, unstored, for workers that end jobs as fast as they get them.

Stored as running (direct match) a job costs Postgres half of what it costs stored, hinted and claimed, and what
is stored behind a backlog has to go that longer way. So a burst would keep itself going: its first batch finds
few free slots, and all others have that one before them. Held, they find their workers free instead.

Nothing idle pays for it, and no single job: only a batch is held, only for workers that end jobs right now, and
never for long. Where it was in vain, as behind a long backlog, it is not tried again for a while.
"""

from dataclasses import dataclass
from typing import Final

from orqestra._dispatch import Matcher
from orqestra.engine.relay import Relay
from orqestra.model import limits
from orqestra.service import Service
from orqestra.store.submitting import Batch

# Fewer jobs cost little either way.
LEAST_JOBS: Final = 256
LOOK_SECONDS: Final = 0.002
# So often it is asked whether it is worth going on: what was submitted last may only just have reached its workers.
JUDGE_SECONDS: Final = 0.025
MOST_SECONDS: Final = 0.25
# What a worker ended lately it did within 80 ms: in so many times as long it ends so many times as much.
WINDOWS: Final = 3
# With so much before it at most a batch is held although its workers have not ended much yet.
FEW_JOBS: Final = 4 * limits.BATCH_JOBS
# After a try in vain none is made for so many times as long as it took.
REST: Final = 10


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a batch stands: the jobs before it and those of it that there is no slot for, as far as this server knows.

    `outstanding` and `lately` are what its workers have and what they ended lately; `is_clear`: nothing is before it.
    """

    missing: int
    outstanding: int
    lately: int
    is_clear: bool

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to wait for: there are slots for all, or nobody has anything that could end."""
        return self.is_clear and (self.missing <= 0 or self.outstanding == 0)

    @property
    def is_soon(self) -> bool:
        """Whether its workers will take all of it soon, at their pace."""
        return self.missing <= WINDOWS * self.lately


class Holding:
    """Decides how long a batch waits. It waits as a part of a step of `service`, and no longer than that runs."""

    def __init__(self, service: Service, matcher: Matcher, relay: Relay) -> None:
        self._service = service
        self._clock = service.clock
        self._matcher = matcher
        self._relay = relay
        self._rest_until = self._clock.monotonic()
        # What was stored to wait since nothing did, and what had been assigned by then.
        self._stored = 0
        self._assigned = 0

    def stored(self, jobs: int) -> None:
        """So many jobs were stored to wait."""
        self._stored += jobs

    async def hold(self, batch: Batch) -> None:
        """Return once there is a free slot for each job and nothing before it, or waiting does not help."""
        if len(batch) < LEAST_JOBS or len(batch.lane_ids) != 1:
            return
        [lane_id] = batch.lane_ids
        began = judged = self._clock.monotonic()
        look = last = self._look(lane_id, len(batch))
        if began < self._rest_until or not self._may_pay(look):
            return
        while not look.is_over and not self._service.stopping:
            await self._service.pause(LOOK_SECONDS)
            now = self._clock.monotonic()
            look = self._look(lane_id, len(batch))
            if now - judged < JUDGE_SECONDS:
                continue
            if now - began >= MOST_SECONDS or not (look.is_soon or look.lately > last.lately):
                self._rest_until = now + REST * (now - began)
                return
            last, judged = look, now

    def _may_pay(self, look: Look) -> bool:
        """Whether a batch is held at all; what was submitted last may not have reached anybody yet."""
        has_begun = look.lately > 0 or not self._relay.is_idle
        return look.is_soon or (has_begun and look.missing <= FEW_JOBS)

    def _look(self, lane_id: int, jobs: int) -> Look:
        free, outstanding, lately, assigned = self._matcher.room(lane_id, int(self._clock.monotonic() * 1000))
        is_clear = free > 0 and self._relay.is_idle
        if is_clear:
            self._stored, self._assigned = 0, assigned
        before = max(0, self._stored - (assigned - self._assigned))
        return Look(missing=before + jobs - free, outstanding=outstanding, lately=lately, is_clear=is_clear)
