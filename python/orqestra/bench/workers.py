"""Workers of our own, for a queue of our own: those of a server that runs have other work, and tell no starts."""

import asyncio
import itertools
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from orqestra.bench.journal import Reader, Starts
from orqestra.bench.processes import Root
from orqestra.client import Client
from orqestra.embedded.directory import tail
from orqestra.embedded.part import Part
from orqestra.embedded.process import Program
from orqestra.model.errors import StartFailed

READY_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.02
STOP_SECONDS: Final = 10.0
# All the work is done when they are told to stop.
DRAIN_SECONDS: Final = 1.0
ORPHAN_SECONDS: Final = 5
WORKERS: Final = 2


@dataclass(frozen=True, kw_only=True)
class Crew:
    """How many workers there are, each with so many slots. Worker number n has the n-th of `labels`, counted round."""

    slots: int
    workers: int = WORKERS
    labels: Sequence[Mapping[str, str]] = ({},)


@dataclass
class Fleet:
    """A crew as processes, from `start` to `stop` or the end of the block.

    `starts` knows all once `stop` has returned.
    """

    client: Client
    address: str
    queue: str
    crew: Crew
    starts: Starts = field(default_factory=Starts)

    def __post_init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="orqestra-bench-")
        self._parts: list[Part] = []
        self._readers: list[Reader] = []

    @property
    def roots(self) -> list[Root]:
        """The processes."""
        return [Root(name=part.name, pid=part.child.pid, runs_commands=True) for part in self._parts]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def start(self) -> None:
        """Start them; return once all are connected."""
        labels = itertools.cycle(self.crew.labels)
        for number in range(self.crew.workers):
            name = f"worker-{number + 1}"
            folder = self._log_of(name).parent
            folder.mkdir()
            self._readers.append(Reader(folder / "journal", self.starts))
            part = Part(self._program(name, folder, next(labels)), self._log_of(name), None)
            part.start()
            self._parts.append(part)
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await self._are_connected():
                    for part in self._parts:
                        part.check_alive()
                    # A server tells nobody that a worker has come.
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise StartFailed(f"the workers are not connected after {READY_SECONDS:.0f} s") from None

    async def stop(self) -> None:
        """Have them end, and read the last of what they tell."""
        await asyncio.gather(*(part.stop(STOP_SECONDS) for part in self._parts))
        for reader in self._readers:
            await reader.end()
        for part in self._parts:
            if part.child.exit_code != 0:
                raise StartFailed(f"{part.name} ended with {part.child.exit_code}: {tail(self._log_of(part.name))}")

    async def _are_connected(self) -> bool:
        ours = [worker for worker in await self.client.workers() if self.queue in worker.queues]
        return len(ours) >= self.crew.workers

    def _log_of(self, name: str) -> Path:
        return Path(self._directory.name) / name / "log"

    async def _end(self) -> None:
        await asyncio.gather(*(part.stop(STOP_SECONDS) for part in self._parts))
        for reader in self._readers:
            reader.close()
        with suppress(OSError):  # a supervisor may still be removing its files
            self._directory.cleanup()

    def _program(self, name: str, folder: Path, labels: Mapping[str, str]) -> Program:
        words = (f"{key}={value}" for key, value in labels.items())
        module = ("-P", "-m", "orqestra.bench.worker")
        return Program(
            name=name,
            argv=(
                *(sys.executable, *module, str(folder / "journal"), self.queue),
                # Beside the workers of a server that runs it is told by the name whose it is.
                *(f"{self.queue}-{name}", str(self.crew.slots), *words),
            ),
            directory=folder,
            environment={
                **os.environ,
                "ORQESTRA_SERVERS": self.address,
                "ORQESTRA_STATE_DIR": str(folder / "state"),
                "ORQESTRA_DRAIN_SECONDS": str(DRAIN_SECONDS),
                "ORQESTRA_ORPHAN_SECONDS": str(ORPHAN_SECONDS),
                "ORQESTRA_LOG_LEVEL": "warning",
            },
        )
