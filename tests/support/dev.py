"""`orqestra dev` as a user starts it: a process of its own, known by what it prints and how it ends."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

import psutil

from tests.support.processes import descendants, gone

READY = re.compile(r"ready: gRPC (\S+), HTTP (\S+), workers (\d+), data in (.+); Ctrl-C stops it\n")
READY_SECONDS = 60.0
END_SECONDS = 30.0
FREE_PORTS = ("--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0")


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is typed for `orqestra`, and the environment where."""

    words: tuple[str, ...]
    environment: Mapping[str, str]


def this_program() -> Program:
    """Return the program of the environment that the tests run in."""
    return Program(
        words=(sys.executable, "-m", "orqestra"),
        environment={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@dataclass(frozen=True, kw_only=True)
class Dev:
    """One running `orqestra dev`."""

    process: asyncio.subprocess.Process
    error_file: Path

    @property
    def errors(self) -> str:
        """What it wrote to stderr so far: all the log lines."""
        return self.error_file.read_text()

    async def ready(self) -> str:
        """Wait for the line that says ready, the first on stdout; return the address for clients."""
        assert self.process.stdout is not None
        async with asyncio.timeout(READY_SECONDS):
            line = (await self.process.stdout.readline()).decode()
        found = READY.fullmatch(line)
        assert found, f"{line!r}\n{self.errors}"
        return found[1]

    async def end(self) -> int:
        """Wait for its end; return the exit code."""
        async with asyncio.timeout(END_SECONDS):
            return await self.process.wait()

    async def rest_of_stdout(self) -> str:
        """Return what else it wrote to stdout until its end."""
        assert self.process.stdout is not None
        return (await self.process.stdout.read()).decode()

    def send(self, number: Signals) -> None:
        """Send a signal to it alone."""
        self.process.send_signal(number)

    def family(self) -> list[psutil.Process]:
        """Return all processes below it."""
        return descendants(self.process.pid)

    def named(self, *words: str) -> psutil.Process:
        """Return the process below it whose command line has all `words`, the highest of them."""
        for process in self.family():
            if set(words) <= set(process.cmdline()):
                return process
        raise AssertionError(f"no process of {words} among {[each.cmdline() for each in self.family()]}")


@asynccontextmanager
async def running_dev(
    folder: Path, *arguments: str, ports: Sequence[str] = FREE_PORTS, program: Program | None = None
) -> AsyncIterator[Dev]:
    """Start `orqestra dev` in `folder`, with its data there too; at the end nothing of it is left."""
    program = program or this_program()
    error_file = folder / "stderr"
    with error_file.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *(*program.words, "dev", *ports, *arguments),
            cwd=folder,
            env=program.environment,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    dev = Dev(process=process, error_file=error_file)
    try:
        yield dev
    except BaseException:
        print(dev.errors)  # pytest shows it with the failure
        raise
    finally:
        if process.returncode is None:
            family = dev.family()
            process.kill()
            await process.wait()
            for each in family:
                if not await gone(each.pid):
                    each.kill()
