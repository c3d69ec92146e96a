"""The raw cycle of Postgres, run as a program, with DB_URL set: `python -m orqestra.bench.cycle SECONDS`.

Two connections, each with batches of its own: COPY a thousand rows in, claim them, complete them, each of
these a commit that waits for the disk. The table lives in a schema that is dropped at the end. Prints one
line of JSON. A process of its own, so that what the client costs is small and not among our figures.
"""

import asyncio
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from itertools import count, repeat
from typing import Final

import asyncpg
import uvloop

from orqestra.model.lifecycle import State
from orqestra.store.queries import load_queries

BATCH_JOBS: Final = 1000
CONNECTIONS: Final = 2
# 100 bytes, and JSON: the jobs that are measured beside it have the same.
PAYLOAD: Final = b'{"data": "' + b"." * 88 + b'"}'
# Each connection has ids of its own from here on.
IDS: Final = 10**9
PRIORITY: Final = 4
COLUMNS: Final = ("id", "state", "priority", "payload", "fence")
WAITING: Final = State.PENDING.value
INTERRUPTED: Final = 130


async def measure(url: str, seconds: float) -> tuple[int, float]:
    """Return how many jobs went through the cycle and in how many seconds, about as many as asked for."""
    schema = f"bench_{secrets.token_hex(6)}"
    connections = [await asyncpg.connect(url) for _ in range(CONNECTIONS)]
    first = connections[0]
    try:
        await first.execute(f'CREATE SCHEMA "{schema}"')
        for connection in connections:
            await connection.execute(f"SET search_path = \"{schema}\"; SET synchronous_commit = 'on'")
        for name in ("make_bare_table", "make_bare_index"):
            await first.execute(_text(name))
        return await _measure(connections, seconds)
    finally:
        await first.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
        for connection in connections:
            await connection.close()


async def _measure(connections: list["asyncpg.Connection[asyncpg.Record]"], seconds: float) -> tuple[int, float]:
    batches = [_batches(IDS * number) for number in range(len(connections))]
    # The first of each plans its statements and is not counted.
    for connection, own in zip(connections, batches, strict=True):
        await _cycle(connection, next(own))
    began_at = time.monotonic()
    deadline = began_at + seconds

    async def run(connection: "asyncpg.Connection[asyncpg.Record]", own: Iterator[list[int]]) -> int:
        jobs = 0
        while time.monotonic() < deadline:
            await _cycle(connection, next(own))
            jobs += BATCH_JOBS
        return jobs

    jobs = await asyncio.gather(*map(run, connections, batches))
    return sum(jobs), time.monotonic() - began_at


async def _cycle(connection: "asyncpg.Connection[asyncpg.Record]", ids: list[int]) -> None:
    """Take one batch from nothing to its committed end."""
    records = zip(ids, repeat(WAITING), repeat(PRIORITY), repeat(PAYLOAD), repeat(0))
    await connection.copy_records_to_table("bare", records=records, columns=COLUMNS)
    for fence, query in enumerate((_text("claim_bare"), _text("complete_bare"))):
        changed = await connection.fetch(query, ids, [fence] * len(ids))
        if len(changed) != len(ids):
            raise RuntimeError(f"{len(changed)} rows changed of {len(ids)}")


def _batches(first: int) -> Iterator[list[int]]:
    for at in count(first, BATCH_JOBS):
        yield list(range(at, at + BATCH_JOBS))


QUERIES: Final = load_queries("orqestra.bench")


def _text(name: str) -> str:
    return QUERIES[name].text


def main() -> int:
    """Measure, print, return the exit code."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            jobs, seconds = runner.run(measure(os.environ["DB_URL"], float(sys.argv[1])))
        except KeyboardInterrupt:
            return INTERRUPTED
        except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            sys.stderr.write(f"{' '.join(str(error).split()) or type(error).__name__}\n")
            return 1
    sys.stdout.write(json.dumps({"jobs": jobs, "seconds": seconds}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
