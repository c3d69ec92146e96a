"""What tests ask about processes: by pid, and with an end to every wait."""

import asyncio
import os
import select
from pathlib import Path

import psutil


async def gone(pid: int, seconds: float = 10.0) -> bool:
    """Wait for the end of a process that need not be our child; False if it outlives `seconds`."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(await asyncio.to_thread(poll.poll, seconds * 1000))
    finally:
        os.close(descriptor)


def descendants(pid: int) -> list[psutil.Process]:
    """Return the processes that `pid` started, and those that they started; none if it has ended."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def processes_of(folder: str) -> list[str]:
    """Return the command lines of all processes that name `folder` there or in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if folder in " ".join([*words, *process.environ().values()]) and process.pid != os.getpid():
                found.append(f"{process.pid}: {' '.join(words)}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def commands_of(folder: Path) -> list[str]:
    """Return the command lines of all processes that run a job of the workers in `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if "ORQESTRA_JOB_ID" in environment and environment.get("ORQESTRA_TMPDIR", "").startswith(f"{folder}/"):
                found.append(f"{process.pid}: {' '.join(process.cmdline())}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
