"""Healthy stories, played on a scene."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from orqestra.model.decision import Outcome
from orqestra.model.lifecycle import RunState, State
from orqestra.model.report import Reason
from tests.chaos.checker import Findings, check
from tests.chaos.evidence import Allowance
from tests.chaos.liveness import Bounds
from tests.chaos.scene import Scene


@dataclass(frozen=True)
class Story:
    """What happens in a scene that two workers are connected to, and what is known besides."""

    play: Callable[[Scene], None]
    allowance: Allowance = field(default_factory=Allowance)
    bounds: Bounds | None = None
    known: dict[str, Any] = field(default_factory=dict)

    def verdict(self) -> Findings:
        scene = Scene()
        scene.connect(1, "w1")
        scene.connect(2, "w2")
        self.play(scene)
        return check(scene.evidence(**self.known), self.allowance, self.bounds)


def one_job(scene: Scene) -> None:
    scene.submit()
    scene.run()


def failures_and_retries(scene: Scene) -> None:
    scene.submit(max_retries=1)
    for state in (State.RETRYING, State.FAILED):
        scene.claim()
        scene.tell("start")
        scene.tell("end")
        scene.settle(Outcome.FAILED, state)
    scene.revive()
    scene.run()


def lost_worker(scene: Scene) -> None:
    scene.submit()
    scene.claim(session_id=1)
    scene.tell("start")
    scene.close(1)
    scene.settle(Outcome.LOST, State.PENDING)
    scene.run(session_id=2)


def stopped_worker(scene: Scene) -> None:
    scene.submit()
    scene.claim(session_id=1)
    scene.tell("start")
    scene.close(1)
    scene.settle(Outcome.LOST, State.PENDING)
    scene.claim(session_id=2)
    scene.tell("start")
    scene.tell("overlap")
    scene.tell("end", fence=1)
    scene.tell("end")
    scene.settle(Outcome.COMPLETED, State.COMPLETED)


def never_delivered(scene: Scene) -> None:
    scene.submit()
    scene.claim(session_id=1)
    scene.settle(Outcome.RETURNED, State.PENDING, reason=Reason.NOT_DELIVERED)
    scene.run(session_id=2)


def resumed(scene: Scene) -> None:
    scene.submit()
    scene.claim(session_id=1)
    scene.tell("start")
    scene.close(1, "replaced")
    scene.connect(3, "w1")
    scene.update(1, session_id=3)
    scene.tell("end")
    scene.settle(Outcome.COMPLETED, State.COMPLETED)


def delayed_job(scene: Scene) -> None:
    scene.submit(available_at=scene.at(2.0001), delayed=True)
    scene.now += 3
    scene.run()


def cancelled_jobs(scene: Scene) -> None:
    scene.submit(1)
    scene.call("cancel", job_id=1)
    scene.update(1, state=State.CANCELLED, cancel_requested_at=scene.at(), finished_at=scene.at())
    scene.submit(2)
    scene.claim(2)
    scene.tell("start", 2)
    scene.ask_cancel(2)
    scene.settle(Outcome.FAILED, State.CANCELLED, 2, reason=Reason.CANCELLED)


def two_steps(scene: Scene) -> None:
    scene.trigger()
    scene.claim()
    scene.tell("start")
    scene.tell("end")
    scene.together().settle(Outcome.COMPLETED, State.COMPLETED)
    second_step(scene)
    scene.commit()
    scene.claim(2)
    scene.tell("start", 2)
    scene.tell("end", 2)
    scene.together().settle(Outcome.COMPLETED, State.COMPLETED, 2)
    end_run(scene, RunState.COMPLETED)
    scene.commit()


def second_step(scene: Scene, **columns: Any) -> None:
    step = {"idempotency_key": None, "run_id": 3, "step_key": "step-2", "previous_job_id": 1}
    scene.submit(2, call=False, **{**step, **columns})


def end_run(scene: Scene, state: RunState) -> None:
    scene.write("workflow_runs", 3, dict(scene.tables["workflow_runs"][3]), state=state)


def unknown_answer(scene: Scene) -> None:
    scene.call("submit", key="key-1", outcome="info")
    scene.submit(call=False)
    scene.run()
    scene.call("submit", key="key-2", outcome="info")
    scene.call("submit", key="key-3", outcome="fail")
