"""Bytes that are no message, or nearly one: `wire` says so, or reads what protobuf reads. It never panics."""

from collections.abc import Callable
from typing import TypeVar

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orqestra._dispatch import Owed, Successes, wire
from orqestra.v1 import jobs_pb2
from orqestra.v1 import worker_pb2 as pb
from tests.property.oracles.wire import attempt_in, attempts, field, plain_results, results, text, unknown_fields

BATCH = 1
M = TypeVar("M", bound=Message)

acks = st.builds(pb.ResultAcks.Ack, attempt=attempts, verdict=st.integers(0, 5))
jobs = st.builds(pb.Assignment, attempt=attempts, type=st.sampled_from(["noop", "shell"]), step=text)
specs = st.builds(jobs_pb2.JobSpec, type=text, payload=st.binary(max_size=4), idempotency_key=text, queue=text)
messages: st.SearchStrategy[Message] = (
    st.builds(
        lambda some: pb.WorkerMessage(results=pb.Results(results=some)), st.lists(plain_results | results, max_size=3)
    )
    | st.builds(lambda some: pb.ServerMessage(assign=pb.Assign(number=1, jobs=some)), st.lists(jobs, max_size=3))
    | st.builds(lambda some: pb.ServerMessage(result_acks=pb.ResultAcks(acks=some)), st.lists(acks, max_size=3))
    | st.builds(lambda some: jobs_pb2.SubmitBatchRequest(jobs=some), st.lists(specs, max_size=3))
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A message with some bytes changed, gone, or more."""
    raw = bytearray(draw(messages).SerializeToString())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(raw)


garbage = st.binary(max_size=60) | damaged()
MESSAGES = [
    b"\xff" * 11,
    b"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x2a\xff\xff\xff\xff\x0f",
    b"\x1a\x02\x12\x7f",
    field(5, field(1, b"\x0a\x02\x08")),
]


def each_example(test: Callable[..., None]) -> Callable[..., None]:
    for raw in MESSAGES:
        test = example(raw)(test)
    return test


def protobuf(kind: type[M], raw: bytes) -> M | None:
    try:
        return kind.FromString(raw)
    except DecodeError:
        return None


@each_example
@settings(deadline=None)  # pytest's timeout bounds it
@given(garbage)
def test_results(raw: bytes) -> None:
    whole = protobuf(pb.WorkerMessage, raw)
    try:
        parts = wire.results(1, raw)
    except ValueError:
        return
    if parts is None:
        return
    others = [protobuf(pb.Result, other) for part in parts for other in part.others()]
    found = Successes(parts)
    assert len(found.columns()["ids"]) == len(found)
    found.settle(found.columns()["ids"])
    if None in others:
        return  # which protobuf refuses then
    assert whole is not None, "taken, though protobuf refuses it"
    attempts = [attempt for part in parts for attempt in part.attempts()]
    assert attempts == [attempt_in(result.attempt) for result in whole.results.results]


@each_example
@settings(deadline=None)  # pytest's timeout bounds it
@given(garbage)
def test_assignments(raw: bytes) -> None:
    whole = protobuf(pb.ServerMessage, raw)
    for apart in (False, True):
        try:
            found = wire.assigned(raw, apart=apart)
        except ValueError:
            return
        if found is None or any(protobuf(pb.Assignment, other) is None for other in found.others):
            return
        assert whole is not None, "taken, though protobuf refuses it"
        assert len(found.others) + found.noop_count == len(whole.assign.jobs)


@each_example
@settings(deadline=None)  # pytest's timeout bounds it
@given(garbage)
def test_acknowledgements(raw: bytes) -> None:
    whole = protobuf(pb.ServerMessage, raw)
    owed = Owed()
    owed.add((2**62, 1, 1), b"kept")
    try:
        told = owed.acknowledge(raw)
    except ValueError:
        told = None
    assert len(owed) == 1
    if told is not None:
        assert whole is not None, "taken, though protobuf refuses it"
        assert [attempt for attempt, _, _ in told] == [attempt_in(ack.attempt) for ack in whole.result_acks.acks]


@each_example
@settings(deadline=None)  # pytest's timeout bounds it
@given(garbage)
def test_submits(raw: bytes) -> None:
    whole = protobuf(jobs_pb2.SubmitBatchRequest, raw)
    try:
        found = wire.jobs(raw, BATCH)
    except ValueError:
        return
    assert len(found.different()) <= len(found) == len(found.shape_of) == len(found.payloads)
    found.bad_key(1)
    if any(protobuf(jobs_pb2.JobSpec, shape) is None for shape in found.shapes):
        return
    assert whole is not None, "taken, though protobuf refuses it"
    assert found.payloads == [job.payload for job in whole.jobs]
    assert [key or "" for key in found.keys or [None] * len(found)] == [job.idempotency_key for job in whole.jobs]


@settings(deadline=None)  # pytest's timeout bounds it
@given(st.binary(max_size=40), st.integers(-3, 3))
def test_results_that_are_owed_may_be_anything(result: bytes, limit: int) -> None:
    owed = Owed()
    owed.add((1, 1, 1), result)

    message = owed.take(max(limit, 0), max(limit, 0))

    assert message == field(5, field(1, result))


@pytest.mark.parametrize("session", [-(2**63), 2**63 - 1])
@settings(deadline=None)  # pytest's timeout bounds it
@given(plain_results, unknown_fields)
def test_numbers_may_be_negative(session: int, result: pb.Result, unknown: bytes) -> None:
    result.attempt.job_id, result.attempt.fence, result.attempt.token = -1, -(2**63), -2
    [part] = wire.results(session, field(5, field(1, unknown + result.SerializeToString()))) or []

    assert part.attempts() == [(-1, -(2**63), -2)]
    assert part.session_id == session
