"""As many commands as one worker may well run at once: what it takes to hold them, and how soon all are cancelled."""

import asyncio
import time
from collections import Counter

import psutil
import pytest

from orqestra.client import JobFilter
from orqestra.model.lifecycle import State
from orqestra.model.limits import MIB, PAGE_JOBS
from orqestra.model.report import Reason
from tests.support.processes import commands_of
from tests.support.supervising import supervisor_pid
from tests.support.system import System, running_system, shell
from tests.support.waiting import until

COMMANDS = 5000
MEMORY_BYTES = 150 * MIB
CANCEL_SECONDS = 10.0
# None of the commands ends by itself before.
SECONDS = 60.0


@pytest.mark.alone
async def test_five_thousand_commands_at_once_take_little_memory_and_are_cancelled_soon() -> None:
    async with running_system(workers=1, slots=COMMANDS) as system, asyncio.timeout(SECONDS):
        # given as many commands as the worker has slots, all of which run
        daemon = psutil.Process(system.stack.worker(0).child.pid)
        supervisor = psutil.Process(supervisor_pid(system.folder / "data" / "worker-1" / "worker-0"))
        command = system.journal.command("exec sleep 60")
        ids = await system.client.submit_many(shell(command) for _ in range(COMMANDS))
        await system.journal.started(COMMANDS)
        await until(lambda: _sleeping(supervisor) == COMMANDS)
        assert system.journal.starts() == dict.fromkeys(ids, 1)

        # then the two processes of the worker are small
        assert daemon.memory_info().rss + supervisor.memory_info().rss < MEMORY_BYTES

        # when all are cancelled at once, then soon all have ended so, and nothing of them is left
        start = time.monotonic()
        await system.client.cancel(ids)
        await until(lambda: _is_idle(system), CANCEL_SECONDS)
        assert await _ends(system) == {(State.CANCELLED, Reason.CANCELLED): COMMANDS}
        assert time.monotonic() - start < CANCEL_SECONDS
        assert _sleeping(supervisor) == 0
        assert commands_of(system.folder) == []


async def _is_idle(system: System) -> bool:
    (worker,) = await system.client.workers()
    return worker.running == 0


def _sleeping(supervisor: psutil.Process) -> int:
    """Return how many commands have been executed, and have not ended."""
    return sum(child.name() == "sleep" for child in supervisor.children())


async def _ends(system: System) -> Counter[tuple[State, str | None]]:
    """Return how often jobs ended how."""
    ends: Counter[tuple[State, str | None]] = Counter()
    after = None
    while True:
        page = await system.client.list(JobFilter(), limit=PAGE_JOBS, after=after)
        ends.update((job.status, job.reason) for job in page.jobs)
        if (after := page.next) is None:
            return ends
