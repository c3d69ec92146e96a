"""How long it may take until all goes on, measured from the heal: L1 to L8, and the recovery of a cell."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

from orqestra.model.lifecycle import TERMINAL, WAITING, State
from orqestra.model.report import Reason
from tests.chaos.evidence import Evidence, Stop
from tests.chaos.timeline import SKEW_SECONDS, AttemptKey, Step, Timeline, Violation, intervals

OUTBOX_SECONDS: Final = 2.0
SERVER_STOP_SECONDS: Final = 5.0
# Its own command was to end: nobody's stop has killed it.
ENDED_ON_PURPOSE: Final = frozenset({Reason.TIMEOUT, Reason.CANCELLED})


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """L8: `seconds` long, from `after_seconds` after the heal on, at least so many jobs end each second."""

    jobs_per_second: float
    after_seconds: float = 5.0
    seconds: float = 5.0


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a cell promises, in seconds from `healed_at` (Unix seconds). None: it promises nothing of the kind."""

    healed_at: float
    start_seconds: float | None = None
    """L1, from the moment a job is claimable, if that is later."""
    start_share: float = 1.0
    """Of how many starts that must be true; 0.99 where a percentile is promised."""
    spool_seconds: float | None = None
    """L4: until all that had ended before the heal is settled."""
    reconnect_seconds: float | None = None
    """L5: until the session after the heal is open, for each worker that opens one."""
    cancel_seconds: float | None = None
    """L6, from the cancel, if that is later."""
    worker_stop_seconds: float | None = None
    """L7; for servers it is always `SERVER_STOP_SECONDS`."""
    throughput: Throughput | None = None
    outage: tuple[tuple[float, float], ...] = ()
    """Times at which samples count for nothing: L2 and L3 speak of healthy stores."""


def recovery_seconds(evidence: Evidence, fault_at: float, victims: Collection[int] = ()) -> float | None:
    """Return how long after `fault_at` (Unix seconds) the first job that became claimable since then was started
    and all victims had ended; None: one of both never happened."""
    timeline = Timeline(evidence)
    fresh = [
        timeline.told_at(timeline.starts[key])
        for waited, key in _episodes(timeline)
        if key in timeline.starts and _claimable_at(waited) > fault_at
    ]
    ends = [
        max((step.at for step in timeline.steps_of[job_id] if step.state in TERMINAL), default=None)
        for job_id in victims
    ]
    if not fresh or None in ends:
        return None
    return max(0.0, max([min(fresh), *(end for end in ends if end is not None)]) - fault_at)


def prompt_starts(timeline: Timeline, bounds: Bounds) -> Iterator[Violation]:
    """L1: what is claimable is started soon, as long as any worker has a free slot."""
    if bounds.start_seconds is None:
        return
    waits: list[tuple[float, int]] = []
    free = _free_seconds(timeline)
    for waited, key in _episodes(timeline):
        start = timeline.starts.get(key)
        since = max(_claimable_at(waited), bounds.healed_at)
        if start is not None and timeline.told_at(start) > since:
            waits.append((free(since, timeline.told_at(start)), waited.job_id))
    late = sorted((wait for wait in waits if wait[0] > bounds.start_seconds + SKEW_SECONDS), reverse=True)
    if len(late) > (1 - bounds.start_share) * len(waits):
        for seconds, job_id in late:
            yield timeline.violation("L1", job_id, f"started after {seconds:.2f} s, not {bounds.start_seconds:g} s")


def nothing_overdue(timeline: Timeline, bounds: Bounds) -> Iterator[Violation]:
    """L2: no job runs on a session that is over. L3: no hint stays in the outbox."""
    for sample in timeline.evidence.samples:
        if any(since <= sample.at <= until for since, until in bounds.outage):
            continue
        seconds = sample.at - bounds.healed_at
        when = f"{abs(seconds):.1f} s {'after' if seconds >= 0 else 'before'} the heal"
        if sample.overdue_running:
            text = f"{sample.overdue_running} jobs run on sessions that are over, {when}"
            yield Violation(invariant="L2", subject="jobs", text=text)
        if sample.outbox_oldest_s is not None and sample.outbox_oldest_s > OUTBOX_SECONDS:
            text = f"a row is {sample.outbox_oldest_s:.1f} s old, {when}"
            yield Violation(invariant="L3", subject="outbox", text=text)


def settled_soon(timeline: Timeline, bounds: Bounds) -> Iterator[Violation]:
    """L4: a result that waited on its worker for the heal is settled soon after it."""
    if bounds.spool_seconds is None:
        return
    for key, end in timeline.ends.items():
        claim, release = timeline.claims.get(key), timeline.releases.get(key)
        if claim is None or timeline.told_at(end) > bounds.healed_at:
            continue
        if release is None or release.at > bounds.healed_at + bounds.spool_seconds:
            late = "never" if release is None else f"{release.at - bounds.healed_at:.2f} s after the heal"
            yield timeline.violation("L4", key[0], f"fence {key[1]} was settled {late}, not {bounds.spool_seconds:g} s")


def reconnected(timeline: Timeline, bounds: Bounds) -> Iterator[Violation]:
    """L5: whoever opens a session after the heal opens it soon; whose session is over has opened another."""
    if bounds.reconnect_seconds is None:
        return
    connected: dict[str, list[float]] = defaultdict(list)
    open_now: set[str] = set()
    for row in timeline.evidence.final.sessions:
        connected[row["worker_id"]].append(row["connected_at"].timestamp() - bounds.healed_at)
        if row["closed_at"] is None:
            open_now.add(row["worker_id"])
    broken = {
        version.change.row["worker_id"]
        for versions in timeline.sessions.values()
        for version in versions
        if version.change.row["closed_at"] is not None
    }
    for worker in sorted(broken - open_now):
        yield Violation(
            invariant="L5", subject=f"worker {worker}", text="its session was closed and it opened no other"
        )
    for worker, times in connected.items():
        after = min((seconds for seconds in times if seconds > 0), default=0.0)
        if after > bounds.reconnect_seconds:
            text = (
                f"its first session after the heal was opened after {after:.2f} s, not {bounds.reconnect_seconds:g} s"
            )
            yield Violation(invariant="L5", subject=f"worker {worker}", text=text)


