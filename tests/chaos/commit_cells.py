"""The connection to Postgres is cut at the worst moment: once a COMMIT is done and before its answer, or just before.

Each of these transactions is of unknown end then, or certainly undone. What it was for happens once, and soon.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, Self, TypeAlias

from orqestra.model.lifecycle import RunState, State
from orqestra.model.retry import RetryPolicy
from tests.chaos.cell import Cell, Stage
from tests.chaos.cluster import WORKFLOW_STEPS
from tests.chaos.evidence import Operation
from tests.chaos.kill_cells import ONE
from tests.chaos.postgres_cells import COMMITS

BOUND_SECONDS: Final = 3.0
# Until the statement is run at all: of a lost host only once its lease is over.
CUT_SECONDS: Final = 12.0
COMMIT: Final = "COMMIT"
NEVER: Final = (0, 0)
ONCE: Final = (1, 1)
TWICE: Final = (2, 2)
FAR_OFF_MS: Final = 60_000
NO_RETRIES: Final = RetryPolicy(max_retries=0)


class Cut:
    """The cut to come: `arm` readies it, and whatever runs the statement next meets it."""

    def __init__(self, stage: Stage, transaction: "Transaction", *, after_commit: bool) -> None:
        self._stage = stage
        self._transaction = transaction
        self._after_commit = after_commit
        self._commits = stage.cluster.servers[0].links.commits
        self._noting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._commits.doomed = None
        if self._noting is not None:
            self._noting.cancel()
            await asyncio.gather(self._noting, return_exceptions=True)

    def arm(self) -> None:
        """From now on it strikes, once."""
        wanted = self._transaction
        self._commits.lose(wanted.statement, after_commit=self._after_commit, following=wanted.following)
        self._noting = asyncio.create_task(self._note())

    async def struck(self) -> None:
        """Return once it has struck."""
        assert self._noting is not None, "the cut was never armed"
        async with asyncio.timeout(CUT_SECONDS):
            await asyncio.shield(self._noting)

    async def _note(self) -> None:
        await self._commits.cut_now.wait()
        self._stage.fault()


Provoke: TypeAlias = Callable[[Stage, Cut], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Transaction:
    """What is cut: `statement`, in a transaction that ran `following` before, and what makes the server run it."""

    name: str
    provoke: Provoke
    statement: str = COMMIT
    following: str = ""
    quiet: bool = False
    """Nothing else goes on until the cut: other jobs would suffer from what makes the server run it."""


async def background(_: Stage, cut: Cut) -> None:
    """Whatever goes on all the time gets there soon."""
    cut.arm()


async def cancel_running(stage: Stage, cut: Cut) -> None:
    """Cancel a job that runs: its command is told to end, and the job ends as cancelled."""
    job_id = await stage.held_job()
    stage.aside.discard(job_id)
    stage.starts[job_id] = ONCE
    cut.arm()
    await _ask(stage, "cancel", job_id)
    await _demand_state(stage, job_id, State.CANCELLED)


async def cancel_waiting(stage: Stage, cut: Cut) -> None:
    """Cancel a job that is due much later: it never starts."""
    job_id = await stage.clients.submit(delay_ms=FAR_OFF_MS)
    stage.starts[job_id] = NEVER
    cut.arm()
    await _ask(stage, "cancel", job_id)
    await _demand_state(stage, job_id, State.CANCELLED)


async def retry(stage: Stage, cut: Cut) -> None:
    """Retry a job that failed, and fails again soon: one retry is one more start."""
    job_id = await stage.clients.submit("fail", "3", retries=NO_RETRIES)
    stage.starts[job_id] = ONCE
    await stage.ended(job_id)
    cut.arm()
    await _ask(stage, "retry", job_id)
    await stage.started(job_id, 2)
    await _demand_state(stage, job_id, State.FAILED)
    stage.demand(stage.count_starts(job_id) == 2, f"one retry made {stage.count_starts(job_id) - 1} starts")


async def trigger(stage: Stage, cut: Cut) -> None:
    """Start a run: there is one, whole."""
    before = await _count_runs(stage)
    cut.arm()
    run_id = await stage.clients.trigger()
    await cut.struck()
    await _demand_run(stage, run_id)
    stage.demand(await _count_runs(stage) == before + 1, "one trigger with a key made other than one run")


async def advance(stage: Stage, cut: Cut) -> None:
    """A step ends: the next one is there once."""
    cut.arm()
    run_id = await stage.clients.trigger()
    await cut.struck()
    await _demand_run(stage, run_id)


async def hello(stage: Stage, cut: Cut) -> None:
    """A worker comes back with a command that runs: the command stays its own."""
    job_id = await stage.held_job()
    stage.starts[job_id] = ONCE
    worker = await stage.worker_of(job_id)
    cut.arm()
    worker.link.reset()
    await cut.struck()
    await stage.cluster.whole()


async def sweep(stage: Stage, cut: Cut) -> None:
    """The job of a lost host is brought back: once."""
    job_id = await stage.held_job()
    stage.starts[job_id] = TWICE
    worker = await stage.worker_of(job_id)
    cut.arm()
    await worker.kill_tree()
    await cut.struck()
    await stage.started(job_id, 2)


TRANSACTIONS: Final = (
    *(Transaction(name=name, statement=text, provoke=background) for name, text in COMMITS.items()),
    Transaction(name="cancel of a running job", following="/* cancel_jobs */", provoke=cancel_running),
    Transaction(name="cancel of a waiting job", following="/* cancel_jobs */", provoke=cancel_waiting),
    Transaction(name="retry", following="/* retry_job */", provoke=retry),
    Transaction(name="trigger", following="/* add_run */", provoke=trigger),
    Transaction(name="advance", following="/* list_steps */", provoke=advance),
    Transaction(name="Hello", following="/* open_sessions */", provoke=hello),
    Transaction(name="sweep of orphans", following="/* lock_free_jobs */", provoke=sweep, quiet=True),
    Transaction(name="renewal of leases", statement="/* renew_sessions */", provoke=background),
)


def commit_cells() -> list[Cell]:
    """Return the cells: what is not in postgres_cells of the lost replies, and all that is cut before."""
    lost = [_cell(each, after_commit=True) for each in TRANSACTIONS if each.name not in COMMITS]
    return [*lost, *(_cell(each, after_commit=False) for each in TRANSACTIONS)]


async def _cut(stage: Stage, transaction: Transaction, *, after_commit: bool) -> None:
    async with Cut(stage, transaction, after_commit=after_commit) as cut:
        await transaction.provoke(stage, cut)
        await cut.struck()
        stage.release()
        await stage.recovered()


def _cell(transaction: Transaction, *, after_commit: bool) -> Cell:
    point = "reply to COMMIT lost" if after_commit else "cut before COMMIT"
    return Cell(
        point=f"{point}: {transaction.name}",
        victim="Postgres",
        act=partial(_cut, transaction=transaction, after_commit=after_commit),
        bound_seconds=BOUND_SECONDS,
        shape=ONE,
        quiet=transaction.quiet,
    )


async def _ask(stage: Stage, kind: Literal["cancel", "retry"], job_id: int) -> None:
    """Call once: the server finds out by itself what became of it, and its caller hears of no trouble."""
    invoked_at = time.monotonic()
    client = stage.cluster.client
    await (client.cancel([job_id]) if kind == "cancel" else client.retry(job_id))
    stage.clients.operations.append(
        Operation(
            kind=kind,
            key="",
            outcome="ok",
            job_id=job_id,
            run_id=None,
            invoked_at=invoked_at,
            answered_at=time.monotonic(),
        )
    )


async def _demand_state(stage: Stage, job_id: int, state: State) -> None:
    await stage.ended(job_id)
    [row] = await stage.fetch("SELECT state FROM jobs WHERE id = $1", job_id)
    stage.demand(row["state"] == state, f"job {job_id} ended as {row['state']}")


async def _demand_run(stage: Stage, run_id: int) -> None:
    """Once all its steps have ended: it is complete, with each of them once."""
    steps = "SELECT id FROM jobs WHERE run_id = $1"
    async with asyncio.timeout(CUT_SECONDS):
        while not await stage.fetch("SELECT FROM workflow_runs WHERE id = $1 AND finished_at IS NOT NULL", run_id):
            await asyncio.sleep(0.02)
    [run] = await stage.fetch("SELECT state FROM workflow_runs WHERE id = $1", run_id)
    stage.demand(run["state"] == RunState.COMPLETED, f"run {run_id} ended as {run['state']}")
    ids = [row["id"] for row in await stage.fetch(steps, run_id)]
    stage.demand(len(ids) == WORKFLOW_STEPS, f"run {run_id} has {len(ids)} steps")
    stage.starts.update(dict.fromkeys(ids, ONCE))


async def _count_runs(stage: Stage) -> int:
    [row] = await stage.fetch("SELECT count(*) AS runs FROM workflow_runs")
    return int(row["runs"])
