"""What waits and what runs on a worker. Pure accounting: nothing is started or ended here."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from orqestra.model.job import JobType
from orqestra.model.report import AttemptRef
from orqestra.v1.worker_pb2 import Assignment


class Fate(Enum):
    """What is told of a command when it ends."""

    REPORT = auto()
    RETURN = auto()
    """The drain ended it: it is handed back, unless it ended by itself."""
    DROP = auto()
    """Nothing: the attempt is no longer the worker's."""


@dataclass(slots=True)
class Occupied:
    """An attempt that the supervisor has; `fate` may change while it does.

    `adopted`: an earlier daemon handed it over. `ended`: it has, and how is still to be told. `cancelled`:
    the server wants it to end.
    """

    attempt: AttemptRef
    assignment: Assignment
    fate: Fate = Fate.REPORT
    adopted: bool = False
    ended: bool = False
    cancelled: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether the server is told of its end."""
        return self.fate is not Fate.DROP


class Slots:
    """The attempts that wait here, in order, and those that the supervisor has, by its key.

    There they run as soon as one of `count` slots is free. `noop` jobs need no slot and wait apart. A
    revoked command keeps its slot until it has ended.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.running: dict[int, Occupied] = {}
        self._keys: dict[AttemptRef, int] = {}
        self._stuck: dict[int, int] = {}
        self._waiting: dict[AttemptRef, Assignment] = {}
        self._effortless: dict[AttemptRef, Assignment] = {}
        # By the clock: the supervisor may still know keys of an earlier daemon.
        self._next_key = itertools.count(time.time_ns())

    def __contains__(self, attempt: AttemptRef) -> bool:
        return attempt in self._keys or attempt in self._waiting or attempt in self._effortless

    @property
    def stuck(self) -> str:
        """A sentence on commands that the kernel does not end; empty if there are none."""
        if not self._stuck:
            return ""
        return f"kill pending: the kernel does not end the command of job {', '.join(map(str, self._stuck.values()))}"

    def note_stuck(self, key: int) -> AttemptRef | None:
        """Note that the kernel does not end a command; return its attempt, None if it has ended."""
        occupied = self.running.get(key)
        if occupied is None:
            return None
        self._stuck[key] = occupied.attempt.job_id
        return occupied.attempt

    def wait(self, attempt: AttemptRef, assignment: Assignment) -> None:
        """Put an attempt at the end of those that wait."""
        queue = self._effortless if assignment.type == JobType.NOOP else self._waiting
        queue[attempt] = assignment

    def waiting(self) -> Iterator[AttemptRef]:
        """Yield the attempts that wait."""
        return itertools.chain(self._effortless, self._waiting)

    def key_of(self, attempt: AttemptRef) -> int | None:
        """Return the supervisor's key of an attempt, None if it does not have it."""
        return self._keys.get(attempt)

    def take_effortless(self) -> dict[AttemptRef, Assignment]:
        """Take all that need no slot."""
        taken, self._effortless = self._effortless, {}
        return taken

    def hand_over(self) -> list[tuple[int, Occupied]]:
        """Take out all that wait, in order, to be run; return them with their new keys."""
        started = []
        for attempt, assignment in self._waiting.items():
            key = next(self._next_key)
            self._keys[attempt] = key
            self.running[key] = Occupied(attempt, assignment)
            started.append((key, self.running[key]))
        self._waiting = {}
        return started

    def without_slot(self) -> set[int]:
        """Return the keys that wait for a slot. The first `count` have one, and have started or are about to."""
        return set(itertools.islice(self.running, self.count, None))

    def adopt(self, key: int, attempt: AttemptRef, assignment: Assignment, *, ended: bool) -> None:
        """Take over what an earlier daemon handed over under this key."""
        self._keys[attempt] = key
        self.running[key] = Occupied(attempt, assignment, adopted=True, ended=ended)
        self._next_key = itertools.count(max(key + 1, next(self._next_key)))

    def vacate(self, key: int) -> Occupied:
        """Note that the supervisor does not have it any more."""
        occupied = self.running.pop(key)
        self._stuck.pop(key, None)
        del self._keys[occupied.attempt]
        return occupied

    def withdraw(self, attempt: AttemptRef) -> Assignment | None:
        """Take out an attempt that waits; None if it does not."""
        return self._waiting.pop(attempt, None) or self._effortless.pop(attempt, None)

    def withdraw_all(self) -> list[AttemptRef]:
        """Take out all that wait."""
        withdrawn = list(self.waiting())
        self._waiting, self._effortless = {}, {}
        return withdrawn
