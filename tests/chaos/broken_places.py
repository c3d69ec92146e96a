"""Stories with one thing wrong in counts, cancels, transactions, places and bytes: I6 to I15."""

from orqestra.model.decision import Outcome
from orqestra.model.lifecycle import RunState, State
from orqestra.model.limits import LOST_MAX
from orqestra.model.report import Reason
from tests.chaos.scene import LANE, Scene
from tests.chaos.stories import cancelled_jobs, end_run, failures_and_retries, one_job, second_step, two_steps

# I6, I9, I10


def too_many_attempts(scene: Scene) -> None:
    scene.submit(max_retries=0)
    for state in (State.RETRYING, State.FAILED):
        scene.claim()
        scene.tell("start")
        scene.tell("end")
        scene.settle(Outcome.FAILED, state)


def lost_too_often(scene: Scene) -> None:
    scene.submit(lost_count=LOST_MAX)
    scene.claim()
    scene.close()
    scene.settle(Outcome.LOST, State.PENDING)
    scene.run(session_id=2)


def begins_anew_unasked(scene: Scene) -> None:
    scene.submit(max_retries=0)
    scene.claim()
    scene.tell("start")
    scene.tell("end")
    scene.settle(Outcome.FAILED, State.FAILED)
    scene.revive(call=False)
    scene.run()


def counts_a_lost_one(scene: Scene) -> None:
    scene.submit()
    scene.claim()
    scene.close()
    scene.settle(Outcome.LOST, State.PENDING, attempt=1)
    scene.run(session_id=2)


def claimed_early(scene: Scene) -> None:
    scene.submit(available_at=scene.at(60), delayed=True)
    scene.claim(started_at=scene.at(61))
    scene.tell("start")
    scene.tell("end")
    scene.settle(Outcome.COMPLETED, State.COMPLETED)


def claimed_after_its_cancel(scene: Scene) -> None:
    scene.submit()
    scene.ask_cancel()
    scene.claim()
    scene.settle(Outcome.RETURNED, State.CANCELLED)


def completes_in_spite_of_its_cancel(scene: Scene) -> None:
    scene.submit()
    scene.claim()
    scene.tell("start")
    scene.ask_cancel()
    scene.tell("end")
    scene.settle(Outcome.COMPLETED, State.COMPLETED)


def alive_after_its_cancel(scene: Scene) -> None:
    cancelled_jobs(scene)
    scene.tell("end", 2)


# I7, I8, I11


def advances_outside(scene: Scene) -> None:
    """What `advance_outside_tx` does: the next step comes in a commit of its own."""
    scene.trigger()
    scene.run()
    second_step(scene)
    scene.claim(2)
    scene.tell("start", 2)
    scene.tell("end", 2)
    scene.together().settle(Outcome.COMPLETED, State.COMPLETED, 2)
    end_run(scene, RunState.COMPLETED)
    scene.commit()


def steps_out_of_order(scene: Scene) -> None:
    scene.trigger()
    scene.together()
    second_step(scene)
    scene.commit()
    scene.run(1)
    scene.claim(2)
    scene.tell("start", 2)
    scene.tell("end", 2)
    scene.together().settle(Outcome.COMPLETED, State.COMPLETED, 2)
    end_run(scene, RunState.COMPLETED)
    scene.commit()


def step_of_an_ended_run(scene: Scene) -> None:
    two_steps(scene)
    scene.submit(4, call=False, idempotency_key=None, run_id=3, step_key="step-3")
    scene.run(4)
    scene.tables["workflow_runs"][3]["definition"] = '{"steps": [1, 2, 3]}'


def step_twice(scene: Scene) -> None:
    scene.trigger(steps=2)
    scene.submit(2, call=False, idempotency_key=None, run_id=3, step_key="step-1")
    scene.run(2)
    scene.claim()
    scene.tell("start")
    scene.tell("end")
    scene.together().settle(Outcome.COMPLETED, State.COMPLETED)
    end_run(scene, RunState.COMPLETED)
    scene.commit()


