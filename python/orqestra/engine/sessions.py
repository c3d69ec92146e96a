"""Sessions: the streams of this server.

A session is one stream of one worker. Opening it (`hellos`) closes the worker's older ones and takes over what
the worker says it holds; what Postgres believes is there but is not held goes back at once.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from orqestra._dispatch import Attempts, Claimed, Matcher, Results
from orqestra.engine.core import Core
from orqestra.engine.hellos import Greeting, Hellos
from orqestra.engine.repairs import Repair
from orqestra.log import get_logger
from orqestra.model.report import AttemptRef, Verdict

log = get_logger(__name__)


class Peer(Protocol):
    """The stream of a session, as the engine sees it. Every method only queues and returns at once."""

    def assign(self, jobs: bytes) -> None:
        """Send claimed jobs, as `Claimed` encodes them."""
        ...

    def answer(self, acks: bytes) -> None:
        """Send what became of results: any number of the `acks` of a ResultAcks, encoded."""
        ...

    def answer_each(self, verdicts: Sequence[tuple[AttemptRef, Verdict]]) -> None:
        """As `answer`, from values."""
        ...

    def stored(self, attempt: AttemptRef, stream: int, offset: int, *, kept: bool) -> None:
        """Send what became of a piece of output."""
        ...

    def cancel(self, attempts: Sequence[AttemptRef]) -> None:
        """Tell the worker to stop these."""
        ...

    def list_held(self, seq: int) -> None:
        """Ask the worker what it holds."""
        ...

    def follow(self, attempt: AttemptRef, offsets: tuple[int, int], *, stop: bool) -> None:
        """Ask for live output of an attempt from these offsets on, or for no more of it."""
        ...

    def renewed(self, seq: int, now_ms: int) -> None:
        """Tell the worker that its lease was renewed after beat `seq`."""
        ...

    def end(self, reason: str) -> None:
        """End the stream."""
        ...


class Session:
    """One open stream of this server."""

    # A server has thousands of them.
    __slots__ = (
        *("id", "worker_id", "name", "slots", "health", "peer", "number", "profile", "heard", "beat", "cancels"),
        "_outstanding",
    )

    def __init__(self, session_id: int, greeting: Greeting, peer: Peer) -> None:
        self.id = session_id
        self.worker_id = greeting.worker_id
        self.name = greeting.name
        self.slots = greeting.slots
        self.health = ""
        self.peer = peer
        self.number = greeting.number
        self.profile = (frozenset(greeting.queues), frozenset(greeting.labels))
        self.heard = True
        self.beat = 0
        self.cancels: set[AttemptRef] = set()
        self._outstanding = Attempts()

    @property
    def outstanding(self) -> frozenset[AttemptRef]:
        """What was given to it, or came along with it, and is not over as far as this server has read."""
        return frozenset(AttemptRef(*attempt) for attempt in self._outstanding.all())

    def resume(self, attempts: Iterable[AttemptRef]) -> None:
        """Note what the worker brought along."""
        self._outstanding.add([attempt.named for attempt in attempts])

    def give(self, claimed: Claimed) -> set[AttemptRef]:
        """Note jobs that are sent to it; return those whose cancel came too early and is to be told behind them."""
        self._outstanding.add_claimed(claimed, self.id)
        if not self.cancels:
            return set()
        return self.cancels.intersection(AttemptRef(*attempt) for attempt in claimed.attempts(self.id))

    def take_results(self, results: Results) -> int:
        """Forget attempts that have ended; return how many of them it had (a doubled result has none)."""
        if self.cancels:
            self.cancels.difference_update(AttemptRef(*attempt) for attempt in results.attempts())
        return self._outstanding.remove_reported(results)

    def take_back(self, attempts: Iterable[AttemptRef]) -> int:
        """Forget attempts that were not begun; return how many of them it had."""
        over = list(attempts)
        self.cancels.difference_update(over)
        return self._outstanding.remove([attempt.named for attempt in over])


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A new session, and what the worker holds that is no longer its own."""

    session: Session
    revoke: tuple[AttemptRef, ...]


