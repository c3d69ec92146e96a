"""What a job takes beyond the plain way of `benchmarks/ours.py`: keys, direct match, retries, steps, output, leases.

A word is given what the word before it returned: a number of jobs, their ids, or what was claimed.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

import orjson

from benchmarks.ours import LANE, LEASE_MS, NOOP, SERVER_ID, Ours, alike, ids_of, open_sessions
from orqestra.engine.claims import CLAIMABLE
from orqestra.engine.retention import SPAN_IDS
from orqestra.model import limits
from orqestra.model.job import JobSpec
from orqestra.model.lifecycle import State
from orqestra.model.payload import ShellPayload
from orqestra.model.report import Report, Verdict
from orqestra.model.retry import RetryPolicy
from orqestra.model.workflow import Definition, Step, define
from orqestra.store.database import Row, Statements
from orqestra.store.settling import Settling
from orqestra.store.submitting import Batch, Direct, PlacedJob, submit_jobs
from tests.support.databases import bare
from tests.support.engine import failed, succeeded
from tests.support.on_wire import rows_of

RETRIED: Final = JobSpec(type="noop", retries=RetryPolicy(max_retries=3))
ONE_STEP, TWO_STEPS = (
    define("bench", [Step(key=key, shell=ShellPayload(command="true")) for key in keys]) for keys in ("a", "ab")
)
PIECE: Final = os.urandom(limits.OUTPUT_CHUNK_BYTES)
TOKEN: Final = 99
# As long as the one of a batch of a few jobs.
ENTRIES: Final = bytes(100)
ADD_HINTS: Final = "INSERT INTO outbox (server_id, entries) SELECT $1, $2 FROM generate_series(1, $3) RETURNING id"
# Whatever has ended is old enough to go.
AT_ONCE_MS: Final = 0


@dataclass(frozen=True, kw_only=True)
class Further(Ours):
    """All words: those of every job, and these."""

    leased: list[int] = field(default_factory=list)

    async def submit_with_keys(self, count: int) -> list[int]:
        jobs = alike(NOOP, count)
        jobs.keys.extend(str(uuid4()) for _ in range(count))
        return ids_of(await submit_jobs(self.planned_once, jobs, server_id=SERVER_ID))

    async def submit_as_running(self, count: int) -> list[int]:
        direct = Direct(session_ids=[self.session_id] * count, tokens={self.session_id: TOKEN})
        stored = await submit_jobs(self.planned_once, alike(NOOP, count), server_id=SERVER_ID, direct=direct)
        assert (stored.running, stored.hints) == (None, [])
        return ids_of(stored)

    async def submit_retried(self, count: int) -> list[int]:
        return ids_of(await submit_jobs(self.planned_once, alike(RETRIED, count), server_id=SERVER_ID))

    async def start_runs(self, count: int) -> list[int]:
        """Start runs of two steps; return their first ones."""
        return await self._start_runs(TWO_STEPS, count)

    async def start_short_runs(self, count: int) -> list[int]:
        """Start runs of a single step."""
        return await self._start_runs(ONE_STEP, count)

    async def look_at(self, ids: Sequence[int]) -> None:
        rows = await self.planned_anew.fetch("look_at", ids=ids, claimable=CLAIMABLE)
        assert len(rows) == len(ids)

    async def failures(self, claimed: Row) -> list[Report]:
        return [failed(row) for row in rows_of(claimed)]

    async def successes(self, claimed: Row) -> list[Report]:
        return [succeeded(row) for row in rows_of(claimed)]

    async def settle_slowly(self, reports: Sequence[Report]) -> list[int]:
        """Settle in a transaction, as all that is no plain success; return the jobs."""
        async with self.database.transaction() as statements:
            settling = Settling(statements, server_id=SERVER_ID, find_lane=_find_lane)
            settled = await settling.settle(reports, wait_for_locks=True)
        assert settled.verdicts == [Verdict.ACCEPTED] * len(reports)
        return [report.attempt.job_id for report in reports]

    async def store_output(self, claimed: Row) -> None:
        """Store a piece of the output of each job."""
        count = len(claimed["ids"])
        rows = await self.planned_anew.fetch(
            "store_output",
            **{name: claimed[name] for name in ("ids", "fences", "tokens", "session_ids")},
            streams=[1] * count,
            offsets=[0] * count,
            bytes=[PIECE] * count,
            running=State.RUNNING,
        )
        assert len(rows) == count

    async def sessions(self, count: int) -> list[int]:
        """Return open sessions, always the same."""
        if not self.leased:
            self.leased.extend(await open_sessions(self.planned_anew, count))
        return self.leased

    async def renew(self, ids: Sequence[int]) -> None:
        [row] = await self.planned_anew.fetch(
            "renew_sessions",
            ids=ids,
            slots=[1] * len(ids),
            healths=[""] * len(ids),
            lease_ms=LEASE_MS,
            open_ids=ids,
            server_id=SERVER_ID,
        )
        assert (len(row["renewed"]), row["closed"]) == (len(ids), [])

    async def add_hints(self, count: int) -> list[int]:
        """Add rows to the outbox; return their ids."""
        async with bare(self.database) as connection:
            return [row["id"] for row in await connection.fetch(ADD_HINTS, SERVER_ID, ENTRIES, count)]

    async def delete_relayed(self, ids: Sequence[int]) -> None:
        async with self.database.transaction() as statements:
            await statements.fetch("commit_later")
            await statements.fetch("delete_outbox", ids=ids)

    async def delete_completed(self, ids: Sequence[int]) -> None:
        """Find a page of jobs that are old, and delete them."""
        old = {"states": [State.COMPLETED], "after_ms": [AT_ONCE_MS]}
        [page] = await self.planned_anew.fetch("find_old_jobs", **_page(ids), **old)
        [row] = await self.planned_anew.fetch("delete_jobs", ids=page["ids"], **old)
        assert row["gone"] == len(ids)

    async def delete_failed(self, ids: Sequence[int]) -> None:
        """Find a page of jobs that failed, and delete them with their attempts."""
        old = {"states": [State.FAILED], "after_ms": [AT_ONCE_MS]}
        [page] = await self.planned_anew.fetch("find_old_unhappy_jobs", **_page(ids), is_begin=False, **old)
        [row] = await self.planned_anew.fetch("delete_jobs", ids=page["ids"], **old)
        assert (row["gone"], row["attempts"]) == (len(ids), len(ids))

    async def runs_of(self, ids: Sequence[int]) -> list[int]:
        return [row["run_id"] for row in await self.planned_anew.fetch("find_runs", ids=ids)]

    async def delete_runs(self, ids: Sequence[int]) -> None:
        """Find a page of runs that are old, and delete them with their steps."""
        old = {"states": [State.COMPLETED], "after_ms": [AT_ONCE_MS]}
        [page] = await self.planned_anew.fetch("find_old_runs", **_page(ids), **old)
        [row] = await self.planned_anew.fetch("delete_runs", ids=page["ids"], **old)
        assert (row["gone"], row["jobs"]) == (len(ids), len(ids))

    async def _start_runs(self, definition: Definition, count: int) -> list[int]:
        first, snapshot = definition.steps[0], orjson.dumps(definition.snapshot()).decode()
        async with self.database.transaction(planned_once=True) as statements:
            jobs = []
            for _ in range(count):
                [row] = await statements.fetch("add_run", name=definition.name, definition=snapshot, key=None)
                jobs.append(PlacedJob(spec=first.job(), lane_id=LANE, run_id=row["id"], step_key=first.key))
            return ids_of(await submit_jobs(statements, Batch.of(jobs), server_id=SERVER_ID))


async def _find_lane(_statements: Statements, _spec: JobSpec) -> int:
    return LANE


def _page(ids: Sequence[int]) -> dict[str, int]:
    """Return the page of a walk that has these rows and no others."""
    return {"after": min(ids) - 1, "span": SPAN_IDS, "rows": len(ids)}
