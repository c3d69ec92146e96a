"""What clients asked for and what commands say, against what Postgres holds.

I2 nothing acknowledged is lost and nothing is there that nobody asked for, I5 no overlap without expiry,
I15 output to the byte, and how often each job was started.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import combinations
from typing import Final

from orqestra.model.decision import Outcome
from orqestra.model.lifecycle import TERMINAL, RunState, State
from orqestra.model.report import Reason
from tests.chaos.evidence import Allowance, JournalLine, Operation, Row
from tests.chaos.safety import first_line
from tests.chaos.timeline import SKEW_SECONDS, Step, Timeline, Violation

# The attempt is over by the word of its own worker, which had seen the command end.
TOLD: Final = frozenset({Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED})
# Why a session was closed: it was silent for a whole lease.
LAPSED: Final = "lapsed"
PADDING: Final = b"x"


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What was submitted and what became of it; `lost`, `unexpected`, `recovered` are jobs and runs by name."""

    timeline: Timeline

    @cached_property
    def acked(self) -> tuple[Operation, ...]:
        """Submits and triggers whose caller was told that they are stored."""
        return tuple(each for each in self._intakes if each.outcome == "ok")

    @cached_property
    def lost(self) -> tuple[Operation, ...]:
        """Acknowledged, and no end after all."""
        return tuple(each for each in self.acked if not self._ended(each))

    @cached_property
    def recovered(self) -> tuple[str, ...]:
        """Keys of calls that nobody knew the end of, and that turned out to be stored."""
        stored = {row["idempotency_key"] for row in (*self.timeline.jobs.values(), *self._runs.values())}
        return tuple(each.key for each in self._intakes if each.outcome == "info" and each.key in stored)

    @cached_property
    def unexpected_jobs(self) -> frozenset[int]:
        """Jobs that nobody asked for: rows, and starts of jobs that have none."""
        asked = {each.job_id for each in self.acked}
        rows = {
            job_id
            for job_id, row in self.timeline.jobs.items()
            if job_id not in asked and row["idempotency_key"] not in self._keys and row["run_id"] not in self._runs
        }
        return frozenset(rows | (self.timeline.lines_of.keys() - self.timeline.jobs.keys() - asked))

    @cached_property
    def unexpected_runs(self) -> frozenset[int]:
        """Runs that nobody asked for."""
        asked = {each.run_id for each in self.acked}
        return frozenset(
            run_id
            for run_id, row in self._runs.items()
            if run_id not in asked and row["idempotency_key"] not in self._keys
        )

    @cached_property
    def _intakes(self) -> tuple[Operation, ...]:
        return tuple(each for each in self.timeline.evidence.operations if each.kind in {"submit", "trigger"})

    @cached_property
    def _keys(self) -> frozenset[str]:
        return frozenset(each.key for each in self._intakes if each.key and each.outcome != "fail")

    @cached_property
    def _runs(self) -> dict[int, Row]:
        return {row["id"]: row for row in self.timeline.evidence.final.runs}

    def _ended(self, operation: Operation) -> bool:
        if operation.kind == "trigger":
            run = self._runs.get(operation.run_id or 0)
            return run is not None and run["state"] != RunState.RUNNING
        job = self.timeline.jobs.get(operation.job_id or 0)
        return job is not None and State(job["state"]) in TERMINAL


def nothing_lost(timeline: Timeline, _: Allowance) -> Iterator[Violation]:
    """I2: what was acknowledged has ended, what is there was asked for, a key has one id."""
    ledger = Ledger(timeline=timeline)
    for operation in ledger.lost:
        what = f"lost: acknowledged to the {operation.kind} with key {operation.key!r}, and never ended"
        if operation.job_id is not None:
            yield timeline.violation("I2", operation.job_id, what)
        else:
            yield Violation(invariant="I2", subject=f"run {operation.run_id}", text=what)
    for job_id in sorted(ledger.unexpected_jobs):
        yield timeline.violation("I2", job_id, "unexpected: nobody submitted it")
    for run_id in sorted(ledger.unexpected_runs):
        yield Violation(invariant="I2", subject=f"run {run_id}", text="unexpected: nobody triggered it")
    yield from _keys_with_many_ids(timeline, ledger)
    lost = {operation.job_id for operation in ledger.lost}
    for job_id, row in timeline.jobs.items():
        if State(row["state"]) not in TERMINAL and job_id not in lost:
            yield timeline.violation("I2", job_id, "it was never acknowledged, but it is there, and it never ended")


