"""The short transaction for every end of an attempt that is not a plain success.

Locks are taken in the order that holds everywhere: runs by id, then jobs by id. Then it is read,
decided (`model.decision`, `model.workflow`), written, and hints go into the outbox, all in one commit.
"""

import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from orqestra._dispatch import backoff, outbox
from orqestra.model import limits
from orqestra.model.decision import Backoff, Budget, Decision, Outcome, decide
from orqestra.model.job import JobSpec
from orqestra.model.lifecycle import TERMINAL, WAITING, RunState, State
from orqestra.model.report import Report, Verdict
from orqestra.model.retry_rules import Failure, parse_rules
from orqestra.model.workflow import Definition, Step, from_snapshot, is_complete, next_steps
from orqestra.store.database import Row, Statements
from orqestra.store.submitting import Batch, Outputs, PlacedJob, Stored, submit_jobs

FindLane = Callable[[Statements, JobSpec], Awaitable[int]]
Submit = Callable[[Statements, Batch, Outputs], Awaitable[Stored]]


@dataclass(kw_only=True)
class Settled:
    """What a settlement changed: verdicts by report (None: no answer is due), hints, ids that changed."""

    verdicts: list[Verdict | None] = field(default_factory=list)
    hints: list[tuple[int, bytes]] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)


@dataclass(kw_only=True)
class _Run:
    """A locked run and what this transaction has found out about it."""

    id: int
    definition: Definition
    is_open: bool
    cancel_requested: bool
    ends_as: RunState | None = None
    error: str | None = None
    finished_step: int | None = None

    @property
    def is_to_advance(self) -> bool:
        """Whether it can go on from here, or is over."""
        return self.is_open and (self.finished_step is not None or self.ends_as is not None)


class Settling:
    """One settlement inside one transaction. `submit` stores the steps that follow; it is called once at most."""

    def __init__(
        self, statements: Statements, *, server_id: int, find_lane: FindLane, submit: Submit | None = None
    ) -> None:
        self._statements = statements
        self._server_id = server_id
        self._find_lane = find_lane
        self._submit = submit
        self._settled = Settled()

    async def settle(self, reports: Sequence[Report], *, wait_for_locks: bool) -> Settled:
        """Apply the reports; with `wait_for_locks` off, rows in other hands are left to those."""
        ids = sorted({report.attempt.job_id for report in reports})
        runs = await self._lock_runs(ids)
        query = "lock_jobs" if wait_for_locks else "lock_free_jobs"
        jobs: dict[int, Row] = {row["id"]: row for row in await self._statements.fetch(query, ids=ids)}
        current, others = _split(reports, jobs)
        decisions = [(report, _decide(jobs[report.attempt.job_id], report)) for report in current]
        if decisions:
            await self._write(decisions)
        for report, decision in decisions:
            run_id = jobs[report.attempt.job_id]["run_id"]
            if run_id is not None:
                _note_step(runs[run_id], jobs[report.attempt.job_id], report, decision)
        await self._advance([run for run in runs.values() if run.is_to_advance], _outputs(decisions))
        stale = await self._judge(others, jobs) if others else {}
        accepted = {id(report) for report in current}
        self._settled.verdicts = [
            Verdict.ACCEPTED if id(report) in accepted else stale.get(id(report)) for report in reports
        ]
        return self._settled

    async def _lock_runs(self, ids: list[int]) -> dict[int, _Run]:
        run_ids = [row["run_id"] for row in await self._statements.fetch("find_runs", ids=ids)]
        if not run_ids:
            return {}
        return {row["id"]: _read_run(row) for row in await self._statements.fetch("lock_runs", ids=run_ids)}

    async def _write(self, decisions: Sequence[tuple[Report, Decision]]) -> None:
        rows = await self._statements.fetch("settle_jobs", **_columns(decisions))
        self._settled.changed += [row["id"] for row in rows]
        waiting = [row for row in rows if row["state"] in WAITING]
        if waiting:
            entries = outbox.encode(*(list(column) for column in zip(*map(_hint, waiting), strict=True)))
            await self._keep_hints(entries)

    async def _keep_hints(self, entries: bytes) -> None:
        row = await self._statements.fetch_one("add_outbox", server_id=self._server_id, entries=entries)
        assert row is not None
        self._settled.hints.append((row["id"], entries))

    async def _advance(self, runs: Sequence[_Run], outputs: Outputs) -> None:
        """Insert the steps that can start now, and end the runs that are over; `outputs`: of the steps that ended."""
        for run in runs:
            if run.ends_as is None and run.cancel_requested:
                run.ends_as = RunState.CANCELLED
        going_on = [run for run in runs if run.ends_as is None]
        if going_on:
            await self._go_on(going_on, outputs)
        if ended := [(run.id, run.ends_as, run.error) for run in runs if run.ends_as is not None]:
            ids, states, errors = zip(*ended, strict=True)
            await self._statements.fetch("close_runs", ids=ids, states=states, errors=errors)

    async def _go_on(self, runs: Sequence[_Run], outputs: Outputs) -> None:
        present: dict[int, dict[str, State]] = {run.id: {} for run in runs}
        for row in await self._statements.fetch("list_steps", run_ids=list(present)):
            present[row["run_id"]][row["step_key"]] = row["state"]
        jobs: list[PlacedJob] = []
        for run in runs:
            steps = present[run.id]
            done = {key for key, state in steps.items() if state == State.COMPLETED}
            if is_complete(run.definition, done):
                run.ends_as = RunState.COMPLETED
            else:
                following = next_steps(run.definition, done)
                jobs += [await self._place(run, step) for step in following if step.key not in steps]
        await self._insert(jobs, outputs)

    async def _place(self, run: _Run, step: Step) -> PlacedJob:
        spec = step.job()
        return PlacedJob(
            spec=spec,
            lane_id=await self._find_lane(self._statements, spec),
            run_id=run.id,
            step_key=step.key,
            previous_id=run.finished_step,
        )

    async def _insert(self, jobs: Sequence[PlacedJob], outputs: Outputs) -> None:
        for batch in _batches(jobs):
            if self._submit is not None and not self._settled.hints:
                stored = await self._submit(self._statements, batch, outputs)
                # What comes behind it waits, even if all of this runs.
                self._submit = None
            else:
                stored = await submit_jobs(self._statements, batch, server_id=self._server_id)
            self._settled.hints.extend(stored.hints)

    async def _judge(self, reports: Sequence[Report], jobs: Mapping[int, Row]) -> dict[int, Verdict]:
        """Say why reports do not fit their rows, in the order of docs/protocol.md."""
        ids = [report.attempt.job_id for report in reports]
        ended = {
            (row["job_id"], row["fence"], row["token"]): row["outcome"]
            for row in await self._statements.fetch("find_attempts", ids=ids)
        }
        verdicts: dict[int, Verdict] = {}
        for report in reports:
            attempt = report.attempt
            outcome = ended.get((attempt.job_id, attempt.fence, attempt.token))
            verdict = _verdict(report, jobs.get(attempt.job_id), outcome)
            if verdict is not None:
                verdicts[id(report)] = verdict
        return verdicts


