"""`wire.results`, `Results`, `Successes` and `wire.result_acks` against protobuf and the slow way."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orqestra._dispatch import Results, Successes, wire
from orqestra.model.decision import Ending
from orqestra.model.report import AttemptRef, Reason, Report
from orqestra.rpc.results import reports
from orqestra.v1 import worker_pb2 as pb
from tests.property.oracles.wire import (
    attempt_in,
    changed,
    changes,
    field,
    plain_result,
    plain_results,
    results,
    unique,
    unknown_fields,
)
from tests.support.on_wire import is_plain

SESSIONS = (7, 3, 2**63 - 1)
USAGE = ("wall_us", "user_us", "system_us", "max_rss_kb")

messages = st.lists(st.tuples(st.sampled_from(SESSIONS), st.lists(results, max_size=6)), max_size=4)


def encoded(said: Sequence[pb.Result]) -> bytes:
    return pb.WorkerMessage(results=pb.Results(results=said)).SerializeToString()


def read(session_id: int, said: Sequence[pb.Result], at_most: int = 1000) -> list[Results]:
    parts = wire.results(session_id, encoded(said), at_most)
    assert parts is not None
    return parts


def report_of(session_id: int, result: pb.Result) -> Report:
    """Return a result as it is read one by one."""
    [report] = reports(session_id, [result.SerializeToString()])
    return report


def plain(result: pb.Result) -> bool:
    return is_plain(report_of(1, result))


@settings(deadline=None)  # pytest's timeout bounds it
@given(st.lists(results, max_size=8), st.sampled_from(SESSIONS), st.integers(1, 4) | st.just(1000))
def test_what_is_no_plain_success_is_left_to_the_slow_way(said: list[pb.Result], session_id: int, at_most: int) -> None:
    parts = read(session_id, said, at_most)

    assert [len(part) for part in parts] == [len(said[at : at + at_most]) for at in range(0, len(said), at_most)]
    assert {part.session_id for part in parts} <= {session_id}
    assert [attempt for part in parts for attempt in part.attempts()] == [attempt_in(each.attempt) for each in said]
    others = [pb.Result.FromString(other) for part in parts for other in part.others()]
    assert others == [result for result in said if not plain(result)]


@settings(deadline=None)  # pytest's timeout bounds it
@given(plain_results, st.sampled_from(SESSIONS))
def test_a_plain_success_says_the_same_on_both_ways(result: pb.Result, session_id: int) -> None:
    slow = report_of(session_id, result)
    if not is_plain(slow):
        return  # more output than a result may carry
    [part] = read(session_id, [result])

    _, [(session, attempt, stdout, stderr, usage)] = Successes([part]).settle([])

    assert slow == Report(
        attempt=AttemptRef(*attempt),
        session_id=session,
        ending=Ending.SUCCEEDED,
        reason=Reason.EXITED,
        exit_code=0,
        stdout=stdout,
        stderr=stderr,
        stdout_bytes=len(stdout),
        stderr_bytes=len(stderr),
        wall_us=usage[0],
        user_us=usage[1],
        system_us=usage[2],
        max_rss_kb=usage[3],
    )


@settings(deadline=None)  # pytest's timeout bounds it
@given(plain_results, changes, unknown_fields, st.randoms(use_true_random=False))
def test_fields_may_come_twice_and_in_any_order_among_others(
    result: pb.Result, earlier: dict[str, object], unknown: bytes, random: st.DataObject
) -> None:
    # given what is said first of each field, then in any order what counts, each field by itself
    fields = [_only(result, each.name) for each, _ in result.ListFields()]
    random.shuffle(fields)  # type: ignore[attr-defined]  # it is a random.Random
    first = changed(pb.Result(), earlier).SerializeToString()
    whole = first + unknown + b"".join(fields) + unknown
    merged = pb.Result.FromString(whole)

    [part] = wire.results(7, field(5, unknown + field(1, whole) + unknown)) or []

    assert part.attempts() == [attempt_in(result.attempt)]
    assert [pb.Result.FromString(each) == merged for each in part.others()] == [True] * (not plain(merged))
    if plain(merged):
        _, [(_, _, stdout, stderr, usage)] = Successes([part]).settle([])
        assert (stdout, stderr, list(usage)) == (
            merged.stdout,
            merged.stderr,
            [getattr(merged, name) for name in USAGE],
        )


@settings(deadline=None)  # pytest's timeout bounds it
@given(messages, st.data())
def test_the_first_success_of_each_job_is_settled_at_once(
    messages: list[tuple[int, list[pb.Result]]], data: st.DataObject
) -> None:
    parts = [part for session_id, said in messages for part in read(session_id, said, 3)]
    successes = [(session_id, each) for session_id, said in messages for each in said if plain(each)]
    first: dict[int, tuple[int, pb.Result]] = {}
    again = [each for each in successes if first.setdefault(each[1].attempt.job_id, each) is not each]
    rows = list(first.values())

    found = Successes(parts)

    assert len(found) == len(rows)
    assert found.columns() == {
        "session_ids": [session_id for session_id, _ in rows],
        "ids": [result.attempt.job_id for _, result in rows],
        "fences": [result.attempt.fence for _, result in rows],
        "tokens": [result.attempt.token for _, result in rows],
        "stdouts": sparse([result.stdout for _, result in rows]),
        "stderrs": sparse([result.stderr for _, result in rows]),
        **{name: sparse([getattr(result, name) for _, result in rows]) for name in USAGE},
    }
    done = data.draw(st.lists(st.sampled_from([job for job in first] or [5]), unique=True))
    acks, missed = found.settle(done)
    accepted = [each for each in rows if each[1].attempt.job_id in done]
    assert {session_id: told(part) for session_id, part in acks} == {
        session_id: [(attempt_in(result.attempt), 1) for to, result in accepted if to == session_id]
        for session_id, _ in accepted
    }
    assert len(acks) == len({session_id for session_id, _ in accepted})
    assert [(*each, tuple(usage)) for *each, usage in missed] == [
        as_tuple(*each) for each in rows if each[1].attempt.job_id not in done
    ] + [as_tuple(*each) for each in again]


@settings(deadline=None)  # pytest's timeout bounds it
@given(st.lists(st.lists(results, max_size=4), max_size=3))
def test_the_answers_of_many_batches_are_one_message(batches: list[list[pb.Result]]) -> None:
    parts = [
        pb.ResultAcks(
            acks=[pb.ResultAcks.Ack(attempt=each.attempt, verdict=pb.ResultAcks.VERDICT_STALE) for each in batch]
        ).SerializeToString()
        for batch in batches
    ]

    message = pb.ServerMessage.FromString(wire.result_acks(parts))

    assert message.WhichOneof("message") == "result_acks"
    assert [attempt_in(ack.attempt) for ack in message.result_acks.acks] == [
        attempt_in(each.attempt) for batch in batches for each in batch
    ]


@pytest.mark.parametrize("kind", [each.name for each in pb.WorkerMessage.DESCRIPTOR.fields if each.name != "results"])
def test_another_message_has_no_results(kind: str) -> None:
    message = pb.WorkerMessage()
    getattr(message, kind).SetInParent()

    assert wire.results(1, message.SerializeToString()) is None
    assert wire.results(1, b"") is None


def test_a_thousand_results_are_as_many_parts_as_asked_for() -> None:
    said = [plain_result(pb.AttemptRef(job_id=number), b"", b"", (0, 0, 0, 0)) for number in range(1001)]

    assert [len(part) for part in read(1, said)] == [1000, 1]
    assert len(Successes(read(1, said))) == 1001
    assert unique(each for part in read(1, said) for each in part.others()) == []


def sparse(column: list[object]) -> list[object]:
    return column if any(column) else []


def told(acks: bytes) -> list[tuple[tuple[int, int, int], int]]:
    return [(attempt_in(ack.attempt), int(ack.verdict)) for ack in pb.ResultAcks.FromString(acks).acks]


def as_tuple(session_id: int, result: pb.Result) -> tuple[object, ...]:
    usage = tuple(getattr(result, name) for name in USAGE)
    return session_id, attempt_in(result.attempt), result.stdout, result.stderr, usage


def _only(result: pb.Result, name: str) -> bytes:
    """Return one field of a result, encoded."""
    copy = pb.Result()
    if name == "attempt":
        copy.attempt.CopyFrom(result.attempt)
    else:
        setattr(copy, name, getattr(result, name))
    return copy.SerializeToString()
