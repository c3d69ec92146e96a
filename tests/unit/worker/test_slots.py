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


def handed_over(slots: Slots) -> list[int]:
    return [each.attempt.job_id for _, each in slots.hand_over()]


def test_what_waits_is_handed_over_in_order() -> None:
    slots = waiting(Slots(2), 1, 2, 3)

    assert handed_over(slots) == [1, 2, 3]
    assert handed_over(slots) == []
    key = slots.key_of(ref(2))
    assert key is not None
    assert slots.vacate(key).attempt == ref(2)
    assert slots.key_of(ref(2)) is None
    waiting(slots, 4)
    assert [each.job_id for each in slots.waiting()] == [4]
    assert handed_over(slots) == [4]
    assert key not in slots.running


def test_the_same_job_can_have_two_attempts_here() -> None:
    slots = waiting(Slots(2), 1)
    slots.wait(AttemptRef(1, 2, 1), Assignment(type="shell"))

    (first, _), (second, _) = slots.hand_over()

    assert first != second
    assert slots.key_of(AttemptRef(1, 2, 1)) == second


def test_what_needs_no_slot_does_not_wait_for_one() -> None:
    slots = waiting(Slots(1), 1, 2)
    handed_over(slots)
    waiting(slots, 3, job_type="noop")

    assert list(slots.take_effortless()) == [ref(3)]
    assert slots.take_effortless() == {}


def test_what_waits_can_be_taken_out() -> None:
    slots = waiting(Slots(1), 1)
    handed_over(slots)
    waiting(slots, 2, 3)
    waiting(slots, 4, job_type="noop")

    assert slots.withdraw(ref(1)) is None
    assert slots.withdraw(ref(2)) is not None
    assert ref(2) not in slots
    assert slots.withdraw_all() == [ref(4), ref(3)]
    assert [ref(1) in slots, ref(3) in slots] == [True, False]


def test_what_an_earlier_daemon_handed_over_is_taken_over() -> None:
    slots = Slots(2)
    for key, job_id in ((7, 3), (8, 4), (9, 5)):
        slots.adopt(key, ref(job_id), Assignment(type="shell"), ended=job_id == 5)

    assert [each.ended for each in slots.running.values() if each.adopted] == [False, False, True]
    assert ref(4) in slots
    assert slots.key_of(ref(4)) == 8
    assert slots.vacate(8).attempt == ref(4)
    assert ref(4) not in slots


def test_what_is_stuck_is_named_until_it_has_ended() -> None:
    slots = waiting(Slots(2), 1, 2)
    keys = [key for key, _ in slots.hand_over()]
    assert slots.stuck == ""

    assert [slots.note_stuck(key) for key in (*keys, 7)] == [ref(1), ref(2), None]
    assert slots.stuck.endswith("of job 1, 2")
    slots.vacate(keys[0])
    assert slots.stuck.endswith("of job 2")
    slots.vacate(keys[1])
    assert slots.stuck == ""


@given(keys=st.lists(st.integers(0, 2**62 - 1000), unique=True, max_size=20))
def test_no_key_is_given_that_an_earlier_daemon_gave(keys: list[int]) -> None:
    slots = Slots(len(keys) + 3)
    for job_id, key in enumerate(keys, 100):
        slots.adopt(key, ref(job_id), Assignment(type="shell"), ended=False)

    given_now = [key for key, _ in waiting(slots, 1, 2, 3).hand_over()]

    assert len({*keys, *given_now}) == len(keys) + 3
    assert given_now == sorted(given_now)
    assert min(given_now) > max(keys, default=0)
