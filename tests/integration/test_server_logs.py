"""Live output over its own lane: whose it is, what is asked for, what is granted, and other servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest

from orqestra.rpc.lane import PORTION_BYTES, WINDOW_BYTES
from orqestra.setting_kinds import parse_address
from orqestra.settings import Settings
from orqestra.v1.jobs_pb2 import GetOutputRequest
from orqestra.v1.worker_pb2 import Assignment, Follow
from tests.support.raw_lane import RawLane
from tests.support.raw_worker import RawStream
from tests.support.server import RunningServer, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

PIECE = 65536
FLOOD_BYTES = 256 << 20
AGAIN = b"again"
WAIT_SECONDS = 10.0


@pytest.fixture(name="server")
def shared_server(module_server: RunningServer) -> RunningServer:
    """One server for all: every test here leaves no job behind."""
    return module_server


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A job that runs, and its worker's streams."""

    job: Assignment
    stream: RawStream
    lane: RawLane

    async def finish(self, output: bytes = b"") -> None:
        await self.stream.finish([self.job], stdout=output, stdout_bytes=len(output))


@asynccontextmanager
async def running_job(server: RunningServer) -> AsyncIterator[Scene]:
    """A job that runs; its worker has a lane that has not said hello."""
    await server.submit()
    async with server.worker() as worker, RawLane.of(server.address) as lane:
        stream = await worker.open()
        [job] = await stream.assigned(1)
        yield Scene(job=job, stream=stream, lane=lane)


def follow(server: RunningServer, scene: Scene, **request: Any) -> Any:
    return server.jobs.GetOutput(GetOutputRequest(id=scene.job.attempt.job_id, follow=True, **request))


async def rest(call: Any) -> bytes:
    """Return what comes until the end of the call."""
    data = b""
    async with asyncio.timeout(WAIT_SECONDS):
        while (chunk := await call.read()) is not grpc.aio.EOF:
            data += chunk.data
    return data


async def read_until(call: Any, last: bytes) -> bytes:
    """Return what comes up to these bytes, with them."""
    data = b""
    async with asyncio.timeout(WAIT_SECONDS):
        while not data.endswith(last):
            chunk = await call.read()
            assert chunk is not grpc.aio.EOF
            data += chunk.data
    return data


async def test_a_wish_has_the_worker_open_the_lane_and_is_said_there(server: RunningServer) -> None:
    async with running_job(server) as scene:
        call = follow(server, scene, stdout_offset=7)
        told = await scene.stream.next("follow")
        await scene.lane.open(scene.stream)

        wish = await scene.lane.follow()
        await scene.lane.write(scene.job, 7, b"live")
        chunk = await call.read()
        await scene.finish(b"before live")

        expected = Follow(attempt=scene.job.attempt, stdout_offset=7)
        assert (told, wish) == (expected, expected)
        assert (chunk.offset, chunk.data) == (7, b"live")
        assert await rest(call) == b""
        assert (await scene.lane.follow()).stop
        assert not scene.stream.has("follow")


async def test_a_lane_needs_the_key_of_an_open_session(server: RunningServer) -> None:
    async with running_job(server) as scene, RawLane.of(server.address) as other:
        await scene.lane.open(scene.stream, key=b"guessed")
        refused = await scene.lane.end()
        await scene.finish()
        await scene.stream.hang_up()
        await other.open(scene.stream)

        assert refused[0] is grpc.StatusCode.FAILED_PRECONDITION
        assert "the key is not its own" in refused[1]
        assert (await other.end())[0] is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_lane_begins_with_hello(server: RunningServer) -> None:
    async with running_job(server) as scene:
        await scene.lane.write(scene.job, 0, b"early", granted=False)

        assert (await scene.lane.end())[0] is grpc.StatusCode.INVALID_ARGUMENT
        await scene.finish()


async def test_a_lane_ends_with_its_session_and_with_the_next_lane(server: RunningServer) -> None:
    async with running_job(server) as scene, RawLane.of(server.address) as second:
        await scene.lane.open(scene.stream)
        await scene.lane.credit()
        await second.open(scene.stream)
        await second.credit()

        assert (await scene.lane.end())[0] is grpc.StatusCode.OK
        await scene.finish()
        await scene.stream.hang_up()
        assert (await second.end())[0] is grpc.StatusCode.OK


