"""The lanes known to this server: a queue plus the labels a worker must have."""

from collections.abc import Callable, Iterable
from typing import Final

from orqestra.model import limits
from orqestra.model.errors import InvalidInput, OrqestraError
from orqestra.model.job import JobSpec
from orqestra.store.database import Database, Statements

LaneListener = Callable[[int, str, list[str]], None]
TRIES: Final = 3


class Lanes:
    """Finds the lane of a job, makes it at first use, and tells the dispatcher of each one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: dict[tuple[str, tuple[str, ...]], int] = {}
        self._last = 0
        self._listeners: list[LaneListener] = []

    @property
    def ids(self) -> list[int]:
        """Return all lanes known here."""
        return list(self._ids.values())

    @property
    def count(self) -> int:
        """Return how many lanes are known here."""
        return len(self._ids)

    def served_by(self, profiles: Iterable[tuple[frozenset[str], frozenset[str]]]) -> list[int]:
        """Return the lanes that workers with such queues and labels serve, in the order of their ids."""
        known = tuple(profiles)
        return sorted(
            lane
            for (queue, requires), lane in self._ids.items()
            if any(queue in queues and labels.issuperset(requires) for queues, labels in known)
        )

    def listen(self, listener: LaneListener) -> None:
        """Call `listener(id, queue, requires)` for each lane that becomes known."""
        self._listeners.append(listener)

    async def load(self) -> None:
        """Read the lanes that have come up since the last call."""
        for row in await self._database.insist("list_lanes", after=self._last):
            self._learn(row["id"], row["queue"], tuple(row["requires"]))
            self._last = max(self._last, row["id"])

    async def find(self, spec: JobSpec) -> int:
        """Return the lane of a job, made if there is none yet.

        Raises:
            InvalidInput: there are as many lanes as allowed already.
        """
        known = self._ids.get((spec.queue, spec.requires))
        return known if known is not None else await self._make(spec.queue, spec.requires)

    async def find_existing(self, statements: Statements, spec: JobSpec) -> int:
        """Return the lane of a step, which was made at the trigger of its run, on a connection that is at hand."""
        known = self._ids.get((spec.queue, spec.requires))
        if known is not None:
            return known
        row = await statements.fetch_one("find_lane", queue=spec.queue, requires=list(spec.requires))
        if row is None:
            raise OrqestraError(f"the lane of queue {spec.queue!r} with labels {spec.requires} is gone")
        self._learn(row["id"], spec.queue, spec.requires)
        return self._ids[spec.queue, spec.requires]

    async def _make(self, queue: str, requires: tuple[str, ...]) -> int:
        for _ in range(TRIES):
            found = await self._database.insist("find_lane", queue=queue, requires=list(requires))
            if not found:
                await self._check_room(queue)
                found = await self._database.insist("add_lane", queue=queue, requires=list(requires))
            if found:
                lane: int = found[0]["id"]
                self._learn(lane, queue, requires)
                return lane
        raise OrqestraError(f"the lane of queue {queue!r} can neither be found nor made")

    async def _check_room(self, queue: str) -> None:
        [row] = await self._database.insist("count_lanes")
        if row["lanes"] >= limits.LANES:
            raise InvalidInput(
                "queue",
                f"{queue!r} with these labels would be one more than the {limits.LANES} combinations of queue "
                "and labels that are allowed; use fewer distinct ones",
            )

    def _learn(self, lane: int, queue: str, requires: tuple[str, ...]) -> None:
        if (queue, requires) in self._ids:
            return
        self._ids[queue, requires] = lane
        for listener in self._listeners:
            listener(lane, queue, list(requires))
