"""Claims: from assigned hints to running jobs on their way to the workers.

Every way out of a claim gives the credits back that the matcher lent for it, and no job that may have
been claimed stays with a worker that has not heard of it: its stream is ended, and the next Hello says
what the worker really holds.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from orqestra._dispatch import outbox
from orqestra.engine import packing
from orqestra.engine.core import Core
from orqestra.engine.sessions import Session, Sessions
from orqestra.failpoint import Point, reached
from orqestra.model import limits
from orqestra.model.errors import HintsUnavailable, OutcomeUnknown
from orqestra.model.lifecycle import Event, sources
from orqestra.store.database import Row

CLAIMABLE: Final = list(sources(Event.CLAIMED))
# Outputs of earlier steps that are read at once; each is at most what is kept of a stream, 1 MiB.
OUTPUTS_AT_ONCE: Final = 4


class Claims:
    """Claims what was assigned, sends what was claimed, puts back what was refused."""

    def __init__(self, core: Core, sessions: Sessions, changed: Callable[[Sequence[int]], None]) -> None:
        self._database = core.database
        self._hints = core.hints
        self._link = core.link
        self._pg_clock = core.pg_clock
        self._sessions = sessions
        self._matcher = sessions.matcher
        self._changed = changed

    async def claim(self, ids: list[int], session_ids: list[int]) -> None:
        """Claim jobs for sessions, entry by entry, and send them.

        An error leaves the take undone: what of it was not claimed is pushed back two seconds later.
        """
        if not ids:
            return
        reached(Point.TAKEN)
        rows = await self._claim(ids, session_ids)
        reached(Point.CLAIMED)
        claimed = {row["id"] for row in rows}
        refused = [(job, to) for job, to in zip(ids, session_ids, strict=True) if job not in claimed]
        self._matcher.release([session_id for _, session_id in refused])
        await self._send(rows)
        if refused:
            await self.put_back([job for job, _ in refused])

    async def put_back(self, ids: Sequence[int]) -> None:
        """Give refused hints one look: those still waiting go back, everything else was stale."""
        rows = await self._database.fetch("look_at", ids=ids, claimable=CLAIMABLE)
        if not rows or not self._link.up:
            return
        now_ms = self._pg_clock.now_ms()
        for push in outbox.drain([packing.entries(rows)], now_ms):
            try:
                if not await self._hints.push(push, now_ms):
                    self._link.lost("the epoch is missing")
            except HintsUnavailable as error:
                self._link.lost(str(error))
                return
            self._matcher.wake(push.lanes)

    async def _claim(self, ids: list[int], session_ids: list[int]) -> list[Row]:
        tokens = {session_id: secrets.randbits(63) for session_id in set(session_ids)}
        try:
            return await self._database.fetch(
                "claim_jobs",
                ids=ids,
                session_ids=session_ids,
                tokens=[tokens[session_id] for session_id in session_ids],
                claimable=CLAIMABLE,
                batch_bytes=limits.BATCH_BYTES,
                output_bytes=limits.OUTPUT_HEAD_BYTES + limits.OUTPUT_TAIL_BYTES,
            )
        except BaseException as error:
            self._matcher.release(session_ids)
            self._matcher.suspect_all()
            if isinstance(error, OutcomeUnknown | asyncio.CancelledError):
                self._end(tokens, reason=f"a claim for it has an unknown end: {error}")
            raise

    async def _send(self, rows: Sequence[Row]) -> None:
        by_session: dict[int, list[Row]] = defaultdict(list)
        for row in rows:
            by_session[row["session_id"]].append(row)
        try:
            previous = await self._previous_outputs(rows)
        except BaseException as error:
            self._end(by_session, reason=f"jobs claimed for it cannot be sent: {error}")
            raise
        for session_id, jobs in by_session.items():
            session = self._sessions.get(session_id)
            # A stream that ended meanwhile: its next Hello or its lease brings the jobs back.
            if session is not None:
                _deliver(session, jobs, previous)
        self._changed([row["id"] for row in rows])

    async def _previous_outputs(self, rows: Sequence[Row]) -> dict[int, bytes]:
        ids = [row["previous_job_id"] for row in rows if row["previous_job_id"] is not None]
        outputs: dict[int, bytes] = {}
        for at in range(0, len(ids), OUTPUTS_AT_ONCE):
            found = await self._database.fetch("read_previous_output", ids=ids[at : at + OUTPUTS_AT_ONCE])
            outputs |= {row["id"]: row["output"] for row in found}
        return outputs

    def _end(self, session_ids: Iterable[int], *, reason: str) -> None:
        for session_id in list(session_ids):
            self._sessions.end(session_id, reason=reason)


def _deliver(session: Session, jobs: Sequence[Row], previous: Mapping[int, bytes]) -> None:
    """Hand jobs to the stream in messages of at most a batch."""
    session.give(jobs)
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
