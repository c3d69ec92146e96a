"""A process of the stack, the server or a worker, that can be started again, and where its lines go."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from orqestra.embedded.directory import open_log, tail
from orqestra.embedded.process import Child, Program
from orqestra.log import get_logger
from orqestra.model.errors import StartFailed

END_SECONDS: Final = 5.0
READ_BYTES: Final = 64 * 1024
LAST_READS: Final = 16  # more than a pipe holds
FIRST_PAUSE_SECONDS: Final = 0.5
LAST_PAUSE_SECONDS: Final = 15.0
STEADY_SECONDS: Final = 30.0  # who ran for so long starts anew with the first pause

# Given the name of a process and one of its lines, without the line's end.
LineSink = Callable[[str, str], None]

log = get_logger(__name__)


class Part:
    """One program, started as often as needed. Its lines go to `sink`, or to `log_file` if there is none."""

    def __init__(self, program: Program, log_file: Path, sink: LineSink | None) -> None:
        self.name = program.name
        self._program = program
        self._log_file = log_file
        self._sink = sink
        self._child: Child | None = None
        self._lines: Lines | None = None

    @property
    def child(self) -> Child:
        """The process of the last start."""
        if self._child is None:
            raise StartFailed(f"{self.name} was not started")
        return self._child

    def start(self) -> None:
        """Start the program, from the event loop; `Child` says in which thread."""
        if self._sink is None:
            with open_log(self._log_file) as output:
                self._child = Child(self._program, output.fileno())
            return
        if self._lines is not None:
            self._lines.finish()
        self._lines = Lines(self.name, self._sink)
        try:
            self._child = Child(self._program, self._lines.writer)
        finally:
            os.close(self._lines.writer)

    async def wait_for_end(self) -> None:
        """Return once it has ended; raises StartFailed if it goes on."""
        try:
            await asyncio.wait_for(self.child.wait(), END_SECONDS)
        except TimeoutError:
            raise StartFailed(f"{self.name} still runs: stop or kill it before it is started again") from None

    async def stop(self, seconds: float) -> None:
        """Ask it to end, kill it after `seconds`, and pass on its last lines."""
        if self._child is not None:
            await self._child.stop((self._program.death_signal, seconds))
        if self._lines is not None:
            self._lines.finish()

    def kill(self) -> None:
        """SIGKILL the process alone, if it runs."""
        if self._child is not None:
            self._child.kill()

    def kill_tree(self) -> None:
        """SIGKILL it and all that it started, if it runs."""
        if self._child is not None:
            self._child.kill_tree()

    def check_alive(self) -> None:
        """Raise StartFailed, with its last words, if it has ended."""
        code = self.child.exit_code
        if code is not None:
            words = "its last lines are above" if self._sink else f"it said: {tail(self._log_file)}"
            raise StartFailed(f"{self.name} ended with exit code {code} before it was ready; {words}")

    async def keep(self) -> None:
        """Start it again whenever it ends, after a pause that doubles. Runs until cancelled."""
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_SECONDS
        while True:
            since = loop.time()
            code = await self.child.wait()
            if loop.time() - since > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            log.warning("process ended; starting it again", process=self.name, exit_code=code, after=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE_SECONDS)
            self.start()


class Lines:
    """A pipe whose lines are handed to `sink` as they come, by the event loop.

    `writer` is for the child; whoever makes this closes it once the child has it.
    """

    def __init__(self, name: str, sink: LineSink) -> None:
        self._name = name
        self._sink = sink
        self._rest = b""
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reader, self._read)

    def finish(self) -> None:
        """Pass on what is in the pipe and close it, though a process that outlives the child may hold it."""
        for _ in range(LAST_READS):
            if self._reader < 0 or not self._read():
                break
        self._close()

    def _read(self) -> bool:
        """Read once; return whether there was something."""
        try:
            data = os.read(self._reader, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close()
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._pass_on(line)
        if len(self._rest) > READ_BYTES:
            self._pass_on(self._rest)
            self._rest = b""
        return True

    def _close(self) -> None:
        if self._reader < 0:
            return
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        self._reader = -1
        if self._rest:
            self._pass_on(self._rest)

    def _pass_on(self, line: bytes) -> None:
        self._sink(self._name, line.decode(errors="replace").rstrip("\r"))