async def test_only_what_was_granted_may_be_sent(server: RunningServer) -> None:
    async with running_job(server) as scene:
        await scene.lane.open(scene.stream)
        assert await scene.lane.credit() == WINDOW_BYTES
        for number in range(WINDOW_BYTES // PIECE):
            await scene.lane.write(scene.job, number * PIECE, bytes(PIECE))
        # Less than a portion may be kept back until more has come.
        granted = 0
        while granted <= WINDOW_BYTES - PORTION_BYTES:
            granted += await scene.lane.credit()
        for number in range(granted // PIECE):
            await scene.lane.write(scene.job, number * PIECE, bytes(PIECE))
        await scene.lane.send(output={"stream": 1, "data": bytes(WINDOW_BYTES + 1)})

        code, message = await scene.lane.end()

        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert message.startswith("output.data")
        await scene.finish()


async def test_what_nobody_follows_is_stopped(server: RunningServer) -> None:
    async with running_job(server) as scene:
        await scene.lane.open(scene.stream)
        await scene.lane.write(scene.job, 0, b"unasked")

        assert await scene.lane.follow() == Follow(attempt=scene.job.attempt, stop=True)
        await scene.finish()


async def test_when_a_lane_breaks_the_worker_is_told_to_open_another(server: RunningServer) -> None:
    async with running_job(server) as scene:
        call = follow(server, scene)
        await scene.stream.next("follow")
        await scene.lane.open(scene.stream)
        await scene.lane.follow()
        await scene.lane.write(scene.job, 0, b"one ")
        assert (await call.read()).data == b"one "

        await scene.lane.hang_up()
        again = await scene.stream.next("follow")
        async with RawLane.of(server.address) as second:
            await second.open(scene.stream)
            wish = await second.follow()
            await second.write(scene.job, 4, b"two")
            assert (await call.read()).data == b"two"
            await scene.finish(b"one two")

        assert again == wish == Follow(attempt=scene.job.attempt, stdout_offset=4)
        assert await rest(call) == b""


async def test_what_was_missed_is_asked_for_again(server: RunningServer) -> None:
    async with running_job(server) as scene:
        call = follow(server, scene)
        await scene.stream.next("follow")
        await scene.lane.open(scene.stream)
        await scene.lane.follow()
        await scene.lane.write(scene.job, 0, b"one ")
        await scene.lane.write(scene.job, 8, b"three")

        assert await scene.lane.follow() == Follow(attempt=scene.job.attempt, stdout_offset=4)
        await scene.lane.write(scene.job, 4, b"two three")
        assert [(await call.read()).data for _ in range(2)] == [b"one ", b"two three"]
        await scene.finish(b"one two three")
        assert await rest(call) == b""


async def test_offsets_are_of_the_attempt_that_is_named(server: RunningServer) -> None:
    async with running_job(server) as scene:
        await scene.finish(b"0123456789")
        job_id = scene.job.attempt.job_id

        for about in ({}, {"fence": 1}):
            for follows in (False, True):
                request = GetOutputRequest(id=job_id, follow=follows, stdout_offset=6, **about)
                assert await rest(server.jobs.GetOutput(request)) == b"6789"
        request = GetOutputRequest(id=job_id, stderr_offset=-1)
        with pytest.raises(grpc.aio.AioRpcError, match="stderr_offset"):
            await server.jobs.GetOutput(request).read()


async def test_a_follower_at_another_server_has_it_live(server: RunningServer) -> None:
    async with running_server(server.server.settings) as other, running_job(server) as scene:
        # given a follower here, and two at a server that the worker is not connected to
        calls = [follow(each, scene) for each in (server, other, other)]
        await scene.stream.next("follow")
        await scene.lane.open(scene.stream)

        # when the worker writes until the last of them has it: nothing tells when a wish has arrived
        await until_followed(scene, calls)
        await scene.lane.write(scene.job, 6, b"world")
        assert [(await call.read()).data for call in calls] == [b"world"] * 3

        # then it goes on as long as anybody follows
        for call in calls[:2]:
            call.cancel()
        await scene.lane.write(scene.job, 11, b"!")
        assert (await calls[2].read()).data == b"!"
        calls[2].cancel()
        async with asyncio.timeout(WAIT_SECONDS):
            while not (await scene.lane.follow()).stop:
                pass
        await scene.finish(b"hello world!")


async def until_followed(scene: Scene, calls: list[Any]) -> None:
    """Answer wishes with the first bytes until each call has them."""
    reads = asyncio.gather(*(call.read() for call in calls))
    async with asyncio.timeout(WAIT_SECONDS):
        while not reads.done():
            wish = asyncio.create_task(scene.lane.follow())
            either: set[asyncio.Future[Any]] = {wish, reads}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if wish.done():
                await scene.lane.write(scene.job, 0, b"hello ")
            else:
                wish.cancel()
        assert [chunk.data for chunk in await reads] == [b"hello "] * len(calls)


async def test_a_flood_that_nobody_reads_at_another_server_is_stopped(server: RunningServer) -> None:
    async with running_server(server.server.settings) as other, running_job(server) as scene:
        # given a follower at the other server that reads nothing
        call = follow(other, scene)
        await scene.lane.open(scene.stream)
        wish = await scene.lane.follow()

        # when the worker sends as much as it may
        written = granted = 0
        while not wish.stop:
            while granted < PIECE + len(AGAIN):
                granted += await scene.lane.credit()
            await scene.lane.write(scene.job, written, bytes(PIECE))
            written, granted = written + PIECE, granted - PIECE
            if not scene.lane.follows.empty():
                wish = await scene.lane.follow()
            assert written < FLOOD_BYTES

        # then it is told to stop, and to go on once all that waited is read
        reading = asyncio.create_task(read_until(call, AGAIN))
        while wish.stop or wish.stdout_offset == 0:
            wish = await scene.lane.follow()
        await scene.lane.write(scene.job, wish.stdout_offset, AGAIN)
        assert await reading == bytes(wish.stdout_offset) + AGAIN

        # and the end, which may overtake what is live, comes when all of that has come
        await scene.finish(AGAIN)
        assert await rest(call) == b""


async def test_a_server_that_follows_no_more_is_sent_nothing(server: RunningServer) -> None:
    async with running_job(server) as scene:
        await scene.lane.open(scene.stream)
        async with running_server(server.server.settings) as other:
            call = follow(other, scene)
            assert not (await scene.lane.follow()).stop
            call.cancel()

            assert (await scene.lane.follow()).stop
        await scene.finish()


async def test_without_redis_the_other_server_has_it_at_the_end(server_settings: Settings) -> None:
    settings = replace(server_settings, redis_address=parse_address("127.0.0.1:1"))
    async with running_server(settings) as server, running_server(settings) as other, running_job(server) as scene:
        call = follow(other, scene)
        await call.initial_metadata()
        await scene.finish(b"at the end")

        assert await rest(call) == b"at the end"
