"""Where jobs wait and where they run.

I12 Redis holds what follows from Postgres, I13 no worker has more than it offers, I14 sessions and their workers.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from orqestra.model.lifecycle import WAITING, State
from orqestra.queue.hints import HORIZON_MS
from tests.chaos.evidence import Allowance, Evidence, Hints, Row
from tests.chaos.timeline import Step, Timeline, Version, Violation, intervals

# Once a minute what becomes due is loaded; nearer than this it must be there.
DELAYED_WITHIN: Final = timedelta(milliseconds=HORIZON_MS - 60_000)


def derivable(timeline: Timeline, _: Allowance) -> Iterator[Violation]:
    """I12: Redis knows the first of each lane and what is due soon, and of served lanes nothing that is over."""
    hints = timeline.evidence.hints
    if hints is None:
        return
    for key in sorted(hints.strange_keys):
        yield Violation(invariant="I12", subject="redis", text=f"key {key!r} is of no known family")
    waiting = {job_id: row for job_id, row in timeline.jobs.items() if State(row["state"]) in WAITING}
    served = _served_lanes(timeline.evidence)
    for lane, held in hints.ready.items():
        for job_id in sorted(held):
            row = waiting.get(job_id)
            if row is not None and row["lane_id"] != lane:
                yield timeline.violation("I12", job_id, f"its hint is in lane {lane}, not {row['lane_id']}")
            if row is None and lane in served and job_id > timeline.evidence.since_id:
                yield timeline.violation("I12", job_id, f"a stale hint in lane {lane}, which is served")
    for job_id in _missing(timeline.evidence, hints, waiting):
        yield timeline.violation("I12", job_id, f"it waits in lane {waiting[job_id]['lane_id']} without a hint")


def _served_lanes(evidence: Evidence) -> frozenset[int]:
    final = evidence.final
    profiles = [
        (set(row["queues"]), set(row["labels"])) for row in final.sessions if row["closed_at"] is None and row["slots"]
    ]
    return frozenset(
        lane["id"]
        for lane in final.lanes
        if any(lane["queue"] in queues and labels.issuperset(lane["requires"]) for queues, labels in profiles)
    )


def _missing(evidence: Evidence, hints: Hints, waiting: Mapping[int, Row]) -> Iterator[int]:
    elsewhere = hints.delayed | hints.processing
    lanes: dict[int, list[Row]] = defaultdict(list)
    for job_id, row in waiting.items():
        if not row["delayed"]:
            lanes[row["lane_id"]].append(row)
        elif job_id not in elsewhere | hints.ready.get(row["lane_id"], frozenset()) and _is_soon(evidence, row):
            yield job_id
    for lane, rows in lanes.items():
        best = sorted(rows, key=lambda row: (-row["priority"], row["id"]))[: evidence.window]
        known = [row["id"] in hints.ready.get(lane, frozenset()) | elsewhere for row in best]
        # Of a partial lane Redis may know fewer, but always the best ones.
        needed = len(known) - known[::-1].index(True) if True in known else 0
        if lane not in hints.partial:
            needed = len(best)
        yield from (row["id"] for row, is_known in zip(best[:needed], known[:needed], strict=True) if not is_known)


def _is_soon(evidence: Evidence, row: Row) -> bool:
    latest = max((transaction.committed_at for transaction in evidence.history), default=row["created_at"])
    return bool(row["available_at"] <= latest + DELAYED_WITHIN)


def within_capacity(timeline: Timeline, allowance: Allowance) -> Iterator[Violation]:
    """I13: a session never has more jobs than its slots and what just finished, a worker runs none beyond its slots."""
    running: dict[int, set[int]] = defaultdict(set)
    for step in timeline.steps:
        if step.was is State.RUNNING and step.before is not None:
            running[step.before["session_id"]].discard(step.job_id)
        if step.state is not State.RUNNING:
            continue
        session_id = step.after["session_id"]
        running[session_id].add(step.job_id)
        most = _slots(timeline, session_id) + allowance.prefetch
        if len(running[session_id]) > most:
            count = len(running[session_id])
            yield timeline.violation("I13", step.job_id, f"session {session_id} has {count} jobs, {most} are allowed")
    yield from _processes_within_slots(timeline)


def _processes_within_slots(timeline: Timeline) -> Iterator[Violation]:
    """The commands themselves, by what they told. One that told no end is counted at no time but its start."""
    moments: dict[tuple[str, str], list[tuple[float, int, int]]] = defaultdict(list)
    slots: Counter[tuple[str, str]] = Counter()
    for (job_id, fence), began, ended in intervals(timeline):
        claim = timeline.claims.get((job_id, fence))
        session = None if claim is None else timeline.final_sessions.get(claim.after["session_id"])
        if session is not None:
            process = (session["worker_id"], session["incarnation"])
            slots[process] = max(slots[process], _slots(timeline, session["id"]))
            moments[process] += [(began, 1, job_id), (began if ended is None else ended, -1, job_id)]
    for process, events in moments.items():
        count = 0
        # At the same hundredth of a second an end comes first; a command that told none begins and ends there.
        for _, change, job_id in sorted(events, key=lambda event: event[:2]):
            count += change
            if count > slots[process]:
                what = f"worker {process[0]} runs {count} commands at once, and has {slots[process]} slots"
                yield timeline.violation("I13", job_id, what)


def _slots(timeline: Timeline, session_id: int) -> int:
    """Return the most slots that a session ever had: a worker that drains offers none and goes on."""
    # What it had before its first change here counts too: it may have been opened before the history begins.
    versions = [row for version in timeline.sessions.get(session_id, []) for row in version.change.images]
    final = timeline.final_sessions.get(session_id)
    return max((row["slots"] for row in [*versions, *([final] if final else [])]), default=0)


def identified(timeline: Timeline, _: Allowance) -> Iterator[Violation]:
    """I14: an attempt stays with one worker and its result came on that worker's session; one session is open each."""
    for step in timeline.steps:
        what = _wrong_owner(timeline, step)
        if what is not None:
            yield timeline.violation("I14", step.job_id, what)
    opened: dict[str, set[int]] = defaultdict(set)
    versions = sorted((each for known in timeline.sessions.values() for each in known), key=lambda each: each.position)
    by_commit: dict[int, list[Version]] = defaultdict(list)
    for version in versions:
        by_commit[version.position].append(version)
    for here in by_commit.values():
        for version in here:
            yield from _changed_identity(version)
            row = version.change.row
            is_open = version.change.after is not None and row["closed_at"] is None
            (opened[row["worker_id"]].add if is_open else opened[row["worker_id"]].discard)(row["id"])
        for worker in {version.change.row["worker_id"] for version in here}:
            if len(opened[worker]) > 1:
                text = f"sessions {sorted(opened[worker])} are open at once after xid {here[0].transaction.xid}"
                yield Violation(invariant="I14", subject=f"worker {worker}", text=text)