def _outputs(decisions: Iterable[tuple[Report, Decision]]) -> dict[int, bytes]:
    """Return what steps that may be followed have written, as far as it came with their results."""
    return {
        report.attempt.job_id: report.stdout
        for report, decision in decisions
        if decision.state == State.COMPLETED and report.stdout is not None
    }


def _batches(jobs: Sequence[PlacedJob]) -> Iterator[Batch]:
    """Yield jobs by the batch: at most so many, and so many bytes but for one that is larger by itself."""
    begin = size = 0
    for at, job in enumerate(jobs):
        size += len(job.spec.payload)
        if at > begin and (at - begin == limits.BATCH_JOBS or size > limits.BATCH_BYTES):
            yield Batch.of(jobs[begin:at])
            begin, size = at, len(job.spec.payload)
    if jobs:
        yield Batch.of(jobs[begin:])


def _split(reports: Sequence[Report], jobs: Mapping[int, Row]) -> tuple[list[Report], list[Report]]:
    """Tell the reports of current attempts, the first of each, from all others."""
    current: dict[int, Report] = {}
    others: list[Report] = []
    for report in reports:
        job = jobs.get(report.attempt.job_id)
        if job is not None and _is_current(report, job) and report.attempt.job_id not in current:
            current[report.attempt.job_id] = report
        else:
            others.append(report)
    return [current[job_id] for job_id in sorted(current)], others


def _is_current(report: Report, job: Row) -> bool:
    return bool(
        job["state"] == State.RUNNING
        and job["fence"] == report.attempt.fence
        and job["token"] == report.attempt.token
        and job["session_id"] == report.session_id
    )


def _verdict(report: Report, job: Row | None, outcome: str | None) -> Verdict | None:
    if job is None:
        return Verdict.UNKNOWN
    if outcome is not None:
        return Verdict.STALE if outcome in {Outcome.LOST, Outcome.RETURNED} else Verdict.DUPLICATE
    if (job["fence"], job["token"]) != (report.attempt.fence, report.attempt.token):
        return Verdict.STALE
    # Still running: on another session of its worker, which sends it again there; or the very same
    # report twice in one batch, whose first one was accepted.
    if job["state"] == State.RUNNING:
        return Verdict.DUPLICATE if job["session_id"] == report.session_id else None
    return Verdict.DUPLICATE


