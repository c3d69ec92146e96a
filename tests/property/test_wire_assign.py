"""`Claimed`, `Attempts`, `wire.assign` and `wire.assigned` against protobuf, a loop and a set."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orqestra._dispatch import Attempts, Claimed, wire
from orqestra.v1 import worker_pb2 as pb
from tests.property.oracles.wire import (
    attempt_in,
    attempts,
    count,
    field,
    int32,
    int64,
    results,
    some_bytes,
    text,
    unknown_fields,
)
from tests.support.on_wire import COLUMNS, claimed_of

Job = Mapping[str, Any]
Ref = tuple[int, int, int]
SESSIONS = (1, 2, 2**63 - 1)
TOKENS = {1: 11, 2: -12, 2**63 - 1: 2**63 - 1}
NO_STEPS = {"run_ids": None, "step_keys": None, "previous_ids": None}
PREVIOUS = {1: b"", 2: b"from before", 3: bytes(range(256))}

steps = st.fixed_dictionaries(
    {"run_id": count.filter(bool), "step_key": text, "previous_job_id": st.none() | st.integers(1, 4)}
)
no_step = st.just({"run_id": None, "step_key": None, "previous_job_id": None})
common = st.fixed_dictionaries(
    {
        "session_id": st.sampled_from(SESSIONS),
        "id": int64,
        "fence": int64,
        "token": int64,
        "type": st.just("noop") | text,
        "payload": some_bytes,
        "attempt": st.integers(0, 2**31 - 2),
        "timeout_ms": count,
        "grace_ms": count,
    }
)
claims = st.lists(st.builds(lambda job, step: {**job, **step}, common, no_step | steps), max_size=12)


@settings(deadline=None)  # pytest's timeout bounds it
@given(claims, st.integers(1, 4) | st.just(1000), st.integers(0, 40) | st.just(1 << 20), count)
def test_what_is_claimed_is_sent_as_protobuf_reads_it(
    jobs: list[Job], most_jobs: int, most_bytes: int, number: int
) -> None:
    claimed = claimed_of(jobs)
    assert len(claimed) == len(jobs)
    assert claimed.ids == [job["id"] for job in jobs]
    assert claimed.session_ids == sorted({job["session_id"] for job in jobs})
    assert claimed.previous_ids == [job["previous_job_id"] for job in jobs if job["previous_job_id"] is not None]
    for session_id in claimed.session_ids:
        mine = [job for job in jobs if job["session_id"] == session_id]
        assert claimed.attempts(session_id) == [(job["id"], job["fence"], job["token"]) for job in mine]

        encoded = claimed.encode(session_id, PREVIOUS, most_jobs, most_bytes)

        messages = [pb.ServerMessage.FromString(wire.assign(number, part)) for part in encoded]
        assert messages == [
            pb.ServerMessage(assign=pb.Assign(number=number, jobs=map(assignment, part)))
            for part in parts(mine, most_jobs, most_bytes)
        ]


@settings(deadline=None)  # pytest's timeout bounds it
@given(claims, st.randoms(use_true_random=False))
def test_jobs_are_sent_in_the_order_that_is_wanted(jobs: list[Job], random: Any) -> None:
    jobs = list({job["id"]: job for job in jobs}.values())
    wanted = random.sample(jobs, len(jobs))
    claimed = claimed_of(jobs)

    claimed.arrange([job["id"] for job in wanted])

    for session_id in claimed.session_ids:
        [encoded] = claimed.encode(session_id, PREVIOUS, len(jobs), 1 << 20)
        mine = [assignment(job) for job in wanted if job["session_id"] == session_id]
        assert pb.ServerMessage.FromString(wire.assign(1, encoded)).assign.jobs == mine


submitted = st.lists(
    st.fixed_dictionaries(
        {
            "id": int64,
            "kind": st.integers(1, 3),
            "payload": some_bytes,
            "session_id": st.none() | st.sampled_from(SESSIONS),
        }
    ),
    max_size=12,
)
kinds = st.builds(
    lambda kind, step: {**kind, **step},
    st.fixed_dictionaries({"type": st.just("noop") | text, "timeout_ms": count, "grace_ms": count}),
    no_step | steps,
)


@settings(deadline=None)  # pytest's timeout bounds it
@given(submitted, st.tuples(kinds, kinds, kinds), int64)
def test_what_is_stored_as_running_is_as_if_it_had_been_claimed(
    jobs: list[Job], kinds: tuple[Job, ...], fence: int
) -> None:
    direct = Claimed.direct(direct_columns(jobs, kinds, fence))

    running = [
        {**job, **kinds[job["kind"] - 1], "fence": fence, "token": TOKENS[job["session_id"]], "attempt": 0}
        for job in jobs
        if job["session_id"] is not None
    ]
    claimed = claimed_of(running)
    assert direct.ids == claimed.ids
    assert direct.session_ids == claimed.session_ids
    assert direct.previous_ids == claimed.previous_ids
    for session_id in claimed.session_ids:
        assert direct.attempts(session_id) == claimed.attempts(session_id)
        assert direct.encode(session_id, PREVIOUS, 3, 1 << 20) == claimed.encode(session_id, PREVIOUS, 3, 1 << 20)


@pytest.mark.parametrize(
    "wrong",
    [
        {"session_ids": []},
        {"payloads": [b"", b""]},
        {"kind_of": [0]},
        {"kind_of": [2]},
        {"tokens": {}},
        {"ids": [None]},
        {"timeouts_ms": []},
        {"run_ids": [1, 2], "step_keys": ["a", "b"], "previous_ids": [None, None]},
        {"run_ids": [1], "step_keys": [], "previous_ids": [None]},
    ],
    ids=str,
)
def test_columns_that_do_not_fit_together_are_refused(wrong: Mapping[str, Any]) -> None:
    job = {"id": 1, "kind": 1, "payload": b"", "session_id": 1}
    columns = direct_columns([job], [{"type": "noop", "timeout_ms": 0, "grace_ms": 0, "run_id": None}], 1)
    assert len(Claimed.direct(columns)) == 1

    with pytest.raises(ValueError, match=r"values for|without a kind"):
        Claimed.direct({**columns, **wrong})


def direct_columns(jobs: Sequence[Job], kinds: Sequence[Job], fence: int) -> dict[str, Any]:
    """Return the columns of a submit whose jobs are these."""
    return {
        "ids": [job["id"] for job in jobs],
        "session_ids": [job["session_id"] for job in jobs],
        "kind_of": [job["kind"] for job in jobs],
        "payloads": [job["payload"] for job in jobs],
        "tokens": TOKENS,
        "fence": fence,
        "types": [kind["type"] for kind in kinds],
        "timeouts_ms": [kind["timeout_ms"] for kind in kinds],
        "graces_ms": [kind["grace_ms"] for kind in kinds],
        **(steps_of(kinds) if any(kind["run_id"] is not None for kind in kinds) else NO_STEPS),
    }


def steps_of(kinds: Sequence[Job]) -> dict[str, Any]:
    """Return what kinds have that are steps of a run, as columns."""
    return {
        "run_ids": [kind["run_id"] for kind in kinds],
        "step_keys": [kind["step_key"] for kind in kinds],
        "previous_ids": [kind["previous_job_id"] for kind in kinds],
    }


@settings(deadline=None)  # pytest's timeout bounds it
@given(claims, st.lists(st.tuples(int64, st.sampled_from(SESSIONS))))
def test_what_was_wanted_and_not_claimed_is_refused(jobs: list[Job], wanted: list[tuple[int, int]]) -> None:
    claimed = claimed_of(jobs)
    ids, sessions = [job_id for job_id, _ in wanted], [session for _, session in wanted]
    refused = [each for each in wanted if each[0] not in {job["id"] for job in jobs}]

    assert claimed.refused(ids, sessions) == ([each for each, _ in refused], [session for _, session in refused])


@pytest.mark.parametrize("column", COLUMNS.values())
@pytest.mark.parametrize("change", [lambda values: values[:1], lambda values: [*values, values[0]]])
def test_columns_of_different_lengths_are_refused(column: str, change: Callable[[list[Any]], list[Any]]) -> None:
    job = {"session_id": 1, "id": 1, "fence": 1, "token": 1, "type": "noop", "payload": b"", "attempt": 0}
    step = {"timeout_ms": 0, "grace_ms": 0, "run_id": 1, "step_key": "a", "previous_job_id": 1}
    columns = {plural: [{**job, **step}[name]] * 2 for name, plural in COLUMNS.items()}

    with pytest.raises(ValueError, match="values for"):
        Claimed({**columns, column: change(columns[column])})


assignments = st.lists(
    st.builds(
        pb.Assignment,
        attempt=attempts,
        type=st.sampled_from(["noop", "noop", "shell", "", "noop2"]) | text,
        payload=some_bytes,
        attempt_number=int32,
        timeout_ms=int64,
        grace_ms=int64,
        run_id=int64,
        step=text,
        has_previous_output=st.booleans(),
        previous_output=some_bytes,
    ),
    max_size=8,
)


@settings(deadline=None)  # pytest's timeout bounds it
@given(assignments, count, st.booleans(), unknown_fields, st.sampled_from(["", "noop", "shell"]))
def test_what_is_assigned_is_what_protobuf_reads(
    jobs: list[pb.Assignment], number: int, apart: bool, unknown: bytes, earlier: str
) -> None:
    # unknown fields stand anywhere, and of a field that comes twice the last one counts
    each = [field(2, unknown + field(2, earlier.encode()) + job.SerializeToString() + unknown) for job in jobs]
    message = field(3, b"".join([unknown, field(1, 77), *each, field(1, number)]))

    found = wire.assigned(message, apart=apart)

    assert found is not None
    read = pb.ServerMessage.FromString(message).assign
    noops = [job for job in read.jobs if apart and job.type == "noop"]
    assert found.number == read.number == number
    assert found.noops == [attempt_in(job.attempt) for job in noops]
    assert found.noop_count == len(noops)
    others = [pb.Assignment.FromString(other) for other in found.others]
    assert others == [job for job in read.jobs if not (apart and job.type == "noop")]


@pytest.mark.parametrize("kind", [each.name for each in pb.ServerMessage.DESCRIPTOR.fields if each.name != "assign"])
def test_another_message_assigns_nothing(kind: str) -> None:
    message = pb.ServerMessage()
    getattr(message, kind).SetInParent()

    assert wire.assigned(message.SerializeToString(), apart=True) is None
    assert wire.assigned(b"", apart=True) is None


@settings(deadline=None)  # pytest's timeout bounds it
@given(claims, st.lists(results, max_size=8), st.lists(st.tuples(int64, int64, int64)), st.data())
def test_attempts_are_a_set(jobs: list[Job], reported: list[pb.Result], others: list[Ref], data: st.DataObject) -> None:
    model: set[Ref] = set()
    found = Attempts()
    claimed = claimed_of(jobs)
    found.add(others)
    model.update(others)
    for session_id in claimed.session_ids:
        found.add_claimed(claimed, session_id)
        model.update(claimed.attempts(session_id))
    assert (len(found), set(found.all())) == (len(model), model)

    some = data.draw(st.lists(st.sampled_from(sorted(model)) if model else st.nothing()))
    assert found.remove([*some, *some]) == len(set(some))
    model.difference_update(some)
    assert all((attempt in found) == (attempt in model) for attempt in [*some, *others])

    ended = {attempt_in(result.attempt) for result in reported}
    found.add(list(ended)[::2])
    model.update(list(ended)[::2])
    for part in wire.results(1, pb.WorkerMessage(results=pb.Results(results=reported)).SerializeToString()) or ():
        assert found.remove_reported(part) == len(model & ended)
    model -= ended
    assert set(found.all()) == model


def assignment(job: Job) -> pb.Assignment:
    """Return what is sent of a claimed job."""
    return pb.Assignment(
        attempt=pb.AttemptRef(job_id=job["id"], fence=job["fence"], token=job["token"]),
        type=job["type"],
        payload=job["payload"],
        attempt_number=job["attempt"] + 1,
        timeout_ms=job["timeout_ms"],
        grace_ms=job["grace_ms"],
        run_id=job["run_id"] or 0,
        step=job["step_key"] or "",
        has_previous_output=job["previous_job_id"] is not None,
        previous_output=PREVIOUS.get(job["previous_job_id"], b""),
    )


def parts(jobs: list[Job], most_jobs: int, most_bytes: int) -> list[list[Job]]:
    """Return the jobs of a session message by message: each takes what fits, but one at least."""
    found: list[list[Job]] = [[]]
    size = 0
    for job in jobs:
        weight = len(job["payload"]) + len(PREVIOUS.get(job["previous_job_id"], b""))
        if found[-1] and (len(found[-1]) == most_jobs or size + weight > most_bytes):
            found.append([])
            size = 0
        found[-1].append(job)
        size += weight
    return found