def step_after_the_cancel_of_its_run(scene: Scene) -> None:
    scene.trigger()
    scene.write("workflow_runs", 3, dict(scene.tables["workflow_runs"][3]), cancel_requested_at=scene.at())
    scene.claim()
    scene.tell("start")
    scene.tell("end")
    scene.together().settle(Outcome.COMPLETED, State.COMPLETED)
    second_step(scene)
    scene.commit()
    scene.together().update(2, state=State.CANCELLED, cancel_requested_at=scene.at())
    end_run(scene, RunState.CANCELLED)
    scene.commit()


def run_completes_early(scene: Scene) -> None:
    scene.trigger()
    scene.claim()
    scene.tell("start")
    scene.tell("end")
    scene.together().settle(Outcome.COMPLETED, State.COMPLETED)
    end_run(scene, RunState.COMPLETED)
    scene.commit()


def run_fails_with_a_live_step(scene: Scene) -> None:
    scene.trigger(steps=1)
    end_run(scene, RunState.FAILED)
    scene.run()


def comes_without_a_hint(scene: Scene) -> None:
    scene.submit(hint=False)
    scene.run()


def goes_back_without_a_hint(scene: Scene) -> None:
    scene.submit()
    scene.claim()
    scene.settle(Outcome.RETURNED, State.PENDING, reason=Reason.NOT_DELIVERED, hint=False)
    scene.run()


def hint_in_another_lane(scene: Scene) -> None:
    scene.submit(lane_id=LANE + 1)
    scene.run()


def hint_of_no_job(scene: Scene) -> None:
    scene.together().submit()
    scene.hint(8)
    scene.commit()
    scene.run()


# I12, I13, I14, I15


def waits(scene: Scene) -> None:
    scene.submit(1)
    scene.submit(2, priority=9)
    scene.submit(3, available_at=scene.at(1), delayed=True)


def too_many_at_once(scene: Scene) -> None:
    for job_id in (1, 2, 3):
        scene.submit(job_id)
        scene.claim(job_id)
        scene.tell("start", job_id)
    for job_id in (1, 2, 3):
        scene.tell("end", job_id)
        scene.settle(Outcome.COMPLETED, State.COMPLETED, job_id)


def too_many_claimed(scene: Scene) -> None:
    for job_id in (1, 2, 3):
        scene.submit(job_id)
        scene.claim(job_id)
    for job_id in (1, 2, 3):
        scene.tell("start", job_id)
        scene.tell("end", job_id)
        scene.settle(Outcome.COMPLETED, State.COMPLETED, job_id)


def moves_to_another_worker(scene: Scene) -> None:
    scene.submit()
    scene.claim(session_id=1)
    scene.update(1, session_id=2, worker_id="w2")
    scene.tell("start")
    scene.tell("end")
    scene.settle(Outcome.COMPLETED, State.COMPLETED)


def another_session_ends_it(scene: Scene) -> None:
    scene.submit()
    scene.claim(session_id=1)
    scene.tell("start")
    scene.tell("end")
    scene.settle(Outcome.COMPLETED, State.COMPLETED, session_id=2)


def two_open_sessions(scene: Scene) -> None:
    one_job(scene)
    scene.connect(3, "w1")


def session_changes_hands(scene: Scene) -> None:
    one_job(scene)
    scene.write("sessions", 2, dict(scene.tables["sessions"][2]), worker_id="w9")
    scene.together().commit()


def session_lives_again(scene: Scene) -> None:
    one_job(scene)
    scene.close(2)
    scene.write("sessions", 2, dict(scene.tables["sessions"][2]), closed_at=None, closed_reason=None)
    scene.together().commit()


def stores_other_bytes(scene: Scene) -> None:
    one_job(scene)
    scene.tables["jobs"][1].update(output=b"1 1 1?")


def stores_too_few_bytes(scene: Scene) -> None:
    one_job(scene)
    scene.tables["jobs"][1].update(stdout_bytes=4000)


def keeps_other_bytes_of_a_failure(scene: Scene) -> None:
    failures_and_retries(scene)
    scene.tables["attempts"][1, 2].update(output=b"1 9 2\n")