def _keys_with_many_ids(timeline: Timeline, ledger: Ledger) -> Iterator[Violation]:
    ids: dict[str, set[int]] = defaultdict(set)
    for operation in ledger.acked:
        if operation.kind == "submit" and operation.key and operation.job_id is not None:
            ids[operation.key].add(operation.job_id)
    for job_id, row in timeline.jobs.items():
        if row["idempotency_key"]:
            ids[row["idempotency_key"]].add(job_id)
    for key, known in ids.items():
        if len(known) > 1:
            yield timeline.violation("I2", min(known), f"key {key!r} stands for the jobs {sorted(known)}")


def surplus(timeline: Timeline, allowance: Allowance) -> dict[int, int]:
    """Return by how many its starts exceed what is allowed, for each job of which they do (below 0: they lack)."""
    found: dict[int, int] = {}
    for job_id in timeline.jobs.keys() | timeline.lines_of.keys():
        if job_id not in allowance.silent:
            count = sum(line.kind == "start" for line in timeline.lines_of.get(job_id, []))
            least, most = _allowed_starts(timeline, allowance, job_id)
            if not least <= count <= most:
                found[job_id] = count - most if count > most else count - least
    return found


def _allowed_starts(timeline: Timeline, allowance: Allowance, job_id: int) -> tuple[int, int]:
    """What the fault allows, for each life that operators gave it, and one more for each failure it retries after."""
    least, most = allowance.starts.get(job_id, allowance.default)
    steps = timeline.steps_of.get(job_id, [])
    lives = 1 + sum(step.revives for step in steps)
    failures = sum(
        step.state is State.RETRYING and step.before is not None and (job_id, step.before["fence"]) in timeline.starts
        for step in steps
        if step.releases
    )
    final = timeline.jobs.get(job_id)
    may_lack = final is None or final["state"] != State.COMPLETED
    # An earlier life may have been over before its first start.
    return (0 if may_lack and job_id not in allowance.starts else least + failures), most * lives + failures


def starts_as_allowed(timeline: Timeline, allowance: Allowance) -> Iterator[Violation]:
    """No job is started more often than the fault forces, or completed without having been started."""
    for job_id, count in sorted(surplus(timeline, allowance).items()):
        least, most = _allowed_starts(timeline, allowance, job_id)
        what = f"duplicate: {count} starts too many" if count > 0 else f"{-count} starts too few"
        yield timeline.violation("starts", job_id, f"{what}, allowed are {least} to {most}")


def count_extra_starts(timeline: Timeline) -> int:
    """Return how many executions did not count in the end: their attempt was lost, handed back or never ended."""
    extra = 0
    for key in timeline.starts:
        release = timeline.releases.get(key)
        record = timeline.record(key)
        extra += release is None or (record is not None and record["outcome"] not in TOLD)
    starts = sum(line.kind == "start" for lines in timeline.lines_of.values() for line in lines)
    return extra + starts - len(timeline.starts)


def no_overlap(timeline: Timeline, allowance: Allowance) -> Iterator[Violation]:
    """I5: an attempt starts after its claim, once, and after the one before it ended or expired."""
    for job_id, lines in timeline.lines_of.items():
        starts = [line for line in lines if line.kind == "start"]
        for fence, count in Counter(line.fence for line in starts).items():
            if count > 1:
                yield timeline.violation("I5", job_id, f"fence {fence} was started {count} times")
            yield from _after_its_claim(timeline, (job_id, fence))
        ordered = [timeline.starts[job_id, fence] for fence in sorted({line.fence for line in starts})]
        for earlier, later in combinations(ordered, 2):
            what = _wrong_pair(timeline, allowance, earlier, later)
            if what is not None:
                yield timeline.violation("I5", job_id, f"fences {earlier.fence} and {later.fence}: {what}")
        if len(ordered) == 1 and any(line.kind == "overlap" for line in lines):
            yield timeline.violation("I5", job_id, "overlap, and no other attempt has told its start")