def prompt_cancels(timeline: Timeline, bounds: Bounds) -> Iterator[Violation]:
    """L6: a running job that is to be cancelled ends soon."""
    if bounds.cancel_seconds is None:
        return
    for step in timeline.steps:
        asked = step.before is not None and step.before["cancel_requested_at"] is None
        if step.state is not State.RUNNING or not asked or step.after["cancel_requested_at"] is None:
            continue
        since = max(step.at, bounds.healed_at)
        release = timeline.releases.get((step.job_id, step.fence))
        if release is None or release.at > since + bounds.cancel_seconds:
            late = "never" if release is None else f"after {release.at - since:.2f} s"
            yield timeline.violation("L6", step.job_id, f"cancelled {late}, not {bounds.cancel_seconds:g} s")


def prompt_stops(timeline: Timeline, bounds: Bounds) -> Iterator[Violation]:
    """L7: a process that is asked to end does so in time; a server ends no command by it."""
    for stop in timeline.evidence.stops:
        most = SERVER_STOP_SECONDS if stop.kind == "server" else bounds.worker_stop_seconds
        took = stop.ended_at - stop.asked_at
        if most is not None and took > most:
            yield Violation(invariant="L7", subject=stop.name, text=f"ended after {took:.2f} s, not {most:g} s")
        if stop.kind == "server":
            yield from _killed_by(timeline, stop)


def fast_again(timeline: Timeline, bounds: Bounds) -> Iterator[Violation]:
    """L8: soon after the heal jobs end as fast as before."""
    if bounds.throughput is None:
        return
    promised = bounds.throughput
    since = bounds.healed_at + promised.after_seconds
    rate = ends_per_second(timeline, since, since + promised.seconds)
    if rate < promised.jobs_per_second:
        text = f"{rate:.1f} jobs end each second, not {promised.jobs_per_second:.1f}"
        yield Violation(invariant="L8", subject="throughput", text=text)


def ends_per_second(timeline: Timeline, since: float, until: float) -> float:
    """Return how many jobs ended each second between two moments (Unix seconds)."""
    count = sum(
        step.state in TERMINAL and step.was not in TERMINAL and since <= step.at < until for step in timeline.steps
    )
    return count / (until - since)


def _episodes(timeline: Timeline) -> Iterator[tuple[Step, AttemptKey]]:
    """Yield each step that made a job claimable, with the attempt that followed."""
    for job_id, steps in timeline.steps_of.items():
        waiting: Step | None = None
        for step in steps:
            if step.state in WAITING and step.was not in WAITING:
                waiting = step
            elif step.claims and waiting is not None:
                yield waiting, (job_id, step.fence)


def _claimable_at(step: Step) -> float:
    return float(max(step.at, step.after["available_at"].timestamp()))


def _free_seconds(timeline: Timeline) -> Callable[[float, float], float]:
    """Return how to tell for how long, between two moments, some worker had a free slot, as Postgres knew it."""
    running: dict[int, set[int]] = defaultdict(set)
    slots = _slots_before(timeline)
    times, full = [0.0], [False]
    for transaction in timeline.evidence.history:
        for change in transaction.changes:
            row = change.row
            if change.table == "sessions":
                slots[row["id"]] = row["slots"] if row["closed_at"] is None else 0
            if change.table == "jobs" and change.before is not None and change.before["session_id"] is not None:
                running[change.before["session_id"]].discard(row["id"])
            if change.table == "jobs" and row["state"] == State.RUNNING:
                running[row["session_id"]].add(row["id"])
        times.append(transaction.committed_at.timestamp())
        full.append(all(len(running[session]) >= count for session, count in slots.items()))

    def free(since: float, until: float) -> float:
        first, last = bisect_right(times, since), bisect_right(times, until)
        moments = [since, *times[first:last], until]
        spans = zip(pairwise(moments), full[first - 1 : last], strict=True)
        return sum((end - begin for (begin, end), is_full in spans if not is_full), start=0.0)

    return free


def _slots_before(timeline: Timeline) -> dict[int, int]:
    """Return the slots of the sessions that were open when the history began."""
    found: dict[int, int] = {}
    for session_id, row in timeline.final_sessions.items():
        known = timeline.sessions.get(session_id)
        before = known[0].change.before if known else row
        if before is not None and before["closed_at"] is None:
            found[session_id] = before["slots"]
    return found


def _killed_by(timeline: Timeline, stop: Stop) -> Iterator[Violation]:
    for key, began, ended in intervals(timeline):
        release, record = timeline.releases.get(key), timeline.record(key)
        over = release is not None and release.at < stop.asked_at
        purpose = record is not None and record["reason"] in ENDED_ON_PURPOSE
        if began < stop.asked_at and ended is None and not over and not purpose:
            yield timeline.violation(
                "L7", key[0], f"fence {key[1]} did not live to its end when {stop.name} was stopped"
            )


Promise: TypeAlias = Callable[[Timeline, Bounds], Iterator[Violation]]
PROMISES: Final[tuple[Promise, ...]] = (
    *(prompt_starts, nothing_overdue, settled_soon, reconnected),
    *(prompt_cancels, prompt_stops, fast_again),
)
