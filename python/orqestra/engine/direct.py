"""Direct match: jobs for which a worker here is free, and before which nothing waits, are stored as running.

They need no outbox row, no hint and no claim: one statement and they are on their way. It passes nobody:
only workers for which no lane may hold anything are taken, and only while no hint of this server is on its
way to Redis. The rest of a batch, if there is any, goes the usual way behind them. Steps of runs are matched
by the transaction that inserts them.

If the answer of the statement or of the COMMIT is lost, what it stored is found by its tokens and sent. Where that
cannot be known, and if the server dies between the commit and the message, the stream of the worker ends, and its
next Hello does not name the jobs: they go back.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from itertools import groupby

from orqestra._dispatch import Claimed
from orqestra.engine.claims import deliver, find_running
from orqestra.engine.core import Core
from orqestra.engine.relay import Relay
from orqestra.engine.sessions import Sessions
from orqestra.failpoint import Point, reached
from orqestra.log import get_logger
from orqestra.model.errors import OutcomeUnknown
from orqestra.model.lifecycle import BORN, State
from orqestra.store.connections import Backend
from orqestra.store.database import Statements
from orqestra.store.submitting import NO_OUTPUTS, WAITING, Batch, Direct, Outputs, PlacedJob, Stored, submit_jobs

log = get_logger(__name__)


class Matching:
    """One batch that is stored in a block of `DirectMatch.storing`, as running where that can be.

    `found` is set before the block's OutcomeUnknown leaves it, if all of the batch is known to run. What else is
    here is between this and `DirectMatch`.
    """

    def __init__(self, match: Callable[[Batch, Outputs], Direct], relay: Relay, *, server_id: int) -> None:
        self.found: Stored | None = None
        self.batch = Batch()
        self.outputs = NO_OUTPUTS
        self.direct = WAITING
        self.stored: Stored | None = None
        self.until_handed_over = ExitStack()
        self._match = match
        self._relay = relay
        self._server_id = server_id

    async def submit(self, statements: Statements, batch: Batch, outputs: Outputs = NO_OUTPUTS) -> Stored:
        """Store the batch; `outputs` are those of earlier steps. It can be called once."""
        assert not self.batch.payloads, "the credit of the first batch would be lost"
        self.batch, self.outputs = batch, outputs
        self.direct = self._match(batch, outputs)
        if not self.direct.session_ids or None in self.direct.session_ids:
            # What others store meanwhile must not pass what will wait of this.
            self.until_handed_over.enter_context(self._relay.on_its_way())
        self.stored = await submit_jobs(statements, batch, server_id=self._server_id, direct=self.direct)
        return self.stored


class DirectMatch:
    """Takes credit for new jobs, and sends those that were stored as running."""

    def __init__(self, core: Core, sessions: Sessions, relay: Relay, changed: Callable[[Sequence[int]], None]) -> None:
        self._clock = core.clock
        self._database = core.database
        self._server_id = core.server_id
        self.sessions = sessions
        self.matcher = sessions.matcher
        self._relay = relay
        self._changed = changed

    def match(self, batch: Batch, outputs: Outputs) -> Direct:
        """Take credit for jobs of a batch that are due: in the order of their priority, then of the batch."""
        if not self._relay.is_idle or not self.matcher.has_credit():
            return WAITING
        now_ms = int(self._clock.monotonic() * 1000)
        session_ids: list[int | None] = [None] * len(batch)
        matched: set[int] = set()
        for lane_id, places in _due(batch, outputs):
            found = self.matcher.direct(lane_id, len(places), now_ms)
            matched.update(found)
            if isinstance(places, range):
                session_ids[: len(found)] = found
                continue
            for place, session_id in zip(places, found, strict=False):
                session_ids[place] = session_id
        if not matched:
            return WAITING
        return Direct(session_ids=session_ids, tokens={to: secrets.randbits(63) for to in matched})

    def matching(self) -> Matching:
        """Return what stores one batch in one block of `storing`."""
        return Matching(self.match, self._relay, server_id=self._server_id)

    @asynccontextmanager
    async def storing(
        self, matching: Matching, lending: AbstractAsyncContextManager[Statements]
    ) -> AsyncIterator[Statements]:
        """Lend a connection or transaction to a block that may store a batch by `matching`.

        What runs of it is sent after the block. If the block fails the credit is given back; if its end is not known,
        what runs is found and sent, or the streams are ended. Whoever stored it hands the hints over without waiting
        for anything in between.
        """
        backend = None
        with matching.until_handed_over:
            try:
                async with lending as statements:
                    backend = statements.backend
                    yield statements
            except OutcomeUnknown as error:
                await self._find_out(matching, backend, error)
                raise
            except BaseException as error:
                self._undo(matching, error)
                raise
            self._send(matching)

    def _send(self, matching: Matching) -> None:
        """Send what was stored as running; the credit of the rest is given back.

        What cannot be sent goes back with its stream. It is stored all the same, and so says the answer.
        """
        direct, stored = matching.direct, matching.stored
        if not direct.tokens or stored is None:
            return
        reached(Point.DIRECT_STORED)
        try:
            claimed = Claimed.direct(_columns(direct, matching.batch, stored))
            _arrange(claimed, matching.batch, stored)
            self.matcher.release(_waiting(direct, stored))
            self._deliver(claimed, matching.outputs)
        except Exception as error:
            log.exception("jobs that were stored as running cannot be sent")
            self._end(direct, reason=f"jobs stored for it cannot be sent: {error!r}")

    async def _find_out(self, matching: Matching, backend: Backend | None, error: OutcomeUnknown) -> None:
        """Send what was stored as running although its answer was lost; where that cannot be known, undo it."""
        direct = matching.direct
        if not direct.tokens:
            return
        try:
            found = await find_running(
                self._database,
                backend,
                lambda: self._database.insist(
                    "find_matched",
                    session_ids=list(direct.tokens),
                    tokens=list(direct.tokens.values()),
                    running=State.RUNNING,
                ),
            )
        except BaseException as failure:
            self._undo(matching, failure)
            raise
        if found is None:
            self._undo(matching, error)
            return
        waiting = Counter(to for to in direct.session_ids if to is not None)
        waiting.subtract({session_id: len(found.attempts(session_id)) for session_id in found.session_ids})
        self.matcher.release(list(waiting.elements()))
        self._deliver(found, matching.outputs)
        if len(found) == len(direct.session_ids):
            # Ids are given in the order of the batch.
            matching.found = Stored(ids=[*sorted(found.ids)], hints=[])

    def _undo(self, matching: Matching, error: BaseException) -> None:
        """Give the credit back; if the jobs may have been stored, their workers must say that they have none."""
        direct = matching.direct
        self.matcher.release([to for to in direct.session_ids if to is not None])
        if isinstance(error, OutcomeUnknown | asyncio.CancelledError):
            self._end(direct, reason=f"jobs stored for it have an unknown end: {error}")

    def _deliver(self, claimed: Claimed, outputs: Outputs) -> None:
        previous = {job_id: outputs[job_id] for job_id in claimed.previous_ids}
        for session_id in claimed.session_ids:
            session = self.sessions.get(session_id)
            # A stream that ended meanwhile: its next Hello or its lease brings the jobs back.
            if session is not None:
                deliver(session, claimed, previous)
        self._changed(claimed.ids)

    def _end(self, direct: Direct, *, reason: str) -> None:
        for session_id in direct.tokens:
            self.sessions.end(session_id, reason=reason)


def _due(batch: Batch, outputs: Outputs) -> Iterator[tuple[int, Sequence[int]]]:
    """Yield the jobs that are due at once as a lane and their places: the highest priority first, then in order."""
    if len(batch.kinds) == 1:
        [kind] = batch.kinds
        if _is_due(kind, outputs):
            yield kind.lane_id, range(len(batch))
        return
    kinds = [batch.kinds[number - 1] for number in batch.kind_of]
    due = [place for place, kind in enumerate(kinds) if _is_due(kind, outputs)]
    due.sort(key=lambda place: -kinds[place].spec.priority)
    for (_, lane_id), places in groupby(due, key=lambda place: (kinds[place].spec.priority, kinds[place].lane_id)):
        yield lane_id, list(places)


def _is_due(kind: PlacedJob, outputs: Outputs) -> bool:
    # A step is told what the one before it wrote. Where that is kept apart, a claim reads it.
    is_told = kind.previous_id is None or kind.previous_id in outputs
    return kind.spec.at is None and kind.spec.delay_ms == 0 and is_told


def _arrange(claimed: Claimed, batch: Batch, stored: Stored) -> None:
    """Have the best be sent first, as it would be claimed first."""
    priorities = [kind.spec.priority for kind in batch.kinds]
    if len(set(priorities)) > 1:
        places = sorted(range(len(batch)), key=lambda place: -priorities[batch.kind_of[place] - 1])
        claimed.arrange([job_id for place in places if (job_id := stored.ids[place]) is not None])


def _waiting(direct: Direct, stored: Stored) -> list[int]:
    """Return the session of each job that was to run and does not."""
    if stored.running is None:
        return []
    return [
        session_id
        for place, session_id in enumerate(direct.session_ids)
        if session_id is not None and place not in stored.running
    ]


def _columns(direct: Direct, batch: Batch, stored: Stored) -> dict[str, object]:
    """Return the columns of `Claimed.direct`."""
    session_ids = direct.session_ids
    if stored.running is not None:
        session_ids = [to if place in stored.running else None for place, to in enumerate(session_ids)]
    kinds = batch.kinds
    specs = [kind.spec for kind in kinds]
    has_steps = any(kind.run_id is not None for kind in kinds)
    return {
        "ids": stored.ids,
        "session_ids": session_ids,
        "kind_of": batch.kind_of,
        "payloads": batch.payloads,
        "tokens": direct.tokens,
        "fence": BORN[State.RUNNING],
        "types": [spec.type for spec in specs],
        "timeouts_ms": [spec.timeout_ms for spec in specs],
        "graces_ms": [spec.grace_ms for spec in specs],
        "run_ids": [kind.run_id for kind in kinds] if has_steps else None,
        "step_keys": [kind.step_key for kind in kinds] if has_steps else None,
        "previous_ids": [kind.previous_id for kind in kinds] if has_steps else None,
    }