def _wrong_owner(timeline: Timeline, step: Step) -> str | None:
    if step.state is State.RUNNING:
        session = timeline.session_at(step.after["session_id"], step.position)
        if session is None or session["worker_id"] != step.after["worker_id"]:
            return f"it runs on session {step.after['session_id']}, which is not of worker {step.after['worker_id']}"
        moved = step.before is not None and step.was is State.RUNNING
        if moved and step.before is not None and step.before["worker_id"] != step.after["worker_id"]:
            return f"its attempt went from worker {step.before['worker_id']} to {step.after['worker_id']}"
    if step.releases and step.before is not None:
        record = timeline.record((step.job_id, int(step.before["fence"])))
        owner = step.before["session_id"]
        told = step.after["session_id"] if record is None else record["session_id"]
        if told != owner:
            return f"its attempt of session {owner} was ended by session {told}"
    return None


def _changed_identity(version: Version) -> Iterator[Violation]:
    before, after = version.change.before, version.change.after
    if before is None or after is None:
        return
    subject = f"session {after['id']}"
    for name in ("worker_id", "incarnation", "number"):
        if before[name] != after[name]:
            yield Violation(invariant="I14", subject=subject, text=f"{name} {before[name]} became {after[name]}")
    if before["closed_at"] is not None and after["closed_at"] != before["closed_at"]:
        text = f"closed ({before['closed_reason']}) and changed afterwards"
        yield Violation(invariant="I14", subject=subject, text=text)


CHECKS: Final = (derivable, within_capacity, identified)
