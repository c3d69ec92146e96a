"""What each step of a job takes at least: one statement on a table with a primary key and nothing else.

The same words as in `benchmarks/ours.py`, for a batch each. What any queue takes for all
of them together is the raw cycle, `orqestra.bench.cycle`.
"""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import asyncpg

from orqestra.model import limits

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

PIECE: Final = os.urandom(limits.OUTPUT_CHUNK_BYTES)
COLUMNS: Final = ("id", "queue", "payload", "state")
TABLE: Final = """
DROP TABLE IF EXISTS bare;
CREATE TABLE bare (
    id          bigint PRIMARY KEY,
    queue       text NOT NULL,
    payload     bytea NOT NULL,
    state       text NOT NULL,
    session_id  bigint,
    finished_at timestamptz
);
DROP TABLE IF EXISTS bare_output;
CREATE TABLE bare_output (id bigint PRIMARY KEY, bytes bytea NOT NULL)"""
INSERT: Final = "INSERT INTO bare (id, queue, payload, state) VALUES ($1, 'default', '{}', 'pending')"
CLAIM: Final = """
UPDATE bare SET state = 'running', session_id = 1 WHERE id = ANY($1::bigint[]) AND state = 'pending'
RETURNING id, payload"""
SETTLE: Final = """
UPDATE bare SET state = 'completed', finished_at = now() WHERE id = ANY($1::bigint[]) AND state = 'running'
RETURNING id"""
RETRY: Final = """
UPDATE bare SET state = 'retrying', session_id = NULL WHERE id = ANY($1::bigint[]) AND state = 'running'
RETURNING id"""
RENEW: Final = "UPDATE bare SET finished_at = now() WHERE id = ANY($1::bigint[]) RETURNING id"
STORE: Final = "INSERT INTO bare_output (id, bytes) SELECT * FROM unnest($1::bigint[], $2::bytea[])"
DELETE: Final = "DELETE FROM bare WHERE id = ANY($1::bigint[])"
COMMIT_LATER: Final = "SET LOCAL synchronous_commit TO off"
FIND: Final = "SELECT id, state FROM bare WHERE id = ANY($1::bigint[])"
PEEK: Final = "SELECT id, state FROM bare ORDER BY id LIMIT $1"
LIST: Final = "SELECT * FROM bare ORDER BY id DESC LIMIT $1"


@dataclass(frozen=True, kw_only=True)
class Bare:
    """One connection to the bare table. Ids come from `numbers`, which all connections share."""

    connection: Sql
    numbers: "itertools.count[int]"

    async def submit(self, count: int) -> list[int]:
        """Store jobs: COPY, or INSERT where it is a single one, which is faster; return their ids."""
        ids = list(itertools.islice(self.numbers, count))
        if count == 1:
            await self.connection.execute(INSERT, ids[0])
        else:
            rows = [(job_id, "default", b"{}", "pending") for job_id in ids]
            await self.connection.copy_records_to_table("bare", records=rows, columns=COLUMNS)
        return ids

    async def claim(self, ids: Sequence[int]) -> list[Any]:
        """Start them; return their rows."""
        return await self.connection.fetch(CLAIM, ids)

    async def settle(self, rows: Sequence[Any]) -> list[int]:
        """End them; return their ids."""
        return [row["id"] for row in await self.connection.fetch(SETTLE, [row["id"] for row in rows])]

    async def retry(self, rows: Sequence[Any]) -> int:
        """Let them wait again; return how many."""
        return len(await self.connection.fetch(RETRY, [row["id"] for row in rows]))

    async def follow(self, rows: Sequence[Any]) -> list[int]:
        """End them and store as many new ones in one transaction."""
        async with self.connection.transaction():
            await self.settle(rows)
            return await self.submit(len(rows))

    async def look_at(self, ids: Sequence[int]) -> int:
        """Read them by their ids; return how many."""
        return len(await self.connection.fetch(FIND, ids))

    async def store_output(self, ids: Sequence[int]) -> None:
        """Store as much output for each as a piece has."""
        await self.connection.execute(STORE, ids, [PIECE] * len(ids))

    async def renew(self, ids: Sequence[int]) -> int:
        """Set the time of each; return how many."""
        return len(await self.connection.fetch(RENEW, ids))

    async def delete(self, ids: Sequence[int]) -> None:
        """Delete them."""
        await self.connection.execute(DELETE, ids)

    async def delete_later(self, ids: Sequence[int]) -> None:
        """Delete them without waiting for the disk."""
        async with self.connection.transaction():
            await self.connection.execute(COMMIT_LATER)
            await self.delete(ids)

    async def peek(self, count: int) -> int:
        """Read the first rows; return how many."""
        return len(await self.connection.fetch(PEEK, count))

    async def page(self, count: int) -> int:
        """Read the newest rows whole; return how many."""
        return len(await self.connection.fetch(LIST, count))


async def make_table(connection: Sql) -> None:
    """Make the table anew."""
    await connection.execute(TABLE)
