"""Leases: each second one statement renews the sessions this server has heard from."""

from collections.abc import Sequence
from typing import Final

from orqestra.engine.core import Core
from orqestra.engine.sessions import Session, Sessions
from orqestra.service import Service
from orqestra.store.database import Database

TICK_SECONDS: Final = 1.0
# A longer silence between two renewals means that this server may have missed what happened.
GAP_SECONDS: Final = 2.0
# Answers to beats that are sent in a row. One costs 0.1 ms, most of it in gRPC, and a job needs about ten turns of the
# loop from its submit to its worker: behind dozens of answers in each of them it would be late by 50 ms.
ANSWERS_AT_ONCE: Final = 16
# From one row of them to the next; thousands are hurried, so as to be out in half of a tick if there is time.
BETWEEN_ANSWERS_SECONDS: Final = 0.01
ANSWERS_SECONDS: Final = TICK_SECONDS / 2


class Leases(Service):
    """Renews on a connection of its own, so that nothing can hold up a lease; also reads Postgres' clock."""

    max_silence_seconds = 5.0
    retry_last_seconds = 0.25

    def __init__(self, core: Core, database: Database, sessions: Sessions) -> None:
        super().__init__("leases", core.clock)
        self._database = database
        self._sessions = sessions
        self._pg_clock = core.pg_clock
        self._server_id = core.server_id
        self._steady_since: float | None = None
        self._renewed_at = core.clock.monotonic()

    def steady_seconds(self) -> float:
        """Return for how long renewals have been committed each second: the outage grace of expiry."""
        now = self.clock.monotonic()
        if self._steady_since is None or now - self._renewed_at > GAP_SECONDS:
            return 0.0
        return now - self._steady_since

    async def run_once(self) -> float | None:
        """Renew, read the clock, then answer the beats that the renewal covers."""
        began = self.clock.monotonic()
        heard = [(session, session.beat) for session in self._sessions.heard_from()]
        try:
            now_ms = await self._renew(heard)
        except BaseException:
            for session, _ in heard:
                session.heard = True
            raise
        self._keep_steady()
        self._pg_clock.set(now_ms)
        await self._answer(heard, now_ms)
        return max(0.0, TICK_SECONDS - (self.clock.monotonic() - began))

    async def _answer(self, heard: Sequence[tuple[Session, int]], now_ms: int) -> None:
        began = self.clock.monotonic()
        rows = range(0, len(heard), ANSWERS_AT_ONCE)
        between_seconds = min(BETWEEN_ANSWERS_SECONDS, ANSWERS_SECONDS / max(1, len(rows)))
        for number, at in enumerate(rows):
            if number:
                # Whatever is late is not put off any more: the next renewal waits for it.
                await self.pause(max(0.0, began + number * between_seconds - self.clock.monotonic()))
            for session, beat in heard[at : at + ANSWERS_AT_ONCE]:
                session.peer.renewed(beat, now_ms)

    async def _renew(self, heard: list[tuple[Session, int]]) -> int:
        # Durable, unlike other small writes: the answer to a beat is a promise, and a crash must not take it back.
        row = await self._database.fetch_one(
            "renew_sessions",
            ids=[session.id for session, _ in heard],
            slots=[session.slots for session, _ in heard],
            healths=[session.health for session, _ in heard],
            lease_ms=self._sessions.lease_ms,
            open_ids=self._sessions.ids,
            server_id=self._server_id,
        )
        assert row is not None
        renewed = set(row["renewed"])
        for session, _ in heard:
            # One that was skipped is renewed in the next second, beat or no beat.
            session.heard = session.heard or session.id not in renewed
        for session_id in row["closed"]:
            self._sessions.end(session_id, reason="its lease was over, or its worker has a newer stream")
        heard[:] = [(session, beat) for session, beat in heard if session.id in renewed]
        return int(row["now_ms"])

    def _keep_steady(self) -> None:
        now = self.clock.monotonic()
        if self._steady_since is None or now - self._renewed_at > GAP_SECONDS:
            self._steady_since = now
        self._renewed_at = now
