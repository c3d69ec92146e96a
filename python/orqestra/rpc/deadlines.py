"""Deadlines: ends the streams of workers that do not keep up, and those whose goodbye is not read."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

from orqestra.clock import Clock
from orqestra.engine.repairs import Repair
from orqestra.engine.sessions import Session, Sessions
from orqestra.rpc.peer import StreamPeer
from orqestra.service import Service

LOOK_SECONDS: Final = 0.5
# Who looks later than this stood still, and may have read nothing of what was sent meanwhile.
PUNCTUAL_SECONDS: Final = 2 * LOOK_SECONDS

Writer: TypeAlias = "asyncio.Task[None]"


class Deadlines(Service):
    """One look at all streams: a timer for each would cost thousands of idle ones more than their beats.

    A worker is late if two looks in a row find it so, the second of them in time: the first may be what a server
    that stood still does before it reads.
    """

    def __init__(self, clock: Clock, sessions: Sessions) -> None:
        super().__init__("deadlines", clock)
        self._sessions = sessions
        self._streams: dict[Writer, tuple[Session, StreamPeer]] = {}
        self._suspects: set[Writer] = set()
        self._looked_at = clock.monotonic()

    @contextmanager
    def kept(self, session: Session, peer: StreamPeer, writer: Writer) -> Iterator[None]:
        """Watch a stream meanwhile: its session is ended when the worker is late, its writer when nobody reads."""
        self._streams[writer] = session, peer
        try:
            yield
        finally:
            del self._streams[writer]

    async def run_once(self) -> float | None:
        """Look at every stream."""
        now = self.clock.monotonic()
        is_punctual, self._looked_at = now - self._looked_at <= PUNCTUAL_SECONDS, now
        suspects, self._suspects = self._suspects, set()
        for writer, (session, peer) in list(self._streams.items()):
            late = peer.overdue()
            if late is not None and is_punctual and writer in suspects:
                # The Hello of the worker says what it holds.
                self._sessions.end(session.id, reason=late, repair=Repair.WORKER_STUCK)
            elif late is not None:
                self._suspects.add(writer)
            if peer.is_over():
                writer.cancel()
        return LOOK_SECONDS
