"""All commands of a worker that were taken and have not ended, and what ends them with the daemon."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from orqestra.model.report import Reason
from orqestra.worker.lease import boot_seconds
from orqestra.worker.portable.execution import Execution, Settings
from orqestra.worker.portable.values import Command, Exit, Live, Stuck

# Told of a group when it begins and again when it ends; once nobody is there to tell it, it ends those that are left.
WATCHER: Final = """
import contextlib, os, signal, sys
groups = set()
for line in sys.stdin:
    groups ^= {int(line)}
for group in groups:
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGKILL)
"""


class Commands:
    """Starts commands, in order and within bounds. Only the thread of its event loop uses it."""

    def __init__(self, settings: Settings, tell: Callable[[Exit | Live | Stuck], None]) -> None:
        self._settings = settings
        self._tell = tell
        self._watcher = _Watcher()
        self._taken: dict[int, Execution] = {}
        self._waiting: dict[int, Execution] = {}
        self._running_max, self._until_us = sys.maxsize, sys.maxsize
        self._tasks: asyncio.TaskGroup | None = None
        self._stopping = False
        self._hung_up = asyncio.Event()

    async def run(self) -> None:
        """Serve until it was hung up and the last command has ended."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._go_on()
                await self._hung_up.wait()
        finally:
            self._watcher.close()

    def start(self, commands: Iterable[Command]) -> None:
        """Take commands; a key that is in use is passed over."""
        for command in commands:
            if command.key in self._taken:
                continue
            execution = Execution(command, self._settings, self._tell)
            if self._stopping:
                self._tell(execution.never_ran(Reason.CANCELLED))
            else:
                self._taken[command.key] = self._waiting[command.key] = execution
        self._go_on()

    def bound(self, running: int, until_us: int) -> None:
        """Have them start while fewer than `running` run, and until this time."""
        self._running_max, self._until_us = running, until_us
        self._go_on()

    def withdraw(self, keys: Iterable[int]) -> None:
        """Start none of these that still wait."""
        for key in keys:
            if (execution := self._waiting.pop(key, None)) is not None:
                self._ended(execution, execution.never_ran(Reason.CANCELLED))

    def cancel(self, keys: Iterable[int]) -> None:
        """End these, by TERM first."""
        self.withdraw(keys)
        for execution in self._of(keys):
            execution.cancel()

    def kill(self, keys: Iterable[int]) -> None:
        """End these, by KILL."""
        self.withdraw(keys)
        for execution in self._of(keys):
            execution.kill()

    def follow(self, key: int, offsets: tuple[int, int]) -> None:
        """Tell what one writes."""
        for execution in self._of([key]):
            execution.follow(offsets)

    def unfollow(self, key: int) -> None:
        """Tell it no more."""
        for execution in self._of([key]):
            execution.unfollow()

    def stop(self) -> None:
        """Take no more."""
        self._stopping = True

    def hang_up(self) -> None:
        """End with those that run; they get KILL unless it was stopped before."""
        self.withdraw(list(self._waiting))
        if not self._stopping:
            self.kill(list(self._taken))
        self._stopping = True
        self._hung_up.set()

    def _of(self, keys: Iterable[int]) -> list[Execution]:
        return [self._taken[key] for key in keys if key in self._taken]

    def _go_on(self) -> None:
        """Start what waits and may start."""
        while self._tasks is not None and self._waiting and self._may_start():
            execution = self._waiting.pop(next(iter(self._waiting)))
            self._tasks.create_task(self._run(execution))

    def _may_start(self) -> bool:
        running = len(self._taken) - len(self._waiting)
        return running < self._running_max and boot_seconds() * 1e6 < self._until_us

    async def _run(self, execution: Execution) -> None:
        groups: list[int] = []

        def began(group: int) -> None:
            groups.append(group)
            self._watcher.tell(group)

        exit_ = await execution.run(began)
        for group in groups:
            self._watcher.tell(group)
        self._ended(execution, exit_)
        self._go_on()

    def _ended(self, execution: Execution, exit_: Exit) -> None:
        del self._taken[execution.command.key]
        self._tell(exit_)


class _Watcher:
    """A process that ends the commands when the daemon has ended, however that came."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603  our own interpreter and program
            (sys.executable, "-I", "-S", "-c", WATCHER),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            # A session of its own: what is typed at our terminal is not for it.
            start_new_session=True,
        )

    def tell(self, group: int) -> None:
        assert self._process.stdin is not None
        # Without it, commands would outlive a daemon that is killed: no reason to run none.
        with suppress(BrokenPipeError):
            self._process.stdin.write(b"%d\n" % group)

    def close(self) -> None:
        self._process.communicate()
