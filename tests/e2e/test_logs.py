"""Live output through real processes: how soon a line is seen, that nothing is lost or doubled, who is held up."""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
import pytest_asyncio

from orqestra.client import Chunk, OutputStream
from orqestra.model.lifecycle import State
from orqestra.model.limits import KIB, MIB, OUTPUT_HEAD_BYTES, OUTPUT_TAIL_BYTES
from orqestra.v1.jobs_pb2 import GetOutputRequest
from tests.support.fifo import Fifo
from tests.support.second_server import LABEL, second_server
from tests.support.server import Caller
from tests.support.system import System, running_system

SLOTS = 4
LINES = 15
# From the moment a command may write a line to the moment the follower has it.
SEEN_SECONDS = 0.1
END_SECONDS = 60.0
# A job beside a flood that nobody reads. Alone it takes some ten milliseconds.
BESIDE_SECONDS = 2.0
FLOOD_BYTES = 1 << 30
GROWTH_BYTES = 64 * MIB


@pytest_asyncio.fixture
async def system() -> AsyncIterator[System]:
    async with running_system(workers=1, slots=SLOTS) as running:
        yield running


@pytest.mark.alone
async def test_a_line_is_seen_as_soon_as_it_is_written(system: System) -> None:
    with Fifo(system.folder / "go") as go:
        job_id = await system.submit(_lines(go))
        await system.running(job_id)

        async with _command_line(system.stack.grpc_addr, job_id) as line:
            seconds = await _delays(go, line)

        assert statistics.median(seconds) < SEEN_SECONDS, seconds


@pytest.mark.alone
async def test_a_line_is_seen_as_soon_through_another_server(system: System) -> None:
    async with second_server(system.stack, slots=SLOTS) as second:
        with Fifo(system.folder / "go") as go:
            job_id = await system.submit(_lines(go), requires=(LABEL,))
            await system.running(job_id)

            # both follow one job, one at its server, the other at another
            async with (
                _command_line(second.address, job_id) as own,
                _command_line(system.stack.grpc_addr, job_id) as other,
            ):
                seconds = await _delays(go, other, own)

            assert statistics.median(seconds) < SEEN_SECONDS, seconds


async def test_a_follower_goes_on_after_a_restart_of_the_server(system: System) -> None:
    with Fifo(system.folder / "go") as go:
        job_id = await system.submit(_lines(go))
        await system.running(job_id)
        async with _command_line(system.stack.grpc_addr, job_id) as line:
            # given lines before, while the server is away, and after
            seen = [await _released(go, line) for _ in range(5)]
            system.stack.kill_server()
            await system.stack.server.child.wait()
            for _ in range(5):
                go.release()
            await system.stack.start_server()
            seen += [await line() for _ in range(5)]
            seen += [await _released(go, line) for _ in range(LINES - 10)]

    # then each was seen once, in order, while the job ran
    assert seen == [b"line %d\n" % number for number in range(1, LINES + 1)]


@pytest.mark.alone
async def test_a_follower_that_reads_nothing_holds_up_nobody(system: System) -> None:
    # given a flood that is followed by one who does not read
    caller = Caller(system.stack.grpc_addr)
    before = _sizes(system)
    with Fifo(system.folder / "go") as go:
        flood = await system.submit(f"read _ < {go}; head -c {FLOOD_BYTES} /dev/zero; read _ < {go}")
        await system.running(flood)
        call = caller.jobs.GetOutput(GetOutputRequest(id=flood, follow=True))
        await call.initial_metadata()
        go.release()

        # when other jobs run at the same worker meanwhile
        seconds = []
        for _ in range(20):
            begin = time.monotonic()
            job = await system.run("echo beside")
            seconds.append(time.monotonic() - begin)
            assert job.output.stdout == b"beside\n"
        go.release()
        async with asyncio.timeout(END_SECONDS):
            job = await system.ended(flood)

    # then they are as quick as ever, and nobody keeps what nobody reads
    assert (job.status, job.output.stdout_bytes) == (State.COMPLETED, FLOOD_BYTES)
    assert max(seconds) < BESIDE_SECONDS, seconds
    growth = {name: size - before[name] for name, size in _sizes(system).items()}
    assert max(growth.values()) < GROWTH_BYTES, growth
    # and what was kept is still to be had by the one who did not read
    chunks = [chunk async for chunk in call]
    await caller.channel.close()
    _check_kept([(chunk.offset, chunk.data) for chunk in chunks], FLOOD_BYTES)


