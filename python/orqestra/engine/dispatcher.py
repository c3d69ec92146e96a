"""Dispatcher: takes hints for free slots, claims the jobs, sends them to their workers.

The loop only decides when; who gets what is the matcher's decision (`crates/dispatch/src/matcher`).
"""

import secrets
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

from orqestra._dispatch import Demand, outbox
from orqestra.engine.core import Core
from orqestra.engine.lanes import Lanes
from orqestra.engine.refill import Refill
from orqestra.engine.sessions import Session, Sessions
from orqestra.log import get_logger
from orqestra.model import limits
from orqestra.model.errors import HintsUnavailable, OutcomeUnknown, StorageUnavailable, Unavailable
from orqestra.model.lifecycle import Event, sources
from orqestra.queue.hints import Take
from orqestra.service import Service
from orqestra.store.database import Row

IDLE_SECONDS: Final = 1.0
PEEK_PER_LANE: Final = 1000
CLAIMABLE: Final = list(sources(Event.CLAIMED))

log = get_logger(__name__)


class Dispatcher(Service):
    """The one that gives jobs to the workers of this server."""

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
        self._sessions = sessions
        self._matcher = sessions.matcher
        self._changed = changed
        self._number = 0
        self._done: list[int] = []
        self._suspected_at = core.clock.monotonic()

    def wake_lanes(self, lanes: Sequence[int]) -> None:
        """These lanes may have something now; none named: look at what is delayed."""
        if self._matcher.wake(lanes):
            self._lanes_unknown = True
        self.wake()

    def finished(self, sessions: Sequence[int]) -> None:
        """For each entry a job of that session has ended: its slot is free."""
        self._matcher.finished(sessions, self._now_ms())
        self.wake()

    async def run_once(self) -> float | None:
        """Take for the free slots, claim, send; return when the next job is due."""
        await self._look_for_lanes()
        demands = self._matcher.demand(self._now_ms())
        if not self._link.up:
            return await self._dispatch_without_redis(demands)
        try:
            take = await self._take(demands)
        except HintsUnavailable as error:
            self._link.lost(str(error))
            return 0
        if take is None:
            self._link.lost("the epoch is missing")
            return 0
        self._learn(take)
        for demand, hints in zip(demands, take.hints, strict=True):
            await self._assign(demand, hints)
        self._done.append(self._number)
        return self._pause(take, demands)

    async def _take(self, demands: Sequence[Demand]) -> Take | None:
        done, self._done = self._done, []
        self._number += 1
        now_ms = self._pg_clock.now_ms()
        try:
            return await self._hints.take(self._number, now_ms, done=done, demands=demands)
        except HintsUnavailable:
            # What Redis gave without our hearing of it is pushed back after two seconds (recover.lua).
            self._done = done
            raise

    def _learn(self, take: Take) -> None:
        self._matcher.found_empty(take.empty)
        self._matcher.wake(take.promoted)
        self._refill.ask(take.partial)

    def _pause(self, take: Take, demands: Sequence[Demand]) -> float:
        # Lanes found empty make room in the next demand for others that may have something.
        if take.promoted or take.empty or any(take.hints):
            return 0
        if take.next_due_ms is None:
            return IDLE_SECONDS
        return min(IDLE_SECONDS, max(0.0, (take.next_due_ms - self._pg_clock.now_ms()) / 1000))

    async def _dispatch_without_redis(self, demands: Sequence[Demand]) -> float:
        for demand in demands:
            lanes = [int(lane) for queue in demand.lanes.split(b";") for lane in queue.split(b",")]
            rows = await self._database.fetch("peek_lanes", lane_ids=lanes, per_lane=min(demand.budget, PEEK_PER_LANE))
            found = {row["lane_id"] for row in rows}
            self._matcher.found_empty([lane for lane in lanes if lane not in found])
            rows.sort(key=lambda row: (-row["priority"], row["id"]))
            await self._assign(demand, _pack(rows[: demand.budget]))
        return 0 if demands else IDLE_SECONDS

    async def _assign(self, demand: Demand, hints: bytes) -> None:
        if not hints:
            return
        assignment = self._matcher.assign(demand.profile, hints)
        if assignment.leftover:
            await self._put_back(outbox.ids(assignment.leftover))
        for at in range(0, len(assignment.ids), limits.BATCH_JOBS):
            batch = slice(at, at + limits.BATCH_JOBS)
            await self._claim(assignment.ids[batch], assignment.sessions[batch])

    async def _claim(self, ids: list[int], session_ids: list[int]) -> None:
        tokens = {session_id: secrets.randbits(63) for session_id in set(session_ids)}
        try:
            rows = await self._database.fetch(
                "claim_jobs",
                ids=ids,
                session_ids=session_ids,
                tokens=[tokens[session_id] for session_id in session_ids],
                claimable=CLAIMABLE,
                batch_bytes=limits.BATCH_BYTES,
            )
        except StorageUnavailable:
            self._matcher.release(session_ids)
            self._matcher.suspect_all()
            raise
        except OutcomeUnknown as error:
            # Claimed or not: the workers say at their next Hello that they do not hold these.
            self._matcher.release(session_ids)
            for session_id in tokens:
                self._sessions.end(session_id, reason=str(error))
            # Of those not claimed only the hints know, and they are gone from their lanes: a take that is
            # never said to be done is pushed back.
            raise
        await self._send(rows)
        if len(rows) < len(ids):
            claimed = {row["id"] for row in rows}
            refused = [(job, to) for job, to in zip(ids, session_ids, strict=True) if job not in claimed]
            self._matcher.release([session_id for _, session_id in refused])
            await self._put_back([job for job, _ in refused])

    async def _put_back(self, ids: Sequence[int]) -> None:
        """Give refused hints one look: those still waiting go back, everything else was stale."""
        rows = await self._database.fetch("look_at", ids=ids, claimable=CLAIMABLE)
        if not rows or not self._link.up:
            return
        now_ms = self._pg_clock.now_ms()
        for push in outbox.drain([_encode(rows)], now_ms):
            try:
                if not await self._hints.push(push, now_ms):
                    self._link.lost("the epoch is missing")
            except HintsUnavailable as error:
                self._link.lost(str(error))
                return
            self._matcher.wake(push.lanes)

    async def _send(self, rows: Sequence[Row]) -> None:
        by_session: dict[int, list[Row]] = defaultdict(list)
        for row in rows:
            by_session[row["session_id"]].append(row)
        try:
            previous = await self._previous_outputs(rows)
        except Unavailable as error:
            # Claimed and not sent: the next Hello of each worker gives back what it does not hold.
            for session_id in by_session:
                self._sessions.end(session_id, reason=str(error))
            raise
        for session_id, jobs in by_session.items():
            session = self._sessions.get(session_id)
            # A stream that ended meanwhile: its next Hello or its lease brings the jobs back.
            if session is not None:
                _deliver(session, jobs, previous)
        self._changed([row["id"] for row in rows])

    async def _previous_outputs(self, rows: Sequence[Row]) -> dict[int, bytes]:
        ids = [row["previous_job_id"] for row in rows if row["previous_job_id"] is not None]
        if not ids:
            return {}
        found = await self._database.fetch("read_previous_output", ids=ids)
        return {row["id"]: row["output"] for row in found}

    async def _look_for_lanes(self) -> None:
        """Learn lanes that other servers made; once a second look at every lane, whatever wakes were lost."""
        if self._lanes_unknown:
            self._lanes_unknown = False
            await self._lanes.load()
        now = self.clock.monotonic()
        if now - self._suspected_at >= IDLE_SECONDS:
            self._suspected_at = now
            self._matcher.suspect_all()

    def _now_ms(self) -> int:
        return int(self.clock.monotonic() * 1000)


def _deliver(session: Session, jobs: Sequence[Row], previous: dict[int, bytes]) -> None:
    """Hand jobs to the stream in messages of at most a batch."""
    batch: list[Row] = []
    size = 0
    for job in jobs:
        weight = len(job["payload"]) + len(previous.get(job["previous_job_id"], b""))
        if batch and (len(batch) == limits.BATCH_JOBS or size + weight > limits.BATCH_BYTES):
            session.peer.assign(batch, previous)
            batch, size = [], 0
        batch.append(job)
        size += weight
    session.peer.assign(batch, previous)


def _encode(rows: Sequence[Row]) -> bytes:
    return outbox.encode(
        [row["id"] for row in rows],
        [row["lane_id"] for row in rows],
        [row["priority"] for row in rows],
        [row["due_ms"] for row in rows],
    )


def _pack(rows: Sequence[Row]) -> bytes:
    """Return rows as packed hints, in their order."""
    return b"".join(b"%08x%d%016x" % (row["lane_id"], 9 - row["priority"], row["id"]) for row in rows)
