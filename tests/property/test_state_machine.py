"""Jobs under any order of events, on real SQL, against a small model.

After each step the rows are what the model says, which holds these of the invariants: one terminal transition
(I1), nothing acknowledged is lost (I2), one outcome per attempt and fences that only rise (I4), bounded
attempts (I6), nothing cancelled is claimed (I10). The trigger of the test databases watches as well.
"""

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from orqestra.model.decision import Ending
from orqestra.model.errors import Refused
from orqestra.model.lifecycle import State
from orqestra.model.report import AttemptRef, Report, Verdict
from orqestra.model.retry import RetryPolicy
from tests.support.engine import Engine, Worker, engine_on
from tests.support.engine import report as report_of
from tests.support.job_model import LOST_MAX, ModelJob, ModelSession

EXAMPLES = 120
STEPS = 30
# Few, so that they meet many events each.
JOBS = 4
TIMES = (1, 2, 4, 5, 20)
WORKERS = 2

T = TypeVar("T")
picks = st.lists(st.integers(0, 5), min_size=1, max_size=4)
pick = st.integers(0, 5)
who = st.integers(0, WORKERS - 1)
endings = st.sampled_from([Ending.SUCCEEDED, Ending.FAILED, Ending.FAILED, Ending.RETURNED])
numbers = itertools.count(1)


