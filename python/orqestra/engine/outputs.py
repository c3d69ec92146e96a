"""Outputs: stores what is too long for a result."""

import itertools
from collections import deque
from typing import Final

import asyncpg

from orqestra.engine.core import Core
from orqestra.engine.sessions import Sessions
from orqestra.log import get_logger
from orqestra.model.errors import Unavailable
from orqestra.model.lifecycle import State
from orqestra.model.report import OutputPiece
from orqestra.service import Service, retry_delay_seconds

PIECES: Final = 64
AWAY_WAIT_SECONDS: Final = 0.25

log = get_logger(__name__)


class Outputs(Service):
    """Stores pieces in batches; a piece is answered once it is committed."""

    def __init__(self, core: Core, sessions: Sessions) -> None:
        super().__init__("outputs", core.clock)
        self._database = core.database
        self._sessions = sessions
        self._waiting: deque[OutputPiece] = deque()

    def store(self, piece: OutputPiece) -> None:
        """Take a piece of a stream."""
        self._waiting.append(piece)
        self.wake()

    async def run_once(self) -> float | None:
        """Store one batch of pieces."""
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), PIECES))]
        if batch:
            try:
                await self._store(batch)
            except BaseException:
                self._waiting.extendleft(reversed(batch))
                raise
        return 0 if self._waiting else None

    async def _store(self, batch: list[OutputPiece]) -> None:
        for failures in itertools.count(1):
            try:
                kept = await self._insert(batch)
                break
            except (Unavailable, asyncpg.PostgresError) as error:
                if self.stopping:
                    return  # not answered: the worker sends it again to another server
                log.warning("output waits for Postgres", pieces=len(batch), reason=str(error))
                await self.pause(retry_delay_seconds(failures, AWAY_WAIT_SECONDS))
        for piece in batch:
            session = self._sessions.get(piece.session_id)
            if session is not None:
                name = (piece.attempt.job_id, piece.attempt.fence, piece.stream, piece.offset)
                session.peer.stored(piece.attempt, piece.stream, piece.offset, kept=name in kept)

    async def _insert(self, batch: list[OutputPiece]) -> set[tuple[int, int, int, int]]:
        rows = await self._database.fetch(
            "store_output",
            ids=[piece.attempt.job_id for piece in batch],
            fences=[piece.attempt.fence for piece in batch],
            tokens=[piece.attempt.token for piece in batch],
            session_ids=[piece.session_id for piece in batch],
            streams=[piece.stream for piece in batch],
            offsets=[piece.offset for piece in batch],
            bytes=[piece.data for piece in batch],
            running=State.RUNNING,
        )
        return {(row["id"], row["fence"], row["stream"], row["byte_offset"]) for row in rows}
