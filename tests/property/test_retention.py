"""Any past, any settings, retries at any moment: what is deleted is what ended long enough ago, and nothing else."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orqestra.model.errors import NotFound, Refused
from orqestra.model.lifecycle import TERMINAL, RunState, State
from tests.support.engine import Engine, engine_on
from tests.support.retention import DAY_MS, Past, add_jobs, add_run, finish_round, loops_of, rows_left

EXAMPLES = 100
# In which state, and for how many days.
Ended = tuple[State, float]
EndedRun = tuple[RunState, float, list[Ended]]
EMPTY = "TRUNCATE jobs, workflow_runs, attempts, job_output"

# And a half: never exactly as long as a setting says.
days = st.integers(0, 40).map(lambda number: number + 0.5)
jobs = st.lists(st.tuples(st.sampled_from(State), days), max_size=8)
runs = st.lists(st.tuples(st.sampled_from(RunState), days, jobs), max_size=4)
after = st.dictionaries(st.sampled_from(sorted(TERMINAL)), st.integers(1, 30))
# One of the loops takes a step, or somebody tries to retry one of the jobs.
moves = st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=12)


@dataclass(kw_only=True)
class Row:
    """A job or a run as it ought to be, so many days after its end."""

    state: str
    days: float
    run: "Row | None" = None
    steps: list["Row"] = field(default_factory=list)

    def is_old(self, after_days: float) -> bool:
        return self.state in TERMINAL and self.days > after_days

    def goes(self, after_days: Mapping[str, int]) -> bool:
        """Whether it is to be deleted: a step with its run, a run once all of it is old."""
        if self.run is not None:
            return self.run.goes(after_days)
        least = after_days.get(self.state)
        return least is not None and all(row.is_old(least) for row in (self, *self.steps))


class World:
    """What there was once, in the database and as rows by id."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.jobs: dict[int, Row] = {}
        self.runs: dict[int, Row] = {}

    async def add_jobs(self, told: Sequence[Ended], run_id: int | None = None) -> None:
        run = None if run_id is None else self.runs[run_id]
        keys = [None if run is None else f"step-{number}" for number in range(len(told))]
        pasts = [
            Past(state=state, age_ms=int(days * DAY_MS), run_id=run_id, step_key=key)
            for (state, days), key in zip(told, keys, strict=True)
        ]
        rows = [Row(state=state, days=days, run=run) for state, days in told]
        self.jobs |= zip(await add_jobs(self.engine, *pasts), rows, strict=True)
        if run is not None:
            run.steps = rows

    async def add_run(self, state: RunState, days: float, steps: Sequence[Ended]) -> None:
        run_id, _ = await add_run(self.engine, State(state), age_ms=int(days * DAY_MS))
        self.runs[run_id] = Row(state=state, days=days)
        await self.add_jobs(steps, run_id)

    async def retry(self, number: int) -> None:
        """Try to retry a job; one that was deleted is not found, all else is as ever."""
        if not self.jobs:
            return
        job_id = list(self.jobs)[number % len(self.jobs)]
        job = self.jobs[job_id]
        try:
            await self.engine.cancels.retry(job_id)
        except (NotFound, Refused):
            return
        job.state = State.PENDING
        if job.run is not None and job.run.state == RunState.FAILED:
            job.run.state = RunState.RUNNING


@pytest.mark.timeout(300)
def test_what_ended_long_ago_goes_and_nothing_else(database: str) -> None:
    with asyncio.Runner() as runner:
        context = engine_on(database)
        engine = runner.run(context.__aenter__())

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(jobs=jobs, runs=runs, after=after, moves=moves)
        def holds(
            jobs: list[Ended], runs: list[EndedRun], after: dict[State, int], moves: list[tuple[bool, int]]
        ) -> None:
            runner.run(check(engine, (jobs, runs), after, moves))

        try:
            holds()
        finally:
            runner.run(context.__aexit__(None, None, None))


async def check(
    engine: Engine,
    past: tuple[list[Ended], list[EndedRun]],
    after_days: dict[State, int],
    moves: Sequence[tuple[bool, int]],
) -> None:
    await engine.sql(EMPTY)
    world = World(engine)
    jobs, runs = past
    await world.add_jobs(jobs)
    for run in runs:
        await world.add_run(*run)
    loops = loops_of(engine, {state: days * DAY_MS for state, days in after_days.items()})

    for is_retry, number in moves:
        if is_retry:
            await world.retry(number)
        elif loops:
            await loops[number % len(loops)].run_once()
    await finish_round(loops)

    left = await rows_left(engine)
    plain = {str(state): days for state, days in after_days.items()}
    assert left["jobs"] == left["attempts"] == left["job_output"]
    assert left["jobs"] == {job_id for job_id, job in world.jobs.items() if not job.goes(plain)}
    assert left["runs"] == {run_id for run_id, run in world.runs.items() if not run.goes(plain)}
