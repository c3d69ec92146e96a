"""Claims: from assigned hints to running jobs on their way to the workers.

Every way out of a claim gives the credits back that the matcher lent for it, and no job that may have
been claimed stays with a worker that has not heard of it. If the answer of a claim is lost, its backend
is ended and the rows are read, by the tokens of the claim. Where that is not possible the streams are
ended, and the next Hello says what each worker really holds.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from orqestra._dispatch import Assignment, Claimed, outbox
from orqestra.engine import packing
from orqestra.engine.core import Core
from orqestra.engine.repairs import Repair
from orqestra.engine.sessions import Session, Sessions
from orqestra.failpoint import Point, reached
from orqestra.log import get_logger
from orqestra.model import limits
from orqestra.model.errors import HintsUnavailable, OutcomeUnknown, Unavailable
from orqestra.model.lifecycle import Event, State, sources
from orqestra.store.backends import end_backend
from orqestra.store.connections import Backend
from orqestra.store.database import Database, Row, retry_conflicts

CLAIMABLE: Final = list(sources(Event.CLAIMED))
# Outputs of earlier steps that are read at once; each is at most what is kept of a stream, 1 MiB.
OUTPUTS_AT_ONCE: Final = 4
# Longer than this nobody waits for what became of a claim: its streams are ended, and the others go on.
UNKNOWN_SECONDS: Final = 2.0

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What became of hints: so many were claimed; so many were refused although their jobs still wait."""

    claimed: int = 0
    waiting: int = 0


class Claims:
    """Claims what was assigned, sends what was claimed, puts back what was refused."""

    def __init__(self, core: Core, sessions: Sessions, changed: Callable[[Sequence[int]], None]) -> None:
        self._database = core.database
        self._hints = core.hints
        self._link = core.link
        self._pg_clock = core.pg_clock
        self._repairs = core.repairs
        self._sessions = sessions
        self._matcher = sessions.matcher
        self._changed = changed

    async def claim(self, assignment: Assignment) -> Tally:
        """Claim jobs for sessions, entry by entry, and send them.

        An error leaves the take undone: what of it was not claimed is pushed back two seconds later.
        """
        if not assignment.ids:
            return Tally()
        reached(Point.TAKEN)
        claimed = await self._claim(assignment.ids, assignment.sessions)
        reached(Point.CLAIMED)
        # Postgres answers in an order of its own, and what waits at a worker for a slot waits in that of the message.
        claimed.arrange(assignment.ids)
        refused, refused_sessions = claimed.refused(assignment.ids, assignment.sessions)
        if refused:
            # Before there is credit again: what may still wait is not to be passed by new jobs.
            self._matcher.wake(assignment.lanes)
            self._matcher.release(refused_sessions)
        await self._send(claimed)
        waiting = await self.put_back(refused) if refused else 0
        return Tally(claimed=len(claimed), waiting=waiting)

    async def put_back(self, ids: Sequence[int]) -> int:
        """Give refused hints one look: those still waiting go back, everything else was stale.

        Returns how many still wait.
        """
        rows = await self._database.insist("look_at", ids=ids, claimable=CLAIMABLE)
        if rows and self._link.up:
            await self._push(rows)
        return len(rows)

    async def _push(self, rows: Sequence[Row]) -> None:
        now_ms = self._pg_clock.now_ms()
        for push in outbox.drain([packing.entries(rows)], now_ms):
            try:
                if not await self._hints.push(push, now_ms):
                    self._link.lost("the epoch is missing")
            except HintsUnavailable as error:
                self._link.lost(str(error))
                return
            self._matcher.wake(push.lanes)

    async def _claim(self, ids: list[int], session_ids: list[int]) -> Claimed:
        tokens = {session_id: secrets.randbits(63) for session_id in set(session_ids)}
        wanted = {"ids": ids, "session_ids": session_ids, "tokens": [tokens[to] for to in session_ids]}
        try:
            return await retry_conflicts(lambda: self._claim_or_find(wanted))
        except BaseException as error:
            self._matcher.release(session_ids)
            self._matcher.suspect_all(filled=True)
            if isinstance(error, OutcomeUnknown | asyncio.CancelledError):
                self._end(tokens, reason=f"a claim for it has an unknown end: {error}")
            raise

    async def _claim_or_find(self, wanted: Mapping[str, list[int]]) -> Claimed:
        """Claim; if the answer is lost, find out what was claimed. Raises OutcomeUnknown if that is not possible."""
        async with self._database.connection() as statements:
            try:
                [row] = await statements.fetch(
                    "claim_jobs",
                    **wanted,
                    claimable=CLAIMABLE,
                    batch_bytes=limits.BATCH_BYTES,
                    output_bytes=limits.OUTPUT_HEAD_BYTES + limits.OUTPUT_TAIL_BYTES,
                )
                return Claimed(row)
            except OutcomeUnknown as error:
                unknown, backend = error, statements.backend
        self._repairs.count(Repair.CLAIM_UNKNOWN)
        claimed = await find_running(
            self._database,
            backend,
            lambda: self._database.insist("find_claimed", **wanted, running=State.RUNNING),
        )
        if claimed is None:
            raise unknown
        log.info("a claim whose answer was lost is known", claimed=len(claimed), hints=len(wanted["ids"]))
        return claimed

    async def _send(self, claimed: Claimed) -> None:
        try:
            previous = await self._previous_outputs(claimed.previous_ids)
        except BaseException as error:
            self._end(claimed.session_ids, reason=f"jobs claimed for it cannot be sent: {error}")
            raise
        for session_id in claimed.session_ids:
            session = self._sessions.get(session_id)
            # A stream that ended meanwhile: its next Hello or its lease brings the jobs back.
            if session is not None:
                deliver(session, claimed, previous)
        self._changed(claimed.ids)

    async def _previous_outputs(self, ids: Sequence[int]) -> dict[int, bytes]:
        outputs: dict[int, bytes] = {}
        for at in range(0, len(ids), OUTPUTS_AT_ONCE):
            found = await self._database.insist("read_previous_output", ids=ids[at : at + OUTPUTS_AT_ONCE])
            outputs |= {row["id"]: row["output"] for row in found}
        return outputs

    def _end(self, session_ids: Iterable[int], *, reason: str) -> None:
        for session_id in list(session_ids):
            self._sessions.end(session_id, reason=reason)


def deliver(session: Session, claimed: Claimed, previous: Mapping[int, bytes]) -> None:
    """Hand jobs to the stream in messages of at most a batch."""
    cancelled = session.give(claimed)
    for jobs in claimed.encode(session.id, previous, limits.BATCH_JOBS, limits.BATCH_BYTES):
        session.peer.assign(jobs)
    if cancelled:
        session.peer.cancel(sorted(cancelled, key=lambda attempt: attempt.job_id))


async def find_running(
    database: Database, backend: Backend | None, find: Callable[[], Awaitable[list[Row]]]
) -> Claimed | None:
    """Return what a statement whose answer was lost has given to sessions, once its backend can do no more.

    `find` reads that, by the tokens of the statement. None: it cannot be known now.
    """
    if backend is None:
        return None
    try:
        async with asyncio.timeout(UNKNOWN_SECONDS):
            if not await end_backend(database, backend):
                return None
            [row] = await find()
            return Claimed(row)
    except (TimeoutError, Unavailable, asyncpg.PostgresError) as error:
        log.warning("what a statement did cannot be found out", reason=repr(error))
        return None
