"""What a worker can't end, or can't tell whose it is: it says so, goes on with the rest, and ends it once it can."""

import asyncio
import ctypes
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from dotenv import dotenv_values

from orqestra.client import CancelOutcome
from orqestra.embedded.part import Part
from orqestra.embedded.process import Program
from orqestra.embedded.stack import Stack
from orqestra.model.lifecycle import State
from orqestra.model.report import Reason
from tests.support.fifo import Fifo
from tests.support.freezing import ALL, DETACH, INTERRUPT, SEIZE
from tests.support.processes import gone
from tests.support.supervising import supervisor_pid
from tests.support.system import System, running_system
from tests.support.waiting import until

TEST_SECONDS = 60.0
STOP_SECONDS = 10.0
# A command that does not obey: its grace, and then the time that the kernel has to end it.
GRACE_MS = 200
STUCK_SECONDS = 5.0
DISOBEDIENT = "trap '' TERM; echo $$ > {told}; exec sleep 600"
# It stops on its way out, when it is dead and has not ended.
TRACE_EXIT: Final = 0x40
# Of version 1: in one of version 2, what is frozen does die.
FREEZER = Path("/sys/fs/cgroup/freezer")
# A double fork, in a session and an environment of its own.
STRAY = "(env -i setsid sh -c 'echo $$ > {told}; exec sleep 600' >/dev/null 2>&1 </dev/null &)"
# What is mounted over a hierarchy of groups hides it from this program and all that it starts.
WITHOUT_GROUPS = """\
for each in $(awk '$3 == "cgroup2" { print $2 }' /proc/mounts); do mount -t tmpfs -o ro none "$each" || exit; done
exec "$@"
"""
# Who is not root may do so where he is root of nothing else.
OWNED = () if os.geteuid() == 0 else ("--user", "--map-root-user")

