"""Requests to checked values: defaults, the index of the guilty job, times, pages and filters."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from orqestra.model import limits
from orqestra.model.errors import InvalidInput
from orqestra.model.job import JobSpec
from orqestra.model.lifecycle import RunState, State
from orqestra.model.retry_rules import Jitter
from orqestra.rpc import decode
from orqestra.rpc.submits import Submits
from orqestra.v1 import jobs_pb2, workflows_pb2
from tests.support.submitting import jobs_of


def noop(**spec: object) -> jobs_pb2.JobSpec:
    job = jobs_pb2.JobSpec(type="noop")
    for name, value in spec.items():
        setattr(job, name, value)
    return job


def spec_of(job: jobs_pb2.JobSpec) -> JobSpec:
    """Return a job as a submit of it alone is read."""
    [spec] = jobs_of(Submits().single(jobs_pb2.SubmitRequest(job=job).SerializeToString()))
    return spec


def specs_of(jobs: Sequence[jobs_pb2.JobSpec]) -> list[JobSpec]:
    """Return jobs as a batch of them is read."""
    return jobs_of(Submits().batch(jobs_pb2.SubmitBatchRequest(jobs=jobs).SerializeToString()))


def test_what_is_absent_has_its_default_and_zero_is_not_absent() -> None:
    absent = spec_of(noop())
    zero = spec_of(noop(priority=0, grace_ms=0))

    assert (absent.payload, absent.queue, absent.priority, absent.grace_ms) == (b"{}", "default", 4, 5000)
    assert (absent.key, absent.at, absent.requires, absent.tags) == (None, None, (), ())
    assert (zero.priority, zero.grace_ms) == (0, 0)


def test_a_backoff_is_filled_up_with_defaults() -> None:
    job = noop(max_retries=3)
    job.backoff.cap_ms = 7

    retries = spec_of(job).retries

    assert (retries.max_retries, retries.base_ms, retries.factor, retries.cap_ms) == (3, 1000, 2.0, 7)


def test_retry_rules_and_jitter_are_read_with_or_without_a_backoff() -> None:
    ruled = noop(max_retries=3)
    ruled.retry.on.extend(["75", "signal:KILL"])
    ruled.retry.never.append("oom")
    even = noop()
    even.backoff.jitter = jobs_pb2.JITTER_EQUAL

    first, second = spec_of(ruled).retries, spec_of(even).retries

    assert (first.max_retries, first.on, first.never) == (3, ("75", "signal:KILL"), ("oom",))
    assert (first.base_ms, first.jitter, second.jitter) == (1000, Jitter.FULL, Jitter.EQUAL)
    assert spec_of(noop()).retries.rules() is None


def test_a_rule_or_a_jitter_that_is_not_known_is_refused() -> None:
    ruled, jittery = noop(), noop()
    ruled.retry.never.append("segfault")
    # field 4 of the backoff is 9: a jitter of a later version
    jittery.backoff.MergeFromString(b"\x20\x09")

    with pytest.raises(InvalidInput, match=r"^jobs\[0\]\.retry\.never: 'segfault' is not known; allowed are"):
        specs_of([ruled])
    with pytest.raises(InvalidInput, match=r"^backoff\.jitter: 9 is not known; allowed are full, equal, none"):
        spec_of(jittery)


def test_labels_become_a_sorted_list() -> None:
    job = noop()
    job.labels["z"] = "1"
    job.labels["a"] = ""

    assert spec_of(job).requires == ("a=", "z=1")


def test_the_error_of_a_batch_names_the_job_by_its_index() -> None:
    jobs = [noop(), noop(), noop(priority=-1), noop(priority=-1)]

    with pytest.raises(InvalidInput, match=r"^jobs\[2\]\.priority: -1") as caught:
        specs_of(jobs)

    assert caught.value.field == "jobs[2].priority"


def test_a_batch_has_its_limit() -> None:
    assert len(specs_of([noop()] * limits.SUBMIT_JOBS)) == limits.SUBMIT_JOBS
    with pytest.raises(InvalidInput, match=r"^jobs: 10001 jobs; at most 10000"):
        specs_of([noop()] * (limits.SUBMIT_JOBS + 1))


@pytest.mark.parametrize("delta", [timedelta(days=-400), timedelta(0), timedelta(days=365)])
def test_a_time_is_kept_to_the_microsecond(delta: timedelta) -> None:
    at = datetime.now(UTC) + delta
    job = noop()
    job.at.FromDatetime(at)

    assert spec_of(job).at == at


def test_a_time_more_than_a_year_ahead_is_refused() -> None:
    job = noop()
    job.at.FromDatetime(datetime.now(UTC) + timedelta(seconds=limits.DELAY_MAX_SECONDS + 60))

    with pytest.raises(InvalidInput, match=r"^at: .*at most a year"):
        spec_of(job)


def test_every_status_of_the_protocol_is_a_state() -> None:
    statuses = jobs_pb2.ListJobsRequest(statuses=jobs_pb2.Status.keys()[1:]).statuses
    runs = workflows_pb2.ListRunsRequest(statuses=workflows_pb2.RunStatus.keys()[1:]).statuses

    assert set(decode.states(statuses)) == set(State)
    assert set(decode.run_states(runs)) == set(RunState)


@pytest.mark.parametrize(("limit", "size"), [(0, 50), (1, 1), (500, 500)])
def test_a_page_has_a_default_and_a_limit(limit: int, size: int) -> None:
    assert decode.page_size(limit) == size


@pytest.mark.parametrize("limit", [-1, 501])
def test_a_page_beyond_its_limit_is_refused(limit: int) -> None:
    with pytest.raises(InvalidInput, match=rf"^limit: {limit}; 1 to 500"):
        decode.page_size(limit)
