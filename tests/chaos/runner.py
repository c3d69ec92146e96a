"""Runs cells: one warm cluster for all that have the same shape, a new one after a cell that failed or was alone."""

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

import asyncpg

from orqestra.client import JobSpec, shell_payload
from orqestra.model.limits import BATCH_JOBS
from tests.chaos.cell import Cell, Holds, Stage
from tests.chaos.checker import Findings, check
from tests.chaos.cluster import NAMESPACE, Cluster
from tests.chaos.evidence import (
    Allowance,
    Evidence,
    Sample,
    booted_at,
    parse_journal,
    read_final,
    read_hints,
    sample,
)
from tests.chaos.liveness import Bounds
from tests.chaos.load import Clients
from tests.chaos.nodes import Shape
from tests.chaos.report import CellResult
from tests.support.processes import commands_of

CELL_SECONDS: Final = 90.0
SAMPLE_SECONDS: Final = 1.0
AUDIT_SECONDS: Final = 1.2
# Of the matcher, for each session.
PREFETCH_MAX: Final = 1000
# Jobs that do nothing end faster than they are settled: a slot is free when its result has come.
SETTLING_MAX: Final = 4 * BATCH_JOBS
# Of a cell that judges by itself.
NOTHING: Final = Findings(acked=0, lost=0, unexpected=0, duplicate=0, recovered=0, extra_starts=0, violations=())


async def run_cells(
    cells: Iterable[Cell], *, seed: int, tell: Callable[[CellResult], None], keep: Path | None = None
) -> list[CellResult]:
    """Run the cells, those of one shape after each other, and return what came of them.

    `keep` gets the logs and the journal of a cluster in which a cell failed.
    """
    results: list[CellResult] = []
    async with Warm(keep) as warm:
        # Those of one shape after each other.
        for cell in sorted(cells, key=lambda cell: repr(cell.shape)):
            results.append(await warm.run(cell, seed=seed))
            tell(results[-1])
    return results


class Warm:
    """A cluster that is kept from one cell to the next, as long as those want its shape and none has failed."""

    def __init__(self, keep: Path | None = None) -> None:
        self._keep = keep
        self._stack = AsyncExitStack()
        self._cluster: Cluster | None = None
        self._is_spent = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def run(self, cell: Cell, *, seed: int) -> CellResult:
        """Run a cell on the cluster that there is, or on a new one."""
        # What earlier cells have cancelled or had lapse is none of a cell's that looks at everything.
        self._is_spent = self._is_spent or cell.alone
        cluster = await self._of_shape(cell.shape)
        result = await run_cell(cluster, cell, seed=seed)
        # What it left may be at fault for what the next one finds.
        cluster.failed = not result.ok
        self._is_spent = cell.alone or cluster.failed
        return result

    async def _of_shape(self, shape: Shape) -> Cluster:
        if self._cluster is None or self._is_spent or self._cluster.shape != shape:
            await self._stack.aclose()
            self._is_spent = False
            self._cluster = await self._stack.enter_async_context(running_cluster(shape, self._keep))
            await _run_first_job(self._cluster)
        return self._cluster


async def _run_first_job(cluster: Cluster) -> None:
    """Have a lane known and found empty: the first job of a new one is never matched directly."""
    job_id = await cluster.client.submit(JobSpec(payload=shell_payload(cluster.probe())))
    async with asyncio.timeout(CELL_SECONDS):
        async for _ in cluster.client.watch(job_id):
            pass


@asynccontextmanager
async def running_cluster(shape: Shape, keep: Path | None = None) -> AsyncIterator[Cluster]:
    """Start a cluster in a folder of its own; afterwards nothing of it is left, not even a process."""
    # Short, because the paths of sockets are.
    folder = Path(tempfile.mkdtemp(prefix="oq-"))
    cluster = Cluster(folder, shape)
    # Until it has come up it counts as failed.
    cluster.failed = True
    try:
        async with cluster:
            cluster.failed = False
            yield cluster
        left = cluster.leftovers()
        assert not left, f"left behind: {left}"
    finally:
        if cluster.failed and keep is not None:
            shutil.copytree(folder / "logs", keep / folder.name, dirs_exist_ok=True)
            shutil.copy(cluster.journal, keep / folder.name)
        shutil.rmtree(folder)