class Sessions:
    """The open streams of this server."""

    def __init__(self, core: Core, matcher: Matcher, hellos: Hellos) -> None:
        self.lease_ms = hellos.lease_ms
        self.server_name = hellos.server_name
        self._hellos = hellos
        self._database = core.database
        self._repairs = core.repairs
        self.matcher = matcher
        self._open: dict[int, Session] = {}
        self._on_change: list[Callable[[], None]] = []
        self._resting = False

    @property
    def ids(self) -> list[int]:
        """The open sessions of this server."""
        return list(self._open)

    @property
    def profiles(self) -> set[tuple[frozenset[str], frozenset[str]]]:
        """The queues and labels of the open sessions, each pair once."""
        return {session.profile for session in self._open.values()}

    def on_change(self, call: Callable[[], None]) -> None:
        """Call this after a session was opened or replaced: there may be jobs to bring back or to give."""
        self._on_change.append(call)

    def get(self, session_id: int) -> Session | None:
        """Return an open session of this server."""
        return self._open.get(session_id)

    def heard_from(self) -> list[Session]:
        """Return the sessions that something came from since the last call."""
        heard = [session for session in self._open.values() if session.heard]
        for session in heard:
            session.heard = False
        return heard

    async def open(self, greeting: Greeting, peer: Peer) -> Opened | None:
        """Open a session. None: the worker has a newer stream already."""
        stored = await self._hellos.store(greeting)
        if stored is None:
            return None
        session_id, kept = stored.session_id, stored.kept
        others = [each for each in self._open.values() if each.worker_id == greeting.worker_id]
        if any(each.number > greeting.number for each in others):
            return None
        for old in others:
            self.end(old.id, reason="replaced by a newer stream of its worker")
        # A Postgres that was put back to an older state gives ids again that streams here still have.
        self.end(session_id, reason="Postgres has forgotten it")
        session = Session(session_id, greeting, peer)
        self._open[session_id] = session
        slots = 0 if self._resting else greeting.slots
        self.matcher.open_session(session_id, slots, list(greeting.queues), list(greeting.labels))
        self.matcher.hold(session_id, len(kept))
        session.resume(ref for ref in (*greeting.held, *greeting.finished) if (ref.job_id, ref.fence) in kept)
        revoke = tuple(ref for ref in greeting.held if (ref.job_id, ref.fence) not in kept)
        log.info("session opened", session=session_id, worker=greeting.name, kept=len(kept), revoked=len(revoke))
        self._changed()
        return Opened(session=session, revoke=revoke)

    def set_slots(self, session: Session, slots: int) -> None:
        """Note how many jobs the worker runs at once now; 0 while it drains."""
        if session.slots != slots:
            session.slots = slots
            self.matcher.set_slots(session.id, 0 if self._resting else slots)
            self._changed()

    def rest(self) -> None:
        """From now on give nothing to any session: this server stops, and others have the jobs."""
        self._resting = True
        for session_id in self._open:
            self.matcher.set_slots(session_id, 0)

    def end(self, session_id: int, *, reason: str, repair: Repair | None = None) -> None:
        """End a stream and forget it; counts as a repair if told so.

        Its lease, or the worker's next Hello, decides on its jobs.
        """
        session = self._open.pop(session_id, None)
        if session is None:
            return
        if repair is not None:
            self._repairs.count(repair)
        self.matcher.close_session(session_id)
        session.peer.end(reason)
        log.info("session ended", session=session_id, worker=session.name, reason=reason)

    async def close(self, session: Session) -> None:
        """After a stream has ended: if nothing of it runs, there is no lease to wait for."""
        await self._database.fetch("close_session", id=session.id, worker_id=session.worker_id, number=session.number)

    def end_all(self, reason: str) -> None:
        """End all streams of this server."""
        for session_id in self.ids:
            self.end(session_id, reason=reason)

    def _changed(self) -> None:
        for call in self._on_change:
            call()
