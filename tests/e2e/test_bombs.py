"""Bombs: commands that take all the processes or all the memory that they can get. They end, and nothing else does.

What they may have is bounded by their job's limits, as far as the machine can: each test asks first what a
control group of a command counts here, and expects what that means.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

import psutil
import pytest
import pytest_asyncio

from orqestra.client import Job, JobSpec, RetryPolicy, new_key, shell_payload
from orqestra.model.lifecycle import State
from orqestra.model.limits import MIB
from orqestra.model.report import Reason
from tests.support.fifo import Fifo
from tests.support.processes import commands_of
from tests.support.supervising import supervisor_pid
from tests.support.system import System, running_system, shell
from tests.support.waiting import until

# They disturb what is beside them, and the time in which nothing of them is left is bounded.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.alone]

SLOTS = 4
TEST_SECONDS = 60.0
OTHERS = 20
# Where the processes of a user are counted, nobody else's are: no other has this number.
BOMBER = 1_000_000 + os.getpid()
IS_ROOT = os.geteuid() == 0
PROCESSES = 100
# Where nobody bounds a bomb, it does so itself, by so many more: the machine outlives it, whoever fails.
SPARE_PROCESSES = 100
# Of bash, which tries for seconds to make a process that it is refused, and says so.
FORK_BOMB = ":(){ :|:& };:"
BOMB_SECONDS = 6.0
GRACE_MS = 1000
# After its end.
GONE_SECONDS = 5.0
MEMORY_BYTES = 256 * MIB
# The same of memory.
SPARE_BYTES = 256 * MIB
MEMORY_BOMB = f"held = [b'x' * {MIB} for _ in range({(MEMORY_BYTES + SPARE_BYTES) // MIB})]"
BOMBS = 3
# The files of the control group that the worker has made for this command; nothing if it makes none.
FILES_OF_GROUP = """\
group=$(sed -n 's,^0::,,p' /proc/self/cgroup)
case $group in
*/orqestra-*) ls "$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)$group" ;;
esac"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system() -> AsyncIterator[System]:
    """A worker whose commands may be the user of the bombs, who may pass to their directories."""
    settings = {"ORQESTRA_RUN_AS": f"{BOMBER}:{BOMBER}"}
    async with running_system(workers=1, slots=SLOTS, settings=settings) as running:
        running.folder.chmod(0o711)
        yield running


