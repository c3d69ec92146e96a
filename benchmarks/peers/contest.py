"""One entrant, one round: jobs through workers that wait for them, then a backlog through workers that start.

The clock of *end to end* runs from the producer's first submit, when both processes have worked already, to
the moment at which every handler has run and the store has no unfinished job. That of *drain* starts with the
first job that a worker takes of a backlog. A round in which a job is lost or runs twice does not count.
"""

import asyncio
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.peers.counts import Counts
from benchmarks.peers.environment import folder_of, variables
from benchmarks.peers.peer import Entrant
from benchmarks.peers.report import Figures
from benchmarks.peers.store import Store, store_for
from orqestra.embedded.process import Child, Program

PAYLOAD_BYTES: Final = 100
WORKERS: Final = 2
# Until both processes have had some; they also warm up what is compiled or cached on the way.
WARM_UP_JOBS: Final = 200
WARM_UPS: Final = 10
POLL_SECONDS: Final = 0.01
STALL_SECONDS: Final = 30.0
COMMAND_SECONDS: Final = 90.0
STOP_SECONDS: Final = 5.0
LOG: Final = "run.log"


class RoundFailed(Exception):
    """A round that does not count; the text says why."""


async def measure(entrant: Entrant, cache: Path) -> Figures:
    """Run one round on a new store; afterwards no process of it is left, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="orqestra-peers-") as directory:
        async with store_for(entrant, Path(directory)) as store:
            contest = Contest(entrant, store, cache, Path(directory))
            await contest.prepare()
            return Figures(seconds=await contest.end_to_end(), drain_seconds=await contest.drain())


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The started workers and the folder in which their handlers count."""

    children: Sequence[Child]
    folder: Path

    def counts(self) -> Counts:
        """Return how often handlers have run; raises RoundFailed if a worker has ended."""
        for child in self.children:
            if child.exit_code is not None:
                raise RoundFailed(f"a worker ended with exit code {child.exit_code}: see {LOG} in its folder")
        return Counts.read(self.folder)


class Contest:
    """The steps of a round on a store that runs."""

    def __init__(self, entrant: Entrant, store: Store, cache: Path, directory: Path) -> None:
        self._peer = entrant.peer
        self._store = store
        self._directory = directory
        self._folder = folder_of(entrant.peer, cache)
        self._variables = variables(entrant.peer, cache) | dict(store.variables)
        self._log = self._folder / LOG
        self._log.write_bytes(b"")

    async def prepare(self) -> None:
        """Give the store its schema, if the peer wants one."""
        if self._peer.prepares:
            await self._run(*self._peer.program, "prepare")

    async def end_to_end(self) -> float:
        """Return the seconds from the first submit to the last end, with workers that wait for jobs."""
        async with self._workers() as workers:
            await self._warm_up(workers)
            expected = workers.counts().jobs + self._peer.jobs
            try:
                async with asyncio.TaskGroup() as group:
                    began = group.create_task(self._submit(self._peer.jobs))
                    ended = group.create_task(self._all_ended(workers, expected))
            except* RoundFailed as failures:
                failed = failures.exceptions[0]
            else:
                return ended.result() - began.result()
        # Not from within: Python 3.11.2 would wrap it in a group again.
        raise failed

    async def drain(self) -> float:
        """Return the seconds from the first job that a worker takes of a backlog to the last end."""
        await self._submit(self._peer.jobs)
        async with self._workers() as workers:
            ended_at = await self._all_ended(workers, self._peer.jobs)
            return ended_at - workers.counts().first_at

    async def _warm_up(self, workers: Workers) -> None:
        for warm_up in range(1, WARM_UPS + 1):
            await self._submit(WARM_UP_JOBS)
            await self._all_ended(workers, warm_up * WARM_UP_JOBS)
            if workers.counts().processes == WORKERS:
                return
        raise RoundFailed(f"after {WARM_UPS * WARM_UP_JOBS} jobs not all {WORKERS} worker processes had one")

    async def _submit(self, jobs: int) -> float:
        """Have the producer submit jobs; return when it began to."""
        order = json.dumps({"jobs": jobs, "payload_bytes": PAYLOAD_BYTES})
        return began_at(await self._run(*self._peer.program, "submit", order))

    async def _all_ended(self, workers: Workers, expected: int) -> float:
        """Wait for the end of so many jobs in all; return when it was."""
        seen, seen_at = -1, time.monotonic()
        while True:
            jobs = workers.counts().jobs
            if jobs >= expected and await self._store.unfinished() == 0:
                break
            now = time.monotonic()
            if jobs != seen:
                seen, seen_at = jobs, now
            elif now > seen_at + STALL_SECONDS:
                raise RoundFailed(f"nothing happened for {STALL_SECONDS:.0f} s after {jobs} of {expected} jobs")
            await asyncio.sleep(POLL_SECONDS)
        ended_at = time.monotonic()
        runs = workers.counts().jobs
        if runs != expected:
            raise RoundFailed(f"{expected} jobs ran {runs} times")
        return ended_at

    @asynccontextmanager
    async def _workers(self) -> AsyncIterator[Workers]:
        counts = Path(tempfile.mkdtemp(prefix="counts-", dir=self._directory))
        with self._log.open("ab") as log:
            children = [self._start(self._peer.worker, log.fileno(), counts) for _ in range(self._peer.starts)]
        try:
            yield Workers(children=children, folder=counts)
        finally:
            await asyncio.gather(*(_end(child) for child in children))

    async def _run(self, *command: str) -> str:
        """Run a command of the peer to its end; return what it wrote."""
        with tempfile.NamedTemporaryFile(dir=self._directory) as output:
            child = self._start(command, output.fileno(), self._directory)
            try:
                async with asyncio.timeout(COMMAND_SECONDS):
                    exit_code = await child.wait()
            except TimeoutError:
                raise RoundFailed(f"{command[2]} did not end within {COMMAND_SECONDS:.0f} s") from None
            finally:
                await _end(child)
            # The child moved the offset, which it shares with us.
            output.seek(0)
            text = output.read().decode(errors="replace")
        if exit_code != 0:
            self._log.write_text(text)
            raise RoundFailed(f"{command[2]} ended with exit code {exit_code}: see {LOG} in its folder")
        return text

    def _start(self, command: Sequence[str], output: int, counts: Path) -> Child:
        found = shutil.which(command[0], path=self._variables["PATH"])
        if found is None:
            raise RoundFailed(f"its packages have no {command[0]}")
        program = Program(
            name=self._peer.key,
            argv=(found, *command[1:]),
            directory=self._folder,
            environment=self._variables | {"COUNTS": str(counts)},
        )
        return Child(program, output)


def began_at(output: str) -> float:
    """Return what a producer told, among whatever else it wrote; raises RoundFailed if it told nothing."""
    for line in reversed(output.splitlines()):
        with suppress(ValueError, KeyError, TypeError):
            return float(json.loads(line)["began_at"])
    raise RoundFailed("the producer did not tell when it began")


async def _end(child: Child) -> None:
    """End a process and what it started: all of it is in the session that it leads."""
    await child.stop((signal.SIGTERM, STOP_SECONDS))
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
