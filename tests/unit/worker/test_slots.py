"""Who waits and who runs."""

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
