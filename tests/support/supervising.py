"""A real supervisor for a test, in a process of its own, and the daemon's end of the line to it."""

import itertools
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from orqestra.worker.supervised import Command, Exit, Gone, Live, Strays, Stuck, Supervision, Supervisor

PATIENCE_SECONDS: Final = 20.0
# No test that does not mean it waits for this.
ORPHAN_SECONDS: Final = 600.0
PATH: Final = [(b"PATH", b"/usr/bin:/bin")]

Report = Exit | Live | Gone | Stuck | Strays

# Above those that tests give.
_keys = itertools.count(1_000_000)


@contextmanager
def supervision(
    directory: Path, orphan_seconds: float = ORPHAN_SECONDS, *, command: Sequence[str] | None = None
) -> Iterator[Supervision]:
    """What a daemon has of its supervisor; the supervisor that it started is gone after the block."""
    if sys.platform == "linux":
        kept = Supervision(directory, orphan_seconds, command=command)
    else:
        kept = Supervision(directory, orphan_seconds)
    try:
        yield kept
    finally:
        kept.lost()


@contextmanager
def supervised(directory: Path, **settings: Any) -> Iterator[Supervisor]:
    """A supervisor with these settings of `supervise`."""
    with supervision(directory, command=program(**settings)) as kept:
        yield kept.open()


def program(*, version: str | None = None, **settings: Any) -> tuple[str, ...]:
    """Return the command of a supervisor with other settings, or of another version."""
    said = "sys.argv[3]" if version is None else repr(version)
    lines = (
        "import sys; from orqestra._dispatch import supervise;"
        f" supervise(sys.argv[1], daemon=int(sys.argv[2]), version={said}, incarnation=sys.argv[4],"
        f" orphan_ms=int(sys.argv[5]), **{settings!r})"
    )
    return (sys.executable, "-I", "-c", lines)


def shell(script: str, **fields: Any) -> Command:
    """Return a command for the shell, under a key that no other has unless one is given."""
    defaults: dict[str, Any] = {"argv": [b"sh", b"-c", script.encode()]}
    return command(**defaults | fields)


def command(**fields: Any) -> Command:
    """Return a command under a key that no other has unless one is given."""
    defaults: dict[str, Any] = {"key": next(_keys), "env": PATH}
    return Command(**defaults | fields)


def run(supervisor: Supervisor, command: Command) -> Exit:
    """Run a command to its end, which is then forgotten."""
    supervisor.start([command])
    (exit_,) = exits(supervisor, 1)
    supervisor.forget([exit_.key])
    return exit_


def exits(supervisor: Supervisor, count: int) -> list[Exit]:
    """Take reports until `count` commands have ended."""
    found: list[Exit] = []
    while len(found) < count:
        found += [report for report in taken(supervisor) if isinstance(report, Exit)]
    return found


def seen(supervisor: Supervisor, expected: bytes, *, key: int = 1) -> bytes:
    """Follow a command until it has written what is expected; return what it has written."""
    supervisor.follow(key, 0, 0)
    written = b""
    while expected not in written:
        for report in taken(supervisor):
            assert isinstance(report, Live), report
            written += report.data
    return written


def pids(supervisor: Supervisor, keys: Sequence[int]) -> list[int]:
    """Return the numbers that these commands have written first of all."""
    return [int(seen(supervisor, b"\n", key=key)) for key in keys]


def taken(supervisor: Supervisor) -> list[Report]:
    """Return the next reports; none if the supervisor has only told how it is."""
    ready, _, _ = select.select([supervisor.fileno()], [], [], PATIENCE_SECONDS)
    assert ready, "no report in time"
    reports = supervisor.reports()
    assert reports or not supervisor.closed, "the supervisor has ended"
    return reports


def told(supervisor: Supervisor, is_so: Callable[[], bool]) -> None:
    """Take reports, which are none that anybody needs, until it `is_so`."""
    while not is_so():
        taken(supervisor)


def ends(pid: int, seconds: float = PATIENCE_SECONDS) -> float:
    """Wait until a process, which need not be a child of ours, has ended; return how long that took."""
    start = time.monotonic()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0.0
    ready, _, _ = select.select([descriptor], [], [], seconds)
    os.close(descriptor)
    assert ready, f"process {pid} lives on"
    return time.monotonic() - start


def supervisor_pid(directory: Path) -> int:
    """Return the process that supervises a worker's directory."""
    return int((directory / "supervisor.lock").read_text())


def end_supervisors(folder: Path) -> None:
    """Kill the supervisors of all workers whose directories are somewhere in this folder."""
    for lock in folder.rglob("supervisor.lock"):
        pid = supervisor_pid(lock.parent)
        # It works in its directory: the number may be another's by now.
        with suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/cwd").readlink() == lock.parent:
                os.kill(pid, signal.SIGKILL)
                ends(pid)
