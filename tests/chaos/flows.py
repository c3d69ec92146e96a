"""What must be in one transaction: steps of a run, and hints.

I7 the order of steps, I8 a run fits its steps after every commit, I11 what becomes claimable has its hint.
"""

import json
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from orqestra.model.lifecycle import TERMINAL, WAITING, RunState, State
from tests.chaos.evidence import Allowance, Row, Transaction
from tests.chaos.timeline import SKEW_SECONDS, Step, Timeline, Violation

# One hint of an outbox row: id, lane, priority, due time in Unix ms (0: now).
ENTRY: Final = struct.Struct(">qihq")
UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(kw_only=True)
class Run:
    """A run as it is after a transaction: its row and its steps' states by job."""

    row: Row
    steps: int
    states: dict[int, State]

    def problem(self) -> str | None:
        """Return what does not fit, None if all does."""
        live = [job_id for job_id, state in self.states.items() if state not in TERMINAL]
        match RunState(self.row["state"]):
            case RunState.RUNNING:
                return None if live else "it goes on, but no step is left that could take it further"
            case RunState.COMPLETED:
                completed = sum(state is State.COMPLETED for state in self.states.values())
                return None if completed == self.steps else f"completed with {completed} of {self.steps} steps"
            case RunState.FAILED:
                fits = not live and State.FAILED in self.states.values()
            case RunState.CANCELLED:
                asked = self.row["cancel_requested_at"] is not None
                fits = not live and (asked or State.CANCELLED in self.states.values())
        return None if fits else f"it is {self.row['state']}"


def steps_in_order(timeline: Timeline, _: Allowance) -> Iterator[Violation]:
    """I7: a step is inserted with the completion of the one before it, once, and never for a run that ended."""
    runs: dict[int, Row] = {}
    seen: set[tuple[int, str]] = set()
    for position, transaction in enumerate(timeline.evidence.history):
        ended = {run_id for run_id, row in runs.items() if row["state"] != RunState.RUNNING}
        runs |= {change.row["id"]: change.row for change in transaction.changes if change.table == "workflow_runs"}
        for step in _steps_at(timeline, transaction, position):
            if step.was is not None or step.after["run_id"] is None:
                continue
            run_id, key = step.after["run_id"], step.after["step_key"]
            if run_id in ended:
                yield timeline.violation("I7", step.job_id, f"inserted for run {run_id}, which had ended")
            if (run_id, key) in seen:
                yield timeline.violation("I7", step.job_id, f"run {run_id} has step {key!r} twice")
            seen.add((run_id, key))
            yield from _after_previous(timeline, step)
            yield from _not_cancelled(timeline, step, runs.get(run_id))
    rows = Counter((row["run_id"], row["step_key"]) for row in timeline.jobs.values() if row["run_id"] is not None)
    for (run_id, key), count in rows.items():
        if count > 1:
            yield Violation(invariant="I7", subject=f"run {run_id}", text=f"{count} rows of step {key!r}")


def _steps_at(timeline: Timeline, transaction: Transaction, position: int) -> Iterator[Step]:
    for change in transaction.changes:
        if change.table == "jobs" and change.after is not None and change.after["id"] > timeline.evidence.since_id:
            yield Step(position=position, transaction=transaction, before=change.before, after=change.after)


def _after_previous(timeline: Timeline, step: Step) -> Iterator[Violation]:
    previous = step.after["previous_job_id"]
    if previous is None:
        return
    here = _steps_at(timeline, step.transaction, step.position)
    if not any(each.job_id == previous and each.releases and each.state is State.COMPLETED for each in here):
        what = f"not inserted by the transaction in which its previous step, job {previous}, was completed"
        yield timeline.violation("I7", step.job_id, f"{what}; of that one:\n{timeline.story(previous)}\nand this one:")
    for line in timeline.lines_of.get(step.job_id, []):
        if timeline.told_at(line) < step.at - SKEW_SECONDS:
            yield timeline.violation("I7", step.job_id, f"started before job {previous} was completed")


