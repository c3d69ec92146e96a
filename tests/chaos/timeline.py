"""The evidence put in order: what happened to each job, by whichever witness told it.

Every check reads it from here, and tells its story from here when something did not hold.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Final, TypeAlias

from orqestra.model.lifecycle import TERMINAL, State
from tests.chaos.evidence import Change, Evidence, JournalLine, Row, Transaction

# The journal's clock ticks in hundredths and is cut, not rounded; the machine's time of day is steered.
SKEW_SECONDS: Final = 0.05

AttemptKey: TypeAlias = tuple[int, int]
"""A job and a fence."""


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One promise that did not hold: of whom (job 7, run 3, redis), and the story in order."""

    invariant: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}, {self.subject}: {self.text}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One committed version of a job's row. `position` counts transactions in commit order."""

    position: int
    transaction: Transaction
    before: Row | None
    after: Row

    @property
    def job_id(self) -> int:
        """Whose row it is."""
        return int(self.after["id"])

    @property
    def fence(self) -> int:
        """The fence it has now."""
        return int(self.after["fence"])

    @property
    def was(self) -> State | None:
        """The state before; None if the row is new."""
        return None if self.before is None else State(self.before["state"])

    @property
    def state(self) -> State:
        """The state it has now."""
        return State(self.after["state"])

    @property
    def at(self) -> float:
        """When it was committed, in Unix seconds."""
        return self.transaction.committed_at.timestamp()

    @property
    def claims(self) -> bool:
        """Whether it begins an attempt."""
        return self.state is State.RUNNING and self.was is not State.RUNNING

    @property
    def releases(self) -> bool:
        """Whether it ends an attempt."""
        return self.was is State.RUNNING and self.state is not State.RUNNING

    @property
    def revives(self) -> bool:
        """Whether it is the retry of an operator."""
        return self.was in TERMINAL and self.state not in TERMINAL


@dataclass(frozen=True, kw_only=True)
class Version:
    """One committed version of a row of another table."""

    position: int
    transaction: Transaction
    change: Change