def _after_its_claim(timeline: Timeline, key: tuple[int, int]) -> Iterator[Violation]:
    claim = timeline.claims.get(key)
    if claim is None:
        yield timeline.violation("I5", key[0], f"fence {key[1]} was started and never claimed")
    elif timeline.told_at(timeline.starts[key]) < claim.at - SKEW_SECONDS:
        yield timeline.violation("I5", key[0], f"fence {key[1]} was started before its claim was committed")


def _wrong_pair(timeline: Timeline, allowance: Allowance, earlier: JournalLine, later: JournalLine) -> str | None:
    first, second = (earlier.job_id, earlier.fence), (later.job_id, later.fence)
    in_order = earlier.uptime_s <= later.uptime_s
    apart = _apart(timeline, earlier, later) if in_order else _apart(timeline, later, earlier)
    if in_order and apart:
        return None
    both = not apart and _ran_at_once(timeline, earlier, later)
    release, claim = timeline.releases.get(first), timeline.claims.get(second)
    if release is None or claim is None or release.position >= claim.position:
        return "the first had neither ended nor expired when the second was claimed"
    record = timeline.record(first)
    if record is None or record["outcome"] in TOLD or record["reason"] == Reason.RETURNED:
        return "the first ran on after its worker had told its end" if both or not in_order else None
    if record["outcome"] == Outcome.RETURNED:
        return f"the first was started and is kept as {record['reason']}"
    if both and not allowance.overlap_after_expiry:
        return "both ran at once, which this fault does not excuse"
    return _wrong_expiry(timeline, release)


def _apart(timeline: Timeline, sooner: JournalLine, afterwards: JournalLine) -> bool:
    """Whether one told its end before the other told its start."""
    end = timeline.ends.get((sooner.job_id, sooner.fence))
    return end is not None and end.uptime_s <= afterwards.uptime_s


def _ran_at_once(timeline: Timeline, one: JournalLine, other: JournalLine) -> bool:
    """Whether that is certain, of two that are not apart: one that told no end may have been killed before."""
    told = {line.fence for line in timeline.lines_of[one.job_id] if line.kind == "overlap"}
    sooner = min(one, other, key=lambda line: line.uptime_s)
    return bool(told & {one.fence, other.fence}) or (sooner.job_id, sooner.fence) in timeline.ends


def _wrong_expiry(timeline: Timeline, release: Step) -> str | None:
    assert release.before is not None
    session_id = release.before["session_id"]
    session = timeline.session_at(session_id, release.position)
    if session is None or session["closed_at"] is None:
        return f"the first was given up while its session {session_id} was open"
    # Any newer stream of the worker tells what it still holds; only of a silent one the lease decides.
    if session["closed_reason"] == LAPSED and session["closed_at"] < session["lease_expires_at"]:
        return f"session {session_id} was closed as lapsed before its lease was over"
    return None


def same_bytes(timeline: Timeline, allowance: Allowance) -> Iterator[Violation]:
    """I15: what is stored of an attempt's output is what it printed."""
    completed = ((row["id"], row) for row in timeline.jobs.values() if row["state"] == State.COMPLETED)
    others = ((row["job_id"], row) for row in timeline.evidence.final.attempts if row["outcome"] in TOLD)
    for job_id, row in (*completed, *others):
        start = timeline.starts.get((job_id, row["fence"]))
        if start is not None and job_id not in allowance.silent:
            what = _wrong_bytes(row, start, timeline.ends.get((job_id, row["fence"])))
            if what is not None:
                yield timeline.violation("I15", job_id, f"fence {row['fence']}: {what}")


def _wrong_bytes(row: Row, start: JournalLine, end: JournalLine | None) -> str | None:
    output, size, first = bytes(row["output"] or b""), row["stdout_bytes"] or 0, first_line(start)
    if not row["truncated"] and size != len(output):
        return f"{len(output)} bytes are stored of {size}"
    if end is None:
        return None if output.startswith(first[: len(output)]) else f"stored is {output[:60]!r}, not {first!r}"
    if end.digest is not None and not row["truncated"]:
        return None if sha256(output).hexdigest() == end.digest else f"stored are {len(output)} other bytes"
    # Without a digest it is that line, or that line and letters of one kind (probe.sh).
    return None if output.rstrip(PADDING) == first else f"stored is {output[:60]!r}, not {first!r}"


CHECKS: Final = (nothing_lost, starts_as_allowed, no_overlap, same_bytes)
