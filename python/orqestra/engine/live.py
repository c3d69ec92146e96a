"""Live: who follows which attempt, here and at other servers, and what its worker is asked for.

All of it is a copy that may be lost at any point. Whoever has missed something asks again from where it
stands; what is never had live is read from the store when the attempt has ended.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from orqestra.engine.core import Core
from orqestra.engine.sessions import Session, Sessions
from orqestra.log import get_logger
from orqestra.model.errors import HintsUnavailable
from orqestra.model.limits import MIB
from orqestra.model.live import LiveChunk
from orqestra.model.report import AttemptRef
from orqestra.queue.live import Wish
from orqestra.service import Service

# What waits for one follower; beyond it, it misses something and asks again once it has taken that.
FOLLOWER_BYTES: Final = MIB
# From one question of a follower that has missed something to the next: what is under way meanwhile
# would be missed again.
AGAIN_SECONDS: Final = 0.1
# What waits for Redis; beyond it is dropped, and the next renewal of the wish asks for it again.
PUBLISHED_BYTES: Final = 4 * MIB
# One publish must not keep Redis from the hints for more than about a millisecond.
BATCH_BYTES: Final = MIB
# How often a server says that it still follows, and how long another believes it.
RENEW_SECONDS: Final = 1.0
WISH_SECONDS: Final = 5.0

STDOUT: Final = 1
STDERR: Final = 2

Name = tuple[int, int]

log = get_logger(__name__)


class Follower:
    """One who follows an attempt: what waits for it, bounded, and whether it has missed something.

    `reached` is how far it has got in each stream; whoever takes the chunks keeps it true.
    """

    def __init__(self, session_id: int, attempt: AttemptRef, reached: Mapping[int, int]) -> None:
        self.session_id = session_id
        self.attempt = attempt
        self.reached = reached
        self.behind = False
        self.asked_at = 0.0
        self.stopped_at = 0.0
        self._chunks: deque[LiveChunk] = deque()
        self._bytes = 0
        self._some = asyncio.Event()

    @property
    def offsets(self) -> tuple[int, int]:
        """How far it has got, in stdout and stderr."""
        return self.reached[STDOUT], self.reached[STDERR]

    @property
    def empty(self) -> bool:
        """Whether it has taken all that came."""
        return not self._chunks

    def offer(self, chunk: LiveChunk) -> bool:
        """Put a chunk behind those that wait, unless too much does."""
        if self._bytes + len(chunk.data) > FOLLOWER_BYTES:
            self.behind = True
            return False
        self._chunks.append(chunk)
        self._bytes += len(chunk.data)
        self._some.set()
        return True

    def take(self) -> LiveChunk | None:
        """Return what waits longest, None if nothing does."""
        if not self._chunks:
            return None
        chunk = self._chunks.popleft()
        self._bytes -= len(chunk.data)
        return chunk

    def arrival(self) -> asyncio.Event:
        """Return an event that the next chunk sets; call it only when nothing waits."""
        self._some.clear()
        return self._some


@dataclass(frozen=True, kw_only=True)
class _Asker:
    """Another server that follows an attempt here."""

    session_id: int
    attempt: AttemptRef
    offsets: tuple[int, int]
    until: float


class Live(Service):
    """Passes live output on; without Redis only what comes from workers of this server."""

    def __init__(self, core: Core, sessions: Sessions) -> None:
        super().__init__("live", core.clock)
        self._channel = core.hints.live
        self._link = core.link
        self._sessions = sessions
        self._followers: dict[Name, set[Follower]] = defaultdict(set)
        self._askers: dict[Name, dict[str, _Asker]] = defaultdict(dict)
        self._wishes: list[Wish] = []
        self._published: deque[tuple[str, LiveChunk]] = deque()
        self._published_bytes = 0
        self._renew_at = 0.0

    @contextmanager
    def following(self, session_id: int, attempt: AttemptRef, reached: Mapping[int, int]) -> Iterator[Follower]:
        """Follow an attempt that runs on a session of any server."""
        follower = Follower(session_id, attempt, reached)
        name = _name(attempt)
        self._followers[name].add(follower)
        self._ask(follower)
        try:
            yield follower
        finally:
            self._followers[name].discard(follower)
            if not self._followers[name]:
                del self._followers[name]
                self._leave(follower)

    def catch_up(self, follower: Follower) -> None:
        """Ask again for what a follower has missed, once it has taken the rest."""
        now = self.clock.monotonic()
        if follower.behind and follower.empty and now - follower.asked_at >= AGAIN_SECONDS:
            self._ask(follower)

    def wrote(self, session: Session, chunk: LiveChunk) -> None:
        """Pass on what a worker of this server sent; nobody takes it: let the worker send no more."""
        taken = self.heard(chunk)
        for server in self._askers.get((chunk.job_id, chunk.fence), ()):
            self._publish(server, chunk)
            taken = True
        if not taken and (attempt := _outstanding(session, chunk.job_id, chunk.fence)) is not None:
            session.peer.follow(attempt, (0, 0), stop=True)

    def heard(self, chunk: LiveChunk) -> bool:
        """Pass a chunk on to the followers at this server; return whether any of them could take it."""
        followers = self._followers.get((chunk.job_id, chunk.fence), ())
        return any([follower.offer(chunk) for follower in followers])

    def arrived(self, chunk: LiveChunk) -> None:
        """Pass on what another server sent; nobody takes it: let it send no more."""
        follower = next(iter(self._followers.get((chunk.job_id, chunk.fence), ())), None)
        if self.heard(chunk) or follower is None:
            return
        now = self.clock.monotonic()
        # Once for all that is on its way. Whoever can take more asks again.
        if now - follower.stopped_at >= AGAIN_SECONDS:
            follower.stopped_at = now
            self._wish(follower, (0, 0), stop=True)

    def asked(self, wish: Wish) -> None:
        """Do what another server asks for, if the session is here."""
        session = self._sessions.get(wish.session_id)
        attempt = None if session is None else _outstanding(session, wish.job_id, wish.fence)
        if session is None or attempt is None:
            return
        if wish.stop:
            self._drop(attempt, wish.server)
            return
        until = self.clock.monotonic() + WISH_SECONDS
        asker = _Asker(session_id=session.id, attempt=attempt, offsets=wish.offsets, until=until)
        self._askers[_name(attempt)][wish.server] = asker
        session.peer.follow(attempt, wish.offsets, stop=False)

    def ask_again(self, session_id: int) -> None:
        """Tell a worker of this server all that is wanted of it: the way on which it was told has changed."""
        session = self._sessions.get(session_id)
        if session is None:
            return
        wanted: list[Follower | _Asker] = [each for group in self._followers.values() for each in group]
        wanted += [each for group in self._askers.values() for each in group.values()]
        for each in wanted:
            if each.session_id == session_id:
                session.peer.follow(each.attempt, each.offsets, stop=False)

    async def run_once(self) -> float | None:
        """Publish what waits, and each second that this server still follows."""
        now = self.clock.monotonic()
        if now >= self._renew_at:
            self._renew_at = now + RENEW_SECONDS
            self._expire(now)
            self._renew()
        wishes, chunks = self._take()
        if not self._link.up:
            self._forget_published()
        elif wishes or chunks:
            try:
                await self._channel.send(wishes, chunks)
            except HintsUnavailable as error:
                # Not the link's business: a copy that is late must not end dispatch through Redis.
                log.info("live output was not passed on", wishes=len(wishes), chunks=len(chunks), reason=str(error))
                self._forget_published()
        return 0 if self._published else max(0.0, self._renew_at - self.clock.monotonic())

    def _ask(self, follower: Follower) -> None:
        follower.behind = False
        follower.asked_at = self.clock.monotonic()
        session = self._sessions.get(follower.session_id)
        if session is None:
            self._wish(follower, follower.offsets)
        else:
            session.peer.follow(follower.attempt, follower.offsets, stop=False)

    def _leave(self, follower: Follower) -> None:
        session = self._sessions.get(follower.session_id)
        if session is None:
            self._wish(follower, (0, 0), stop=True)
        elif _name(follower.attempt) not in self._askers:
            session.peer.follow(follower.attempt, (0, 0), stop=True)

    def _wish(self, follower: Follower, offsets: tuple[int, int], *, stop: bool = False) -> None:
        job_id, fence = _name(follower.attempt)
        self._wishes.append(
            Wish(
                server=self._channel.server,
                session_id=follower.session_id,
                job_id=job_id,
                fence=fence,
                offsets=offsets,
                stop=stop,
            )
        )
        self.wake()

    def _renew(self) -> None:
        """Say of all that is followed elsewhere where the follower stands: that heals what was lost on the way.

        One that takes nothing is left out, and after a while nothing is sent for it.
        """
        for group in self._followers.values():
            ready = [each for each in group if not each.behind and self._sessions.get(each.session_id) is None]
            if ready:
                stdout, stderr = zip(*(each.offsets for each in ready), strict=True)
                self._wish(ready[0], (min(stdout), min(stderr)))

    def _expire(self, now: float) -> None:
        asked = [(server, asker) for askers in self._askers.values() for server, asker in askers.items()]
        for server, asker in asked:
            if asker.until <= now:
                self._drop(asker.attempt, server)

    def _drop(self, attempt: AttemptRef, server: str) -> None:
        name = _name(attempt)
        askers = self._askers.get(name, {})
        asker = askers.pop(server, None)
        if askers:
            return
        self._askers.pop(name, None)
        session = None if asker is None else self._sessions.get(asker.session_id)
        if session is not None and name not in self._followers:
            session.peer.follow(attempt, (0, 0), stop=True)

    def _publish(self, server: str, chunk: LiveChunk) -> None:
        if self._published_bytes + len(chunk.data) <= PUBLISHED_BYTES:
            self._published.append((server, chunk))
            self._published_bytes += len(chunk.data)
            self.wake()

    def _take(self) -> tuple[list[Wish], list[tuple[str, LiveChunk]]]:
        wishes, self._wishes = self._wishes, []
        chunks: list[tuple[str, LiveChunk]] = []
        size = 0
        while self._published and size < BATCH_BYTES:
            server, chunk = self._published.popleft()
            chunks.append((server, chunk))
            size += len(chunk.data)
        self._published_bytes -= size
        return wishes, chunks

    def _forget_published(self) -> None:
        self._published.clear()
        self._published_bytes = 0


def _name(attempt: AttemptRef) -> Name:
    return attempt.job_id, attempt.fence


def _outstanding(session: Session, job_id: int, fence: int) -> AttemptRef | None:
    """Return the attempt as its worker knows it; other servers are not told its token."""
    return next((each for each in session.outstanding if (each.job_id, each.fence) == (job_id, fence)), None)
