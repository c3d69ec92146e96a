"""GetOutput over the wire: what is stored, what comes in live, attempt after attempt."""

import asyncio
from collections import defaultdict
from typing import Any

import grpc
import pytest

from orqestra.v1 import jobs_pb2
from orqestra.v1.jobs_pb2 import STREAM_STDERR, STREAM_STDOUT, GetOutputRequest, OutputChunk
from orqestra.v1.worker_pb2 import Assignment, LiveOutput
from tests.support.raw_worker import RawStream, held
from tests.support.server import RunningServer, refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHUNK = 65536


@pytest.fixture(name="server")
def shared_server(module_server: RunningServer) -> RunningServer:
    """One server for all: every test here leaves no job behind."""
    return module_server


def joined(chunks: list[OutputChunk]) -> dict[tuple[int, int], bytes]:
    """Return the bytes of each attempt's streams; chunks must neither overlap nor go back."""
    found: dict[tuple[int, int], bytes] = defaultdict(bytes)
    reached: dict[tuple[int, int], int] = defaultdict(int)
    for chunk in chunks:
        name = (chunk.fence, chunk.stream)
        assert chunk.offset >= reached[name], f"{name} goes back from {reached[name]} to {chunk.offset}"
        assert 0 < len(chunk.data) <= CHUNK
        found[name] += chunk.data
        reached[name] = chunk.offset + len(chunk.data)
    return dict(found)


async def output(server: RunningServer, job_id: int, **request: Any) -> list[OutputChunk]:
    return [chunk async for chunk in server.jobs.GetOutput(GetOutputRequest(id=job_id, **request))]


async def remaining(call: Any) -> list[OutputChunk]:
    """Read a call to its end."""
    chunks = []
    while (chunk := await call.read()) is not grpc.aio.EOF:
        chunks.append(chunk)
    return chunks


async def live(stream: RawStream, job: Assignment, offset: int, data: bytes) -> None:
    await stream.send(
        live_output=LiveOutput(
            job_id=job.attempt.job_id, fence=job.attempt.fence, stream=STREAM_STDOUT, offset=offset, data=data
        )
    )


async def test_small_output_comes_as_it_was(server: RunningServer) -> None:
    job_id = await server.submit()
    async with server.worker() as worker:
        stream = await worker.open()
        await stream.finish(await stream.assigned(1), stdout=b"o\0\xff", stderr=b"e", stdout_bytes=3, stderr_bytes=1)

    chunks = await output(server, job_id)

    assert joined(chunks) == {(1, STREAM_STDOUT): b"o\0\xff", (1, STREAM_STDERR): b"e"}


async def test_large_output_comes_in_chunks_with_its_gap(server: RunningServer) -> None:
    job_id = await server.submit()
    head = [bytes([65 + number]) * CHUNK for number in range(20)]
    async with server.worker() as worker:
        stream = await worker.open()
        [job] = await stream.assigned(1)
        for number, data in enumerate(head):
            await stream.store(job.attempt, STREAM_STDOUT, number * CHUNK, data)
        await stream.store(job.attempt, STREAM_STDOUT, 5_000_000, b"tail")
        await stream.finish([job], stdout_stored=True, stdout_bytes=5_000_004, truncated=True)

    for follow in (False, True):
        chunks = await output(server, job_id, follow=follow)

        assert joined(chunks) == {(1, STREAM_STDOUT): b"".join(head) + b"tail"}
        assert chunks[-1].offset == 5_000_000


async def test_a_job_without_any_output_has_no_chunks(server: RunningServer) -> None:
    job_id = await server.submit()

    assert await output(server, job_id) == []
    await server.cancel(job_id)
    assert await output(server, job_id, follow=True) == []


