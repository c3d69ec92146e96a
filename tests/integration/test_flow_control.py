"""What gRPC says beside our messages: thousands of idle workers pay for each packet of it."""

from typing import Any

import grpc
import pytest

from orqestra.client import Client, JobSpec
from orqestra.client.client import OPTIONS as CLIENT
from orqestra.model import limits
from orqestra.v1.jobs_pb2 import GetJobRequest
from orqestra.v1.jobs_pb2_grpc import JobsStub
from orqestra.worker.connection import OPTIONS as WORKER
from tests.support.frames import DATA, INITIAL_WINDOW_SIZE, PING, Tap, tapped
from tests.support.scripted_server import ScriptedJobs, serve
from tests.support.server import RunningServer
from tests.support.waiting import until

CALLS = 5


async def call(server: RunningServer, options: Any) -> Tap:
    """Return what passed while calls were made one after the other over a connection with these options."""
    job_id = await server.submit()
    async with tapped(server.address) as tap, grpc.aio.insecure_channel(tap.address, options=options) as channel:
        jobs: Any = JobsStub(channel)
        for _ in range(CALLS):
            await jobs.GetJob(GetJobRequest(id=job_id))
        return tap


@pytest.mark.parametrize("options", [CLIENT, WORKER], ids=["client", "worker"])
async def test_no_ping_is_sent_for_what_is_read(server: RunningServer, options: Any) -> None:
    tap = await call(server, options)
    assert [len(tap.seen(DATA, up=up)) >= CALLS for up in (True, False)] == [True, True]
    assert [tap.seen(PING, up=up) for up in (True, False)] == [[], []]


@pytest.mark.parametrize("options", [CLIENT, WORKER], ids=["client", "worker"])
async def test_a_batch_may_be_under_way_at_once_in_either_direction(server: RunningServer, options: Any) -> None:
    tap = await call(server, options)
    assert [tap.settings(up=up)[INITIAL_WINDOW_SIZE] for up in (True, False)] == [limits.BATCH_BYTES] * 2


async def test_the_tap_sees_the_pings_of_those_that_send_them(server: RunningServer) -> None:
    tap = await call(server, None)
    assert tap.seen(PING, up=True)

    async with serve(ScriptedJobs()) as address, tapped(address) as tap, Client(tap.address) as client:
        await client.submit(JobSpec(type="noop"))
        await until(lambda: tap.seen(PING, up=False) != [])