async def run_cell(cluster: Cluster, cell: Cell, *, seed: int, seconds: float = CELL_SECONDS) -> CellResult:
    """Run one cell on a warm cluster and judge it. The seed decides what is left to chance in it."""
    since_id = await _newest_job(cluster)
    journal_from = cluster.journal.stat().st_size
    await cluster.history.skip()
    for node in cluster.nodes:
        node.skip_log()
    with Holds(cluster.folder, f"hold-{since_id}") as holds:
        stage = Stage(
            cell=cell,
            cluster=cluster,
            clients=Clients(cluster),
            chance=random.Random(f"{seed} {cell.name}"),
            since_id=since_id,
            holds=holds,
        )
        samples: list[Sample] = []
        try:
            async with asyncio.timeout(seconds), _sampled(cluster, samples):
                async with stage.background():
                    await cell.act(stage)
                await cluster.heal()
                stage.over_at = time.time()
                await stage.drained()
        except (Exception, TimeoutError) as error:  # noqa: BLE001  whatever it is, it is the result of this cell
            stage.broken.append(f"{type(error).__name__}: {error}")
            stage.release()
    return await _judge(stage, samples, journal_from, seed)


async def _judge(stage: Stage, samples: Sequence[Sample], journal_from: int, seed: int) -> CellResult:
    """Gather what all witnesses say, and have it checked."""
    cluster, cell = stage.cluster, stage.cell
    with suppress(TimeoutError):
        await cluster.heal()
    findings = await _check(stage, await _gather(stage, samples, journal_from)) if cell.judged_by_history else NOTHING
    for command in commands_of(cluster.folder):
        stage.broken.append(f"I17, a command outlives its job: {command}")
    recovery_s = await stage.recovery_seconds() if stage.hit else None
    if recovery_s is not None and recovery_s > cell.bound_seconds:
        stage.broken.append(f"recovered after {recovery_s:.2f} s, the bound is {cell.bound_seconds:g} s")
    return CellResult(
        point=cell.point,
        victim=cell.victim,
        seed=seed,
        hit=stage.hit,
        acked=findings.acked,
        lost=findings.lost,
        unexpected=findings.unexpected,
        recovered=findings.recovered,
        extra_starts=findings.extra_starts,
        recovery_s=recovery_s,
        bound_s=cell.bound_seconds,
        violations=(*stage.broken, *map(str, findings.violations)),
        figures=stage.figures,
    )


async def _gather(stage: Stage, samples: Sequence[Sample], journal_from: int) -> Evidence:
    cluster = stage.cluster
    with cluster.journal.open() as journal:
        journal.seek(journal_from)
        lines = parse_journal(journal.read(), stage.since_id)
    return Evidence(
        history=tuple(await cluster.history.read()),
        journal=lines,
        operations=tuple(stage.clients.operations),
        final=await read_final(cluster.db_url, stage.since_id),
        booted_at=booted_at(),
        since_id=stage.since_id,
        samples=tuple(samples),
    )


async def _check(stage: Stage, evidence: Evidence) -> Findings:
    """Have the evidence checked; what Redis holds is right at the latest when the audit has looked at it."""
    cell = stage.cell
    allowance = Allowance(
        starts=stage.starts,
        default=cell.starts,
        overlap_after_expiry=cell.starts != (1, 1) or bool(stage.starts),
        silent=frozenset(stage.clients.noops),
        prefetch=PREFETCH_MAX + (SETTLING_MAX if stage.clients.noops else 0),
    )
    # What was bad may have gone on while the work did: only then everything is healthy again.
    ill = (stage.fault_at - SAMPLE_SECONDS, stage.over_at + cell.bound_seconds)
    bounds = Bounds(healed_at=stage.recovers_from, outage=(ill,))
    for last in (False, True):
        hints = await read_hints(stage.cluster.redis.address, NAMESPACE)
        findings = check(replace(evidence, hints=hints), allowance, bounds)
        if last or not any(violation.invariant == "I12" for violation in findings.violations):
            break
        await asyncio.sleep(AUDIT_SECONDS)
    return findings


@asynccontextmanager
async def _sampled(cluster: Cluster, samples: list[Sample]) -> AsyncIterator[None]:
    """Look once a second at what should not be, while Postgres can be asked."""

    async def look() -> None:
        while True:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                samples.append(await sample(cluster.db_url))
            await asyncio.sleep(SAMPLE_SECONDS)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def _newest_job(cluster: Cluster) -> int:
    connection = await asyncpg.connect(cluster.db_url)
    try:
        return int(await connection.fetchval("SELECT coalesce(max(id), 0) FROM jobs"))
    finally:
        await connection.close()
