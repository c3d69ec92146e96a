"""What must hold for the row of each job, version by version.

I1 one end, I3 results of the current attempt only, I4 one outcome per attempt and fences that rise,
I6 bounded attempts, I9 not early, I10 cancels.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from orqestra.model.decision import Outcome
from orqestra.model.lifecycle import TERMINAL, TRANSITIONS, Event, State, sources
from orqestra.model.limits import LOST_MAX, RETURNS_MAX
from tests.chaos.evidence import Allowance, JournalLine, Row
from tests.chaos.timeline import SKEW_SECONDS, Step, Timeline, Violation

EDGES: Final = frozenset((source, target) for (source, _), target in TRANSITIONS.items())
BIRTHS: Final = frozenset({(State.PENDING, 0), (State.RUNNING, 1)})
# What a job that has ended keeps, until an operator retries it.
RESULT_COLUMNS: Final = (
    *("state", "fence", "token", "attempt", "finished_at", "exit_code", "exit_signal", "reason", "error"),
    *("stdout", "stderr", "stdout_bytes", "stderr_bytes", "truncated"),
)
# The attempt says itself how it ended: its command had ended, too.
COUNTED: Final = frozenset({Outcome.COMPLETED, Outcome.FAILED})


def one_end(timeline: Timeline, _: Allowance) -> Iterator[Violation]:
    """I1: a job ends once, and nothing touches its result afterwards but the retry of an operator."""
    for job_id, steps in timeline.steps_of.items():
        for earlier, later in pairwise(steps):
            if later.before is None or any(earlier.after[name] != later.before[name] for name in ("state", "fence")):
                yield timeline.violation("history", job_id, "the history lacks a version of this row")
        for step in steps:
            what = _wrong_step(step)
            if what is not None:
                yield timeline.violation("I1", job_id, what)


def _wrong_step(step: Step) -> str | None:
    if step.was is None:
        return None if (step.state, step.fence) in BIRTHS else f"born {step.state} with fence {step.fence}"
    if step.was is not step.state and (step.was, step.state) not in EDGES:
        again = "a second end" if step.was in TERMINAL and step.state in TERMINAL else "the lifecycle has no such step"
        return f"{again}: {step.was} -> {step.state}"
    if step.was in TERMINAL and step.state is step.was:
        assert step.before is not None
        changed = [name for name in RESULT_COLUMNS if step.before.get(name) != step.after.get(name)]
        return f"changed after its end: {', '.join(changed)}" if changed else None
    return None


def current_results(timeline: Timeline, allowance: Allowance) -> Iterator[Violation]:
    """I3: what ends an attempt is of that attempt: its fence, its token, its own words."""
    for step in timeline.steps:
        if not step.releases or step.before is None:
            continue
        fence, token = step.before["fence"], step.before["token"]
        if (step.after["fence"], step.after["token"]) != (fence, token):
            yield timeline.violation("I3", step.job_id, f"fence {fence} ended with another fence or token")
        record = timeline.record((step.job_id, fence))
        if record is not None and record["token"] != token:
            yield timeline.violation("I3", step.job_id, f"the end of fence {fence} is kept with another token")
        if step.job_id not in allowance.silent:
            yield from _own_words(timeline, step, int(fence))


def _own_words(timeline: Timeline, step: Step, fence: int) -> Iterator[Violation]:
    """A completed attempt has told its end before; and whatever it printed names it."""
    record = timeline.record((step.job_id, fence))
    told = step.after if step.state is State.COMPLETED else record
    start = timeline.starts.get((step.job_id, fence))
    if told is not None and told.get("stdout") and not _fits(told["stdout"], start):
        shown = bytes(told["stdout"][:60])
        yield timeline.violation("I3", step.job_id, f"fence {fence} ended with the output of another: {shown!r}")
    if step.state is State.COMPLETED:
        end = timeline.ends.get((step.job_id, fence))
        if end is None:
            yield timeline.violation("I3", step.job_id, f"completed by fence {fence}, whose command told no end")
        elif timeline.told_at(end) > step.at + SKEW_SECONDS:
            yield timeline.violation("I3", step.job_id, f"completed before the command of fence {fence} ended")


def _fits(output: bytes, start: JournalLine | None) -> bool:
    return start is not None and output.startswith(first_line(start)[: len(output)])


def first_line(start: JournalLine) -> bytes:
    """Return what the probe of this attempt prints first."""
    return f"{start.job_id} {start.fence} {start.attempt}\n".encode()


def one_outcome(timeline: Timeline, _: Allowance) -> Iterator[Violation]:
    """I4: an attempt has one outcome; a fence rises by one with each claim and changes with nothing else."""
    ended = Counter[tuple[int, int]]()
    for step in timeline.steps:
        what = _wrong_fence(step)
        if what is not None:
            yield timeline.violation("I4", step.job_id, what)
        if step.releases and step.before is not None:
            fence = int(step.before["fence"])
            ended[step.job_id, fence] += 1
            here = [v for v in timeline.records.get((step.job_id, fence), []) if v.position == step.position]
            if len(here) != (step.state is not State.COMPLETED):
                yield timeline.violation("I4", step.job_id, f"{len(here)} records of the end of fence {fence}")
    for (job_id, fence), versions in timeline.records.items():
        ended[job_id, fence] = max(ended[job_id, fence], len(versions))
    rows = Counter((row["job_id"], row["fence"]) for row in timeline.evidence.final.attempts)
    rows.update((row["id"], row["fence"]) for row in timeline.jobs.values() if row["state"] == State.COMPLETED)
    for (job_id, fence), count in (ended | rows).items():
        if count > 1:
            yield timeline.violation("I4", job_id, f"{count} outcomes of fence {fence}")


def _wrong_fence(step: Step) -> str | None:
    if step.before is None:
        return None
    before, after = int(step.before["fence"]), step.fence
    if step.claims and step.was in sources(Event.CLAIMED):
        return None if after == before + 1 else f"claimed with fence {before} -> {after}"
    if (after, step.after["token"]) != (before, step.before["token"]):
        return f"fence {before} -> {after} or its token changed without a claim"
    return None


def bounded(timeline: Timeline, _: Allowance) -> Iterator[Violation]:
    """I6: no more attempts than allowed, counted as they ended, and counted anew only for an operator."""
    retried = Counter[tuple[str, int]]()
    for operation in timeline.evidence.operations:
        if operation.kind == "retry" and operation.outcome != "fail" and operation.job_id is not None:
            retried["job", operation.job_id] += 1
    revived: dict[int, int] = defaultdict(int)
    for step in timeline.steps:
        if step.revives:
            revived[step.job_id] += 1
            if revived[step.job_id] > retried["job", step.job_id]:
                yield timeline.violation("I6", step.job_id, "began anew, and no operator asked for it")
        else:
            what = _wrong_counts(timeline, step)
            if what is not None:
                yield timeline.violation("I6", step.job_id, what)


def _wrong_counts(timeline: Timeline, step: Step) -> str | None:
    row = step.after
    limits = (("attempt", row["max_retries"] + 1), ("lost_count", LOST_MAX), ("return_count", RETURNS_MAX))
    for name, most in limits:
        if row[name] > most:
            return f"{name} {row[name]} of at most {most}"
    if step.before is None:
        return None
    counted, lost = row["attempt"] - step.before["attempt"], row["lost_count"] - step.before["lost_count"]
    if (counted, lost) != _expected_counts(timeline, step):
        return f"attempt counts {counted} more and lost {lost} more with {step.was} -> {step.state}"
    return None


def _expected_counts(timeline: Timeline, step: Step) -> tuple[int, int]:
    if not step.releases or step.before is None:
        return 0, 0
    record = timeline.record((step.job_id, int(step.before["fence"])))
    if record is None:
        return 1, 0
    return int(record["outcome"] in COUNTED), int(record["outcome"] == Outcome.LOST)


def not_early(timeline: Timeline, _: Allowance) -> Iterator[Violation]:
    """I9: nothing is claimed before it is due by Postgres' clock, nor started."""
    for key, step in timeline.claims.items():
        due = step.after["available_at"]
        claimed_at = step.after["started_at"]
        if claimed_at is not None and claimed_at < due:
            yield timeline.violation("I9", step.job_id, f"fence {key[1]} was claimed before it was due at {due}")
        start = timeline.starts.get(key)
        if start is not None and timeline.told_at(start) < due.timestamp() - SKEW_SECONDS:
            yield timeline.violation("I9", step.job_id, f"fence {key[1]} started before it was due at {due}")