def _not_cancelled(timeline: Timeline, step: Step, run: Row | None) -> Iterator[Violation]:
    """I10, as far as it is about runs: nothing follows what is to be cancelled."""
    if run is not None and run["cancel_requested_at"] is not None:
        yield timeline.violation("I10", step.job_id, f"inserted after the cancel of run {run['id']}")


def runs_fit(timeline: Timeline, _: Allowance) -> Iterator[Violation]:
    """I8: after every commit, and in the end, a run goes on if and only if a step of it can."""
    runs: dict[int, Run] = {}
    for transaction in timeline.evidence.history:
        for run_id in sorted(_apply(runs, transaction)):
            what = runs[run_id].problem()
            if what is not None:
                yield _wrong_run(timeline, run_id, runs[run_id], f"after xid {transaction.xid}: {what}")
    for row in timeline.evidence.final.runs:
        states = {job_id: State(job["state"]) for job_id, job in timeline.jobs.items() if job["run_id"] == row["id"]}
        run = Run(row=row, steps=row["steps"], states=states)
        what = run.problem()
        if what is not None:
            yield _wrong_run(timeline, row["id"], run, f"in the end: {what}")


def _apply(runs: dict[int, Run], transaction: Transaction) -> set[int]:
    """Bring the runs up to date and return those that changed; one that began before the history is left out."""
    touched: set[int] = set()
    for change in transaction.changes:
        row = change.row
        if change.table == "workflow_runs" and change.kind == "insert":
            runs[row["id"]] = Run(row=row, steps=len(json.loads(row["definition"])["steps"]), states={})
        if change.table == "workflow_runs" and row["id"] in runs:
            runs[row["id"]].row = row
            touched.add(row["id"])
    for change in transaction.changes:
        row = change.row
        if change.table == "jobs" and row["run_id"] in runs:
            runs[row["run_id"]].states[row["id"]] = State(row["state"])
            touched.add(row["run_id"])
    return touched


def _wrong_run(timeline: Timeline, run_id: int, run: Run, what: str) -> Violation:
    stories = [f"  job {job_id}, {state}:\n{timeline.story(job_id)}" for job_id, state in run.states.items()]
    return Violation(invariant="I8", subject=f"run {run_id}", text="\n".join([what, *stories]))


def hints_with_jobs(timeline: Timeline, _: Allowance) -> Iterator[Violation]:
    """I11: a job becomes claimable together with its hint; no hint is of a job that there never was."""
    known = set(timeline.jobs)
    for position, transaction in enumerate(timeline.evidence.history):
        hints = _hints(transaction)
        steps = list(_steps_at(timeline, transaction, position))
        known |= {step.job_id for step in steps}
        for step in steps:
            if step.state in WAITING and step.was not in WAITING:
                what = _wrong_hint(step, hints)
                if what is not None:
                    yield timeline.violation("I11", step.job_id, f"xid {transaction.xid}: {what}")
        for job_id in sorted(hints):
            if job_id > timeline.evidence.since_id and job_id not in known:
                yield timeline.violation("I11", job_id, f"xid {transaction.xid}: a hint of a job that is not there")


def _hints(transaction: Transaction) -> Mapping[int, tuple[int, int, int]]:
    return {
        job_id: (lane, priority, due_ms)
        for change in transaction.changes
        if change.table == "outbox" and change.kind == "insert"
        for job_id, lane, priority, due_ms in ENTRY.iter_unpack(change.row["entries"])
    }


def _wrong_hint(step: Step, hints: Mapping[int, tuple[int, int, int]]) -> str | None:
    hint = hints.get(step.job_id)
    if hint is None:
        return "it became claimable and no hint of it was stored"
    row = step.after
    # Rounded up: a hint must not be due before its job is.
    due_ms = -((UNIX_EPOCH - row["available_at"]) // timedelta(milliseconds=1)) if row["delayed"] else 0
    expected = (row["lane_id"], row["priority"], due_ms)
    return None if hint == expected else f"its hint says lane, priority and due time {hint}, not {expected}"


CHECKS: Final = (steps_in_order, runs_fit, hints_with_jobs)
