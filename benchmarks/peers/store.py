"""A private Postgres or Redis, from the wheels that Orqestra brings, for one peer and one round.

Postgres has the settings that Orqestra's own has: it waits for the disk. Redis is as it comes, without
persistence, or syncs its append-only file with every write.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import asyncpg
import redis.asyncio

from benchmarks.peers.peer import Entrant, StoreKind
from orqestra.embedded.postgres import EmbeddedPostgres
from orqestra.embedded.redis import EmbeddedRedis

UNIX: Final = "unix://"
SYNCED: Final = (("appendfsync", "always"), ("appendonly", "yes"))


@dataclass(frozen=True, kw_only=True)
class Store:
    """A running store: how programs are told where it is, and the question how many jobs have not finished."""

    variables: Mapping[str, str]
    unfinished: Callable[[], Awaitable[int]]


@asynccontextmanager
async def store_for(entrant: Entrant, directory: Path) -> AsyncIterator[Store]:
    """Start the entrant's store with its data in `directory`; end it afterwards."""
    match entrant.peer.store:
        case StoreKind.POSTGRES:
            async with EmbeddedPostgres(directory / "postgres") as postgres, _postgres(postgres, entrant) as store:
                yield store
        case StoreKind.REDIS:
            async with EmbeddedRedis(directory / "redis") as server, _redis(server, entrant) as store:
                yield store


@asynccontextmanager
async def _postgres(postgres: EmbeddedPostgres, entrant: Entrant) -> AsyncIterator[Store]:
    connection = await asyncpg.connect(postgres.url())

    async def unfinished() -> int:
        return int(await connection.fetchval(entrant.peer.unfinished))

    try:
        yield Store(variables=libpq_variables(postgres.url()), unfinished=unfinished)
    finally:
        await connection.close()


@asynccontextmanager
async def _redis(server: EmbeddedRedis, entrant: Entrant) -> AsyncIterator[Store]:
    client = redis.asyncio.Redis.from_url(server.address)
    script = client.register_script(entrant.peer.unfinished)

    async def unfinished() -> int:
        return int(await script())

    try:
        if entrant.syncs_redis:
            for name, value in SYNCED:
                await client.config_set(name, value)
        yield Store(variables={"REDIS_SOCKET": server.address.removeprefix(UNIX)}, unfinished=unfinished)
    finally:
        await client.aclose()


def libpq_variables(url: str) -> dict[str, str]:
    """Return the address of a database as the variables that every client of Postgres reads."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    return {
        "PGUSER": parts.username or "",
        "PGDATABASE": parts.path.removeprefix("/"),
        "PGHOST": query["host"][0],
        "PGPORT": query["port"][0],
    }
