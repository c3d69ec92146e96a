"""One command, from its start to its end. All on one event loop."""

import asyncio
import errno
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Final, Literal

from orqestra.model.report import Reason
from orqestra.worker.portable.capture import PIECE_BYTES, Capture
from orqestra.worker.portable.launch import Launched, launch, remove
from orqestra.worker.portable.values import Command, Exit, Failure, Live, Stuck

# How long the kernel has to end a main process that was sent KILL before that is told.
STUCK_SECONDS: Final = 5.0
# From one look at what is left of a group to the next.
LOOK_SECONDS: Final = 0.02
# Reads of what a pipe still has: enough to empty the largest.
LAST_READS: Final = 16
# A shell adds the number of a signal to it.
SHELL_SIGNALLED: Final = 128


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is kept of each output stream, and how long it is read after the main process has ended."""

    head_bytes: int = 256 * 1024
    tail_bytes: int = 768 * 1024
    drain_seconds: float = 2.0


class Execution:
    """A command that was taken. `run` starts it; the rest may be called before that, and at any time."""

    def __init__(self, command: Command, settings: Settings, tell: Callable[[Live | Stuck], None]) -> None:
        loop = asyncio.get_running_loop()
        self.command = command
        self._settings = settings
        self._tell = tell
        self._outputs = tuple(_Output(command.key, stream, settings, tell) for stream in (1, 2))
        self._cancelled: asyncio.Future[None] = loop.create_future()
        self._killed: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[tuple[int, resource.struct_rusage]] = loop.create_future()
        self._pid = 0
        # Why it was made to end, and what that took.
        self._stop: Reason | None = None
        self._kill_at = 0.0
        self._outlasted = False
        self._sent_kill = False

    def cancel(self) -> None:
        """Send TERM, and KILL after the grace."""
        _set(self._cancelled)

    def kill(self) -> None:
        """Send KILL."""
        _set(self._cancelled)
        _set(self._killed)

    def follow(self, offsets: tuple[int, int]) -> None:
        """Tell the output, beginning with what is kept from these offsets on."""
        for output, offset in zip(self._outputs, offsets, strict=True):
            output.follow(offset)

    def unfollow(self) -> None:
        """Tell no more of the output."""
        for output in self._outputs:
            output.followed = False

    def never_ran(self, reason: Reason, failure: Failure | None = None) -> Exit:
        """Return the end of a command that was not started."""
        command = self.command
        if failure is None:
            return Exit(key=command.key, tag=command.tag or b"", reason=reason)
        return Exit(
            key=command.key,
            tag=command.tag or b"",
            reason=reason,
            error=failure.error,
            errno=failure.errno,
            stage=failure.stage,
        )

    async def run(self, began: Callable[[int], None]) -> Exit:
        """Run it to its end. `began` is told its group once it has one."""
        launched = launch(self.command)
        if isinstance(launched, Failure):
            return self.never_ran(Reason.SPAWN_FAILED, launched)
        started, started_at_us = time.monotonic(), time.time_ns() // 1000
        self._pid = launched.process.pid
        began(self._pid)
        if failure := self._watch(launched):
            return self.never_ran(Reason.SPAWN_FAILED, failure)
        await self._until_ended()
        wall_us = int((time.monotonic() - started) * 1e6)
        await self._drain()
        killed, left = await self._sweep()
        for output in self._outputs:
            output.close()
        status, usage = self._ended.result()
        # What Popen would have found out itself.
        launched.process.returncode = os.waitstatus_to_exitcode(status)
        await asyncio.to_thread(remove, launched.directory)
        stdout, stderr = (output.capture for output in self._outputs)
        code = launched.process.returncode
        return Exit(
            key=self.command.key,
            tag=self.command.tag or b"",
            reason=self._reason(code, usage),
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            killed=self._sent_kill or bool(self._stop and killed),
            timed_out=self._stop is Reason.TIMEOUT,
            killed_processes=killed,
            left_processes=left,
            stdout=stdout.kept(),
            stderr=stderr.kept(),
            stdout_bytes=stdout.total,
            stderr_bytes=stderr.total,
            started_at_us=started_at_us,
            wall_us=wall_us,
            user_us=int(usage.ru_utime * 1e6),
            system_us=int(usage.ru_stime * 1e6),
        )

    def _watch(self, launched: Launched) -> Failure | None:
        """Wait for its end on a thread, and for its output here."""
        process = launched.process
        loop = asyncio.get_running_loop()

        def wait() -> None:
            _, status, usage = os.wait4(process.pid, 0)
            loop.call_soon_threadsafe(self._ended.set_result, (status, usage))

        try:
            threading.Thread(target=wait, name="command", daemon=True).start()
        except RuntimeError as error:
            self._signal(signal.SIGKILL)
            process.communicate()
            remove(launched.directory)
            return Failure(stage="watch", errno=errno.EAGAIN, error=f"cannot watch its process: {error}")
        for output, pipe in zip(self._outputs, (process.stdout, process.stderr), strict=True):
            assert pipe is not None
            output.open(pipe)
        return None

    async def _until_ended(self) -> None:
        """Return when the main process has ended, by itself or because it was to end."""
        seconds = self.command.timeout_ms / 1000 or None
        asked = await _first_of(seconds, self._ended, self._cancelled)
        if self._ended.done():
            return
        self._stop = Reason.CANCELLED if asked else Reason.TIMEOUT
        grace_seconds = self.command.grace_ms / 1000
        self._kill_at = time.monotonic() + grace_seconds
        if not self._killed.done():
            self._signal(signal.SIGTERM)
            self._outlasted = not await _first_of(grace_seconds, self._ended, self._killed)
            if self._ended.done():
                return
        self._sent_kill = True
        self._signal(signal.SIGKILL)
        if not await _first_of(STUCK_SECONDS, self._ended):
            self._tell(Stuck(keys=[self.command.key]))
            await self._ended

    async def _drain(self) -> None:
        """Read what others of its processes still write: after a TERM until their grace is over, after KILL nothing."""
        if self._killed.done() or self._sent_kill:
            return
        until = max(time.monotonic() + self._settings.drain_seconds, self._kill_at)
        for output in self._outputs:
            await _first_of(until - time.monotonic(), output.at_end, self._killed)

    async def _sweep(self) -> tuple[int, int]:
        """End what is left of the group; return whether anything got KILL, and whether anything stays.

        Its number can't be another's as long as a member lives; and once none does, the kernel gives it to
        nobody before it has given all others, which takes longer than a drain.
        """
        if self.command.allow_background and not self._stop:
            return 0, int(self._signal(0))
        while self._stop and not self._killed.done() and time.monotonic() < self._kill_at and self._signal(0):
            await _first_of(LOOK_SECONDS, self._killed)
        return int(self._signal(signal.SIGKILL)), 0

    def _signal(self, number: int) -> bool:
        """Send a signal to the group; return whether there was anybody to take it."""
        # Where all that is left of a group waits to be reaped, macOS says that it is not permitted.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)
            return True
        return False

    def _reason(self, code: int, usage: resource.struct_rusage) -> Reason:
        if self._outlasted and code == -signal.SIGKILL:
            return Reason.KILLED_AFTER_GRACE
        if self._stop:
            return self._stop
        if self._hit_limit(code, usage):
            return Reason.RESOURCE_LIMIT
        return Reason.EXITED if code >= 0 else Reason.SIGNALLED

    def _hit_limit(self, code: int, usage: resource.struct_rusage) -> bool:
        limits = self.command.limits or {}
        cpu_seconds = limits.get("cpu_seconds")
        if code == -signal.SIGKILL:
            return cpu_seconds is not None and usage.ru_utime + usage.ru_stime >= cpu_seconds
        by_shell = {
            SHELL_SIGNALLED + signal.SIGXCPU: cpu_seconds is not None,
            SHELL_SIGNALLED + signal.SIGXFSZ: "file_bytes" in limits,
        }
        return code in {-signal.SIGXCPU, -signal.SIGXFSZ} or by_shell.get(code, False)


class _Output:
    """One output stream of a command."""

    def __init__(
        self, key: int, stream: Literal[1, 2], settings: Settings, tell: Callable[[Live | Stuck], None]
    ) -> None:
        self.capture = Capture(settings.head_bytes, settings.tail_bytes)
        self.followed = False
        self.at_end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._key = key
        self._stream: Literal[1, 2] = stream
        self._tell = tell
        self._pipe: IO[bytes] | None = None

    def follow(self, offset: int) -> None:
        self.followed = True
        for start, data in self.capture.kept_from(offset):
            total = self.capture.total
            self._tell(Live(key=self._key, stream=self._stream, offset=start, data=data, total=total))

    def open(self, pipe: IO[bytes]) -> None:
        """Read a pipe from now on."""
        os.set_blocking(pipe.fileno(), False)
        self._pipe = pipe
        asyncio.get_running_loop().add_reader(pipe, self._read)

    def close(self) -> None:
        """Take what the pipe still has, and let go of it."""
        for _ in range(LAST_READS):
            if self._pipe is None or not self._read():
                break
        self._let_go()

    def _read(self) -> bool:
        """Read once; return whether there may be more."""
        assert self._pipe is not None
        try:
            data = os.read(self._pipe.fileno(), PIECE_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._let_go()
            return False
        if self.followed:
            start = self.capture.total
            self._tell(Live(key=self._key, stream=self._stream, offset=start, data=data, total=start + len(data)))
        self.capture.push(data)
        return True

    def _let_go(self) -> None:
        if self._pipe is not None:
            asyncio.get_running_loop().remove_reader(self._pipe)
            self._pipe.close()
            self._pipe = None
            _set(self.at_end)


async def _first_of(seconds: float | None, *futures: "asyncio.Future[Any]") -> bool:
    """Return once one of them is done, or False after so many seconds."""
    done, _ = await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