Hold = Callable[[int], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def held_on_its_way_out(pid: int) -> AsyncIterator[None]:
    """Let a process die in the block, and not end: it waits for us as for a disk that does not answer."""
    _trace(SEIZE, pid, TRACE_EXIT)
    try:
        yield
    finally:
        # It has to stand still to be let go, whether it runs or is dead by now.
        _trace(INTERRUPT, pid)
        await until(lambda: os.waitpid(pid, ALL | os.WNOHANG) != (0, 0))
        _trace(DETACH, pid)


@asynccontextmanager
async def frozen(pid: int) -> AsyncIterator[None]:
    """Have the kernel let a process stand still in the block, in D state, whatever signals it gets."""
    group = FREEZER / f"orqestra-test-{os.getpid()}"
    group.mkdir()
    state = group / "freezer.state"
    try:
        (group / "cgroup.procs").write_text(str(pid))
        state.write_text("FROZEN")
        await until(lambda: state.read_text() == "FROZEN\n")
        yield
    finally:
        state.write_text("THAWED")
        # It has ended, unless nobody has killed it.
        with suppress(ProcessLookupError):
            (FREEZER / "cgroup.procs").write_text(str(pid))
        await until(lambda: (group / "cgroup.procs").read_text() == "")
        group.rmdir()


def ways_to_hold() -> list[Hold]:
    """Return how a process can be kept from ending here: in one way everywhere, in another where we may freeze."""
    return [held_on_its_way_out, *([frozen] if os.access(FREEZER / "cgroup.procs", os.W_OK) else [])]


@pytest.mark.parametrize("hold", ways_to_hold())
async def test_what_the_kernel_does_not_end_runs_on_and_keeps_its_slot(hold: Hold) -> None:
    async with asyncio.timeout(TEST_SECONDS), running_system(workers=1, slots=2) as system:
        with Fifo(system.folder / "told") as told, Fifo(system.folder / "go") as go:
            # given a command that nothing ends, and two others for the one slot beside it
            held = await system.submit(DISOBEDIENT.format(told=told), grace_ms=GRACE_MS)
            pid = int(await told.line())
            beside = await system.submit(system.journal.command(f"read _ < {go}"))
            await system.journal.started(1)
            waiting = await system.submit(system.journal.command())
            async with hold(pid):
                # when it is cancelled
                (answer,) = await system.client.cancel([held])
                assert answer.outcome is CancelOutcome.STOPPING

                # then the worker says so, and nobody claims that it has ended
                await until(lambda: _health_is(system, _kill_pending(held)))
                assert psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
                job = await system.client.get(held)
                assert (job.status, job.cancel_requested, job.attempts) == (State.RUNNING, True, ())

                # then its slot stays taken, and the other one is used
                assert system.journal.starts() == {beside: 1}
                go.release()
                assert (await system.ended(waiting)).status is State.COMPLETED
                await until(lambda: _runs(system, 1))

            # when the kernel ends it, then it is cancelled, and the worker is well
            job = await system.ended(held)
            assert (job.status, job.reason, job.exit_signal) == (State.CANCELLED, Reason.KILLED_AFTER_GRACE, 9)
            assert (job.attempt, job.lost, job.returned) == (1, 0, 0)
            assert job.attempts[0].wall_us > STUCK_SECONDS * 1e6
            await until(lambda: _health_is(system, ""))
            assert {(await system.ended(beside)).status, (await system.run("true")).status} == {State.COMPLETED}
            await until(lambda: _runs(system, 0))


async def test_what_the_kernel_does_not_end_is_told_by_the_next_daemon_too() -> None:
    async with asyncio.timeout(TEST_SECONDS), running_system(workers=1, slots=2) as system:
        with Fifo(system.folder / "told") as told:
            # given a command that nothing ends, of which the worker has said so
            held = await system.submit(DISOBEDIENT.format(told=told), grace_ms=GRACE_MS)
            pid = int(await told.line())
            async with held_on_its_way_out(pid):
                await system.client.cancel([held])
                await until(lambda: _health_is(system, _kill_pending(held)))
                (worker,) = await system.client.workers()

                # when another daemon takes over, then it says so as well
                system.stack.kill_worker(0)
                await system.stack.worker(0).child.wait()
                system.stack.worker(0).start()
                await until(lambda: _is_another_session(system, worker.session_id))
                await until(lambda: _health_is(system, _kill_pending(held)))
                assert (await system.client.get(held)).status is State.RUNNING

            # when it has ended, then that it was cancelled counts; why, only if the server has said it again by then
            job = await system.ended(held)
            assert (job.status, job.exit_signal, job.lost) == (State.CANCELLED, 9, 0)
            assert job.reason in {Reason.KILLED_AFTER_GRACE, Reason.RETURNED}
            await until(lambda: _health_is(system, ""))


async def test_a_stray_is_told_and_ends_once_the_worker_runs_nothing() -> None:
    async with (
        asyncio.timeout(TEST_SECONDS),
        running_system(workers=0) as system,
        worker_without_groups(system.stack) as log_file,
    ):
        with Fifo(system.folder / "told") as told, Fifo(system.folder / "go") as go, Fifo(system.folder / "on") as on:
            # given two commands, and a process that has left one of them: its session and its environment
            other = await system.submit(system.journal.command(f"read _ < {on}"))
            await system.journal.started(1)
            left = await system.submit(f"{STRAY.format(told=told)}; read _ < {go}")
            stray = psutil.Process(int(await told.line()))
            with ended_at_last(stray):
                supervisor = supervisor_pid(log_file.parent.parent / "worker-1" / "worker-0")
                await until(lambda: stray.ppid() == supervisor)
                assert _groups_of(stray.pid) == _groups_of(supervisor)

                # when that command ends
                go.release()
                job = await system.ended(left)

                # then the process is told, and lives: it could be the other one's
                await until(lambda: _strays_told(log_file) == [stray.pid])
                assert (job.status, job.killed_processes) == (State.COMPLETED, 0)
                assert stray.is_running()
                assert (await system.client.get(other)).status is State.RUNNING

                # when nothing runs any more, then it is ended
                on.release()
                assert (await system.ended(other)).status is State.COMPLETED
                assert await gone(stray.pid)


@asynccontextmanager
async def worker_without_groups(stack: Stack) -> AsyncIterator[Path]:
    """A worker of the stack to which no control groups are to be seen, as in most containers; its log file."""
    environment = {name: text for name, text in dotenv_values(stack.data_dir / "env").items() if text is not None}
    program = Program(
        name="worker-1",
        argv=(
            *("/usr/bin/env", "unshare", *OWNED, "--mount", "sh", "-c", WITHOUT_GROUPS, "sh"),
            *(sys.executable, "-m", "orqestra", "worker", "--name", "worker-1", "--slots", "2"),
            *("--state-dir", str(stack.data_dir / "worker-1"), "--drain-seconds", "0.5"),
        ),
        directory=Path.cwd(),
        environment={**os.environ, **stack.settings, **environment},
    )
    log_file = stack.data_dir / "logs" / "worker-1.log"
    worker = Part(program, log_file, None)
    worker.start()
    try:
        await stack.wait_for_workers(1)
        yield log_file
    finally:
        await worker.stop(STOP_SECONDS)


@contextmanager
def ended_at_last(process: psutil.Process) -> Iterator[None]:
    """No process that nobody else ends outlives the block."""
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _trace(request: int, pid: int, options: int = 0) -> None:
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    if ptrace(request, pid, None, options) == -1:
        raise OSError(ctypes.get_errno(), "ptrace")


def _kill_pending(job_id: int) -> str:
    return f"kill pending: the kernel does not end the command of job {job_id}"


async def _health_is(system: System, health: str) -> bool:
    workers = await system.client.workers()
    return [worker.health for worker in workers] == [health]


async def _is_another_session(system: System, session_id: int) -> bool:
    workers = await system.client.workers()
    return [worker.session_id != session_id for worker in workers] == [True]


async def _runs(system: System, count: int) -> bool:
    (worker,) = await system.client.workers()
    return worker.running == count


def _strays_told(log_file: Path) -> list[int]:
    """Return which processes the worker has told of that belong to no command it knows."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in log_file.read_text().splitlines()]
    return [pid for line in lines if line["event"].startswith("processes have left") for pid in line["pids"]]


def _groups_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()
