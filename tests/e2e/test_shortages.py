"""A machine runs short: of room, of a disk that works, of descriptors. Work waits until that is over; none is lost.

What runs goes on and its result is stored, the worker keeps its session, and no attempt is used up. Takes root, as
disks are mounted.
"""

import asyncio
import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import pytest

from orqestra.client import Worker
from orqestra.model.lifecycle import State
from orqestra.model.limits import MIB, SLOT_DESCRIPTORS, WORKER_DESCRIPTORS
from orqestra.setting_kinds import parse_address
from orqestra.v1.jobs_pb2 import STATUS_COMPLETED
from tests.chaos.disk import take_away
from tests.support.fifo import Fifo
from tests.support.server import Caller
from tests.support.spooling import segments
from tests.support.supervising import end_supervisors, supervisor_pid
from tests.support.system import System, running_system, shell
from tests.support.waiting import until
from tests.support.working import worker_process

SECONDS: Final = 60.0
SLOTS: Final = 4
LEASE_SECONDS: Final = 3
LEASE: Final = {"ORQESTRA_LEASE_SECONDS": str(LEASE_SECONDS)}
# Disks on which a worker has its directory: of one the room is soon used up, of the other the files.
LITTLE_ROOM: Final = ("-t", "tmpfs", "-o", "size=32m", "tmpfs")
FEW_FILES: Final = ("-t", "tmpfs", "-o", "size=32m,nr_inodes=100", "tmpfs")
# More than a spool has room for in the file that it writes on, or that is left of a device below.
OUTPUT_BYTES: Final = 3 * MIB // 2
# A device, whose file system is told to keep what it needs for itself in the part that is left when it is cut off.
MAKE_FILE_SYSTEM: Final = ("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-N", "64", "-O", "^has_journal,^resize_inode")
LEFT_BYTES: Final = 256 * 1024
# loop(4): of what can be said of a device, only how much of it there is.
LOOP_SET_STATUS64: Final = 0x4C04
LOOP_STATUS: Final = struct.Struct("=32xQ192x")
# The least that a worker of so many slots starts with, and less than a daemon has by itself.
WORKER_LEAST: Final = WORKER_DESCRIPTORS + SLOTS * SLOT_DESCRIPTORS
DAEMON_FEW: Final = 32
# Enough for a server, a worker and a client, and not for a crowd.
SERVER_FEW: Final = 64
CROWD: Final = 100


@pytest.fixture(autouse=True)
def no_supervisor_outlives_its_test(folder: Path) -> Iterator[None]:
    yield
    end_supervisors(folder)


async def test_a_full_disk_costs_slots_and_no_result(folder: Path) -> None:
    async with on_disk(folder / "disk", LITTLE_ROOM) as system, asyncio.timeout(SECONDS):
        with gates(system, "full", "end", "room") as (full, end, room):
            # given a command, and another one that takes all the room in their worker's directory
            other = await system.submit(system.journal.command(f"read _ < {end}; head -c {OUTPUT_BYTES} /dev/zero"))
            await system.journal.started(1)
            taking = f'cat /dev/zero > "$TMPDIR/all" 2> /dev/null; echo > {full}; read _ < {room}'
            taker = await system.submit(system.journal.command(taking))
            await full.line()
            before = await the_worker(system)

            # when the first one ends, then its result is stored, and the worker tells why it takes no work
            end.release()
            assert (await system.ended(other)).output.stdout_bytes == OUTPUT_BYTES
            await until(lambda: is_unwell(system, "spool: No space left on device"))
            late = await system.submit(system.journal.command())
            await lease_renewed(system, before)
            assert (await system.client.get(late)).status is State.PENDING
            assert (await system.client.get(taker)).status is State.RUNNING

            # and when there is room, it does
            room.release()
            await all_completed(system, before, other, taker, late)
            assert (await system.client.get(late)).fence == 1


async def test_what_finds_no_room_for_its_directory_is_handed_back(folder: Path) -> None:
    async with on_disk(folder / "disk", FEW_FILES) as system, asyncio.timeout(SECONDS):
        with gates(system, "full", "room") as (full, room):
            # given a command that makes all the files that can be made in its worker's directory
            making = f'while touch "$TMPDIR/$((i += 1))" 2> /dev/null; do :; done; echo > {full}; read _ < {room}'
            maker = await system.submit(system.journal.command(making))
            await full.line()
            before = await the_worker(system)

            # when another one is to start, then the worker hands it back and tells why it takes no work
            late = await system.submit(system.journal.command())
            await until(lambda: is_unwell(system, "/jobs: No space left on device"))
            await lease_renewed(system, before)
            assert (await system.client.get(maker)).status is State.RUNNING

            # and when there is room, it runs
            room.release()
            await all_completed(system, before, maker, late)
            assert await handed_back(system, late)


