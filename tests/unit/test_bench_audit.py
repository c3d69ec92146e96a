"""What became of each job of a load: when it was over, and what was lost, doubled or failed."""

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from orqestra.bench.audit import Fate, Seen, jobs_per_s, judge, seen
from orqestra.bench.delayed import CLOCK_SECONDS, Due, early_starts
from orqestra.bench.journal import Starts
from orqestra.bench.load import Wait
from orqestra.bench.mixed import Kind, both_per_s
from orqestra.bench.report import Verdict
from orqestra.model.lifecycle import State
from orqestra.v1 import jobs_pb2

BEGIN = 1_900_000_000.0
WAIT = Wait(ids=[1, 2, 3], began_at=100.0, heard_at=102.0)
RETRIED = {2: Fate(state=State.FAILED, starts=2)}


def job(
    job_id: int, *, ended_after: float = 1.0, state: State = State.COMPLETED, attempt: int = 1, fence: int = 1
) -> Seen:
    """Return a job that has ended well, unless told otherwise."""
    return Seen(job_id, state, attempt, fence, BEGIN, BEGIN + ended_after)


def test_a_load_that_went_well_lasts_until_the_last_end_was_heard_of() -> None:
    outcome = judge(WAIT, [job(1), job(2), job(3, ended_after=1.5)])

    assert outcome.verdict == Verdict()
    assert outcome.seconds == pytest.approx(2.0)
    assert sorted(outcome.latencies) == [1.0, 1.0, 1.5]


def test_a_job_that_ends_after_the_one_that_was_watched_makes_the_load_longer() -> None:
    outcome = judge(WAIT, [job(1, ended_after=1.75), job(2), job(3, ended_after=1.5)])

    assert outcome.seconds == pytest.approx(2.25)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([job(1), job(3)], Verdict(lost=1)),  # not there at all
        ([job(1), job(2), job(3, state=State.RUNNING)], Verdict(lost=1)),
        ([job(1), job(2), job(3, state=State.PENDING)], Verdict(lost=1)),
        ([job(1), job(2, fence=2), job(3)], Verdict(duplicated=1)),
        ([job(1), job(2, attempt=2, fence=2), job(3)], Verdict(duplicated=1)),
        ([job(1, state=State.FAILED), job(2), job(3)], Verdict(failed=1)),
        ([job(1, state=State.CANCELLED), job(2), job(3)], Verdict(failed=1)),
        ([job(1), job(2), job(3), job(4, fence=9)], Verdict()),  # of another run
        ([], Verdict(lost=3)),
    ],
)
def test_lost_doubled_and_failed_jobs_are_counted(found: Sequence[Seen], verdict: Verdict) -> None:
    assert judge(WAIT, found).verdict == verdict


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        (job(2, state=State.FAILED, attempt=2, fence=2), Verdict()),
        (job(2, state=State.FAILED, attempt=3, fence=3), Verdict(duplicated=1)),
        (job(2, state=State.FAILED, attempt=2, fence=3), Verdict(duplicated=1)),  # lost once, and begun again
        (job(2, state=State.FAILED), Verdict(failed=1)),  # not retried
        (job(2, attempt=2, fence=2), Verdict(failed=1)),  # which it should not have completed
    ],
)
def test_a_job_that_is_to_be_retried_is_judged_by_that(second: Seen, verdict: Verdict) -> None:
    assert judge(WAIT, [job(1), second, job(3)], RETRIED).verdict == verdict


def test_a_rate_is_of_all_jobs_in_all_the_time() -> None:
    outcomes = [judge(replace(WAIT, heard_at=heard_at), [job(1), job(2), job(3)]) for heard_at in (101.0, 104.0)]

    assert jobs_per_s(3, outcomes) == pytest.approx(2 * 3 / (1.0 + 4.0))
    assert jobs_per_s(3, outcomes[:1]) == pytest.approx(3.0)


def test_the_limit_of_a_mix_takes_a_cycle_for_each_attempt_and_a_spawn_for_each_command() -> None:
    nothing = Kind(share=1, change=lambda spec: spec)
    fails = Kind(share=1, change=lambda spec: spec, commands=2, fate=RETRIED[2])

    assert both_per_s([nothing], 10.0, 5.0) == pytest.approx(10.0)
    assert both_per_s([nothing, fails], 10.0, 5.0) == pytest.approx(2 / (3 / 10 + 2 / 5))


def test_a_start_before_its_time_is_noticed() -> None:
    starts = Starts()
    now_ns, now = time.monotonic_ns(), time.time()
    starts.add(now_ns, [1, 2, 3])
    due = Due(at={1: now - 2.0, 2: now + 0.5, 3: now, 4: now}, wait=WAIT)

    late = due.late_seconds(starts)

    assert late == pytest.approx([2.0, -0.5, 0.0], abs=CLOCK_SECONDS)
    assert early_starts(late) == 1


def test_an_id_that_was_given_twice_is_a_lost_job() -> None:
    outcome = judge(Wait(ids=[1, 2, 2], began_at=0.0, heard_at=1.0), [job(1), job(2)])

    assert outcome.verdict == Verdict(lost=1)


def test_a_job_of_the_server_is_read_with_its_times() -> None:
    message = jobs_pb2.Job(id=7, status=jobs_pb2.STATUS_COMPLETED, attempt=1, fence=2)
    message.created_at.FromNanoseconds(1_500_000_000)
    message.finished_at.FromNanoseconds(2_750_000_000)

    assert seen(message) == Seen(7, State.COMPLETED, 1, 2, 1.5, 2.75)
