"""Queries and transactions on Postgres, and what its errors mean.

A statement that fails because no connection could be had, or before it was sent, has certainly not run,
and a transaction whose connection breaks before its COMMIT is sent has stored nothing
(StorageUnavailable). A statement or a COMMIT that was on its way when the connection broke may have
(OutcomeUnknown): each caller says what then. Errors that Postgres itself answers come through as
asyncpg's, and nothing was stored.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from copy import copy
from typing import Any, Final, TypeVar

import asyncpg

from orqestra.model.errors import OutcomeUnknown, StorageUnavailable
from orqestra.service import retry_delay_seconds
from orqestra.store.connections import ACQUIRE_TIMEOUT_SECONDS, BROKEN, Backend, Connection, Connections, Pooled, end
from orqestra.store.queries import Query, load_queries

# A batch takes tens of milliseconds; a connection that is silent for so long is broken.
COMMAND_TIMEOUT_SECONDS: Final = 5.0
CONFLICT_TRIES: Final = 5
# Connections break one by one, or all at once: then more tries would not help either.
INSIST_TRIES: Final = 3
# Together about the time that Postgres needs to come back after a crash.
UNKNOWN_TRIES: Final = 20
UNKNOWN_WAIT_SECONDS: Final = 0.25

Row = asyncpg.Record
T = TypeVar("T")

# What asyncpg says when Postgres has ended an idle connection, the reason was read and the end was not yet:
# then it sends nothing on it any more.
_UNSENT: Final = "cannot switch to state"
_REFUSED: Final = (*BROKEN, asyncpg.TooManyConnectionsError, asyncpg.InvalidAuthorizationSpecificationError)


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
        except BROKEN as error:
            if _is_unsent(error):
                raise StorageUnavailable(f"the connection to Postgres was lost before {name}: {error!r}") from error
            # Back in the pool it would be another's: whoever ends this statement's backend would end that one's.
            end(self._connection)
            raise OutcomeUnknown(f"the connection to Postgres was lost during {name}: {error!r}") from error

    async def fetch_one(self, name: str, /, **values: Any) -> Row | None:
        """Run the query `name` and return its first row, if any."""
        rows = await self.fetch(name, **values)
        return rows[0] if rows else None


class Database:
    """Lends connections and runs queries. Batches keep them few: each stage has one or two statements under way."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._turns: asyncio.Semaphore | None = None
        self._queries = load_queries()

    @classmethod
    async def connect(
        cls, dsn: str, *, connections: int, timeout_seconds: float = COMMAND_TIMEOUT_SECONDS
    ) -> "Database":
        """Open the first of so many connections; raises StorageUnavailable if Postgres does not answer."""
        opened = Connections()
        try:
            await opened.open(dsn, most=connections, timeout_seconds=timeout_seconds)
        except _REFUSED as error:
            raise StorageUnavailable(f"Postgres does not answer: {error}") from error
        return cls(opened)

    def at_most(self, count: int) -> "Database":
        """Return the same database for those who, together, are to have so many of its connections and no more."""
        bounded = copy(self)
        bounded._turns = asyncio.Semaphore(count)
        return bounded

    async def close(self, seconds: float) -> None:
        """Close all connections; statements that are still under way then are left to their end."""
        await self._connections.close(seconds)

    @asynccontextmanager
    async def connection(self, *, planned_once: bool = False) -> AsyncIterator[Statements]:
        """Lend a connection; each statement on it commits by itself.

        With `planned_once` no statement is planned anew, whatever has become of the tables: for those that join nothing
        with a table that may grow.
        """
        connection = await self._lend(planned_once=planned_once)
        whole = False
        try:
            yield self._statements(connection)
            whole = True
        finally:
            await self._take_back(connection, whole=whole)

    @asynccontextmanager
    async def transaction(self, *, planned_once: bool = False) -> AsyncIterator[Statements]:
        """Lend a connection inside one transaction, which commits at the end of the block."""
        connection = await self._lend(planned_once=planned_once)
        committing = whole = False
        try:
            transaction = connection.transaction()
            # Outside: a transaction that did not begin cannot be rolled back, and a cancel must stay one.
            await transaction.start()
            try:
                yield self._statements(connection)
            except BaseException:
                # Where the connection is gone Postgres rolls back by itself, and the first error says why.
                with suppress(*BROKEN):
                    await transaction.rollback()
                raise
            committing = True
            await transaction.commit()
            whole = True
        except (OutcomeUnknown, *BROKEN) as error:
            if not committing or _is_unsent(error):
                cause = error.__cause__ if isinstance(error, OutcomeUnknown) else error
                raise StorageUnavailable(f"the connection to Postgres was lost, nothing was stored: {error}") from cause
            # As after a statement: what ends its backend must not meet another's.
            end(connection)
            raise OutcomeUnknown(f"the connection to Postgres was lost during a COMMIT: {error!r}") from error
        finally:
            await self._take_back(connection, whole=whole)

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

    def _statements(self, connection: Pooled) -> Statements:
        return Statements(connection, self._queries, self._connections.backend(connection))

    async def _lend(self, *, planned_once: bool) -> Pooled:
        await self._take_turn()
        try:
            return await self._connections.lend(planned_once=planned_once)
        except BaseException as error:
            self._end_turn()
            if isinstance(error, _REFUSED):
                raise StorageUnavailable(f"Postgres does not answer: {error!r}") from error
            raise

    async def _take_back(self, connection: Pooled, *, whole: bool) -> None:
        try:
            await self._connections.take_back(connection, whole=whole)
        finally:
            self._end_turn()

    async def _take_turn(self) -> None:
        if self._turns is None:
            return
        try:
            async with asyncio.timeout(ACQUIRE_TIMEOUT_SECONDS):
                await self._turns.acquire()
        except TimeoutError as error:
            raise StorageUnavailable("the connections to Postgres that clients may use are all taken") from error

    def _end_turn(self) -> None:
        if self._turns is not None:
            self._turns.release()


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
