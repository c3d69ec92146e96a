"""What each step of a job takes at least: one statement on a table with a primary key and nothing else.

The same words in the same order as in `benchmarks/test_store.py`, for a batch each. What any queue takes for all
of them together is the raw cycle, `orqestra.bench.cycle`.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import asyncpg

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

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
)"""
INSERT: Final = "INSERT INTO bare (id, queue, payload, state) VALUES ($1, 'default', '{}', 'pending')"
CLAIM: Final = """
UPDATE bare SET state = 'running', session_id = 1 WHERE id = ANY($1::bigint[]) AND state = 'pending'
RETURNING id, payload"""
SETTLE: Final = """
UPDATE bare SET state = 'completed', finished_at = now() WHERE id = ANY($1::bigint[]) AND state = 'running'
RETURNING id"""
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

    async def settle(self, rows: Sequence[Any]) -> int:
        """End them; return how many."""
        return len(await self.connection.fetch(SETTLE, [row["id"] for row in rows]))

    async def peek(self, count: int) -> int:
        """Read the first rows; return how many."""
        return len(await self.connection.fetch(PEEK, count))

    async def page(self, count: int) -> int:
        """Read the newest rows whole; return how many."""
        return len(await self.connection.fetch(LIST, count))


async def make_table(connection: Sql) -> None:
    """Make the table anew."""
    await connection.execute(TABLE)
