"""The connections to Postgres, and what its errors mean.

A statement that fails because no connection could be had, or before it was sent, has certainly not run,
and a transaction whose connection breaks before its COMMIT is sent has stored nothing
(StorageUnavailable). A statement or a COMMIT that was on its way when the connection broke may have
(OutcomeUnknown): each caller says what then. Errors that Postgres itself answers come through as
asyncpg's, and nothing was stored.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg

from orqestra.model.errors import OutcomeUnknown, StorageUnavailable
from orqestra.service import retry_delay_seconds
from orqestra.store.queries import Query, load_queries

# A batch takes tens of milliseconds; a connection that is silent for so long is broken.
COMMAND_TIMEOUT_SECONDS: Final = 5.0
RELEASE_TIMEOUT_SECONDS: Final = 1.0
ACQUIRE_TIMEOUT_SECONDS: Final = 5.0
CONFLICT_TRIES: Final = 5
# Connections break one by one, or all at once: then more tries would not help either.
INSIST_TRIES: Final = 3
# A server that is stopped in the middle of a transaction must not hold its locks for ever.
IDLE_IN_TRANSACTION: Final = "10s"
# Together about the time that Postgres needs to come back after a crash.
UNKNOWN_TRIES: Final = 20
UNKNOWN_WAIT_SECONDS: Final = 0.25
# For so few jobs to plan a statement takes longer than to run it, by whatever indexes.
FEW_JOBS: Final = 32

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Row = asyncpg.Record
T = TypeVar("T")

# FATAL errors end the connection; they may come after a commit and before its answer.
_BROKEN: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
# What asyncpg says when Postgres has ended an idle connection, the reason was read and the end was not yet:
# then it sends nothing on it any more.
_UNSENT: Final = "cannot switch to state"
_REFUSED: Final = (*_BROKEN, asyncpg.TooManyConnectionsError, asyncpg.InvalidAuthorizationSpecificationError)


@dataclass(frozen=True, kw_only=True)
class Backend:
    """The process of Postgres behind a connection. The pid alone may be another's by now."""

    pid: int
    started_at: datetime


class Statements:
    """One connection, on which queries are run by name; `backend` is None where a pooler hides it."""

    def __init__(self, connection: Connection, queries: dict[str, Query], backend: Backend | None) -> None:
        self._connection = connection
        self._queries = queries
        self.backend = backend

    @property
    def in_transaction(self) -> bool:
        """Whether what was run so far is stored only if the rest is."""
        return self._connection.is_in_transaction()

    async def fetch(self, name: str, /, **values: Any) -> list[Row]:
        """Run the query `name` with its named parameters and return all rows."""
        query = self._queries[name]
        try:
            return await self._connection.fetch(query.text, *query.arguments(values))
        except _BROKEN as error:
            if _is_unsent(error):
                raise StorageUnavailable(f"the connection to Postgres was lost before {name}: {error!r}") from error
            # Back in the pool it would be another's: whoever ends this statement's backend would end that one's.
            with suppress(asyncpg.InterfaceError):  # it is closed and has left the pool
                self._connection.terminate()
            raise OutcomeUnknown(f"the connection to Postgres was lost during {name}: {error!r}") from error

    async def fetch_one(self, name: str, /, **values: Any) -> Row | None:
        """Run the query `name` and return its first row, if any."""
        rows = await self.fetch(name, **values)
        return rows[0] if rows else None


