"""Every committed row version, in commit order, with no help from what is tested: a logical slot.

The slot gives the messages of Postgres' own `pgoutput` plugin, protocol version 1, as described in
"Logical Replication Message Formats" of its manual. `Messages` reads one, `Decoder` makes transactions of them.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Self

import asyncpg

from tests.chaos.evidence import Change, Row, Transaction

TABLES: Final = ("jobs", "attempts", "sessions", "workflow_runs", "outbox")
# Large, never changed, and of no use to the checker.
LEFT_OUT: Final = frozenset({"payload"})
# A read ends with the transaction in which it gets to so many changes.
CHANGES_PER_READ: Final = 20_000
# The backend of a connection that broke keeps the slot until it notices.
BUSY_SECONDS: Final = 10.0
BUSY_POLL_SECONDS: Final = 0.05
POSTGRES_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)


class History:
    """What was committed since it was opened. Each call has a connection of its own: Postgres may be killed."""

    def __init__(self, dsn: str, slot: str) -> None:
        self._dsn = dsn
        self._slot = slot
        # After a crash a slot may stand where it stood at an earlier checkpoint.
        self._read_up_to = 0

    @classmethod
    async def open(cls, dsn: str) -> Self:
        """Begin to record; what an earlier history of this database left is removed."""
        async with _connected(dsn) as connection:
            database = await connection.fetchval("SELECT current_database()")
            history = cls(dsn, "history_" + re.sub(r"[^a-z0-9_]", "_", database.lower()))
            for table in TABLES:
                await connection.execute(f"ALTER TABLE {table} REPLICA IDENTITY FULL")
            await history._drop(connection)
            await connection.execute(f"CREATE PUBLICATION {history._slot} FOR TABLE {', '.join(TABLES)}")
            await connection.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", history._slot)
        return history

    async def read(self) -> list[Transaction]:
        """Return what was committed since the last read, in commit order, each transaction once.

        If it raises, nothing is lost: the next read gives it.
        """
        found: list[Transaction] = []
        async with _connected(self._dsn) as connection:
            while True:
                rows = await self._insist(connection, PEEK, CHANGES_PER_READ)
                if not rows:
                    return found
                transactions, end = decode(row["data"] for row in rows)
                # The rows are here already, so that nobody needs them any more.
                await self._insist(connection, ADVANCE, end)
                found += [each for each in transactions if each.lsn > self._read_up_to]
                self._read_up_to = max(self._read_up_to, *(each.lsn for each in transactions))

    async def skip(self) -> None:
        """Forget what is there."""
        async with _connected(self._dsn) as connection:
            flushed = await connection.fetchval("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint")
            await self._insist(connection, ADVANCE, flushed)
            self._read_up_to = max(self._read_up_to, flushed)

    async def close(self) -> None:
        """Remove the slot and the publication."""
        async with _connected(self._dsn) as connection:
            await self._drop(connection)

    async def _drop(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        await connection.execute(f"DROP PUBLICATION IF EXISTS {self._slot}")
        await self._insist(connection, DROP)

    async def _insist(
        self, connection: "asyncpg.Connection[asyncpg.Record]", query: str, *values: object
    ) -> list[asyncpg.Record]:
        """Ask for something that needs the slot, until nobody else has it."""
        async with asyncio.timeout(BUSY_SECONDS):
            while True:
                try:
                    return await connection.fetch(query, self._slot, *values)
                except asyncpg.ObjectInUseError:
                    await asyncio.sleep(BUSY_POLL_SECONDS)


# Peeked first and given up when it is here: a connection that breaks in between costs a second read, no more.
PEEK: Final = """
SELECT data FROM pg_logical_slot_peek_binary_changes(
    $1::text::name, NULL, $2, 'proto_version', '1', 'publication_names', $1)"""
ADVANCE: Final = "SELECT pg_replication_slot_advance($1, '0/0'::pg_lsn + $2::bigint)"
DROP: Final = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1"


@asynccontextmanager
async def _connected(dsn: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    # The text of times and bytes follows the settings of whoever asks.
    settings = {"timezone": "UTC", "datestyle": "ISO", "bytea_output": "hex"}
    connection = await asyncpg.connect(dsn, server_settings=settings)
    try:
        yield connection
    finally:
        await connection.close()


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A table as the messages that follow describe its rows."""

    name: str
    columns: tuple[tuple[str, Callable[[str], Any]], ...]