async def test_of_a_flood_that_is_read_all_that_is_kept_comes_in_order(system: System) -> None:
    size = 64 * MIB
    with Fifo(system.folder / "go") as go:
        job_id = await system.submit(f"read _ < {go}; head -c {size} /dev/zero; echo end; read _ < {go}")
        await system.running(job_id)
        chunks: list[Chunk] = []
        go.release()

        # when its end is seen live, the job goes on
        async for chunk in system.client.output(job_id, follow=True):
            chunks.append(chunk)
            if chunk.data.endswith(b"end\n"):
                go.release()

    assert {chunk.stream for chunk in chunks} == {OutputStream.STDOUT}
    _check_kept([(chunk.offset, chunk.data) for chunk in chunks], size + 4)


async def test_a_late_follower_of_much_output_sees_what_comes_next(system: System) -> None:
    size = 3 * MIB
    with Fifo(system.folder / "go") as go, Fifo(system.folder / "full") as full:
        command = f"head -c {size} /dev/zero; echo > {full}; read _ < {go}; echo next; read _ < {go}"
        job_id = await system.submit(command)
        await full.line()
        chunks: list[Chunk] = []

        async for chunk in system.client.output(job_id, follow=True):
            chunks.append(chunk)
            if _end(chunk) == size or chunk.data.endswith(b"next\n"):
                go.release()

    _check_kept([(chunk.offset, chunk.data) for chunk in chunks], size + 5)


def _lines(go: Fifo) -> str:
    """Return a command that writes a line each time it is let go on."""
    return f'for number in $(seq {LINES}); do read _ < {go}; echo "line $number"; done'


@asynccontextmanager
async def _command_line(address: str, job_id: int) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
    """Run `orqestra logs -f`; yield what returns its next line. It must end well, and with its job."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orqestra", "logs", "-f", str(job_id)),
        env={**os.environ, "GRPC_ADDR": address},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    output = process.stdout

    async def line() -> bytes:
        async with asyncio.timeout(END_SECONDS):
            return await output.readline()

    try:
        yield line
        assert await line() == b""
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _released(go: Fifo, line: Callable[[], Awaitable[bytes]]) -> bytes:
    go.release()
    return await line()


async def _delays(go: Fifo, *followers: Callable[[], Awaitable[bytes]]) -> list[float]:
    """Let the job write its lines; return after how long the last follower had each, but for the first."""
    seconds = []
    for number in range(1, LINES + 1):
        begin = time.monotonic()
        go.release()
        lines = await asyncio.gather(*(line() for line in followers))
        seconds.append(time.monotonic() - begin)
        assert set(lines) == {b"line %d\n" % number}
    # A follower may still be connecting when the first line is written.
    return seconds[1:]


def _sizes(system: System) -> dict[str, int]:
    """Return the memory of the server and the worker."""
    pids: dict[str, Any] = {"server": system.stack.server.child.pid, "worker": system.stack.worker(0).child.pid}
    return {name: psutil.Process(pid).memory_info().rss for name, pid in pids.items()}


def _check_kept(chunks: list[tuple[int, bytes]], total: int) -> None:
    """Chunks neither overlap nor go back, and of what is kept nothing is missing."""
    position = 0
    for offset, data in chunks:
        assert offset >= position, f"goes back from {position} to {offset}"
        gap = (position, offset)
        assert gap[0] == gap[1] or (gap[0] >= OUTPUT_HEAD_BYTES and gap[1] <= total - OUTPUT_TAIL_BYTES), gap
        position = offset + len(data)
        assert len(data) <= 64 * KIB
    assert position == total


def _end(chunk: Chunk) -> int:
    return chunk.offset + len(chunk.data)
