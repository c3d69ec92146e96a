"""The connections to Postgres, and what its errors mean.

A statement that fails because no connection could be had has certainly not run (StorageUnavailable).
One that was on its way when the connection broke may have (OutcomeUnknown): each caller says what
then. Errors that Postgres itself answers come through as asyncpg's, and nothing was stored.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg

from orqestra.model.errors import OutcomeUnknown, StorageUnavailable
from orqestra.store.queries import Query, load_queries

# A batch takes tens of milliseconds; a connection that is silent for so long is broken.
COMMAND_TIMEOUT_SECONDS: Final = 5.0
RELEASE_TIMEOUT_SECONDS: Final = 1.0
ACQUIRE_TIMEOUT_SECONDS: Final = 5.0
DEADLOCK_TRIES: Final = 5

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Row = asyncpg.Record
T = TypeVar("T")

# FATAL errors end the connection; they may come after a commit and before its answer.
_BROKEN: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)
_REFUSED: Final = (*_BROKEN, asyncpg.TooManyConnectionsError, asyncpg.InvalidAuthorizationSpecificationError)


class Statements:
    """One connection, on which queries are run by name."""

    def __init__(self, connection: Connection, queries: dict[str, Query]) -> None:
        self._connection = connection
        self._queries = queries

    async def fetch(self, name: str, /, **values: Any) -> list[Row]:
        """Run the query `name` with its named parameters and return all rows."""
        query = self._queries[name]
        try:
            return await self._connection.fetch(query.text, *query.arguments(values))
        except _BROKEN as error:
            raise OutcomeUnknown(f"the connection to Postgres was lost during {name}: {error!r}") from error

    async def fetch_one(self, name: str, /, **values: Any) -> Row | None:
        """Run the query `name` and return its first row, if any."""
        rows = await self.fetch(name, **values)
        return rows[0] if rows else None


class Database:
    """A pool of connections. Batches keep it small: each stage has one or two statements under way."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self._queries = load_queries()

    @classmethod
    async def connect(
        cls, dsn: str, *, connections: int, timeout_seconds: float = COMMAND_TIMEOUT_SECONDS
    ) -> "Database":
        """Open the pool; raises StorageUnavailable if Postgres does not answer."""
        try:
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=connections,
                timeout=ACQUIRE_TIMEOUT_SECONDS,
                command_timeout=timeout_seconds,
                init=_prepare_connection,
                reset=_keep_connection,
                max_inactive_connection_lifetime=0,
            )
        except _REFUSED as error:
            raise StorageUnavailable(f"Postgres does not answer: {error}") from error
        return cls(pool)

    async def close(self, seconds: float) -> None:
        """Close all connections; statements that are still under way then are left to their end."""
        try:
            async with asyncio.timeout(seconds):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Statements]:
        """Lend a connection; each statement on it commits by itself."""
        connection = await self._acquire()
        try:
            yield Statements(connection, self._queries)
        finally:
            await self._release(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Statements]:
        """Lend a connection inside one transaction, which commits at the end of the block."""
        connection = await self._acquire()
        try:
            transaction = connection.transaction()
            # Outside: a transaction that did not begin cannot be rolled back, and a cancel must stay one.
            await transaction.start()
            try:
                yield Statements(connection, self._queries)
            except BaseException:
                if not connection.is_closed():
                    await transaction.rollback()
                raise
            await transaction.commit()
        except _BROKEN as error:
            raise OutcomeUnknown(f"the connection to Postgres was lost during a transaction: {error!r}") from error
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

    async def _acquire(self) -> "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]":
        try:
            return await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS)
        except _REFUSED as error:
            raise StorageUnavailable(f"Postgres does not answer: {error!r}") from error

    async def _release(self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
        try:
            await self._pool.release(connection, timeout=RELEASE_TIMEOUT_SECONDS)
        except _BROKEN:
            # A connection that broke while it was reset is gone from the pool either way.
            return


async def _prepare_connection(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    # A plan is made for the table as it is now. One that was made for all times while the table was
    # empty would walk all of it, batch after batch, until the first ANALYZE.
    await connection.execute("SET plan_cache_mode = force_custom_plan")


async def _keep_connection(_connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Spare the round trip that would undo session state: our statements leave none behind."""


async def retry_conflicts(attempt: Callable[[], Awaitable[T]]) -> T:
    """Run a transaction again that Postgres ended as a deadlock or serialisation failure."""
    for _ in range(DEADLOCK_TRIES - 1):
        try:
            return await attempt()
        except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
            continue
    return await attempt()
