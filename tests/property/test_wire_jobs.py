"""`wire.jobs` and `Submits` against protobuf and checks one by one."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orqestra._dispatch import Jobs, wire
from orqestra.model.errors import InvalidInput
from orqestra.model.job import JobSpec, check_job
from orqestra.rpc.decode import job_kind
from orqestra.rpc.submits import Submits
from orqestra.v1 import jobs_pb2
from tests.property.oracles.wire import (
    CONTROL,
    count,
    field,
    int32,
    some_bytes,
    stripped,
    text,
    uint64,
    unique,
    unknown_fields,
)
from tests.support.submitting import jobs_of

BATCH = jobs_pb2.SubmitBatchRequest.DESCRIPTOR.fields_by_name["jobs"].number
STREAM = jobs_pb2.SubmitStreamRequest.DESCRIPTOR.fields_by_name["jobs"].number

keys = st.just("") | st.text("aü\u2028\U0001f600\n\x7f\x80", max_size=4)
any_jobs = st.builds(
    jobs_pb2.JobSpec,
    type=st.sampled_from(["noop", "shell"]) | text,
    payload=st.sampled_from([b"", b"{}"]) | some_bytes,
    queue=st.just("") | text,
    priority=st.none() | int32,
    labels=st.dictionaries(text, text, max_size=2),
    max_retries=st.just(0) | int32,
    backoff=st.none() | st.builds(jobs_pb2.Backoff, base_ms=st.none() | count, jitter=st.sampled_from([0, 1, 9])),
    delay_ms=st.just(0) | count,
    timeout_ms=st.just(0) | count,
    grace_ms=st.none() | count,
    idempotency_key=keys,
    tags=st.lists(text, max_size=2),
    retry=st.none() | st.builds(jobs_pb2.RetryRules, on=st.lists(text, max_size=2)),
)
good_jobs = st.builds(
    jobs_pb2.JobSpec,
    type=st.just("noop"),
    payload=st.sampled_from([b"", b"{}", b'{"a": 1}']),
    queue=st.sampled_from(["", "default", "media"]),
    priority=st.none() | st.integers(0, 9),
    labels=st.dictionaries(st.sampled_from("ab"), st.sampled_from(["", "1"])),
    max_retries=st.integers(0, 2),
    timeout_ms=st.integers(0, 2),
    idempotency_key=st.sampled_from(["", "key", "ü"]),
    tags=st.lists(st.sampled_from("xy"), max_size=2, unique=True),
)
# Some that nobody may store.
mixed_jobs = good_jobs | st.builds(
    jobs_pb2.JobSpec,
    type=st.sampled_from(["noop", "shell", "mail", ""]),
    payload=st.sampled_from([b"", b"{}", b"no JSON"]),
    priority=st.sampled_from([4, 10, -1]),
    idempotency_key=st.sampled_from(["", "k" * 300, "a\nb", "ok"]),
)


def read(jobs: list[jobs_pb2.JobSpec]) -> Jobs:
    return wire.jobs(jobs_pb2.SubmitBatchRequest(jobs=jobs).SerializeToString(deterministic=True), BATCH)


@settings(deadline=None)  # pytest's timeout bounds it
@given(st.lists(any_jobs, max_size=8))
def test_a_shape_with_what_is_a_jobs_own_is_the_job(jobs: list[jobs_pb2.JobSpec]) -> None:
    found = read(jobs)

    assert len(found) == len(found.shape_of) == len(found.payloads) == len(jobs)
    assert found.shapes == unique(stripped(job).SerializeToString(deterministic=True) for job in jobs)
    assert found.keys == (
        [job.idempotency_key or None for job in jobs] if any(job.idempotency_key for job in jobs) else []
    )
    again = [jobs_pb2.JobSpec.FromString(found.shapes[shape]) for shape in found.shape_of]
    for at, job in enumerate(again):
        assert stripped(job) == job
        job.payload = found.payloads[at]
        job.idempotency_key = (found.keys[at] or "") if found.keys else ""
    assert again == jobs


@settings(deadline=None)  # pytest's timeout bounds it
@given(st.lists(any_jobs, max_size=8), st.integers(0, 3))
def test_each_payload_of_a_shape_is_looked_at_once_and_every_key(jobs: list[jobs_pb2.JobSpec], most_chars: int) -> None:
    found = read(jobs)

    seen: dict[tuple[int, bytes], int] = {}
    for at, job in enumerate(zip(found.shape_of, found.payloads, strict=True)):
        seen.setdefault(job, at)
    assert found.different() == [(at, shape, payload) for (shape, payload), at in seen.items()]
    bad = [
        at
        for at, job in enumerate(jobs)
        if len(job.idempotency_key) > most_chars or CONTROL.search(job.idempotency_key)
    ]
    assert found.bad_key(most_chars) == (bad[0] if bad else None)


@settings(deadline=None)  # pytest's timeout bounds it
@given(st.lists(any_jobs, max_size=3), uint64, unknown_fields, some_bytes, keys)
def test_a_stream_has_a_number_and_of_a_field_that_comes_twice_the_last_one_counts(
    jobs: list[jobs_pb2.JobSpec], number: int, unknown: bytes, payload: bytes, key: str
) -> None:
    # its own parts first, then again among unknown fields; a job is read as one however its parts stand
    earlier = field(2, payload) + field(12, key.encode()) + unknown
    each = [field(STREAM, earlier + job.SerializeToString()) for job in jobs]
    request = b"".join([field(1, 5), *each, unknown, field(1, number)])
    whole = jobs_pb2.SubmitStreamRequest.FromString(request)

    found = wire.jobs(request, STREAM)

    assert found.number == whole.number == number
    assert found.payloads == [job.payload for job in whole.jobs]
    assert [key or "" for key in found.keys or [""] * len(jobs)] == [job.idempotency_key for job in whole.jobs]
    assert [jobs_pb2.JobSpec.FromString(found.shapes[shape]) for shape in found.shape_of] == list(
        map(stripped, whole.jobs)
    )


@settings(deadline=None)  # pytest's timeout bounds it
@given(st.lists(any_jobs, max_size=8), st.booleans())
def test_jobs_are_put_together_again_as_they_were(jobs: list[jobs_pb2.JobSpec], has_keys: bool) -> None:
    shapes = [stripped(job).SerializeToString() for job in jobs]
    keys = [job.idempotency_key or None if has_keys else None for job in jobs]

    request = wire.job_specs(BATCH, shapes, [job.payload for job in jobs], keys)

    for job in jobs:
        job.idempotency_key = job.idempotency_key if has_keys else ""
    assert list(jobs_pb2.SubmitBatchRequest.FromString(request).jobs) == jobs


@settings(deadline=None)  # pytest's timeout bounds it
@given(st.lists(st.lists(mixed_jobs, max_size=4), max_size=3))
def test_a_batch_is_checked_as_its_jobs_are_one_by_one(batches: list[list[jobs_pb2.JobSpec]]) -> None:
    submits = Submits()
    for jobs in batches:
        request = jobs_pb2.SubmitBatchRequest(jobs=jobs).SerializeToString()
        bad = [at for at, job in enumerate(jobs) if one_by_one(job) is None]
        if bad:
            with pytest.raises(InvalidInput, match=r"^jobs\[\d+\]\.") as caught:
                submits.batch(request)
            assert int(caught.value.field.split("]")[0][5:]) in bad
        else:
            assert jobs_of(submits.batch(request)) == [one_by_one(job) for job in jobs]


@settings(deadline=None)  # pytest's timeout bounds it
@given(good_jobs, good_jobs)
def test_a_job_that_comes_in_parts_is_put_together(first: jobs_pb2.JobSpec, second: jobs_pb2.JobSpec) -> None:
    request = field(1, first.SerializeToString()) + field(1, second.SerializeToString())
    whole = jobs_pb2.SubmitRequest.FromString(request).job

    try:
        found = jobs_of(Submits().single(request))
    except InvalidInput:
        assert one_by_one(whole) is None
    else:
        assert found == [one_by_one(whole)]


def test_a_time_is_part_of_a_shape() -> None:
    jobs = [jobs_pb2.JobSpec(type="noop") for _ in range(2)]
    for year, job in zip((2024, 2025), jobs, strict=True):
        job.at.FromDatetime(datetime(year, 1, 1, tzinfo=UTC))

    found = jobs_of(Submits().batch(jobs_pb2.SubmitBatchRequest(jobs=jobs).SerializeToString()))

    assert [job.at.year for job in found if job.at is not None] == [2024, 2025]


def one_by_one(job: jobs_pb2.JobSpec) -> JobSpec | None:
    """Return a job as it is checked alone; None if it may not be stored."""
    try:
        kind = job_kind(job)
        found = JobSpec(
            **{name: getattr(kind, name) for name in kind.__slots__ if name not in ("payload", "key")},
            payload=job.payload or b"{}",
            key=job.idempotency_key or None,
        )
        return check_job(found)
    except InvalidInput:
        return None
