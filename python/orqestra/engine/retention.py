"""Retention: deletes jobs and runs that ended long ago, in small batches, each with a commit of its own.

It has no index to find them by: one more would cost every job on its way. Ids are given in the order of
submission, so the oldest rows stand first in the primary key, and each round walks it from there until
rows begin that are too young. Where a walk stands is known here only: a new server begins anew.
"""

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from orqestra.engine.core import Core
from orqestra.model.lifecycle import TERMINAL, State
from orqestra.service import Service
from orqestra.store.database import Row

ROUND_SECONDS: Final = 60.0
# In step, servers would look at the same pages.
SPREAD: Final = (0.8, 1.2)
BATCH_JOBS: Final = 1000
# A run may have a thousand steps.
BATCH_RUNS: Final = 50
FIRST_ROWS: Final = 50
LEAST_ROWS: Final = 5
# A statement passes over so many ids at most: until a vacuum each of a deleted row costs a look.
SPAN_IDS: Final = 1_000_000
# A batch that takes longer was too large, as one with much output.
SLOW_SECONDS: Final = 0.1
# After a batch three times as long is everybody else's: a quarter of one connection is the most that is taken.
REST: Final = 3.0
REST_LEAST_SECONDS: Final = 0.01
# Among rows that stay there is no hurry.
LOOK_SECONDS: Final = 0.25
TABLES: Final = ("jobs", "attempts", "job_output", "workflow_runs")

# Given the values of a named query; returns its rows.
Ask = Callable[..., Awaitable[list[Row]]]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Rows that are walked together: `find` names what of a page is old, `delete` deletes what of that still is.

    What ended in a state of `after_ms` goes so long after its end; what ended in another one stays. `may_come`:
    `find` passes over rows that may yet be of this kind, and tells of them where a round begins.
    """

    name: str
    find: Ask
    delete: Ask
    after_ms: Mapping[State, int]
    most_rows: int
    may_come: bool = False


class Deleted:
    """How many rows were deleted from each table since the start of this server."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = dict.fromkeys(TABLES, 0)

    def count(self, rows: Mapping[str, int]) -> None:
        """Add rows, by table."""
        for table, number in rows.items():
            self.counts[table] += number


class Retention(Service):
    """Walks rows of one kind, a page with each step, round after round."""

    max_silence_seconds = 180.0

    def __init__(self, core: Core, kind: Kind, deleted: Deleted) -> None:
        super().__init__(f"retention_{kind.name}", core.clock)
        self._kind = kind
        self._old = {"states": list(kind.after_ms), "after_ms": list(kind.after_ms.values())}
        self._deleted = deleted
        self._rows = FIRST_ROWS
        self._after = 0
        # Where the next round begins: up to there nothing is left.
        self._begin = 0

    async def run_once(self) -> float | None:
        """Look at the next page, delete what of it is old, and return how long to rest."""
        rows = self._rows
        # For the next try, should this one be cut off.
        self._rows = max(rows // 2, LEAST_ROWS)
        began = self.clock.monotonic()
        begin = {"is_begin": self._after == self._begin} if self._kind.may_come else {}
        [page] = await self._kind.find(after=self._after, span=SPAN_IDS, rows=rows, **begin, **self._old)
        gone = await self._delete(page["ids"])
        took_seconds = self.clock.monotonic() - began
        if took_seconds < SLOW_SECONDS:
            self._rows = min(rows * 2, self._kind.most_rows)
        if self._move_on(page, is_anything_left=gone < page["looked"] or page.get("is_more_to_come", False)):
            return ROUND_SECONDS * random.uniform(*SPREAD)  # noqa: S311  spreads rounds, no secret
        return max(REST * took_seconds, REST_LEAST_SECONDS if gone else LOOK_SECONDS)

    async def _delete(self, ids: list[int]) -> int:
        """Delete what of these is still there and old, with all that belongs to it; return how many of them went."""
        if not ids:
            return 0
        [row] = await self._kind.delete(ids=ids, **self._old)
        rows: dict[str, int] = dict(row)
        gone = rows.pop("gone")
        self._deleted.count(rows)
        return gone

    def _move_on(self, page: Row, *, is_anything_left: bool) -> bool:
        """Go to the next page, or to the first one of the next round; return whether this round is over."""
        # An id may be taken and its row not be there yet; once a whole span of later ones is taken, it is.
        is_settled = page["reached"] + SPAN_IDS <= page["newest"]
        if self._begin == self._after and is_settled and not is_anything_left:
            self._begin = page["reached"]
        is_over: bool = page["is_young"] or page["reached"] >= page["newest"]
        self._after = self._begin if is_over else page["reached"]
        return is_over


def retentions(core: Core, after_ms: Mapping[State, int], deleted: Deleted) -> tuple[Retention, ...]:
    """Return the loops that delete what ended in one of these states, so long after its end."""
    return tuple(Retention(core, kind, deleted) for kind in _kinds(core, after_ms) if kind.after_ms)


def _kinds(core: Core, after_ms: Mapping[State, int]) -> tuple[Kind, ...]:
    database = core.database

    def chosen(*states: State) -> dict[State, int]:
        return {state: after_ms[state] for state in states if state in after_ms}

    def delete_jobs(**values: Any) -> Awaitable[list[Row]]:
        return database.insist("delete_jobs", **values)

    return (
        Kind(
            name=State.COMPLETED,
            find=lambda **page: database.insist("find_old_jobs", **page),
            delete=delete_jobs,
            after_ms=chosen(State.COMPLETED),
            most_rows=BATCH_JOBS,
        ),
        Kind(
            name="unhappy",
            find=lambda **page: database.insist("find_old_unhappy_jobs", **page),
            delete=delete_jobs,
            after_ms=chosen(State.FAILED, State.CANCELLED),
            most_rows=BATCH_JOBS,
            may_come=True,
        ),
        Kind(
            name="runs",
            find=lambda **page: database.insist("find_old_runs", **page),
            delete=lambda **batch: database.insist("delete_runs", **batch),
            after_ms=chosen(*TERMINAL),
            most_rows=BATCH_RUNS,
        ),
    )
