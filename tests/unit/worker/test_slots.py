"""Who waits and who runs."""

from hypothesis import given
from hypothesis import strategies as st

from orqestra.model.report import AttemptRef
from orqestra.v1.worker_pb2 import Assignment
from orqestra.worker.slots import Slots


def ref(job_id: int) -> AttemptRef:
    return AttemptRef(job_id, 1, 1)


def waiting(slots: Slots, *job_ids: int, job_type: str = "shell") -> Slots:
    for job_id in job_ids:
        slots.wait(ref(job_id), Assignment(type=job_type))
    return slots


def occupied(slots: Slots) -> list[int]:
    return [each.attempt.job_id for _, each in slots.occupy()]


def test_free_slots_go_to_those_that_wait_longest() -> None:
    slots = waiting(Slots(2), 1, 2, 3, 4)

    assert occupied(slots) == [1, 2]
    assert occupied(slots) == []
    key = slots.key_of(ref(2))
    assert key is not None
    assert slots.vacate(key).attempt == ref(2)
    assert occupied(slots) == [3]
    assert [each.job_id for each in slots.waiting()] == [4]


def test_the_same_job_can_have_two_attempts_here() -> None:
    slots = waiting(Slots(2), 1)
    slots.wait(AttemptRef(1, 2, 1), Assignment(type="shell"))

    (first, _), (second, _) = slots.occupy()

    assert first != second
    assert slots.key_of(AttemptRef(1, 2, 1)) == second


def test_what_needs_no_slot_does_not_wait_for_one() -> None:
    slots = waiting(Slots(1), 1, 2)
    occupied(slots)
    waiting(slots, 3, job_type="noop")

    assert list(slots.take_effortless()) == [ref(3)]
    assert slots.take_effortless() == {}


def test_what_waits_can_be_taken_out() -> None:
    slots = waiting(Slots(1), 1, 2, 3)
    waiting(slots, 4, job_type="noop")
    occupied(slots)

    assert slots.withdraw(ref(1)) is None
    assert slots.withdraw(ref(2)) is not None
    assert ref(2) not in slots
    assert slots.withdraw_all() == [ref(4), ref(3)]
    assert [ref(1) in slots, ref(3) in slots] == [True, False]


def test_what_runs_already_has_a_slot_even_if_there_is_none() -> None:
    slots = waiting(Slots(2), 1, 2)
    for key, job_id in ((7, 3), (8, 4), (9, 5)):
        slots.adopt(key, ref(job_id), Assignment(type="shell"), ended=job_id == 5)

    assert occupied(slots) == []
    assert [(each.adopted, each.ended) for each in slots.running.values()] == [
        (True, False),
        (True, False),
        (True, True),
    ]
    assert slots.key_of(ref(4)) == 8
    assert slots.vacate(7).attempt == ref(3)
    assert occupied(slots) == []
    slots.vacate(8)
    assert occupied(slots) == [1]


@given(keys=st.lists(st.integers(0, 2**62 - 1000), unique=True, max_size=20))
def test_no_key_is_given_that_an_earlier_daemon_gave(keys: list[int]) -> None:
    slots = Slots(len(keys) + 3)
    for job_id, key in enumerate(keys, 100):
        slots.adopt(key, ref(job_id), Assignment(type="shell"), ended=False)

    given_now = [key for key, _ in waiting(slots, 1, 2, 3).occupy()]

    assert len({*keys, *given_now}) == len(keys) + 3
    assert given_now == sorted(given_now)
    assert min(given_now) > max(keys, default=0)