async def test_each_attempt_can_be_asked_for(server: RunningServer) -> None:
    job_id = await server.submit(max_retries=1, backoff=jobs_pb2.Backoff(base_ms=0))
    async with server.worker() as worker:
        stream = await worker.open()
        for text in (b"first", b"second"):
            jobs = await stream.assigned(1)
            await stream.finish(jobs, ok=text == b"second", stdout=text, stdout_bytes=len(text))

    assert joined(await output(server, job_id)) == {(2, STREAM_STDOUT): b"second"}
    assert joined(await output(server, job_id, fence=1)) == {(1, STREAM_STDOUT): b"first"}
    assert joined(await output(server, job_id, fence=2)) == {(2, STREAM_STDOUT): b"second"}
    refused = await refusal(server.jobs.GetOutput(GetOutputRequest(id=job_id, fence=3)).read())
    assert refused.status is grpc.StatusCode.NOT_FOUND
    assert refused.message == f"no attempt 3 of job {job_id}"


async def test_a_follower_gets_live_chunks_and_then_the_rest(server: RunningServer) -> None:
    job_id = await server.submit()
    async with server.worker() as worker:
        stream = await worker.open()
        [job] = await stream.assigned(1)
        call = server.jobs.GetOutput(GetOutputRequest(id=job_id, follow=True))
        follow = await stream.next("follow")
        assert (follow.attempt, follow.stop) == (job.attempt, False)

        await live(stream, job, 0, b"hello ")
        first = await call.read()
        await live(stream, job, 0, b"hello wor")  # an overlap is cut off
        second = await call.read()
        await stream.finish([job], stdout=b"hello world", stdout_bytes=11, stderr=b"!", stderr_bytes=1)
        rest = await remaining(call)

        assert (first.data, second.data, second.offset) == (b"hello ", b"wor", 6)
        assert joined([first, second, *rest]) == {(1, STREAM_STDOUT): b"hello world", (1, STREAM_STDERR): b"!"}
        assert (await stream.next("follow")).stop


async def test_live_output_is_asked_for_until_the_last_follower_leaves(server: RunningServer) -> None:
    job_id = await server.submit()
    async with server.worker() as worker:
        stream = await worker.open()
        [job] = await stream.assigned(1)
        calls = [server.jobs.GetOutput(GetOutputRequest(id=job_id, follow=True)) for _ in range(3)]
        last = await stream.next("follow")
        await asyncio.sleep(0.1)  # all three are followers by then; nothing tells which call is
        await live(stream, job, 0, b"x")
        assert [(await call.read()).data for call in calls] == [b"x"] * 3

        for call in calls[:2]:
            call.cancel()
        await live(stream, job, 1, b"y")
        assert (await calls[2].read()).data == b"y"
        while stream.has("follow"):
            last = await stream.next("follow")
        assert not last.stop
        calls[2].cancel()

        while not last.stop:
            last = await stream.next("follow", 2.0)


async def test_a_follower_goes_from_attempt_to_attempt(server: RunningServer) -> None:
    job_id = await server.submit(max_retries=1, backoff=jobs_pb2.Backoff(base_ms=100, factor=1))
    call = server.jobs.GetOutput(GetOutputRequest(id=job_id, follow=True))
    collected = asyncio.create_task(remaining(call))
    async with server.worker() as worker:
        stream = await worker.open()
        for text in (b"one", b"two"):
            jobs = await stream.assigned(1)
            await stream.finish(jobs, ok=text == b"two", stdout=text, stdout_bytes=3)
        async with asyncio.timeout(5):
            chunks = await collected

    assert joined(chunks)[2, STREAM_STDOUT] == b"two"
    assert joined(chunks)[1, STREAM_STDOUT] == b"one"


async def test_a_follower_outlives_a_reconnect_of_the_worker(server: RunningServer) -> None:
    job_id = await server.submit()
    async with server.worker() as worker:
        stream = await worker.open()
        [job] = await stream.assigned(1)
        call = server.jobs.GetOutput(GetOutputRequest(id=job_id, follow=True))
        await stream.next("follow")
        await live(stream, job, 0, b"before ")
        assert (await call.read()).data == b"before "

        second = await worker.open(held=[held(job)])
        follow = await second.next("follow", 3.0)
        assert follow.attempt == job.attempt
        await live(second, job, 7, b"after")
        assert (await call.read()).data == b"after"
        await second.finish([job], stdout=b"before after", stdout_bytes=12)
        assert await remaining(call) == []
