"""A service that outlived the process that started it: found by its pid file, verified, then stopped."""

import asyncio
import os
import select
import signal
from pathlib import Path

from orqestra.model.errors import StartFailed

STOP_SECONDS = 10.0


async def stop_leftover(pid_file: Path, directory: Path, *ladder: signal.Signals) -> int | None:
    """End the process that `pid_file` names, if it lives and works in `directory`; return its pid.

    A pid alone proves nothing, it may have been given to another process since. Postgres and Redis both
    make their data directory their working directory, so that is what is compared; the process is held
    by a pidfd meanwhile, so that the signal can reach no other. Raises StartFailed if it will not end.
    """
    pid = read_pid(pid_file)
    if pid is None:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        if not _works_in(pid, directory):
            return None
        for number in ladder:
            signal.pidfd_send_signal(descriptor, number)
            if await asyncio.to_thread(_ended, descriptor, STOP_SECONDS):
                return pid
    finally:
        os.close(descriptor)
    raise StartFailed(f"process {pid} of an earlier start uses {directory} and does not end: stop it first")


def read_pid(pid_file: Path) -> int | None:
    """Return the pid on the first line of a pid file, None if there is no file or no pid in it."""
    try:
        first_line, *_ = pid_file.read_text().splitlines()
        pid = int(first_line)
    except (FileNotFoundError, ValueError):
        return None
    return pid if pid > 0 else None


def misleads(pid_file: Path, directory: Path) -> bool:
    """Tell whether the pid in `pid_file` belongs by now to a process that has nothing to do with `directory`."""
    pid = read_pid(pid_file)
    try:
        return pid is not None and not Path(f"/proc/{pid}/cwd").samefile(directory)
    except OSError:  # there is no such process, or it does not let us look: then nobody can say so
        return False


def _works_in(pid: int, directory: Path) -> bool:
    """Tell whether the working directory of `pid` is `directory`."""
    try:
        return Path(f"/proc/{pid}/cwd").samefile(directory)
    except OSError:  # it ended meanwhile, or belongs to somebody else
        return False


def _ended(descriptor: int, seconds: float) -> bool:
    """Wait for the end of the process behind a pidfd."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