class Jobs(RuleBasedStateMachine):
    """Submits, claims, reports, cancels, retries, lost workers and returning ones, in any order."""

    def __init__(self, runner: asyncio.Runner, engine: Engine) -> None:
        super().__init__()
        self.runner = runner
        self.engine = engine
        self.example = next(numbers)
        self.jobs: dict[int, ModelJob] = {}
        self.keys: dict[str, int] = {}
        self.workers: list[Worker] = []
        self.sessions: dict[int, ModelSession] = {}

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(step)

    @initialize()
    def connect(self) -> None:
        for number in range(WORKERS):
            self.workers.append(self.run(self.engine.connect()))
            self.sessions[self.workers[-1].session_id] = ModelSession(self.workers[-1].session_id, number)

    # Submit

    @precondition(lambda self: len(self.jobs) < JOBS)
    @rule(key=st.none() | st.sampled_from("ab"), early=st.booleans(), max_retries=st.integers(0, 2))
    def submit(self, key: str | None, early: bool, max_retries: int) -> None:
        policy = RetryPolicy(max_retries=max_retries, base_ms=1)
        full_key = None if key is None else f"{self.example} {key}"
        delay_ms = 3_600_000 if early else 0

        job_id = self.run(self.engine.submit(key=full_key, delay_ms=delay_ms, retries=policy))

        if full_key is not None and self.keys.setdefault(full_key, job_id) != job_id:
            raise AssertionError(f"key {full_key} has jobs {self.keys[full_key]} and {job_id}")
        self.jobs.setdefault(job_id, ModelJob(id=job_id, max_retries=max_retries, early=early))

    # Claim

    @precondition(lambda self: self.jobs)
    @rule(worker=who, chosen=picks, twice=st.booleans())
    def claim(self, worker: int, chosen: list[int], twice: bool) -> None:
        ids = sorted({self.job(number).id for number in chosen})
        token = next(numbers)
        self.run(self.engine.make_due(*(job_id for job_id in ids if not self.jobs[job_id].early)))

        rows = self.run(self.engine.claim(self.workers[worker], *ids, token=token))
        again = self.run(self.engine.claim(self.workers[worker], *ids, token=next(numbers))) if twice else []

        session = self.session_of(worker)
        assert [row["id"] for row in rows] == [job_id for job_id in ids if self.jobs[job_id].claim(session, token)]
        assert again == []

    @precondition(lambda self: self.jobs)
    @rule(chosen=pick, worker=who, ending=st.sampled_from(Ending), times=st.sampled_from(TIMES))
    def work(self, chosen: int, worker: int, ending: Ending, times: int) -> None:
        """Claim one job again and again and let it end in the same way: so it gets to the limits of its counts."""
        if self.session_of(worker).reason is not None:
            self.hello(worker, 0, False)
        for _ in range(times):
            self.claim(worker, [chosen], False)
            job = self.job(chosen)
            if job.state is not State.RUNNING or job.session is None:
                return
            if ending is Ending.LOST:
                self.vanish(job.session.worker, "lapsed")
                self.sweep()
                self.hello(worker, 0, False)
            else:
                self.check_reports(job, self.session_of(job.session.worker), [(job.claims[-1], ending)])

    @precondition(lambda self: self.jobs)
    @rule(chosen=pick)
    def time_passes(self, chosen: int) -> None:
        job = self.job(chosen)
        job.early = False
        self.run(self.engine.make_due(job.id))

    # Report

    @precondition(lambda self: any(job.claims for job in self.jobs.values()))
    @rule(chosen=pick, claim=st.integers(0, 3), worker=st.none() | who, ending=endings)
    def report(self, chosen: int, claim: int, worker: int | None, ending: Ending) -> None:
        """The latest claim mostly, or an older one, on its own stream or on another."""
        job = self.claimed_job(chosen)
        attempt = job.claims[-1 if claim else -1 - chosen % len(job.claims)]
        session = self.session_of(job.session.worker if worker is None and job.session else worker or 0)

        self.check_reports(job, session, [(attempt, ending)])

    @precondition(lambda self: any(job.claims for job in self.jobs.values()))
    @rule(chosen=pick, ending=endings, other=endings)
    def report_twice(self, chosen: int, ending: Ending, other: Ending) -> None:
        """Two results of one attempt in one batch: either may come first, one of them counts."""
        job = self.claimed_job(chosen)
        session = self.session_of(job.session.worker if job.session else 0)
        first = Ending.SUCCEEDED if Ending.SUCCEEDED in (ending, other) else ending
        second = other if first is ending else ending

        self.check_reports(job, session, [(job.claims[-1], first), (job.claims[-1], second)])

    @precondition(lambda self: any(job.claims for job in self.jobs.values()))
    @rule(chosen=pick, ending=endings, fence=st.integers(-1, 1), token=st.integers(-1, 1))
    def forge(self, chosen: int, ending: Ending, fence: int, token: int) -> None:
        job = self.claimed_job(chosen)
        real = job.claims[-1]
        forged = AttemptRef(real.job_id, real.fence + fence, real.token + token)
        session = self.session_of(job.session.worker if job.session else 0)

        self.check_reports(job, session, [(forged, ending)])

    # Cancel and retry

    @precondition(lambda self: self.jobs)
    @rule(chosen=picks)
    def cancel(self, chosen: list[int]) -> None:
        jobs = {self.job(number).id: self.job(number) for number in chosen}

        found = self.run(self.engine.cancels.cancel(list(jobs)))

        assert [each.was for each in found] == [job.cancel() for job in jobs.values()]
        assert [each.state for each in found] == [job.state for job in jobs.values()]

    @precondition(lambda self: self.jobs)
    @rule(chosen=pick)
    def retry(self, chosen: int) -> None:
        job = self.job(chosen)
        try:
            self.run(self.engine.cancels.retry(job.id))
        except Refused:
            assert not job.retry()
        else:
            assert job.retry()

    # Workers that go and come

    @rule(worker=who, reason=st.sampled_from(["lapsed", "ended"]))
    def vanish(self, worker: int, reason: str) -> None:
        session = self.session_of(worker)
        if session.reason is None:
            self.run(self.engine.close(self.workers[worker], reason))
            session.reason = reason

    @rule()
    def sweep(self) -> None:
        self.run(self.engine.sweep())

        for job in self.jobs.values():
            if job.state is State.RUNNING and job.session is not None and job.session.reason is not None:
                job.end(Ending.LOST if job.session.loses else Ending.RETURNED)

    @rule(worker=who, keep=st.integers(0, 3), restarted=st.booleans())
    def hello(self, worker: int, keep: int, restarted: bool) -> None:
        """The worker opens a new stream; of what it had it holds all but every fourth, and says so."""
        mine = [job for job in self.jobs.values() if job.session is not None and job.session.worker == worker]
        held = [job for number, job in enumerate(mine) if number % 4 != keep]
        old = self.session_of(worker)
        if restarted:
            self.workers[worker].incarnation = type(self.workers[worker])().incarnation

        self.run(self.engine.connect(self.workers[worker], held=tuple(job.claims[-1] for job in held)))

        if old.reason is None:
            old.reason = "restarted" if restarted else "replaced"
        new = ModelSession(self.workers[worker].session_id, worker)
        self.sessions[new.id] = new
        moved = [job for job in held if job.state is State.RUNNING]
        for job in moved:
            job.session = new
        assert self.workers[worker].revoked == tuple(job.claims[-1] for job in held if job not in moved)

    # What holds after each step

    @invariant()
    def rows_are_what_the_model_says(self) -> None:
        rows = self.run(self.engine.sql("SELECT * FROM jobs WHERE id = ANY($1::bigint[])", list(self.jobs)))
        assert {row["id"] for row in rows} == set(self.jobs)
        for row in rows:
            job = self.jobs[row["id"]]
            found = (row["state"], row["attempt"], row["lost_count"], row["return_count"], row["fence"])
            assert found == (job.state, job.attempt, job.lost, job.returned, job.fence), job
            assert (row["cancel_requested_at"] is not None) == job.cancel_requested, job
            assert row["attempt"] <= row["max_retries"] + 1
            assert row["lost_count"] <= LOST_MAX
            if job.state is State.RUNNING:
                assert (row["token"], row["session_id"]) == (job.token, job.session.id if job.session else None)

    @invariant()
    def attempts_are_what_the_model_says(self) -> None:
        rows = self.run(self.engine.sql("SELECT * FROM attempts WHERE job_id = ANY($1::bigint[])", list(self.jobs)))
        found = {(row["job_id"], row["fence"]): row["outcome"] for row in rows}
        assert found == {(job.id, fence): outcome for job in self.jobs.values() for fence, outcome in job.kept.items()}

    # Words

    def job(self, number: int) -> ModelJob:
        jobs = list(self.jobs.values())
        return jobs[number % len(jobs)]

    def claimed_job(self, number: int) -> ModelJob:
        jobs = [job for job in self.jobs.values() if job.claims]
        return jobs[number % len(jobs)]

    def session_of(self, worker: int) -> ModelSession:
        return self.sessions[self.workers[worker].session_id]

    def check_reports(self, job: ModelJob, session: ModelSession, said: list[tuple[AttemptRef, Ending]]) -> None:
        row = {"id": job.id, "fence": 0, "token": 0, "session_id": session.id}
        reports: list[Report] = [report_of(row, ending, attempt=attempt) for attempt, ending in said]

        verdicts = self.run(self.engine.settle(*reports))

        expected = [job.report(attempt, session, ending) for attempt, ending in said]
        assert sorted(verdicts) == sorted(verdict for verdict in expected if isinstance(verdict, Verdict))


# Passing takes seconds; the rest is for a failure to be made small enough to read.
@pytest.mark.timeout(400)
def test_jobs_under_any_order_of_events(database: str) -> None:
    with asyncio.Runner() as runner:
        context = engine_on(database)
        engine = runner.run(context.__aenter__())
        try:
            run_state_machine_as_test(
                lambda: Jobs(runner, engine),  # type: ignore[arg-type]  # any maker of machines will do
                settings=settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=STEPS,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(context.__aexit__(None, None, None))
