"""Databases for tests: one migrated template per session, a copy of it per test."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import asyncpg

from orqestra.embedded.postgres import EmbeddedPostgres
from orqestra.store import migrations
from orqestra.store.database import Database
from tests.support.transitions import job_trigger, run_trigger

TEMPLATE = "orqestra_template"

_numbers = itertools.count(1)


async def make_template(postgres: EmbeddedPostgres) -> None:
    """Make the database that tests get copies of: the shipped schema and the triggers that watch it."""
    async with _maintenance(postgres) as connection:
        await connection.execute(f'CREATE DATABASE "{TEMPLATE}"')
    await migrations.up(postgres.url(TEMPLATE))
    connection = await asyncpg.connect(postgres.url(TEMPLATE))
    await connection.execute(job_trigger() + run_trigger())
    await connection.close()
    async with _maintenance(postgres) as connection:
        # A template that is connected to can't be copied.
        await connection.execute(f'ALTER DATABASE "{TEMPLATE}" WITH ALLOW_CONNECTIONS false')


@asynccontextmanager
async def fresh_database(postgres: EmbeddedPostgres, template: str = TEMPLATE) -> AsyncIterator[str]:
    """Yield the URL of a new database like `template`; it is dropped afterwards, whoever is connected."""
    name = f"test_{next(_numbers)}"
    async with _maintenance(postgres) as connection:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield postgres.url(name)
    finally:
        async with _maintenance(postgres) as connection:
            await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def scratch_postgres(folder: Path) -> EmbeddedPostgres:
    """Return a server of a test's own, with its data in `folder`, not started."""
    return EmbeddedPostgres(folder / "postgres", durable=False)


async def execute(postgres: EmbeddedPostgres, sql: str) -> object:
    """Run one statement in the default database; return its first value."""
    connection = await asyncpg.connect(postgres.url())
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


@asynccontextmanager
async def _maintenance(postgres: EmbeddedPostgres) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await asyncpg.connect(postgres.url("postgres"))
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def bare(database: Database) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """Lend a connection as the server has them, for statements of the test's own."""
    async with database.connection() as statements:
        yield cast("asyncpg.Connection[asyncpg.Record]", statements._connection)