async def test_a_fork_bomb_whose_main_process_stays_is_ended_by_its_timeout(system: System) -> None:
    async with asyncio.timeout(TEST_SECONDS):
        counted = "pids.max" in await _files_of_group(system)
        # What nobody counts is not bounded: by itself, then.
        most = PROCESSES if counted or IS_ROOT else PROCESSES + SPARE_PROCESSES
        before = await _alive(system)

        # given one that has all the processes that it may have, and never ends
        timeout_ms = int(BOMB_SECONDS * 1000)
        bomb = _fork_bomb("exec sleep 600", timeout_ms=timeout_ms, grace_ms=GRACE_MS)
        bomb_id = await system.client.submit(bomb)
        await until(lambda: _count(system, bomb_id) > PROCESSES // 2)

        # when others are to be run beside it, then they are, and it has no more than it may
        await _others_complete(system)
        assert _count(system, bomb_id) <= most
        assert (await system.client.get(bomb_id)).status is State.RUNNING

        # then it ends at its time, with all of its processes
        job = await system.ended(bomb_id)
        await until(lambda: _count(system, bomb_id) == 0, GONE_SECONDS)
        assert (job.status, job.reason) == (State.FAILED, Reason.TIMEOUT)
        assert (job.left_processes, job.lost, await _alive(system)) == (0, 0, before)


async def test_a_fork_bomb_whose_main_process_ends_at_once_ends_with_it(system: System) -> None:
    async with asyncio.timeout(TEST_SECONDS):
        counted = "pids.max" in await _files_of_group(system)
        before = await _alive(system)

        # given one that goes on behind a main process that fails, and holds its output
        bomb_id = await system.client.submit(_fork_bomb("sleep 600 & exit 3"))

        # when others are to be run meanwhile, then they are
        await _others_complete(system)

        # then all of its processes end, and where they were counted that they were too many is why
        job = await system.ended(bomb_id)
        await until(lambda: _count(system, bomb_id) == 0, GONE_SECONDS)
        reason = Reason.RESOURCE_LIMIT if counted else Reason.EXITED
        assert (job.status, job.reason, job.exit_code) == (State.FAILED, reason, 3)
        assert b"fork" in job.output.stderr
        assert (job.killed_processes > 0, job.left_processes, job.lost) == (True, 0, 0)
        assert await _alive(system) == before


async def test_a_memory_bomb_ends_alone(system: System) -> None:
    async with asyncio.timeout(TEST_SECONDS):
        measured = "memory.max" in await _files_of_group(system)
        before = await _alive(system)

        # given a command that runs all the time
        with Fifo(system.folder / "go") as go:
            beside = await system.submit(system.journal.command(f"read _ < {go}"))
            await system.journal.started(1)

            # when bombs are run, and others beside them
            bounded = "memory_bytes" if measured else "address_space_bytes"
            bombs = [_memory_bomb({bounded: MEMORY_BYTES}) for _ in range(BOMBS)]
            ids = await system.client.submit_many(bombs)
            await _others_complete(system)
            ended = await system.all_ended(ids)

            # then each ends: by the kernel for all that it had, else by itself for what it was not given
            assert {_end(job) for job in ended} == {
                (State.FAILED, Reason.OOM, None, 9) if measured else (State.FAILED, Reason.EXITED, 1, None)
            }
            assert all((b"MemoryError" in job.output.stderr) != measured for job in ended)

            # then nothing else has
            assert (await system.client.get(beside)).status is State.RUNNING
            go.release()
            job = await system.ended(beside)
        assert (job.status, job.attempt, job.lost) == (State.COMPLETED, 1, 0)
        assert await _alive(system) == before
    assert commands_of(system.folder) == []


def _fork_bomb(after: str, *, timeout_ms: int = 0, grace_ms: int = 0) -> JobSpec:
    """Return a job that lights a bomb, and does something `after` that."""
    script = f"ulimit -u {_own_tasks() + PROCESSES + SPARE_PROCESSES} 2>/dev/null; {FORK_BOMB}; {after}"
    payload = shell_payload(
        ["bash", "-c", script],
        cwd="/",
        run_as=f"{BOMBER}:{BOMBER}" if IS_ROOT else None,
        limits={"processes": PROCESSES},
    )
    once = RetryPolicy(max_retries=0)
    return JobSpec(payload=payload, key=new_key(), retries=once, timeout_ms=timeout_ms, grace_ms=grace_ms)


def _memory_bomb(limits: dict[str, int]) -> JobSpec:
    payload = shell_payload([sys.executable, "-c", MEMORY_BOMB], limits=limits)
    return JobSpec(payload=payload, key=new_key(), retries=RetryPolicy(max_retries=0))


def _own_tasks() -> int:
    """Return what counts with the processes of a bomb that has no user of its own."""
    if IS_ROOT:
        return 0
    tasks = 0
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            tasks += process.num_threads() if process.uids().real == os.getuid() else 0
    return tasks


async def _others_complete(system: System) -> None:
    """Return once other jobs of the worker have been completed, each in one attempt."""
    jobs = await system.all_ended(await system.client.submit_many(shell("true") for _ in range(OTHERS)))
    assert {(job.status, job.attempt, job.lost) for job in jobs} == {(State.COMPLETED, 1, 0)}


async def _files_of_group(system: System) -> set[str]:
    """Return what the control group of a command has here, which tells what is counted; nothing without groups."""
    job = await system.run(FILES_OF_GROUP)
    assert job.exit_code == 0, job.output.stderr
    return set(job.output.stdout.decode().split())


async def _alive(system: System) -> tuple[int, int, int]:
    """Return session, daemon and supervisor of the worker: the same ones as long as none of them is lost."""
    (worker,) = await system.client.workers()
    supervisor = psutil.Process(supervisor_pid(system.folder / "data" / "worker-1" / "worker-0"))
    daemon = system.stack.worker(0).child
    assert (daemon.exit_code, supervisor.ppid()) == (None, daemon.pid)
    return worker.session_id, daemon.pid, supervisor.pid


def _count(system: System, job_id: int) -> int:
    """Return how many processes of a job live."""
    found = 0
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            environment = process.environ()
            of_system = environment.get("ORQESTRA_TMPDIR", "").startswith(f"{system.folder}/")
            found += of_system and environment.get("ORQESTRA_JOB_ID") == str(job_id)
    return found


def _end(job: Job) -> tuple[State, str | None, int | None, int | None]:
    return job.status, job.reason, job.exit_code, job.exit_signal
