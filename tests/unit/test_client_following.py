"""Streams of output and of states that go on after a break, each byte and each state once."""

from collections import deque

import grpc
import pytest

from orqestra.client import Client, OutputStream
from orqestra.model.errors import NotFound
from orqestra.model.lifecycle import State
from orqestra.v1 import jobs_pb2
from tests.support.scripted_server import Fault, ScriptedJobs, serve


def chunk(
    offset: int, data: bytes, *, fence: int = 1, stream: jobs_pb2.Stream = jobs_pb2.STREAM_STDOUT
) -> jobs_pb2.OutputChunk:
    return jobs_pb2.OutputChunk(fence=fence, stream=stream, offset=offset, data=data)


async def read(jobs: ScriptedJobs) -> list[tuple[int, OutputStream, int, bytes]]:
    async with serve(jobs) as address, Client(address) as client:
        return [(each.fence, each.stream, each.offset, each.data) async for each in client.output(1, follow=True)]


async def test_output_goes_on_after_a_break() -> None:
    first = [chunk(0, b"one "), chunk(4, b"two "), chunk(0, b"err", stream=jobs_pb2.STREAM_STDERR)]
    again = [chunk(0, b"one two three"), chunk(0, b"error", stream=jobs_pb2.STREAM_STDERR)]
    jobs = ScriptedJobs(output=[first, again], faults=deque([Fault()]))
    assert await read(jobs) == [
        (1, OutputStream.STDOUT, 0, b"one "),
        (1, OutputStream.STDOUT, 4, b"two "),
        (1, OutputStream.STDERR, 0, b"err"),
        (1, OutputStream.STDOUT, 8, b"three"),
        (1, OutputStream.STDERR, 3, b"or"),
    ]


async def test_only_what_is_missing_is_asked_for_again() -> None:
    first = [chunk(0, b"one"), chunk(0, b"er", stream=jobs_pb2.STREAM_STDERR)]
    second = [chunk(0, b"next", fence=2)]
    jobs = ScriptedJobs(output=[first, second, []], faults=deque([Fault(), Fault()]))
    await read(jobs)
    asked = [(each.fence, each.stdout_offset, each.stderr_offset) for each in jobs.asked]
    assert asked == [(0, 0, 0), (1, 3, 2), (2, 4, 0)]


async def test_attempts_are_counted_apart_and_gaps_stay() -> None:
    jobs = ScriptedJobs(output=[[chunk(0, b"a"), chunk(0, b"b", fence=2), chunk(9, b"c", fence=2)]])
    assert [part[0] for part in await read(jobs)] == [1, 2, 2]


async def test_a_refusal_ends_the_output() -> None:
    jobs = ScriptedJobs(output=[[]], faults=deque([Fault(status=grpc.StatusCode.NOT_FOUND, message="no job 1")]))
    with pytest.raises(NotFound, match="no job 1"):
        await read(jobs)


async def test_states_are_told_once() -> None:
    pending, running, completed = (
        jobs_pb2.Job(id=1, status=status)
        for status in (jobs_pb2.STATUS_PENDING, jobs_pb2.STATUS_RUNNING, jobs_pb2.STATUS_COMPLETED)
    )
    jobs = ScriptedJobs(watched=[[pending, running], [running, completed]], faults=deque([Fault()]))
    async with serve(jobs) as address, Client(address) as client:
        states = [job.status async for job in client.watch(1)]
    assert states == [State.PENDING, State.RUNNING, State.COMPLETED]
