"""A worker offers no more slots than it has descriptors for."""

import asyncio
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from orqestra.model.limits import SLOT_DESCRIPTORS, WORKER_DESCRIPTORS
from tests.support.worker_peer import PATIENCE_SECONDS, Peer
from tests.support.working import worker_process

# Fewer than the four for each CPU that a worker has by itself.
SLOTS = 3
DESCRIPTORS = WORKER_DESCRIPTORS + SLOTS * SLOT_DESCRIPTORS


def limited(
    peer: Peer, state_dir: Path, *options: str, descriptors: int = DESCRIPTORS
) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """`orqestra worker` with so few descriptors, and with its own number of slots unless the options say it."""
    under = ("sh", "-c", 'ulimit -n "$0" && exec "$@"', str(descriptors))
    options = ("--state-dir", str(state_dir), *options)
    return worker_process(peer.address, *options, under=under, environment={"WORKER_COUNT": ""})


async def test_more_slots_than_descriptors_are_refused_at_the_start(peer: Peer, tmp_path: Path) -> None:
    async with limited(peer, tmp_path, "--slots", str(SLOTS + 1)) as process, asyncio.timeout(PATIENCE_SECONDS):
        _, log = await process.communicate()

    assert process.returncode == 1
    assert f"--slots {SLOTS + 1} needs {DESCRIPTORS + SLOT_DESCRIPTORS} descriptors" in log.decode()
    assert f"the hard limit is {DESCRIPTORS}: raise it (ulimit -Hn), or use --slots {SLOTS}" in log.decode()
    assert "Traceback" not in log.decode()


@pytest.mark.parametrize("few", [16, WORKER_DESCRIPTORS + SLOT_DESCRIPTORS - 1])
async def test_where_not_even_one_is_possible_none_is_advised(peer: Peer, tmp_path: Path, few: int) -> None:
    async with limited(peer, tmp_path, descriptors=few) as process, asyncio.timeout(PATIENCE_SECONDS):
        _, log = await process.communicate()

    assert process.returncode == 1
    (line,) = log.decode().splitlines()
    assert line.startswith("Error: --slots ")
    assert line.endswith(f" and the hard limit is {few}: raise it (ulimit -Hn)")


@pytest.mark.parametrize("options", [(), ("--slots", str(SLOTS))], ids=["default", "asked"])
async def test_as_many_slots_as_descriptors_are_offered(peer: Peer, tmp_path: Path, options: tuple[str, ...]) -> None:
    async with limited(peer, tmp_path, *options) as process, asyncio.timeout(PATIENCE_SECONDS):
        hello = await (await peer.session()).welcome()
        process.send_signal(signal.SIGTERM)
        _, log = await process.communicate()

    assert process.returncode == 0, log.decode()
    assert hello.slots == SLOTS
