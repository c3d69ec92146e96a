"""A child process that ends when we do, is waited for without polling, and is only ever ended by its pid."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orqestra.embedded import launch

LAUNCH_SCRIPT: Final = launch.__file__


@dataclass(frozen=True, kw_only=True)
class Account:
    """The user and group that a child runs as, where they are not ours."""

    user_id: int
    group_id: int


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to start. `death_signal` is what it gets when we end without stopping it (SIGKILL, a crash)."""

    name: str
    argv: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str]
    account: Account | None = None
    death_signal: signal.Signals = signal.SIGTERM


class Child:
    """One running program, in a session of its own: a Ctrl-C in the terminal reaches us alone.

    Start it from a thread that lives as long as the child should: the kernel takes the end of the
    thread that started it for the end of the parent.
    """

    def __init__(self, program: Program, output: int) -> None:
        """Start it. `output` is the file descriptor for its stdout and stderr; it stays the caller's."""
        account = program.account
        self.name = program.name
        self._process = subprocess.Popen(  # noqa: S603 - no shell, and the program is ours to choose
            [
                *(sys.executable, "-I", "-S", LAUNCH_SCRIPT),
                *(str(os.getpid()), str(int(program.death_signal))),
                f"{account.user_id}:{account.group_id}" if account else "-",
                *program.argv,
            ],
            cwd=program.directory,
            env=dict(program.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process id; certainly this child's as long as `exit_code` is None."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number if a signal ended it."""
        return self._process.poll()

    async def wait(self) -> int:
        """Return the exit code once it has ended. Any number of tasks may wait."""
        if self._process.poll() is None:
            # A descriptor of its own for each waiter: a loop knows one reader per descriptor.
            descriptor = os.pidfd_open(self._process.pid)
            try:
                await _readable(descriptor)
            finally:
                os.close(descriptor)
        return self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process; nothing happens if it has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL the process alone, as a crash would end it."""
        self.send(signal.SIGKILL)

    def kill_tree(self) -> None:
        """SIGKILL it and all that it started, in whatever session; not what has left its tree."""
        if self._process.poll() is not None:
            return
        # Halted, it can neither start more nor reap, so that the pids below it stay theirs.
        self.send(signal.SIGSTOP)
        for pid in _descendants(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.send(signal.SIGKILL)

    async def stop(self, *ladder: tuple[signal.Signals, float]) -> int:
        """Send each signal and wait up to its seconds for the end, then kill all; return the exit code."""
        for number, seconds in ladder:
            self.send(number)
            try:
                return await asyncio.wait_for(self.wait(), seconds)
            except TimeoutError:
                continue
        self.kill_tree()
        return await self.wait()


def _descendants(root: int) -> list[int]:
    """Return the pids of all processes below `root`."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended while we looked
                # The name, in parentheses, may hold anything; state and parent follow it.
                _, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                children.setdefault(int(parent), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found[1:]


async def _readable(descriptor: int) -> None:
    """Wait until the event loop sees `descriptor` readable."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
