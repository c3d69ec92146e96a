"""The services that tests run against: a real Postgres and a real Redis, started once per session.

A service that does not come up fails the tests that need it; nothing is skipped. What runs here has all
that production has, except that Postgres does not wait for the disk.
"""

import itertools
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from orqestra.embedded.postgres import EmbeddedPostgres
from orqestra.embedded.redis import EmbeddedRedis
from tests.support.databases import fresh_database, make_template

_namespaces = itertools.count(1)

# Who starts the tests in the background, or by nohup, lets them ignore these, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def services_directory() -> Iterator[Path]:
    """A folder with a short path, for the sockets in it, that is gone after the session."""
    with tempfile.TemporaryDirectory(prefix="orqestra-test-") as directory:
        yield Path(directory)


@pytest.fixture
def folder(services_directory: Path) -> Path:
    """A folder of this test alone, with a path short enough for sockets in it."""
    return Path(tempfile.mkdtemp(dir=services_directory))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres(services_directory: Path) -> AsyncIterator[EmbeddedPostgres]:
    """The session's Postgres, with the migrated template in it."""
    async with EmbeddedPostgres(services_directory / "postgres", durable=False) as server:
        await make_template(server)
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def redis_server(services_directory: Path) -> AsyncIterator[EmbeddedRedis]:
    """The session's Redis."""
    async with EmbeddedRedis(services_directory / "redis") as server:
        yield server


@pytest_asyncio.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The DB_URL of a database of this test alone, migrated, with a trigger that forbids bad transitions."""
    async with fresh_database(postgres) as url:
        yield url


@pytest_asyncio.fixture
async def empty_database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The DB_URL of a database of this test alone, without any schema."""
    async with fresh_database(postgres, "template0") as url:
        yield url


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """The REDIS_ADDR of the session's Redis, `unix:///...`: an address that redis-py takes as well."""
    return redis_server.address


@pytest.fixture
def redis_namespace() -> str:
    """A REDIS_QUEUE_NAME of this test alone."""
    return f"test-{next(_namespaces)}"
