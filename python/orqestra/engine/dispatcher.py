"""Dispatcher: takes hints for free slots, claims the jobs, sends them to their workers.

The loop only decides when; who gets what is the matcher's decision (`crates/dispatch/src/matcher`).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from orqestra._dispatch import Demand, Results, outbox
from orqestra.engine import packing
from orqestra.engine.claims import Claims, Tally
from orqestra.engine.core import Core
from orqestra.engine.lanes import Lanes
from orqestra.engine.refill import Refill
from orqestra.engine.sessions import Session, Sessions
from orqestra.failpoint import Point, reached
from orqestra.model.errors import HintsUnavailable
from orqestra.model.report import AttemptRef
from orqestra.queue.hints import Take
from orqestra.service import Service

IDLE_SECONDS: Final = 1.0
PEEK_PER_LANE: Final = 1000
# Claims that are all refused though the jobs still wait, as when their rows are locked, would come again at
# once and for ever. The first pause is not felt by a job that was merely a little early.
REFUSED_FIRST_SECONDS: Final = 0.002
REFUSED_LAST_SECONDS: Final = 0.05
# What a take gave is pushed back two seconds after it unless a later one says that it was received.
DONE_SECONDS: Final = 0.5


class Dispatcher(Service):
    """The one that gives jobs to the workers of this server."""

    retry_last_seconds = 1.0

    def __init__(
        self, core: Core, refill: Refill, lanes: Lanes, sessions: Sessions, changed: Callable[[Sequence[int]], None]
    ) -> None:
        super().__init__("dispatcher", core.clock)
        self._database = core.database
        self._hints = core.hints
        self._link = core.link
        self._pg_clock = core.pg_clock
        self._refill = refill
        self._lanes = lanes
        self._lanes_unknown = False
        self._matcher = sessions.matcher
        self._claims = Claims(core, sessions, changed)
        self._number = 0
        self._done: list[int] = []
        self._refused_in_a_row = 0
        self._taken_at = self._due_at = -IDLE_SECONDS
        self._suspected_at = core.clock.monotonic()

    def wake_lanes(self, lanes: Sequence[int]) -> None:
        """These lanes may have something now; none named: look at what is delayed, which came with others perhaps."""
        self._due_at = -IDLE_SECONDS
        if self._matcher.wake(lanes):
            self._lanes_unknown = True
        self.wake()

    def ended(self, session: Session, results: Results) -> None:
        """These attempts have ended on that session: their slots are free."""
        self._matcher.finished([session.id] * session.take_results(results), self._now_ms())
        self.wake()

    def handed_back(self, session: Session, attempts: Iterable[AttemptRef]) -> None:
        """These were not begun; a session that hands work back gets no more of it for that."""
        self._matcher.release([session.id] * session.take_back(attempts))
        self.wake()

    async def run_once(self) -> float | None:
        """Take for the free slots, claim, send; return when the next job is due, or the next look at every lane."""
        await self._look_for_lanes()
        delay_seconds = await self._dispatch(self._matcher.demand(self._now_ms()))
        # Counted from the look before, not from now: whatever woke this step would put it off, again and again.
        return min(delay_seconds, max(0.0, self._suspected_at + IDLE_SECONDS - self.clock.monotonic()))

    async def _dispatch(self, demands: Sequence[Demand]) -> float:
        if not self._link.up:
            return await self._dispatch_without_redis(demands)
        if (rest_seconds := self._rest_seconds(demands)) > 0:
            return rest_seconds
        try:
            take = await self._take(demands)
        except HintsUnavailable as error:
            self._link.lost(str(error))
            return 0
        if take is None:
            self._link.lost("the epoch is missing")
            return 0
        due_seconds = self._learn(take)
        tallies = [await self._assign(demand, hints) for demand, hints in zip(demands, take.hints, strict=True)]
        if any(take.hints):
            self._done.append(self._number)
        await self._pause_if_refused(tallies)
        # Lanes found empty make room in the next demand for others that may have something.
        return 0 if take.promoted or take.empty or any(take.hints) else due_seconds

    def _rest_seconds(self, demands: Sequence[Demand]) -> float:
        """Return how long Redis need not be asked: whoever is free, or has something, wakes this loop."""
        if demands:
            return 0
        due_at = self._due_at if self._matcher.has_credit() else math.inf
        # What was taken must be told to be done, but has time.
        ask_at = self._taken_at + (DONE_SECONDS if self._done else IDLE_SECONDS)
        return min(due_at, ask_at) - self.clock.monotonic()

    async def _take(self, demands: Sequence[Demand]) -> Take | None:
        done, self._done = self._done, []
        self._number += 1
        self._taken_at = self.clock.monotonic()
        # What comes meanwhile sets it again.
        self._due_at = math.inf
        now_ms = self._pg_clock.now_ms()
        try:
            return await self._hints.take(self._number, now_ms, done=done, demands=demands)
        except HintsUnavailable:
            # What Redis gave without our hearing of it is pushed back after two seconds (recover.lua).
            self._done, self._due_at = done, self._taken_at
            raise

    def _learn(self, take: Take) -> float:
        """Note what a take has told; return in how many seconds something is due, a second at most."""
        self._matcher.found_empty(take.empty)
        self._matcher.found_partial([lane for lane, _ in take.partial])
        if take.promoted:
            reached(Point.PROMOTED)
        self._matcher.wake(take.promoted)
        self._refill.ask(take.partial)
        due_seconds = IDLE_SECONDS
        if take.next_due_ms is not None:
            due_seconds = min(IDLE_SECONDS, max(0.0, (take.next_due_ms - self._pg_clock.now_ms()) / 1000))
        self._due_at = min(self._due_at, self.clock.monotonic() + due_seconds)
        return due_seconds

    async def _pause_if_refused(self, tallies: Sequence[Tally]) -> None:
        """Wait, wakes or not, if nothing could be claimed of what is put back: the same would come again."""
        if any(tally.claimed for tally in tallies) or not any(tally.waiting for tally in tallies):
            self._refused_in_a_row = 0
            return
        doublings = min(self._refused_in_a_row, 16)
        self._refused_in_a_row += 1
        await self.pause(min(REFUSED_FIRST_SECONDS * 2.0**doublings, REFUSED_LAST_SECONDS))

    async def _dispatch_without_redis(self, demands: Sequence[Demand]) -> float:
        tallies = []
        empty: set[int] = set()
        for demand in demands:
            lanes = {int(lane) for queue in demand.lanes.split(b";") for lane in queue.split(b",")}
            rows = await self._database.insist(
                "peek_lanes", lane_ids=list(lanes), per_lane=min(demand.budget, PEEK_PER_LANE)
            )
            found = {row["lane_id"] for row in rows}
            empty = empty - found | lanes - found
            rows.sort(key=lambda row: (-row["priority"], row["id"]))
            tallies.append(await self._assign(demand, packing.hints(rows[: demand.budget])))
        self._matcher.found_empty(list(empty))
        await self._pause_if_refused(tallies)
        return 0 if demands else IDLE_SECONDS

    async def _assign(self, demand: Demand, hints: bytes) -> Tally:
        if not hints:
            return Tally()
        assignment = self._matcher.assign(demand.profile, hints)
        try:
            return await self._claims.claim(assignment)
        finally:
            if assignment.leftover:
                self._matcher.wake(assignment.lanes)
                await self._claims.put_back(outbox.ids(assignment.leftover))

    async def _look_for_lanes(self) -> None:
        """Learn lanes that other servers made; once a second look at every lane, whatever wakes were lost."""
        is_time = self.clock.monotonic() - self._suspected_at >= IDLE_SECONDS
        if self._lanes_unknown or is_time:
            await self._lanes.load()
            self._lanes_unknown = False
        if is_time:
            self._suspected_at = self.clock.monotonic()
            self._matcher.suspect_all()

    def _now_ms(self) -> int:
        return int(self.clock.monotonic() * 1000)
