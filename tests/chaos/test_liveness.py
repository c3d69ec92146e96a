"""Bounds of time: what keeps them passes, what does not is named."""

from collections.abc import Callable
from typing import Any

import pytest

from orqestra.model.decision import Outcome
from orqestra.model.lifecycle import State
from orqestra.model.report import Reason
from tests.chaos.evidence import Sample, Stop
from tests.chaos.liveness import Bounds, Throughput, recovery_seconds
from tests.chaos.scene import BEGAN_AT, Scene
from tests.chaos.stories import Story, one_job


def job_at(seconds_until_start: float) -> Callable[[Scene], None]:
    def play(scene: Scene) -> None:
        scene.submit()
        scene.claim()
        scene.now += seconds_until_start
        scene.tell("start")
        scene.tell("end")
        scene.settle(Outcome.COMPLETED, State.COMPLETED)

    return play


def waits_for_a_slot(scene: Scene) -> None:
    for job_id in (1, 2, 3, 4):
        scene.submit(job_id)
        scene.claim(job_id, session_id=1 + job_id % 2)
        scene.tell("start", job_id)
    scene.submit(5)
    scene.now += 30
    for job_id in (1, 2, 3, 4):
        scene.tell("end", job_id)
        scene.settle(Outcome.COMPLETED, State.COMPLETED, job_id)
    scene.run(5)


def settled_after(seconds: float) -> Callable[[Scene], None]:
    def play(scene: Scene) -> None:
        scene.submit()
        scene.claim()
        scene.tell("start")
        scene.tell("end")
        scene.now += seconds
        scene.settle(Outcome.COMPLETED, State.COMPLETED)

    return play


def reconnects_after(seconds: float) -> Callable[[Scene], None]:
    def play(scene: Scene) -> None:
        scene.now += seconds
        scene.together().close(1, "replaced")
        scene.connect(3, "w1")
        scene.commit()
        one_job(scene)

    return play


def stays_away(scene: Scene) -> None:
    scene.close(1)
    scene.submit()
    scene.run(session_id=2)


def cancelled_after(seconds: float) -> Callable[[Scene], None]:
    def play(scene: Scene) -> None:
        scene.submit()
        scene.claim()
        scene.tell("start")
        scene.ask_cancel()
        scene.now += seconds
        scene.settle(Outcome.FAILED, State.CANCELLED, reason=Reason.CANCELLED)

    return play


def stop_of(kind: Any, seconds: float, *, kills: bool = False) -> Callable[[Scene], None]:
    def play(scene: Scene) -> None:
        scene.submit()
        scene.claim()
        scene.tell("start")
        scene.stops.append(Stop(name="it", kind=kind, asked_at=scene.now, ended_at=scene.now + seconds))
        if kills:
            scene.settle(Outcome.FAILED, State.FAILED, reason=Reason.SIGNALLED)
        else:
            scene.tell("end")
            scene.settle(Outcome.COMPLETED, State.COMPLETED)

    return play


def healed(after: float = 0.0, **promises: Any) -> Bounds:
    return Bounds(healed_at=BEGAN_AT + after, **promises)


def looks(*, overdue: int = 0, oldest: float | None = None) -> dict[str, Any]:
    return {"samples": (Sample(at=BEGAN_AT + 5, overdue_running=overdue, outbox_oldest_s=oldest),)}


BUSY = Throughput(jobs_per_second=1.0, after_seconds=0.0, seconds=1.0)
IN_TIME = {
    "L1": Story(job_at(0.5), bounds=healed(start_seconds=1)),
    "L1 and a heal": Story(job_at(5), bounds=healed(5.0, start_seconds=1)),
    "L1 and a slot": Story(waits_for_a_slot, bounds=healed(start_seconds=1)),
    "L1 and its share": Story(job_at(5), bounds=healed(start_seconds=1, start_share=0.0)),
    "L2, L3": Story(one_job, bounds=healed(), known=looks(oldest=1.9)),
    "outage": Story(one_job, bounds=healed(outage=((BEGAN_AT, BEGAN_AT + 9),)), known=looks(overdue=3, oldest=7.0)),
    "L4": Story(settled_after(5), bounds=healed(3.0, spool_seconds=3)),
    "L5": Story(reconnects_after(1), bounds=healed(0.1, reconnect_seconds=2)),
    "L6": Story(cancelled_after(2), bounds=healed(cancel_seconds=3)),
    "L7 server": Story(stop_of("server", 4), bounds=healed()),
    "L7 worker": Story(stop_of("worker", 9, kills=True), bounds=healed(worker_stop_seconds=10)),
    "L8": Story(one_job, bounds=healed(throughput=BUSY)),
}
LATE = [
    ("L1", Story(job_at(5), bounds=healed(start_seconds=1))),
    ("L2", Story(one_job, bounds=healed(), known=looks(overdue=1))),
    ("L3", Story(one_job, bounds=healed(), known=looks(oldest=2.5))),
    ("L4", Story(settled_after(5), bounds=healed(1.0, spool_seconds=3))),
    ("L5", Story(reconnects_after(3), bounds=healed(0.1, reconnect_seconds=2))),
    ("L5", Story(stays_away, bounds=healed(reconnect_seconds=2))),
    ("L6", Story(cancelled_after(4), bounds=healed(cancel_seconds=3))),
    ("L7", Story(stop_of("server", 6), bounds=healed())),
    ("L7", Story(stop_of("server", 1, kills=True), bounds=healed())),
    ("L7", Story(stop_of("worker", 11), bounds=healed(worker_stop_seconds=10))),
    ("L8", Story(one_job, bounds=healed(30.0, throughput=BUSY))),
]


@pytest.mark.parametrize("name", IN_TIME)
def test_what_goes_on_in_time_passes(name: str) -> None:
    findings = IN_TIME[name].verdict()

    assert findings.ok, str(findings)


@pytest.mark.parametrize(("promise", "story"), LATE, ids=[f"{name}-{number}" for number, (name, _) in enumerate(LATE)])
def test_what_is_late_is_rejected_and_named(promise: str, story: Story) -> None:
    findings = story.verdict()

    assert {violation.invariant for violation in findings.violations} == {promise}, str(findings)


def test_recovery_lasts_until_new_work_starts_and_the_victims_have_ended() -> None:
    scene = Scene()
    scene.connect(1, "w1")
    scene.connect(2, "w2")
    scene.submit(1)
    scene.claim(1)
    scene.tell("start", 1)
    fault_at = scene.now
    scene.submit(2)
    scene.run(2, session_id=2)
    new_work = next(line for line in scene.journal if line.job_id == 2)
    scene.now += 7
    scene.tell("end", 1)
    ended_at = scene.now
    scene.settle(Outcome.COMPLETED, State.COMPLETED, 1)
    evidence = scene.evidence()

    started_after = evidence.booted_at + new_work.uptime_s - fault_at
    assert recovery_seconds(evidence, fault_at) == pytest.approx(started_after, abs=1e-3)
    assert recovery_seconds(evidence, fault_at, victims=[1]) == pytest.approx(ended_at - fault_at, abs=1e-3)
    assert recovery_seconds(evidence, scene.now) is None
    assert recovery_seconds(evidence, fault_at, victims=[1, 9]) is None
