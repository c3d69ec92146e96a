"""The two sets: what `make bench` measures, and with `--full` what takes longer too (marked `full`)."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="measure what is marked as full too")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: takes longer, or needs more memory: measured by `make bench-full`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True)
def _tell_the_set(request: pytest.FixtureRequest) -> None:
    """Note with the figures of the full set that they are its own."""
    if request.node.get_closest_marker("full"):
        request.getfixturevalue("benchmark").extra_info["full"] = True


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """A loop as a server has it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A folder with a short path, for the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="orqestra-bench-") as directory:
        yield Path(directory)
