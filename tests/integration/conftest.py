"""Servers for the tests of this folder."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from orqestra.embedded.postgres import EmbeddedPostgres
from orqestra.embedded.redis import EmbeddedRedis
from orqestra.settings import Settings
from tests.support.databases import fresh_database
from tests.support.engine import Engine, engine_on
from tests.support.lossy_postgres import LossyPostgres, lossy_postgres
from tests.support.server import RunningServer, running_server, settings_for


@pytest_asyncio.fixture
async def server_settings(database: str, redis_url: str, redis_namespace: str, tmp_path: Path) -> Settings:
    """The settings of a server of this test alone, with an empty folder of workflows."""
    return settings_for(database, redis_url, redis_namespace, WORKFLOWS_DIR=str(tmp_path), ORQESTRA_LEASE_SECONDS="3")


@pytest_asyncio.fixture
async def server(server_settings: Settings) -> AsyncIterator[RunningServer]:
    """A server of this test alone."""
    async with running_server(server_settings) as running:
        yield running


@pytest_asyncio.fixture
async def sql(database: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A connection to the database of this test."""
    connection = await asyncpg.connect(database)
    try:
        yield connection
    finally:
        await connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The DB_URL of a database that the tests of one module share."""
    async with fresh_database(postgres) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_server(module_database: str, redis_server: EmbeddedRedis) -> AsyncIterator[RunningServer]:
    """A server that the tests of one module share."""
    settings = settings_for(module_database, redis_server.address, f"module-{uuid4()}")
    async with running_server(settings) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(module_database: str) -> AsyncIterator[Engine]:
    """The engine of a server without its loops, shared by the tests of one module."""
    async with engine_on(module_database) as shared:
        yield shared


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="orqestra-out-") as directory:
        yield Path(directory)


@pytest_asyncio.fixture
async def lossy(database: str, folder: Path) -> AsyncIterator[LossyPostgres]:
    """A way to the database of this test that can be cut."""
    async with lossy_postgres(database, folder) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def frail(
    lossy: LossyPostgres, redis_url: str, redis_namespace: str, tmp_path: Path
) -> AsyncIterator[RunningServer]:
    """A server whose connections to Postgres can be cut."""
    environ = {"WORKFLOWS_DIR": str(tmp_path), "ORQESTRA_LEASE_SECONDS": "3"}
    settings = settings_for(lossy.url, redis_url, redis_namespace, **environ)
    async with running_server(settings) as server:
        yield server
