"""What each step of a job takes here: the server's own statements, in the same words as in `benchmarks/bare.py`.

What does not come with every job is in `benchmarks/further.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from orqestra.engine.claims import CLAIMABLE
from orqestra.model import limits
from orqestra.model.job import JobSpec
from orqestra.model.lifecycle import State
from orqestra.model.report import Reason
from orqestra.store.database import Database, Row, Statements
from orqestra.store.submitting import Batch, PlacedJob, Stored, submit_jobs

LANE: Final = 1
WAITING_LANE: Final = 2
SERVER_ID: Final = 7
LEASE_MS: Final = 3_600_000
NOOP: Final = JobSpec(type="noop")
# A plain success without output says nothing more than its attempt: all other columns are empty.
QUIET: Final = ("stdouts", "stderrs", "wall_us", "user_us", "system_us", "max_rss_kb")


@dataclass(frozen=True, kw_only=True)
class Ours:
    """Two connections to the real tables, as the server borrows them, and more of them for transactions."""

    database: Database
    planned_anew: Statements
    planned_once: Statements
    session_id: int

    async def submit(self, count: int, lane: int = LANE) -> list[int]:
        return ids_of(await submit_jobs(self.planned_once, alike(NOOP, count, lane), server_id=SERVER_ID))

    async def claim(self, ids: Sequence[int]) -> Row:
        """Return the columns of the claim."""
        [columns] = await self.planned_anew.fetch(
            "claim_jobs",
            ids=ids,
            session_ids=[self.session_id] * len(ids),
            tokens=[99] * len(ids),
            claimable=CLAIMABLE,
            batch_bytes=limits.BATCH_BYTES,
            output_bytes=limits.OUTPUT_HEAD_BYTES,
        )
        assert len(columns["ids"]) == len(ids)
        return columns

    async def settle(self, claimed: Row) -> list[int]:
        """Return the jobs that have ended."""
        attempts = {name: claimed[name] for name in ("ids", "session_ids", "fences", "tokens")}
        nothing: dict[str, list[Any]] = {name: [] for name in QUIET}
        [settled] = await self.planned_anew.fetch(
            "settle_completed", running=State.RUNNING, exited=Reason.EXITED, **attempts, **nothing
        )
        assert len(settled["ids"]) == len(claimed["ids"])
        return sorted(settled["ids"])

    async def peek(self, count: int) -> int:
        return len(await self.planned_anew.fetch("peek_lanes", lane_ids=[WAITING_LANE], per_lane=count))

    async def page(self, count: int) -> int:
        """Read the newest jobs as a list shows them."""
        anything: dict[str, Any] = {"states": [], "queue": None, "type": None, "tags": [], "labels": []}
        row = await self.planned_anew.fetch_one(
            "list_jobs", after=2**62, scan=limits.PAGE_SCANNED_ROWS, page=count, **anything
        )
        assert row is not None
        return len(await self.planned_anew.fetch("get_summaries", ids=row["ids"]))


def alike(spec: JobSpec, count: int, lane: int = LANE) -> Batch:
    """Return jobs that differ in nothing."""
    return Batch(kinds=[PlacedJob(spec=spec, lane_id=lane)], kind_of=[1] * count, payloads=[spec.payload] * count)


def ids_of(stored: Stored) -> list[int]:
    """Return the ids of jobs that were all stored."""
    return [job_id for job_id in stored.ids if job_id]


async def open_sessions(statements: Statements, count: int) -> list[int]:
    """Open sessions, each of another worker; return their ids."""
    workers = [uuid4() for _ in range(count)]
    rows = await statements.fetch(
        "open_sessions",
        worker_ids=workers,
        incarnations=workers,
        numbers=[1] * count,
        names=["bench"] * count,
        slots=[1] * count,
        queues=['["default"]'] * count,
        labels=["[]"] * count,
        server_id=SERVER_ID,
        server_name="bench",
        lease_ms=LEASE_MS,
    )
    return [row["id"] for row in rows]