def decode(messages: Iterable[bytes]) -> tuple[list[Transaction], int]:
    """Return the transactions of whole messages, and the LSN up to which they go."""
    relations: dict[int, Relation] = {}
    transactions: list[Transaction] = []
    xid, changes, end = 0, list[Change](), 0
    for data in messages:
        message = Message(data)
        match message.kind:
            case "B":
                message.skip(16)
                xid, changes = message.integer(4), []
            case "R":
                identity = message.integer(4)
                relations[identity] = _relation(message)
            case "I" | "U" | "D":
                changes.append(_change(message, relations[message.integer(4)]))
            case "C":
                message.skip(1)
                lsn, end = message.integer(8), message.integer(8)
                committed_at = POSTGRES_EPOCH + timedelta(microseconds=message.integer(8))
                transactions.append(Transaction(xid=xid, lsn=lsn, committed_at=committed_at, changes=tuple(changes)))
            case "Y" | "O" | "M":
                continue  # types, origins and messages of applications say nothing about rows
            case _:
                raise ValueError(f"a message of kind {message.kind!r}: tables with a history are not to be truncated")
    return transactions, end


class Message:
    """The parts of one message, read from left to right."""

    def __init__(self, data: bytes) -> None:
        self.kind = chr(data[0])
        self._data = data
        self._at = 1

    def skip(self, size: int) -> None:
        """Pass over what is not needed."""
        self._at += size

    def integer(self, size: int) -> int:
        """Read a number of so many bytes."""
        return int.from_bytes(self.take(size))

    def letter(self) -> str:
        """Read one character."""
        return chr(self.take(1)[0])

    def text(self) -> str:
        """Read up to the NUL."""
        end = self._data.index(0, self._at)
        value = self._data[self._at : end]
        self._at = end + 1
        return value.decode()

    def take(self, size: int) -> bytes:
        """Read so many bytes."""
        value = self._data[self._at : self._at + size]
        self._at += size
        return value


def _relation(message: Message) -> Relation:
    message.text()  # the schema
    name = message.text()
    message.skip(1)  # the replica identity
    columns = []
    for _ in range(message.integer(2)):
        message.skip(1)  # whether it is part of the key
        column = message.text()
        columns.append((column, READERS.get(message.integer(4), str)))
        message.skip(4)  # the type's modifier
    return Relation(name=name, columns=tuple(columns))


def _change(message: Message, relation: Relation) -> Change:
    before: Row | None = None
    after: Row | None = None
    if message.kind == "I":
        message.skip(1)
        after = _tuple(message, relation, {})
    else:
        # With REPLICA IDENTITY FULL an old tuple is always there, and whole ("O").
        if message.letter() != "O":
            raise ValueError(f"a change of {relation.name} without its old row: is its replica identity FULL?")
        before = _tuple(message, relation, {})
        if message.kind == "U":
            message.skip(1)
            after = _tuple(message, relation, before)
    return Change(table=relation.name, kind=KINDS[message.kind], before=before, after=after)


def _tuple(message: Message, relation: Relation, before: Row) -> Row:
    row: dict[str, Any] = {}
    count = message.integer(2)
    for name, read in relation.columns[:count]:
        match message.letter():
            case "n":
                row[name] = None
            case "u":  # kept out of line and not changed
                row[name] = before.get(name)
            case "t":
                value = message.take(message.integer(4))
                row[name] = None if name in LEFT_OUT else read(value.decode())
            case other:
                raise ValueError(f"column {name} of {relation.name} comes as {other!r}")
    return row


def _read_bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("\\x"))


KINDS: Final[Mapping[str, Literal["insert", "update", "delete"]]] = {"I": "insert", "U": "update", "D": "delete"}
# By the OID of the type, which is fixed for those that Postgres brings along; all others stay text.
READERS: Final[Mapping[int, Callable[[str], Any]]] = {
    16: lambda text: text == "t",  # boolean
    17: _read_bytes,
    20: int,
    21: int,
    23: int,
    701: float,
    1184: datetime.fromisoformat,  # timestamptz
}
