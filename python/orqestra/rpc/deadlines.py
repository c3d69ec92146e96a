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

Writer: TypeAlias = "asyncio.Task[None]"


class Deadlines(Service):
    """One look at all streams: a timer for each would cost thousands of idle ones more than their beats."""

    def __init__(self, clock: Clock, sessions: Sessions) -> None:
        super().__init__("deadlines", clock)
        self._sessions = sessions
        self._streams: dict[Writer, tuple[Session, StreamPeer]] = {}

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
        for writer, (session, peer) in list(self._streams.items()):
            late = peer.overdue()
            if late is not None:
                # The Hello of the worker says what it holds.
                self._sessions.end(session.id, reason=late, repair=Repair.WORKER_STUCK)
            if peer.is_over():
                writer.cancel()
        return LOOK_SECONDS
