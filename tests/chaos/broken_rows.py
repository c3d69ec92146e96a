"""Stories with one thing wrong in the row of a job, or between a job and its commands: I1 to I5."""

from orqestra.model.decision import Outcome
from orqestra.model.lifecycle import State
from orqestra.model.report import Reason
from tests.chaos.scene import Scene
from tests.chaos.stories import lost_worker, never_delivered, one_job

# I1, I2


def ends_twice(scene: Scene) -> None:
    one_job(scene)
    scene.update(1, state=State.FAILED)


def changes_after_its_end(scene: Scene) -> None:
    one_job(scene)
    scene.update(1, reason=Reason.SIGNALLED)


def is_born_late(scene: Scene) -> None:
    scene.submit(fence=4)
    scene.run()


def leaves_out_a_version(scene: Scene) -> None:
    one_job(scene)
    del scene.history[3]


def never_ends(scene: Scene) -> None:
    scene.submit()


def vanishes(scene: Scene) -> None:
    one_job(scene)
    del scene.tables["jobs"][1]


def run_never_ends(scene: Scene) -> None:
    scene.trigger()
    scene.run()


def nobody_asked(scene: Scene) -> None:
    scene.submit(call=False)
    scene.run()


def refused_and_stored(scene: Scene) -> None:
    scene.call("submit", key="key-1", outcome="fail")
    scene.submit(call=False)
    scene.run()


def starts_unknown_job(scene: Scene) -> None:
    one_job(scene)
    scene.tell("start", 9)


def key_with_two_ids(scene: Scene) -> None:
    for job_id in (1, 2):
        scene.submit(job_id, idempotency_key="key-1")
        scene.run(job_id)


def unacknowledged_never_ends(scene: Scene) -> None:
    scene.call("submit", key="key-1", outcome="info")
    scene.submit(call=False)


# I3, I4


def ends_with_another_fence(scene: Scene) -> None:
    scene.submit()
    scene.claim()
    scene.tell("start")
    scene.tell("end")
    scene.settle(Outcome.COMPLETED, State.COMPLETED, token=1)


def record_with_another_token(scene: Scene) -> None:
    scene.submit()
    scene.claim()
    scene.tell("start")
    scene.tell("end")
    scene.settle(Outcome.FAILED, State.FAILED)
    version = scene.history[-1].changes[0]
    assert version.table == "attempts"
    assert isinstance(version.after, dict)
    version.after["token"] = 1


def result_of_the_one_before(scene: Scene) -> None:
    """What `no_fence` does: a stale result ends the attempt that runs now."""
    scene.submit()
    scene.claim(session_id=1)
    scene.tell("start")
    scene.close(1)
    scene.settle(Outcome.LOST, State.PENDING)
    scene.claim(session_id=2)
    scene.tell("end", fence=1)
    scene.tell("start")
    scene.tell("end")
    scene.settle(Outcome.COMPLETED, State.COMPLETED, stdout=b"1 1 1\n", output=b"1 1 1\n")


def completes_without_an_end(scene: Scene) -> None:
    scene.submit()
    scene.claim()
    scene.tell("start")
    scene.settle(Outcome.COMPLETED, State.COMPLETED)


def completes_before_its_end(scene: Scene) -> None:
    completes_without_an_end(scene)
    scene.tell("end")


def claims_without_a_fence(scene: Scene) -> None:
    scene.submit()
    scene.claim(fence=0)
    scene.tell("start")
    scene.tell("end")
    scene.settle(Outcome.COMPLETED, State.COMPLETED)


def fence_falls(scene: Scene) -> None:
    """What `attempt_as_fence` does when an operator retries."""
    scene.submit(max_retries=1)
    for state in (State.RETRYING, State.FAILED):
        scene.claim()
        scene.settle(Outcome.FAILED, state, reason=Reason.SPAWN_FAILED, stdout=b"")
    scene.revive()
    scene.claim(fence=1)
    scene.tell("start")
    scene.tell("end")
    scene.settle(Outcome.COMPLETED, State.COMPLETED)


def leaves_no_record(scene: Scene) -> None:
    never_delivered(scene)
    for number, transaction in enumerate(scene.history):
        kept = tuple(change for change in transaction.changes if change.table != "attempts")
        object.__setattr__(scene.history[number], "changes", kept)
    scene.tables["attempts"].clear()


def two_outcomes(scene: Scene) -> None:
    lost_worker(scene)
    [record] = scene.tables["attempts"].values()
    scene.tables["attempts"]["again"] = {**record}


# I5, starts


def overlaps_without_expiry(scene: Scene) -> None:
    scene.submit()
    scene.claim(session_id=1)
    scene.tell("start")
    scene.settle(Outcome.LOST, State.PENDING)
    scene.run(session_id=2)


def expires_too_early(scene: Scene) -> None:
    scene.submit()
    scene.claim(session_id=1)
    scene.tell("start")
    scene.close(1, early=True)
    scene.settle(Outcome.LOST, State.PENDING)
    scene.run(session_id=2)


def claimed_while_it_runs(scene: Scene) -> None:
    scene.submit()
    scene.claim(session_id=1)
    scene.tell("start")
    scene.claim(session_id=1)
    scene.tell("start")
    scene.tell("overlap")
    scene.tell("end")
    scene.settle(Outcome.COMPLETED, State.COMPLETED)


def never_delivered_and_started(scene: Scene) -> None:
    scene.submit()
    scene.claim(session_id=1)
    scene.tell("start")
    scene.settle(Outcome.RETURNED, State.PENDING, reason=Reason.NOT_DELIVERED)
    scene.run(session_id=2)


def runs_on_after_its_result(scene: Scene) -> None:
    scene.submit()
    scene.claim()
    scene.tell("start")
    scene.settle(Outcome.FAILED, State.RETRYING)
    scene.claim()
    scene.tell("start")
    scene.tell("end", fence=1)
    scene.tell("end")
    scene.settle(Outcome.COMPLETED, State.COMPLETED)


def starts_twice_with_one_fence(scene: Scene) -> None:
    scene.submit()
    scene.claim()
    scene.tell("start")
    scene.tell("start")
    scene.tell("end")
    scene.settle(Outcome.COMPLETED, State.COMPLETED)


def starts_before_its_claim(scene: Scene) -> None:
    scene.submit()
    scene.tell("start", fence=1)
    scene.claim()
    scene.tell("end")
    scene.settle(Outcome.COMPLETED, State.COMPLETED)


def starts_unclaimed(scene: Scene) -> None:
    one_job(scene)
    scene.tell("start", fence=7)


def overlaps_alone(scene: Scene) -> None:
    scene.submit()
    scene.claim()
    scene.tell("start")
    scene.tell("overlap")
    scene.tell("end")
    scene.settle(Outcome.COMPLETED, State.COMPLETED)


def completes_unstarted(scene: Scene) -> None:
    scene.submit()
    scene.claim()
    scene.settle(Outcome.COMPLETED, State.COMPLETED)
