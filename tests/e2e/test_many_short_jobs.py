"""Very many short commands, one after the other: each ends once, and nothing of any is left."""

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Final

import psutil
import pytest

from orqestra.client import JobFilter
from orqestra.model.lifecycle import State
from orqestra.model.limits import PAGE_JOBS
from tests.support.fifo import Fifo
from tests.support.processes import commands_of
from tests.support.spooling import segments
from tests.support.supervising import supervisor_pid
from tests.support.system import System, running_system, shell
from tests.support.waiting import until

JOBS: Final = 10_000
# One of so many leaves processes that nobody waits for.
LEAVING: Final = 10
SLOTS: Final = 8
SECONDS: Final = 100.0
# Connections to the server, files of the spool and groups of commands come and go.
DESCRIPTORS_SPARE: Final = 5


@pytest.mark.alone
async def test_ten_thousand_short_jobs_end_once_and_leave_nothing() -> None:
    async with running_system(workers=1, slots=SLOTS) as system, asyncio.timeout(SECONDS):
        # given a worker that has run as much at once as it can, and keeps what the next commands use again
        directory = system.folder / "data" / "worker-1" / "worker-0"
        worker = [system.stack.worker(0).child.pid, supervisor_pid(directory)]
        with Fifo(system.folder / "go") as go:
            command = system.journal.command(f"read _ < {go}")
            first = await system.client.submit_many(shell(command) for _ in range(SLOTS))
            await system.journal.started(SLOTS)
            for _ in first:
                go.release()
            await system.all_ended(first)
        await until(lambda: is_idle(system, directory))
        before = [descriptors(pid) for pid in worker]

        # when it runs very many short commands, some of which leave others
        kinds = [system.journal.command("(true & true &)"), *[system.journal.command("true")] * (LEAVING - 1)]
        ids = await system.client.submit_many(shell(kinds[number % LEAVING]) for number in range(JOBS))
        await until(lambda: system.journal.ends().total() == SLOTS + JOBS, SECONDS)
        await until(lambda: is_idle(system, directory))

        # then each was started once, by its only claim, and is completed
        assert await ends(system) == {(State.COMPLETED, 1, 1): SLOTS + JOBS}
        assert system.journal.starts() == dict.fromkeys((*first, *ids), 1)

        # and no process, waited for or not, no descriptor and no directory of any is left
        await until(lambda: children(*worker) == worker[1:])
        assert commands_of(system.folder) == []
        for pid, count in zip(worker, before, strict=True):
            assert abs(descriptors(pid) - count) <= DESCRIPTORS_SPARE
        kept = list((directory / "jobs").iterdir())
        assert len(kept) <= 2 * SLOTS
        assert [each for each in kept if any(each.iterdir())] == []
        await system.stack.worker(0).stop(SECONDS)
        assert list((directory / "jobs").iterdir()) == segments(directory) == []


async def is_idle(system: System, directory: Path) -> bool:
    """Tell whether the worker has no command, and its spool no result."""
    (worker,) = await system.client.workers()
    return worker.running == 0 and not any(file.read_bytes().strip(b"\0") for file in segments(directory))


async def ends(system: System) -> Counter[tuple[State, int, int]]:
    """Return how often jobs have ended how, after how many claims and how many attempts."""
    found: Counter[tuple[State, int, int]] = Counter()
    after = None
    while True:
        page = await system.client.list(JobFilter(), limit=PAGE_JOBS, after=after)
        found.update((job.status, job.fence, job.attempt) for job in page.jobs)
        if (after := page.next) is None:
            return found


def children(*parents: int) -> list[int]:
    """Return the processes that these have started or taken on, zombies among them."""
    return [child.pid for parent in parents for child in psutil.Process(parent).children()]


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