async def test_a_disk_with_errors_costs_slots_and_no_result(folder: Path) -> None:
    state = folder / "state"
    with device(folder / "device") as name:
        async with on_disk(state / "worker-0" / "spool", (name,), state) as system, asyncio.timeout(SECONDS):
            with gates(system, "end", "last") as (end, last):
                # given a worker whose results have a disk of their own, and commands
                first = (await system.run(system.journal.command())).id
                other = await system.submit(system.journal.command(f"read _ < {end}; head -c {OUTPUT_BYTES} /dev/zero"))
                lasting = await system.submit(system.journal.command(f"read _ < {last}"))
                await system.journal.started(3)
                before = await the_worker(system)

                # when that has errors, then a result is stored, and the worker tells why it takes no work
                cut_off(name, LEFT_BYTES)
                end.release()
                assert (await system.ended(other)).output.stdout_bytes == OUTPUT_BYTES
                await until(lambda: is_unwell(system, "spool: Input/output error"))
                late = await system.submit(system.journal.command())
                await lease_renewed(system, before)
                assert (await system.client.get(late)).status is State.PENDING
                assert (await system.client.get(lasting)).status is State.RUNNING

                # and when it has none, it does
                cut_off(name, 0)
                await until(lambda: is_well(system))
                last.release()
                await all_completed(system, before, first, other, lasting, late)
                assert (await system.client.get(late)).fence == 1


async def test_what_finds_no_descriptor_is_handed_back(folder: Path) -> None:
    async with running_system(slots=SLOTS, settings=LEASE) as system, asyncio.timeout(SECONDS):
        with gates(system, "end") as (end,):
            # given a supervisor that has a command, and may have no descriptor more
            first = (await system.run(system.journal.command())).id
            other = await system.submit(system.journal.command(f"read _ < {end}"))
            await system.journal.started(2)
            before = await the_worker(system)
            supervisor = supervisor_pid(system.folder / "data" / "worker-1" / "worker-0")
            _, most = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
            resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (first_free(supervisor), most))

            # when another one is to start, then the worker hands it back and tells why it takes no work
            late = await system.submit(system.journal.command())
            await until(lambda: is_unwell(system, "Too many open files"))
            await lease_renewed(system, before)
            end.release()
            assert (await system.ended(other)).status is State.COMPLETED

            # and when there are descriptors, it runs
            resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (most, most))
            await all_completed(system, before, first, other, late)
            assert await handed_back(system, late)


@pytest.mark.parametrize("soft", [WORKER_LEAST, DAEMON_FEW])
async def test_a_worker_with_hardly_enough_descriptors_fills_its_slots(folder: Path, soft: int) -> None:
    options = ("--state-dir", str(folder), "--slots", str(SLOTS))
    under = ("prlimit", f"--nofile={soft}:{WORKER_LEAST}")
    async with (
        running_system(workers=0) as system,
        worker_process(system.stack.grpc_addr, *options, under=under) as worker,
        asyncio.timeout(SECONDS),
    ):
        with gates(system, "go") as (go,):
            # when commands with output take all slots, and others wait for them
            command = system.journal.command(f"read _ < {go}; head -c {OUTPUT_BYTES} /dev/zero")
            ids = await system.client.submit_many(shell(command) for _ in range(5 * SLOTS))
            await system.journal.started(SLOTS)
            for _ in ids:
                go.release()
            jobs = await system.all_ended(ids)

        # then all have run, once and at once
        assert {(job.status, job.fence, job.output.stdout_bytes) for job in jobs} == {
            (State.COMPLETED, 1, OUTPUT_BYTES)
        }
        assert system.journal.starts() == dict.fromkeys(ids, 1)
        worker.send_signal(signal.SIGTERM)
        await worker.communicate()
    assert worker.returncode == 0