def _decide(job: Row, report: Report) -> Decision:
    failure = Failure(reason=report.reason, exit_code=report.exit_code, exit_signal=report.exit_signal)
    return decide(_budget(job), report.ending, failure)


def _budget(job: Row) -> Budget:
    return Budget(
        attempt=job["attempt"],
        max_retries=job["max_retries"],
        lost=job["lost_count"],
        returned=job["return_count"],
        cancel_requested=job["cancel_requested"],
        backoff=(job["backoff_base_ms"], job["backoff_factor"], job["backoff_cap_ms"]),
        rules=parse_rules(job["retry_rules"]),
    )


def _read_run(row: Row) -> _Run:
    return _Run(
        id=row["id"],
        definition=from_snapshot(orjson.loads(row["definition"])),
        is_open=row["state"] == RunState.RUNNING,
        cancel_requested=row["cancel_requested"],
    )


def _note_step(run: _Run, job: Row, report: Report, decision: Decision) -> None:
    """Keep what the end of one step means for its run."""
    match decision.state:
        case State.COMPLETED:
            run.finished_step = job["id"]
        case State.FAILED:
            run.ends_as = RunState.FAILED
            run.error = f"step {job['step_key']} (job {job['id']}) failed: {_why(report, decision)}"
        case State.CANCELLED:
            run.ends_as = RunState.CANCELLED
        case _:
            return


def _error(report: Report, decision: Decision) -> str | None:
    """Return what the worker says of the attempt and what was decided about it."""
    return "; ".join(text for text in (report.error, decision.note) if text) or None


def _why(report: Report, decision: Decision) -> str:
    error = _error(report, decision)
    if error is not None:
        return error
    if report.exit_signal is not None:
        return f"{report.reason} by signal {report.exit_signal}"
    return f"{report.reason} with code {report.exit_code}" if report.exit_code is not None else report.reason


def _hint(row: Row) -> tuple[int, int, int, int]:
    return row["id"], row["lane_id"], row["priority"], row["due_ms"]


def _columns(decisions: Sequence[tuple[Report, Decision]]) -> dict[str, list[Any]]:
    delays = _delays([decision for _, decision in decisions])
    return {
        "ids": [report.attempt.job_id for report, _ in decisions],
        "states": [decision.state for _, decision in decisions],
        "outcomes": [decision.outcome for _, decision in decisions],
        "attempts": [decision.attempt for _, decision in decisions],
        "lost": [decision.lost for _, decision in decisions],
        "returned": [decision.returned for _, decision in decisions],
        "delay_ms": delays,
        "exit_codes": [report.exit_code for report, _ in decisions],
        "exit_signals": [report.exit_signal for report, _ in decisions],
        "reasons": [report.reason for report, _ in decisions],
        "errors": [_error(report, decision) for report, decision in decisions],
        "stdouts": [report.stdout for report, _ in decisions],
        "stderrs": [report.stderr for report, _ in decisions],
        "stdout_bytes": [report.stdout_bytes for report, _ in decisions],
        "stderr_bytes": [report.stderr_bytes for report, _ in decisions],
        "truncated": [report.truncated for report, _ in decisions],
        "wall_us": [report.wall_us for report, _ in decisions],
        "user_us": [report.user_us for report, _ in decisions],
        "system_us": [report.system_us for report, _ in decisions],
        "max_rss_kb": [report.max_rss_kb for report, _ in decisions],
        "killed_processes": [report.killed_processes for report, _ in decisions],
        "left_processes": [report.left_processes for report, _ in decisions],
    }


def _delays(decisions: Sequence[Decision]) -> list[int | None]:
    """Return the delays, those by backoff drawn by Rust in one call; None for jobs that have ended."""
    drawn = [decision.delay for decision in decisions if isinstance(decision.delay, Backoff)]
    delays = iter(
        backoff.delays(
            [delay.base_ms for delay in drawn],
            [delay.factor for delay in drawn],
            [delay.cap_ms for delay in drawn],
            [delay.attempt for delay in drawn],
            [delay.jitter for delay in drawn],
            [secrets.randbits(63) for _ in drawn],
        )
    )
    return [
        None if decision.state in TERMINAL else next(delays) if isinstance(decision.delay, Backoff) else decision.delay
        for decision in decisions
    ]
