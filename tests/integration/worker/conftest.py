"""A scripted server, and the pipes by which a test and a command tell each other where they are."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.fifo import Fifo
from tests.support.supervising import end_supervisors
from tests.support.worker_peer import Peer


@pytest_asyncio.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer.serving() as peer:
        yield peer


@pytest.fixture(autouse=True)
def no_supervisor_outlives_its_test(tmp_path: Path) -> Iterator[None]:
    """A daemon that is killed leaves its supervisor: that is the point of it."""
    yield
    end_supervisors(tmp_path)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Fifo]:
    """A command writes to it once it runs."""
    with Fifo(tmp_path / "started") as fifo:
        yield fifo


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Fifo]:
    """A command reads from it until the test lets it go on."""
    with Fifo(tmp_path / "gate") as fifo:
        yield fifo
