"""Direct match: jobs for which a worker here is free, and before which nothing waits, are stored as running.

They need no outbox row, no hint and no claim: one statement and they are on their way. It passes nobody:
only workers for which no lane may hold anything are taken, and only while no hint of this server is on its
way to Redis. The rest of a batch, if there is any, goes the usual way behind them.

If the server dies between the commit and the message, or its answer is lost, the stream of the worker ends,
and its next Hello does not name the jobs: they go back.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

from orqestra._dispatch import Claimed
from orqestra.clock import Clock
from orqestra.engine.claims import deliver
from orqestra.engine.relay import Relay
from orqestra.engine.sessions import Sessions
from orqestra.failpoint import Point, reached
from orqestra.model.errors import OutcomeUnknown
from orqestra.store.submitting import Batch, Direct, PlacedJob, Stored

NOTHING: Final = Direct()
FIRST_FENCE: Final = 1


class DirectMatch:
    """Takes credit for new jobs, and sends those that were stored as running."""

    def __init__(
        self, clock: Clock, sessions: Sessions, relay: Relay, changed: Callable[[Sequence[int]], None]
    ) -> None:
        self._clock = clock
        self._sessions = sessions
        self._matcher = sessions.matcher
        self._relay = relay
        self._changed = changed

    def match(self, batch: Batch) -> Direct:
        """Take credit for jobs of a batch that are due: in the order of their priority, then of the batch."""
        if not self._relay.is_idle or not self._matcher.has_credit():
            return NOTHING
        now_ms = int(self._clock.monotonic() * 1000)
        session_of: dict[int, int] = {}
        for kind, places in _due(batch):
            found = self._matcher.direct(kind.lane_id, len(places), now_ms)
            session_of.update(zip(places, found, strict=False))
        return Direct(session_of=session_of, tokens={to: secrets.randbits(63) for to in set(session_of.values())})

    def send(self, direct: Direct, batch: Batch, stored: Stored) -> None:
        """Send what was stored as running; the credit of the rest is given back."""
        if not direct.session_of:
            return
        reached(Point.DIRECT_STORED)
        running = frozenset(stored.running)
        places = [place for place in direct.session_of if stored.ids[place] in running]
        self._matcher.release([to for place, to in direct.session_of.items() if stored.ids[place] not in running])
        claimed = Claimed(_columns(places, direct, batch, stored))
        for session_id in claimed.session_ids:
            session = self._sessions.get(session_id)
            # A stream that ended meanwhile: its next Hello or its lease brings the jobs back.
            if session is not None:
                deliver(session, claimed, {})
        self._changed(claimed.ids)

    def undo(self, direct: Direct, error: BaseException) -> None:
        """Give the credit back; if the jobs may have been stored, their workers must say that they have none."""
        self._matcher.release(list(direct.session_of.values()))
        if isinstance(error, OutcomeUnknown | asyncio.CancelledError):
            for session_id in direct.tokens:
                self._sessions.end(session_id, reason=f"jobs stored for it have an unknown end: {error}")


def _due(batch: Batch) -> list[tuple[PlacedJob, Sequence[int]]]:
    """Return the kinds whose jobs are due at once, the highest priority first, and the places of their jobs."""
    if len(batch.kinds) == 1:
        places: dict[int, Sequence[int]] = {1: range(len(batch))}
    else:
        found: dict[int, list[int]] = defaultdict(list)
        for place, number in enumerate(batch.kind_of):
            found[number].append(place)
        places = dict(found)
    due = [(batch.kinds[number - 1], where) for number, where in places.items()]
    return sorted((each for each in due if _is_due(each[0])), key=lambda each: -each[0].spec.priority)


def _is_due(kind: PlacedJob) -> bool:
    # A step is told what the one before it wrote, which only a claim reads.
    return kind.spec.at is None and kind.spec.delay_ms == 0 and kind.run_id is None


def _columns(places: Sequence[int], direct: Direct, batch: Batch, stored: Stored) -> dict[str, object]:
    """Return what `claim_jobs` would have answered."""
    sessions = [direct.session_of[place] for place in places]
    specs = [batch.kinds[batch.kind_of[place] - 1].spec for place in places]
    return {
        "session_ids": sessions,
        "ids": [stored.ids[place] for place in places],
        "fences": [FIRST_FENCE] * len(places),
        "tokens": [direct.tokens[to] for to in sessions],
        "types": [spec.type for spec in specs],
        "payloads": [batch.payloads[place] for place in places],
        "attempts": [0] * len(places),
        "timeouts_ms": [spec.timeout_ms for spec in specs],
        "graces_ms": [spec.grace_ms for spec in specs],
        "run_ids": None,
        "step_keys": None,
        "previous_ids": None,
    }