def cancelled(timeline: Timeline, _: Allowance) -> Iterator[Violation]:
    """I10: what is to be cancelled is not claimed any more, ends cancelled, and nothing of it runs then."""
    for step in timeline.steps:
        asked = step.before is not None and step.before["cancel_requested_at"] is not None
        if step.claims and asked:
            yield timeline.violation("I10", step.job_id, f"claimed with fence {step.fence} after its cancel")
        if step.releases and asked != (step.state is State.CANCELLED):
            yield timeline.violation("I10", step.job_id, f"ended {step.state}; cancel asked for: {asked}")
        if step.releases and step.state is State.CANCELLED and step.before is not None:
            yield from _alive(timeline, step, timeline.record((step.job_id, int(step.before["fence"]))))


def _alive(timeline: Timeline, step: Step, record: Row | None) -> Iterator[Violation]:
    """Of an attempt whose worker was lost nobody can say so: its command ends when the worker is back or dead."""
    if record is None or record["outcome"] == Outcome.LOST:
        return
    for line in timeline.lines_of.get(step.job_id, []):
        if line.fence == record["fence"] and timeline.told_at(line) > step.at + SKEW_SECONDS:
            yield timeline.violation("I10", step.job_id, f"fence {line.fence} was alive after it was cancelled")


CHECKS: Final = (one_end, current_results, one_outcome, bounded, not_early, cancelled)