class Database:
    """A pool of connections. Batches keep it small: each stage has one or two statements under way."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", backends: dict[int, Backend], for_few: set[int]) -> None:
        self._pool = pool
        self._backends = backends
        self._for_few = for_few
        self._queries = load_queries()

    @classmethod
    async def connect(
        cls, dsn: str, *, connections: int, timeout_seconds: float = COMMAND_TIMEOUT_SECONDS
    ) -> "Database":
        """Open the pool; raises StorageUnavailable if Postgres does not answer."""
        backends: dict[int, Backend] = {}
        for_few: set[int] = set()

        async def prepare(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
            for_few.discard(connection.get_server_pid())
            await _prepare_connection(connection, backends)

        try:
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=connections,
                timeout=ACQUIRE_TIMEOUT_SECONDS,
                command_timeout=timeout_seconds,
                init=prepare,
                reset=_keep_connection,
                max_inactive_connection_lifetime=0,
            )
        except _REFUSED as error:
            raise StorageUnavailable(f"Postgres does not answer: {error}") from error
        return cls(pool, backends, for_few)

    async def close(self, seconds: float) -> None:
        """Close all connections; statements that are still under way then are left to their end."""
        try:
            async with asyncio.timeout(seconds):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self, *, jobs: int | None = None) -> AsyncIterator[Statements]:
        """Lend a connection; each statement on it commits by itself. `jobs`: how many it is about, if that is known."""
        connection = await self._acquire(jobs)
        try:
            yield self._statements(connection)
        finally:
            await self._release(connection)

    @asynccontextmanager
    async def transaction(self, *, jobs: int | None = None) -> AsyncIterator[Statements]:
        """Lend a connection inside one transaction, which commits at the end of the block. `jobs` as above."""
        connection = await self._acquire(jobs)
        committing = False
        try:
            transaction = connection.transaction()
            # Outside: a transaction that did not begin cannot be rolled back, and a cancel must stay one.
            await transaction.start()
            try:
                yield self._statements(connection)
            except BaseException:
                # Where the connection is gone Postgres rolls back by itself, and the first error says why.
                with suppress(*_BROKEN):
                    await transaction.rollback()
                raise
            committing = True
            await transaction.commit()
        except (OutcomeUnknown, *_BROKEN) as error:
            if not committing or _is_unsent(error):
                cause = error.__cause__ if isinstance(error, OutcomeUnknown) else error
                raise StorageUnavailable(f"the connection to Postgres was lost, nothing was stored: {error}") from cause
            # As after a statement: what ends its backend must not meet another's.
            with suppress(asyncpg.InterfaceError):
                connection.terminate()
            raise OutcomeUnknown(f"the connection to Postgres was lost during a COMMIT: {error!r}") from error
        finally:
            await self._release(connection)

    async def fetch(self, name: str, /, **values: Any) -> list[Row]:
        """Run one query on a connection of the pool."""
        async with self.connection() as statements:
            return await statements.fetch(name, **values)

    async def fetch_one(self, name: str, /, **values: Any) -> Row | None:
        """Run one query and return its first row, if any."""
        rows = await self.fetch(name, **values)
        return rows[0] if rows else None

    async def insist(self, name: str, /, **values: Any) -> list[Row]:
        """Run a query that does no harm when it is run twice: cut off, it is run again on another connection."""
        for _ in range(INSIST_TRIES - 1):
            try:
                return await self.fetch(name, **values)
            except (OutcomeUnknown, StorageUnavailable) as error:
                # One that is silent has taken its time already.
                if isinstance(error.__cause__, TimeoutError):
                    raise
        return await self.fetch(name, **values)

    def _statements(self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> Statements:
        return Statements(connection, self._queries, self._backends.get(connection.get_server_pid()))

    async def _acquire(self, jobs: int | None) -> "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]":
        try:
            connection = await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS)
            try:
                await self._plan_for(connection, is_few=jobs is not None and jobs <= FEW_JOBS)
            except BaseException:
                await self._release(connection)
                raise
        except _REFUSED as error:
            raise StorageUnavailable(f"Postgres does not answer: {error!r}") from error
        return connection

    async def _plan_for(self, connection: Connection, *, is_few: bool) -> None:
        """Have statements planned for the moment, or once for all times if they are about few jobs."""
        pid = connection.get_server_pid()
        if is_few == (pid in self._for_few):
            return
        await connection.execute(_PLANS_FOR_FEW if is_few else _PLANS)
        if is_few:
            self._for_few.add(pid)
        else:
            self._for_few.discard(pid)

    async def _release(self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
        try:
            await self._pool.release(connection, timeout=RELEASE_TIMEOUT_SECONDS)
        except _BROKEN:
            # A connection that broke while it was reset is gone from the pool either way.
            return


# A plan for all times has to go by an index, however small the table was when it was made.
_PLANS_FOR_FEW: Final = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"
_PLANS: Final = "SET plan_cache_mode = force_custom_plan; RESET enable_seqscan"
# A plan is made for the table as it is now. One that was made for all times while the table was
# empty would walk all of it, batch after batch, until the first ANALYZE.
# What is worked on is in memory: with the cost of a disk for a page, a thousand rows of a batch would be
# looked for by reading a whole table of some ten thousands instead of by their ids, twice in a settlement.
_PREPARE: Final = """
SELECT set_config('plan_cache_mode', 'force_custom_plan', false),
       set_config('random_page_cost', '1.1', false),
       set_config('idle_in_transaction_session_timeout', $1, false),
       pg_backend_pid() AS pid,
       -- what pg_stat_activity shows; planning that view takes longer than to connect
       (SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid()))"""


async def _prepare_connection(connection: "asyncpg.Connection[asyncpg.Record]", backends: dict[int, Backend]) -> None:
    row = await connection.fetchrow(_PREPARE, IDLE_IN_TRANSACTION)
    assert row is not None
    # Behind a pooler the pid is none of Postgres', and each statement may meet another backend.
    if row["pid"] != connection.get_server_pid() or row["backend_start"] is None:
        return
    backend = Backend(pid=row["pid"], started_at=row["backend_start"])
    backends[backend.pid] = backend

    def forget(_connection: object) -> None:
        if backends.get(backend.pid) is backend:
            del backends[backend.pid]

    connection.add_termination_listener(forget)


async def _keep_connection(_connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Spare the round trip that would undo session state: our statements leave none behind."""


def _is_unsent(error: Exception) -> bool:
    return isinstance(error, asyncpg.InternalClientError) and _UNSENT in str(error)


async def retry_conflicts(attempt: Callable[[], Awaitable[T]]) -> T:
    """Run a transaction again that has stored nothing: ended as a deadlock, or cut off before its COMMIT.

    A Postgres that is away is not waited for.
    """
    for _ in range(CONFLICT_TRIES - 1):
        try:
            return await attempt()
        except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
            continue
        except StorageUnavailable as error:
            if isinstance(error.__cause__, TimeoutError):
                raise
    return await attempt()


async def until_known(
    attempt: Callable[[], Awaitable[T]],
    on_unknown: Callable[[], None] = lambda: None,
    *,
    unknown: OutcomeUnknown | None = None,
) -> T:
    """Run a transaction again while its outcome is unknown; for those that change nothing the second time.

    `unknown` is how it ended before, if it was run before; `on_unknown` is called each time it ends so.
    Raises OutcomeUnknown if Postgres stays away.
    """
    for failures in range(1, UNKNOWN_TRIES + 1):
        try:
            return await retry_conflicts(attempt)
        except OutcomeUnknown as error:
            unknown = error
            on_unknown()
        except StorageUnavailable:
            # This time nothing was stored; the time before something may have been.
            if unknown is None:
                raise
        await asyncio.sleep(retry_delay_seconds(failures, UNKNOWN_WAIT_SECONDS))
    assert unknown is not None
    raise unknown
