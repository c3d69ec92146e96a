"""The commands of a worker, on a thread of the daemon, and the daemon's end of it."""

import asyncio
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from orqestra import __version__
from orqestra.model.errors import StartFailed
from orqestra.worker.portable.commands import Commands
from orqestra.worker.portable.execution import Settings
from orqestra.worker.portable.values import Command, Exit, Gone, Live, Strays, Stuck

# Live output that nobody takes is kept up to this much; then there are gaps.
LIVE_BYTES_MAX: Final = 4 << 20
# After KILL to all commands, until all have ended. Longer only if the kernel can't end one.
END_SECONDS: Final = 5.0


class Supervisor:
    """What the daemon has of its commands; made by `Supervision`. Every method returns at once.

    What is asked for is done on a thread, which has an event loop of its own.
    """

    pid: Final = os.getpid()
    version: Final = __version__
    health: Final = ""
    held: Final[Sequence[tuple[int, bytes, bool]]] = ()

    def __init__(self, incarnation: str, settings: Settings) -> None:
        self.incarnation = incarnation
        self._reports = _Reports()
        self._commands = Commands(settings, self._reports.add)
        self._runner = asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._work, name="supervisor", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def fileno(self) -> int:
        """A descriptor that is readable while reports wait."""
        return self._reports.fileno()

    def reports(self) -> list[Exit | Live | Gone | Stuck | Strays]:
        """Take all reports that wait."""
        return self._reports.take()

    def start(self, commands: Sequence[Command]) -> None:
        """Have commands run."""
        self._have(self._commands.start, list(commands))

    def bound(self, running: int, until_us: int) -> None:
        """Have commands start while fewer than `running` run, and until this time."""
        self._have(self._commands.bound, running, until_us)

    def withdraw(self, keys: Iterable[int]) -> None:
        """Start none of these that still wait."""
        self._have(self._commands.withdraw, list(keys))

    def cancel(self, keys: Iterable[int]) -> None:
        """Send TERM, and KILL after the grace. What has not started never will."""
        self._have(self._commands.cancel, list(keys))

    def kill(self, keys: Iterable[int]) -> None:
        """Send KILL; for the rest as `cancel`."""
        self._have(self._commands.kill, list(keys))

    def follow(self, key: int, from_offset_stdout: int, from_offset_stderr: int) -> None:
        """Report the output of a command while it runs."""
        self._have(self._commands.follow, key, (from_offset_stdout, from_offset_stderr))

    def unfollow(self, key: int) -> None:
        """Report no more live output of a command."""
        self._have(self._commands.unfollow, key)

    def forget(self, keys: Iterable[int]) -> None:
        """Do nothing: an end that was told is kept by nobody but the daemon."""

    def set_aside(self, keys: Iterable[int]) -> None:
        """Do nothing: there is no disk to keep it on."""

    def stop(self) -> None:
        """Take no more commands, and end with the last one once `hang_up` was called."""
        self._have(self._commands.stop)

    def hang_up(self) -> None:
        """End with the last command; without `stop`, kill them all: nobody else will come for them."""
        self._have(self._commands.hang_up)

    def end(self) -> None:
        """Hang up, and return when it has ended; waits."""
        self.hang_up()
        self._thread.join(END_SECONDS)
        if self.closed:
            self._reports.close()

    def _have(self, call: Callable[..., None], *arguments: Any) -> None:
        # It may have ended meanwhile, with all commands.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)

    def _work(self) -> None:
        try:
            with self._runner:
                self._runner.run(self._commands.run())
        finally:
            self._reports.finish()


class Supervision:
    """What a daemon has of its supervisor, which is none: as `orqestra.worker.supervision` has it.

    An incarnation ends with the daemon, and nobody but it can be without one.
    """

    def __init__(self, directory: Path, _orphan_seconds: float, settings: Settings | None = None) -> None:
        self.supervisor: Supervisor | None = None
        self.incarnation = str(uuid.uuid4())
        self._directory = directory
        self._settings = settings or Settings()

    def open(self) -> Supervisor:
        """Return what runs commands from now on.

        Raises:
            StartFailed: the directory can't be used, or the system gives no processes.
        """
        jobs = self._directory / "jobs"
        try:
            # What commands of a predecessor left.
            shutil.rmtree(jobs, ignore_errors=True)
            jobs.mkdir(0o711, exist_ok=True)
            self.supervisor = Supervisor(self.incarnation, self._settings)
        except OSError as error:
            raise StartFailed(f"commands can't be run in {self._directory}: {error}") from error
        return self.supervisor

    def lost(self) -> None:
        """End all commands, and be another incarnation."""
        if self.supervisor is not None:
            self.supervisor.end()
        self.supervisor = None
        self.incarnation = str(uuid.uuid4())

    async def close(self) -> None:
        """Let it end, and return when it has."""
        if self.supervisor is not None:
            await asyncio.to_thread(self.supervisor.end)
        self.supervisor = None


class _Reports:
    """What waits to be told: one thread puts in, another takes out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Exit | Live | Gone | Stuck | Strays] = []
        self._live_bytes = 0
        self._out, self._in = os.pipe()

    def fileno(self) -> int:
        return self._out

    def add(self, report: Exit | Live | Stuck) -> None:
        with self._lock:
            if isinstance(report, Live):
                if self._live_bytes + len(report.data) > LIVE_BYTES_MAX:
                    return
                self._live_bytes += len(report.data)
            if not self._waiting:
                os.write(self._in, b"\0")
            self._waiting.append(report)

    def take(self) -> list[Exit | Live | Gone | Stuck | Strays]:
        with self._lock:
            if self._waiting:
                os.read(self._out, 1)
            self._live_bytes = 0
            taken, self._waiting = self._waiting, []
            return taken

    def finish(self) -> None:
        """Have it readable for ever: there will be no more."""
        os.close(self._in)

    def close(self) -> None:
        os.close(self._out)
