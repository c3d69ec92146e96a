"""A stack in the foreground of a terminal: its lines, its signals, its end."""

import asyncio
import io
import itertools
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Final, TypeVar

import click

from orqestra.embedded.stack import Stack
from orqestra.log import get_logger

NAME_WIDTH: Final = 9
COLOURS: Final = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green")
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Result = TypeVar("Result")

log = get_logger(__name__)


async def run_in_foreground(stack: Stack, when_ready: Callable[[], None]) -> None:
    """Start the stack, call `when_ready`, keep it going; return once a signal has ended it.

    Raises StartFailed if it does not come up or loses its Postgres.
    """
    await run_until_signal(stack, _serve(stack, when_ready))


async def run_until_signal(stack: Stack | None, work: Coroutine[None, None, Result]) -> Result | None:
    """Do work that starts the stack, if one is named, and uses it; then stop it. None if a signal ended the work.

    The first SIGINT, SIGTERM or SIGHUP stops it in order, a second one kills it; without a stack it cancels the
    work once more, which may be cleaning up. Raises what the work
    raises. In any case nothing of the stack is left running.
    """
    task = asyncio.create_task(work)

    def on_signal(number: signal.Signals) -> None:
        if task.done() or task.cancelling():
            log.warning("a second signal: ending everything now", signal=number.name)
            if stack is None:
                task.cancel()
            else:
                stack.kill()
        else:
            log.info("stopping; once more to end it at once", signal=number.name)
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        await asyncio.wait({task})
        if stack is not None:
            await stack.stop()
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
    return None if task.cancelled() else task.result()


async def _serve(stack: Stack, when_ready: Callable[[], None]) -> None:
    await stack.start()
    when_ready()
    await stack.supervise()


class TerminalLines:
    """Writes the lines of all processes to stderr, each behind the name of its process."""

    def __init__(self) -> None:
        self._has_colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        self._colours = itertools.cycle(COLOURS)
        self._prefixes: dict[str, str] = {}

    def __call__(self, name: str, line: str) -> None:
        """Write one line."""
        prefix = self._prefixes.get(name) or self._prefixes.setdefault(name, self._make_prefix(name))
        try:
            sys.stderr.write(f"{prefix} {line}\n")
            sys.stderr.flush()
        except OSError:
            # The terminal is gone; the signal that says so is on its way.
            return

    def _make_prefix(self, name: str) -> str:
        prefix = f"{name:<{NAME_WIDTH}} |"
        return click.style(prefix, fg=next(self._colours)) if self._has_colours else prefix


class OwnLines(io.StringIO):
    """A stream for our own log, whose lines go the way of all others."""

    def __init__(self, lines: TerminalLines) -> None:
        super().__init__()
        self._lines = lines

    def write(self, text: str) -> int:
        """Pass on each line of `text`."""
        for line in text.splitlines():
            self._lines("dev", line)
        return len(text)
