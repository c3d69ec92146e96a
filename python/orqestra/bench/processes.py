"""CPU and memory of the processes that we started, from /proc; nothing is found where there is none.

CPU is what was taken between two looks. A child that ended meanwhile and was waited for is in the account
of its parent: of a worker, or of its supervisor, these are the commands that it ran.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orqestra.bench.report import Usage

PROC: Final = Path("/proc")
COMMANDS: Final = "commands"
OURSELVES: Final = "bench"
SUPERVISOR: Final = "supervisor"
TICKS: Final = os.sysconf("SC_CLK_TCK")
KIB_PER_MB: Final = 1024
# Fields of /proc/PID/stat behind the name, which is the second and may hold anything (proc_pid_stat(5)).
PARENT: Final = 1
OWN_TICKS: Final = slice(11, 13)
CHILDREN_TICKS: Final = slice(13, 15)


@dataclass(frozen=True, kw_only=True)
class Root:
    """A process that we started. It `runs_commands` as a worker does, or is a group as Postgres is."""

    name: str
    pid: int
    runs_commands: bool = False


@dataclass(frozen=True, kw_only=True)
class Account:
    """The ticks that a process has taken, and those of its children that it waited for."""

    parent: int
    own: int
    children: int


Accounts = Mapping[int, Account]


def look() -> Accounts:
    """Return the accounts of all processes now."""
    return dict(_accounts())


def usages(roots: Sequence[Root], before: Accounts, after: Accounts) -> list[Usage]:
    """Return what was taken between two looks by each of `roots` and what is below it, and by ourselves.

    Nothing without roots: we alone say nothing.
    """
    if not roots or not after:
        return []
    found = [usage for root in roots for usage in _of_root(root, before, after)]
    commands = sum(
        _children(pid, before, after) for root in roots if root.runs_commands for pid in _tree(root, before, after)
    )
    found.append(Usage(name=COMMANDS, cpu_s=commands / TICKS, rss_mb=None))
    found.append(_of_one(OURSELVES, os.getpid(), before, after))
    return found


def _of_root(root: Root, before: Accounts, after: Accounts) -> Iterator[Usage]:
    pids = _tree(root, before, after)
    if root.runs_commands:
        for number, pid in enumerate(pids):
            yield _of_one(root.name if number == 0 else f"{root.name} {SUPERVISOR}", pid, before, after)
    elif pids:
        ticks = sum(_own(pid, before, after) for pid in pids)
        # Of a group, what began and ended in between.
        ticks += _children(root.pid, before, after)
        memory = peak_mb(root.pid) if len(pids) == 1 else _shared_fairly_mb(pids)
        yield Usage(name=root.name, cpu_s=ticks / TICKS, rss_mb=memory)


def _of_one(name: str, pid: int, before: Accounts, after: Accounts) -> Usage:
    return Usage(name=name, cpu_s=_own(pid, before, after) / TICKS, rss_mb=peak_mb(pid))


def _tree(root: Root, before: Accounts, after: Accounts) -> list[int]:
    """Return the root and what is below it after the load; of one that runs commands, what was there before too.

    Of a root that is new since then, all.
    """
    pids = [root.pid] if root.pid in after else []
    for parent in pids:
        pids.extend(pid for pid, account in after.items() if account.parent == parent)
    return [pid for pid in pids if pid in before] if root.runs_commands and root.pid in before else pids


def _own(pid: int, before: Accounts, after: Accounts) -> int:
    return after[pid].own - (before[pid].own if pid in before else 0)


def _children(pid: int, before: Accounts, after: Accounts) -> int:
    return after[pid].children - (before[pid].children if pid in before else 0)


def _accounts() -> Iterator[tuple[int, Account]]:
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended while we looked
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                yield (
                    int(entry.name),
                    Account(
                        parent=int(fields[PARENT]),
                        own=sum(map(int, fields[OWN_TICKS])),
                        children=sum(map(int, fields[CHILDREN_TICKS])),
                    ),
                )


def rss_mb(pid: int) -> float | None:
    """Return the resident memory of a process now; None if it is gone, or where that can't be known."""
    return _field_mb(PROC / str(pid) / "status", "VmRSS")


def peak_mb(pid: int) -> float | None:
    """Return the most that it was since its start."""
    return _field_mb(PROC / str(pid) / "status", "VmHWM")


def _shared_fairly_mb(pids: Sequence[int]) -> float | None:
    parts = [_field_mb(PROC / str(pid) / "smaps_rollup", "Pss") for pid in pids]
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def _field_mb(path: Path, name: str) -> float | None:
    """Return what a line `NAME:  N kB` says; None if there is none, or we may not look."""
    with suppress(OSError):
        for line in path.read_text().splitlines():
            title, _, value = line.partition(":")
            if title == name:
                return int(value.split()[0]) / KIB_PER_MB
    return None
