"""What a worker suffers from: told with its beats, stored, and shown to who asks for the workers."""

import asyncio
import json
import sys

import pytest

from orqestra.v1.jobs_pb2 import ListWorkersRequest, Worker
from orqestra.v1.worker_pb2 import Beat
from tests.support.raw_worker import RawStream
from tests.support.server import WAIT_SECONDS, RunningServer

REASON = "spool: No space left on device"


async def beat(stream: RawStream, number: int, *, slots: int, health: str = "") -> None:
    """Beat, and return once that is stored."""
    await stream.send(beat=Beat(seq=number, slots=slots, health=health))
    while (await stream.next("beat_ack")).seq < number:
        pass


async def listed(server: RunningServer) -> Worker:
    """Return the only worker that is connected."""
    [worker] = (await server.jobs.ListWorkers(ListWorkersRequest())).workers
    assert isinstance(worker, Worker)
    return worker


async def workers(server: RunningServer, *options: str) -> str:
    """Return what `orqestra workers` prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orqestra", "--server", server.address, "workers", *options),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(WAIT_SECONDS):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_what_a_worker_suffers_from_is_told_until_it_is_over(server: RunningServer) -> None:
    async with server.worker(slots=2) as worker:
        stream = await worker.open()
        assert (await listed(server)).health == ""

        # It takes no work, and that is no drain.
        await beat(stream, 1, slots=0, health=REASON)
        unwell = await listed(server)
        assert (unwell.health, unwell.slots, unwell.draining) == (REASON, 0, False)

        await beat(stream, 2, slots=2)
        well = await listed(server)
        assert (well.health, well.slots, well.draining) == ("", 2, False)

        await beat(stream, 3, slots=0)
        assert (await listed(server)).draining


@pytest.mark.parametrize(
    ("health", "stored"),
    [("disk\0full", "disk full"), ("\u00fc" * 501, "\u00fc" * 500)],
    ids=["NUL", "too long"],
)
async def test_a_health_that_cannot_be_stored_as_it_is_is_told_all_the_same(
    server: RunningServer, health: str, stored: str
) -> None:
    async with server.worker() as worker:
        stream = await worker.open()

        await beat(stream, 1, slots=0, health=health)

        assert (await listed(server)).health == stored


async def test_the_command_has_a_column_for_it_once_a_worker_is_unwell(server: RunningServer) -> None:
    async with server.worker(name="a") as one, server.worker(name="b") as other:
        await one.open()
        stream = await other.open()
        assert "HEALTH" not in await workers(server)

        await beat(stream, 1, slots=0, health=REASON)

        title, well, unwell = (await workers(server)).splitlines()
        health = title.index("HEALTH")
        assert [well[health:], unwell[health:]] == ["-", REASON]
        document = json.loads(await workers(server, "--json"))
        assert {each["name"]: each["health"] for each in document["workers"]} == {"a": "", "b": REASON}