class Timeline:
    """The evidence by job, by attempt, by session and by run; each list in commit order."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.steps: list[Step] = []
        self.steps_of: dict[int, list[Step]] = defaultdict(list)
        self.records: dict[AttemptKey, list[Version]] = defaultdict(list)
        self.sessions: dict[int, list[Version]] = defaultdict(list)
        self.lines_of: dict[int, list[JournalLine]] = defaultdict(list)
        for position, transaction in enumerate(evidence.history):
            for change in transaction.changes:
                self._add(position, transaction, change)
        for line in evidence.journal:
            if line.job_id > evidence.since_id:
                self.lines_of[line.job_id].append(line)

    @cached_property
    def jobs(self) -> Mapping[int, Row]:
        """The final row of each job."""
        return {row["id"]: row for row in self.evidence.final.jobs}

    @cached_property
    def final_sessions(self) -> Mapping[int, Row]:
        """The final row of each session, however old."""
        return {row["id"]: row for row in self.evidence.final.sessions}

    @cached_property
    def claims(self) -> Mapping[AttemptKey, Step]:
        """The claim of each attempt; the first, should there be two."""
        return {(step.job_id, step.fence): step for step in reversed(self.steps) if step.claims}

    @cached_property
    def releases(self) -> Mapping[AttemptKey, Step]:
        """What ended each attempt, by the fence that the row had before; the first, should there be two."""
        return {
            (step.job_id, int(step.before["fence"])): step
            for step in reversed(self.steps)
            if step.releases and step.before is not None
        }

    @cached_property
    def starts(self) -> Mapping[AttemptKey, JournalLine]:
        """The first start of each attempt."""
        return self._first("start")

    @cached_property
    def ends(self) -> Mapping[AttemptKey, JournalLine]:
        """The first end of each attempt."""
        return self._first("end")

    def record(self, key: AttemptKey) -> Row | None:
        """Return what `attempts` keeps of an attempt."""
        versions = self.records.get(key)
        return versions[0].change.row if versions else None

    def told_at(self, line: JournalLine) -> float:
        """Return when a command told this, in Unix seconds."""
        return self.evidence.booted_at + line.uptime_s

    def session_at(self, session_id: int, position: int) -> Row | None:
        """Return a session as it was after that transaction; one that did not change since, as it is in the end."""
        known = self.sessions.get(session_id, [])
        past = [version for version in known if version.position <= position]
        if past:
            return past[-1].change.row
        return known[0].change.before if known else self.final_sessions.get(session_id)

    def violation(self, invariant: str, job_id: int, what: str) -> Violation:
        """Return a violation by a job, with its story."""
        return Violation(invariant=invariant, subject=f"job {job_id}", text=f"{what}\n{self.story(job_id)}")

    def story(self, job_id: int) -> str:
        """Return all that is known of a job, one line each, in the order of time."""
        told = [(self.told_at(line), _line_text(line)) for line in self.lines_of.get(job_id, [])]
        told += [(step.at, _step_text(step)) for step in self.steps_of.get(job_id, [])]
        told += [
            (version.transaction.committed_at.timestamp(), _record_text(version))
            for (known, _), versions in self.records.items()
            if known == job_id
            for version in versions
        ]
        rows = [f"    {_clock(at)} {text}" for at, text in sorted(told, key=lambda each: each[0])]
        final = self.jobs.get(job_id)
        rows.append(
            "    in the end: no row"
            if final is None
            else f"    in the end: {final['state']}, fence {final['fence']}, attempt {final['attempt']}, "
            f"lost {final['lost_count']}, reason {final['reason']}"
        )
        return "\n".join(rows)

    def _add(self, position: int, transaction: Transaction, change: Change) -> None:
        row = change.row
        match change.table:
            case "jobs" if row["id"] > self.evidence.since_id and change.after is not None:
                step = Step(position=position, transaction=transaction, before=change.before, after=change.after)
                self.steps.append(step)
                self.steps_of[step.job_id].append(step)
            case "attempts" if row["job_id"] > self.evidence.since_id:
                version = Version(position=position, transaction=transaction, change=change)
                self.records[row["job_id"], row["fence"]].append(version)
            case "sessions":
                version = Version(position=position, transaction=transaction, change=change)
                self.sessions[row["id"]].append(version)
            case _:
                pass  # runs and the outbox are read with their whole transactions

    def _first(self, kind: str) -> Mapping[AttemptKey, JournalLine]:
        return {
            (line.job_id, line.fence): line
            for lines in self.lines_of.values()
            for line in reversed(lines)
            if line.kind == kind
        }


def intervals(timeline: Timeline) -> Iterator[tuple[AttemptKey, float, float | None]]:
    """Yield when each attempt's command began and ended; None where it did not live to tell its end."""
    for key, start in timeline.starts.items():
        end = timeline.ends.get(key)
        yield key, timeline.told_at(start), None if end is None else timeline.told_at(end)


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S.%f")[:-3]


def _line_text(line: JournalLine) -> str:
    return f"journal: {line.kind}, fence {line.fence}, attempt {line.attempt}, pid {line.pid}"


def _step_text(step: Step) -> str:
    before = step.before or {}
    changed = [
        f"{name} {before.get(name)} -> {step.after.get(name)}"
        for name in ("fence", "session_id", "attempt", "lost_count", "return_count", "cancel_requested_at", "reason")
        if step.before is not None and before.get(name) != step.after.get(name)
    ]
    was = "inserted" if step.was is None else step.was
    return ", ".join([f"xid {step.transaction.xid}: {was} -> {step.state}", *changed])


def _record_text(version: Version) -> str:
    row = version.change.row
    return (
        f"xid {version.transaction.xid}: attempt of fence {row['fence']} {version.change.kind}ed as {row['outcome']}, "
        f"session {row['session_id']}, reason {row.get('reason')}"
    )