async def test_a_server_without_descriptors_lets_nobody_in_until_it_has_some() -> None:
    async with running_system(slots=SLOTS, settings=LEASE) as system, asyncio.timeout(SECONDS):
        with gates(system, "end") as (end,), ExitStack() as crowd:
            # given a server that may have few descriptors, a command, and a crowd that takes them all
            server = system.stack.server.child.pid
            resource.prlimit(server, resource.RLIMIT_NOFILE, (SERVER_FEW, SERVER_FEW))
            first = await system.submit(system.journal.command(f"read _ < {end}"))
            await system.journal.started(1)
            before = await the_worker(system)
            for address in map(parse_address, (system.stack.grpc_addr, system.stack.http_addr) * (CROWD // 2)):
                crowd.enter_context(socket.create_connection((address.dial_host, address.port)))
            await until(lambda: first_free(server) == SERVER_FEW)

            # when somebody comes, then he waits, and who was there goes on
            late = Caller(system.stack.grpc_addr)
            job = shell(system.journal.command())
            submitting = asyncio.create_task(late.submit(type=job.type, payload=job.payload))
            end.release()
            other = (await system.run(system.journal.command())).id
            await lease_renewed(system, before)
            assert not submitting.done()

            # and when the crowd goes, he is let in, at every door
            crowd.close()
            last = await submitting
            assert (await late.until(last)).status == STATUS_COMPLETED
            await until(lambda: is_ready(system.stack.http_addr))
            await all_completed(system, before, first, other, last)
            await late.channel.close()


@asynccontextmanager
async def on_disk(folder: Path, how: Sequence[str], state: Path | None = None) -> AsyncIterator[System]:
    """A system whose worker has its directory, `state`, or `folder` in it, on a disk of its own."""
    state = state or folder
    run("mkdir", "-p", str(folder))
    run("mount", *how, str(folder))
    try:
        options = ("--state-dir", str(state))
        async with running_system(slots=SLOTS, settings=LEASE, worker_arguments=options) as system:
            yield system
            await until(lambda: not any(file.read_bytes().strip(b"\0") for file in segments(state / "worker-0")))
    finally:
        end_supervisors(state)
        take_away(folder)


@contextmanager
def device(file: Path) -> Iterator[str]:
    """The name of a device with a file system, which can be `cut_off`."""
    run("truncate", "--size", "16M", str(file))
    run(*MAKE_FILE_SYSTEM, str(file))
    name = run("losetup", "--find", "--show", str(file))
    try:
        yield name
    finally:
        cut_off(name, 0)
        run("losetup", "--detach", name)


def cut_off(name: str, count: int) -> None:
    """Let what is asked of a device beyond so many bytes be an error; 0: let nothing be one."""
    descriptor = os.open(name, os.O_RDWR)
    try:
        fcntl.ioctl(descriptor, LOOP_SET_STATUS64, LOOP_STATUS.pack(count))
    finally:
        os.close(descriptor)


def run(*words: str) -> str:
    """Run a program to its end; return what it printed."""
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@contextmanager
def gates(system: System, *names: str) -> Iterator[Sequence[Fifo]]:
    """Pipes by which the test and the commands tell each other where they are."""
    with ExitStack() as stack:
        yield [stack.enter_context(Fifo(system.folder / name)) for name in names]


async def the_worker(system: System) -> Worker:
    (worker,) = await system.client.workers()
    return worker


async def is_unwell(system: System, why: str) -> bool:
    worker = await the_worker(system)
    return why in worker.health and worker.slots == 0


async def is_well(system: System) -> bool:
    worker = await the_worker(system)
    return (worker.health, worker.slots) == ("", SLOTS)


async def lease_renewed(system: System, before: Worker) -> None:
    """Return once the same session has a lease that goes on for longer than that which it had."""

    async def is_renewed() -> bool:
        now = await the_worker(system)
        assert now.session_id == before.session_id
        assert now.lease_expires_at is not None
        assert before.lease_expires_at is not None
        return now.lease_expires_at - before.lease_expires_at > timedelta(seconds=LEASE_SECONDS)

    await until(is_renewed)


async def all_completed(system: System, before: Worker, *ids: int) -> None:
    """Return once the worker is well again, in the same session, and these jobs, all there are, have run once."""
    jobs = await system.all_ended(ids)
    await until(lambda: is_well(system))
    assert (await the_worker(system)).session_id == before.session_id
    assert {(job.status, job.attempt, job.lost) for job in jobs} == {(State.COMPLETED, 1, 0)}
    assert system.journal.starts() == system.journal.ends() == dict.fromkeys(ids, 1)


async def handed_back(system: System, job_id: int) -> bool:
    """Tell whether a job was handed back before it was run, which did not count."""
    *returned, last = (await system.client.get(job_id)).attempts
    return {(each.outcome, each.number) for each in returned} == {("returned", None)} and last.number == 1


def first_free(pid: int) -> int:
    """Return the descriptor that a process gets next."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    return min(set(range(len(taken) + 1)) - taken)


def is_ready(address: str) -> bool:
    """Tell whether a server says so to who comes anew."""
    with suppress(OSError), urlopen(f"http://{address}/readyz", timeout=SECONDS) as answer:
        return bool(answer.status == HTTPStatus.OK)
    return False
