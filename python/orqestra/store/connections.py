"""The connections to Postgres: opened, prepared, lent and taken back.

They come from asyncpg's pool, and who lends one again and again gets the same: what was given back whole stays at
hand, and goes back to the pool only if somebody waits for one there. For a single job the pool's own lending takes as
long as a statement.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

import asyncpg

ACQUIRE_TIMEOUT_SECONDS: Final = 5.0
RELEASE_TIMEOUT_SECONDS: Final = 1.0
# A server that is stopped in the middle of a transaction must not hold its locks for ever.
IDLE_IN_TRANSACTION: Final = "10s"
# Nor may a statement that nobody waits for any more wait on, for a lock: each try would leave a backend behind.
GIVEN_UP_SECONDS: Final = 1.0

Pooled: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | Pooled"

# FATAL errors end the connection; they may come after a commit and before its answer.
BROKEN: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    # Not FATAL; but whoever cancelled the statement, it says nothing of what the statement was given.
    asyncpg.QueryCanceledError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


def end(connection: Connection) -> None:
    """End it for good; the pool, which does not always notice that it is closed, has its place again."""
    with suppress(asyncpg.InterfaceError):  # it has left the pool
        connection.terminate()


@dataclass(frozen=True, kw_only=True)
class Backend:
    """The process of Postgres behind a connection. The pid alone may be another's by now."""

    pid: int
    started_at: datetime


class Connections:
    """So many at most, opened as they are needed."""

    def __init__(self) -> None:
        self._pool: asyncpg.Pool[asyncpg.Record]
        # By the pids that connections tell.
        self._backends: dict[int, Backend] = {}
        self._planned_once: set[int] = set()
        self._at_hand: list[Pooled] = []
        self._statement_timeout_ms = 0
        self._waiting = 0
        self._closing = False

    async def open(self, dsn: str, *, most: int, timeout_seconds: float) -> None:
        """Open the first; a statement on any may take `timeout_seconds`. Raises what asyncpg does."""
        self._statement_timeout_ms = int((timeout_seconds + GIVEN_UP_SECONDS) * 1000)
        self._pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=most,
            timeout=ACQUIRE_TIMEOUT_SECONDS,
            command_timeout=timeout_seconds,
            init=self._prepare,
            reset=_keep_state,
            max_inactive_connection_lifetime=0,
        )

    async def close(self, seconds: float) -> None:
        """Close all; statements that are still under way then are left to their end."""
        self._closing = True
        try:
            async with asyncio.timeout(seconds):
                while self._at_hand:
                    await self._give_back(self._at_hand.pop())
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    def backend(self, connection: Pooled) -> Backend | None:
        """Return the process behind a connection; None where a pooler hides it."""
        return self._backends.get(connection.get_server_pid())

    async def lend(self, *, planned_once: bool) -> Pooled:
        """Lend a connection, to be taken back, that plans each statement once, or each time anew.

        Raises what asyncpg does; nothing is lent then.
        """
        connection = self._take_at_hand(planned_once=planned_once) or await self._wait_for_one()
        try:
            await self._plan(connection, planned_once=planned_once)
        except BaseException:
            # Nobody knows how it plans now.
            end(connection)
            await self.take_back(connection, whole=False)
            raise
        return connection

    async def take_back(self, connection: Pooled, *, whole: bool) -> None:
        """Take it back; `whole`: nothing on it failed or was given up."""
        if whole and not self._waiting and not self._closing:
            self._at_hand.append(connection)
        else:
            await self._give_back(connection)

    def _take_at_hand(self, *, planned_once: bool) -> "Pooled | None":
        """Return the last that was given back, if possible of those that plan as is wanted."""
        for closed in [each for each in self._at_hand if not _is_open(each)]:
            end(closed)
            self._at_hand.remove(closed)
        if not self._at_hand:
            return None
        fitting = [each for each in self._at_hand if self._plans_once(each) == planned_once]
        connection = (fitting or self._at_hand)[-1]
        self._at_hand.remove(connection)
        return connection

    def _plans_once(self, connection: Pooled) -> bool:
        return connection.get_server_pid() in self._planned_once

    async def _wait_for_one(self) -> Pooled:
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS)
        finally:
            self._waiting -= 1

    async def _give_back(self, connection: Pooled) -> None:
        try:
            await self._pool.release(connection, timeout=RELEASE_TIMEOUT_SECONDS)
        except BROKEN:
            # A connection that broke while it was reset is gone from the pool either way.
            return

    async def _plan(self, connection: Pooled, *, planned_once: bool) -> None:
        # Behind a pooler it would be somebody else who plans so.
        planned_once = planned_once and self.backend(connection) is not None
        if planned_once == self._plans_once(connection):
            return
        await connection.execute(_PLANS_MADE_ONCE if planned_once else _PLANS)
        if planned_once:
            self._planned_once.add(connection.get_server_pid())
        else:
            self._planned_once.discard(connection.get_server_pid())

    async def _prepare(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._planned_once.discard(connection.get_server_pid())
        row = await connection.fetchrow(_PREPARE, IDLE_IN_TRANSACTION, str(self._statement_timeout_ms))
        assert row is not None
        # Behind a pooler the pid is none of Postgres', and each statement may meet another backend.
        if row["pid"] != connection.get_server_pid() or row["backend_start"] is None:
            return
        backend = Backend(pid=row["pid"], started_at=row["backend_start"])
        self._backends[backend.pid] = backend

        def forget(_connection: object) -> None:
            if self._backends.get(backend.pid) is backend:
                del self._backends[backend.pid]

        connection.add_termination_listener(forget)


# A plan for all times must not walk a table that was small when it was made. Where it joins one it may still walk an
# index of it: what is planned once has to be such that it cannot.
_PLANS_MADE_ONCE: Final = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"
_PLANS: Final = "SET plan_cache_mode = force_custom_plan; RESET enable_seqscan"
# A plan is made for the table as it is now. One that was made for all times while the table was
# empty would walk all of it, batch after batch, until the first ANALYZE.
# What is worked on is in memory: with the cost of a disk for a page, a thousand rows of a batch would be
# looked for by reading a whole table of some ten thousands instead of by their ids, twice in a settlement.
_PREPARE: Final = """
SELECT set_config('plan_cache_mode', 'force_custom_plan', false),
       set_config('random_page_cost', '1.1', false),
       set_config('idle_in_transaction_session_timeout', $1, false),
       set_config('statement_timeout', $2, false),
       pg_backend_pid() AS pid,
       -- what pg_stat_activity shows; planning that view takes longer than to connect
       (SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid()))"""


async def _keep_state(_connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Spare the round trip that would undo session state: our statements leave none behind."""


def _is_open(connection: Pooled) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # it has left the pool
        return False
