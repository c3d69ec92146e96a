"""A round of the dispatcher over 1000 jobs, Rust beside its plain twin: demand, assignment, slots free again."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measuring import Load, measure
from orqestra._dispatch import Matcher
from tests.property.oracles.matcher import PlainMatcher
from tests.property.oracles.outbox import Entry, hint

BATCH = 1000
SLOTS = 64
HINTS = b"".join(hint(Entry(id=number, lane=1, priority=4, due_ms=0)) for number in range(BATCH))


SMALL = pytest.mark.benchmark(group="matcher: 1000 jobs, 20 sessions, 100 lanes")
LARGE = pytest.mark.benchmark(group="matcher: 1000 jobs, 2000 sessions, 10,000 lanes")
# The twin looks at everything for every job.
LARGE_TWIN = Load(unit="assignments", count=BATCH, rounds=3)


@SMALL
def test_small_fleet_rust(benchmark: BenchmarkFixture) -> None:
    matcher = Matcher()
    _fill(matcher, sessions=20, lanes=100)
    benchmark.extra_info["assignments"] = BATCH
    benchmark(_rust_round, matcher)


@SMALL
def test_small_fleet_python(benchmark: BenchmarkFixture) -> None:
    matcher = PlainMatcher()
    _fill(matcher, sessions=20, lanes=100)
    benchmark.extra_info["assignments"] = BATCH
    benchmark(_python_round, matcher)


@LARGE
def test_large_fleet_rust(benchmark: BenchmarkFixture) -> None:
    matcher = Matcher()
    _fill(matcher, sessions=2000, lanes=10_000)
    benchmark.extra_info["assignments"] = BATCH
    benchmark(_rust_round, matcher)


@LARGE
def test_large_fleet_python(benchmark: BenchmarkFixture) -> None:
    matcher = PlainMatcher()
    _fill(matcher, sessions=2000, lanes=10_000)
    measure(benchmark, LARGE_TWIN, lambda: _python_round(matcher))


def _fill(matcher: Matcher | PlainMatcher, *, sessions: int, lanes: int) -> None:
    queues = [f"queue-{number}" for number in range(20)]
    for lane in range(lanes):
        matcher.set_lane(lane, queues[lane % len(queues)], [])
    for session in range(sessions):
        matcher.open_session(session, SLOTS, queues, ["os=linux"])


def _rust_round(matcher: Matcher) -> None:
    """All at one time, so that no prefetch builds up and every round is alike."""
    (demand,) = matcher.demand(0)
    assignment = matcher.assign(demand.profile, HINTS)
    assert len(assignment.ids) == BATCH
    matcher.release(assignment.sessions)


def _python_round(matcher: PlainMatcher) -> None:
    ((profile, _, _),) = matcher.demand(0)
    ids, sessions, _ = matcher.assign(profile, HINTS)
    assert len(ids) == BATCH
    matcher.release(sessions)
