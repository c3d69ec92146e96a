"""The checker passes what is healthy, and rejects and names each single thing that is wrong."""

from typing import Any

import pytest

from tests.chaos.broken_places import (
    advances_outside,
    alive_after_its_cancel,
    another_session_ends_it,
    begins_anew_unasked,
    claimed_after_its_cancel,
    claimed_early,
    comes_without_a_hint,
    completes_in_spite_of_its_cancel,
    counts_a_lost_one,
    goes_back_without_a_hint,
    hint_in_another_lane,
    hint_of_no_job,
    keeps_other_bytes_of_a_failure,
    lost_too_often,
    moves_to_another_worker,
    run_completes_early,
    run_fails_with_a_live_step,
    session_changes_hands,
    session_lives_again,
    step_after_the_cancel_of_its_run,
    step_of_an_ended_run,
    step_twice,
    steps_out_of_order,
    stores_other_bytes,
    stores_too_few_bytes,
    too_many_at_once,
    too_many_attempts,
    too_many_claimed,
    two_open_sessions,
    waits,
)
from tests.chaos.broken_rows import (
    changes_after_its_end,
    claimed_while_it_runs,
    claims_without_a_fence,
    completes_before_its_end,
    completes_unstarted,
    completes_without_an_end,
    ends_twice,
    ends_with_another_fence,
    expires_too_early,
    fence_falls,
    is_born_late,
    key_with_two_ids,
    leaves_no_record,
    leaves_out_a_version,
    never_delivered_and_started,
    never_ends,
    nobody_asked,
    overlaps_alone,
    overlaps_without_expiry,
    record_with_another_token,
    refused_and_stored,
    result_of_the_one_before,
    run_never_ends,
    runs_on_after_its_result,
    starts_before_its_claim,
    starts_twice_with_one_fence,
    starts_unclaimed,
    starts_unknown_job,
    two_outcomes,
    unacknowledged_never_ends,
    vanishes,
)
from tests.chaos.checker import check
from tests.chaos.evidence import Allowance, Hints
from tests.chaos.scene import LANE, Scene
from tests.chaos.stories import (
    Story,
    cancelled_jobs,
    delayed_job,
    failures_and_retries,
    lost_worker,
    never_delivered,
    one_job,
    resumed,
    stopped_worker,
    two_steps,
    unknown_answer,
)

TWICE = Allowance(default=(1, 2))
OVERLAP = Allowance(default=(1, 2), overlap_after_expiry=True)


HEALTHY = {
    "one job": Story(one_job),
    "failures and retries": Story(failures_and_retries),
    "lost worker": Story(lost_worker, TWICE),
    "stopped worker": Story(stopped_worker, OVERLAP),
    "never delivered": Story(never_delivered),
    "resumed": Story(resumed),
    "delayed": Story(delayed_job),
    "cancelled": Story(cancelled_jobs),
    "two steps": Story(two_steps),
    "unknown answer": Story(unknown_answer),
    "stale hint in a lane that nobody serves": Story(one_job, known={"hints": Hints(ready={77: frozenset({1})})}),
    "allowed repair": Story(one_job, Allowance(repairs=frozenset({"r"})), known={"counters": {"r": 2, "s": 0}}),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_healthy_passes(name: str) -> None:
    findings = HEALTHY[name].verdict()

    assert findings.ok, str(findings)
    assert (findings.lost, findings.unexpected, findings.duplicate) == (0, 0, 0)


def all_hints(**fields: Any) -> dict[str, Hints]:
    given: dict[str, Any] = {"ready": {LANE: frozenset({1, 2})}, "delayed": frozenset({3}), **fields}
    return {"hints": Hints(**given)}


BROKEN = [
    ("I1", {"I1"}, Story(ends_twice)),
    ("I1", {"I1"}, Story(changes_after_its_end)),
    ("I1", {"I1"}, Story(is_born_late)),
    ("history", {"history", "I5"}, Story(leaves_out_a_version)),
    ("I2", {"I2"}, Story(never_ends, known={"hints": None})),
    ("I2", {"I2"}, Story(vanishes)),
    ("I2", {"I2", "I8"}, Story(run_never_ends)),
    ("I2", {"I2"}, Story(nobody_asked)),
    ("I2", {"I2"}, Story(refused_and_stored)),
    ("I2", {"I2", "I5"}, Story(starts_unknown_job)),
    ("I2", {"I2"}, Story(key_with_two_ids)),
    ("I2", {"I2"}, Story(unacknowledged_never_ends, known={"hints": None})),
    ("I3", {"I3", "I4"}, Story(ends_with_another_fence)),
    ("I3", {"I3"}, Story(record_with_another_token)),
    ("I3", {"I3", "I15"}, Story(result_of_the_one_before, OVERLAP)),
    ("I3", {"I3"}, Story(completes_without_an_end)),
    ("I3", {"I3"}, Story(completes_before_its_end)),
    ("I4", {"I4"}, Story(claims_without_a_fence)),
    ("I4", {"I3", "I4", "starts"}, Story(fence_falls)),
    ("I4", {"I4", "I6"}, Story(leaves_no_record)),
    ("I4", {"I4"}, Story(two_outcomes, TWICE)),
    ("I5", {"I5"}, Story(overlaps_without_expiry, OVERLAP)),
    ("I5", {"I5"}, Story(expires_too_early, OVERLAP)),
    ("I5", {"I5"}, Story(stopped_worker, TWICE)),
    ("I5", {"I4", "I5"}, Story(claimed_while_it_runs, OVERLAP)),
    ("I5", {"I5"}, Story(never_delivered_and_started, OVERLAP)),
    ("I5", {"I5"}, Story(runs_on_after_its_result, OVERLAP)),
    ("I5", {"I5"}, Story(starts_twice_with_one_fence, TWICE)),
    ("I5", {"I5"}, Story(starts_before_its_claim)),
    ("I5", {"I5"}, Story(starts_unclaimed, TWICE)),
    ("I5", {"I5"}, Story(overlaps_alone)),
    ("starts", {"starts"}, Story(lost_worker)),
    ("starts", {"starts", "I3"}, Story(completes_unstarted)),
    ("starts", {"starts"}, Story(one_job, Allowance(starts={1: (2, 2)}))),
    ("I6", {"I6"}, Story(too_many_attempts)),
    ("I6", {"I6"}, Story(lost_too_often)),
    ("I6", {"I6"}, Story(begins_anew_unasked)),
    ("I6", {"I6"}, Story(counts_a_lost_one)),
    ("I9", {"I9"}, Story(claimed_early)),
    ("I10", {"I10"}, Story(claimed_after_its_cancel)),
    ("I10", {"I10"}, Story(completes_in_spite_of_its_cancel)),
    ("I10", {"I10"}, Story(alive_after_its_cancel)),
    ("I10", {"I10"}, Story(step_after_the_cancel_of_its_run)),
    ("I7", {"I7", "I8"}, Story(advances_outside)),
    ("I7", {"I7"}, Story(steps_out_of_order)),
    ("I7", {"I7", "I8"}, Story(step_of_an_ended_run)),
    ("I7", {"I7"}, Story(step_twice)),
    ("I8", {"I8"}, Story(run_completes_early)),
    ("I8", {"I8"}, Story(run_fails_with_a_live_step)),
    ("I11", {"I11"}, Story(comes_without_a_hint)),
    ("I11", {"I11"}, Story(goes_back_without_a_hint)),
    ("I11", {"I11"}, Story(hint_in_another_lane)),
    ("I11", {"I11"}, Story(hint_of_no_job)),
    ("I12", {"I2", "I12"}, Story(waits, known=all_hints(ready={LANE: frozenset({2})}))),
    ("I12", {"I2", "I12"}, Story(waits, known=all_hints(delayed=frozenset()))),
    ("I12", {"I2", "I12"}, Story(waits, known=all_hints(ready={LANE: frozenset({1})}, partial=frozenset({LANE})))),
    ("I12", {"I2", "I12"}, Story(waits, known=all_hints(ready={LANE: frozenset({1, 2}), 6: frozenset({1})}))),
    ("I12", {"I12"}, Story(one_job, known={"hints": Hints(ready={LANE: frozenset({1})})})),
    ("I12", {"I12"}, Story(one_job, known={"hints": Hints(ready={}, strange_keys=frozenset({"x"}))})),
    ("I13", {"I13"}, Story(too_many_at_once)),
    ("I13", {"I13"}, Story(too_many_claimed, Allowance(prefetch=0))),
    ("I14", {"I14"}, Story(moves_to_another_worker)),
    ("I14", {"I14"}, Story(another_session_ends_it)),
    ("I14", {"I14"}, Story(two_open_sessions)),
    ("I14", {"I14"}, Story(session_changes_hands)),
    ("I14", {"I14"}, Story(session_lives_again)),
    ("I15", {"I15"}, Story(stores_other_bytes)),
    ("I15", {"I15"}, Story(stores_too_few_bytes)),
    ("I15", {"I15"}, Story(keeps_other_bytes_of_a_failure)),
    ("repairs", {"repairs"}, Story(one_job, Allowance(repairs=frozenset()), known={"counters": {"hint_missing": 1}})),
]


@pytest.mark.parametrize(("invariant", "named", "story"), BROKEN, ids=[each[2].play.__name__ for each in BROKEN])
def test_what_is_broken_is_rejected_and_named(invariant: str, named: set[str], story: Story) -> None:
    findings = story.verdict()

    assert not findings.ok
    assert invariant in named
    assert {violation.invariant for violation in findings.violations} == named, str(findings)


def test_every_invariant_has_something_that_breaks_it() -> None:
    assert {f"I{number}" for number in range(1, 16)} <= {invariant for invariant, _, _ in BROKEN}


def test_every_job_is_counted_in_the_words_of_the_field() -> None:
    scene = Scene()
    scene.connect(1, "w1")
    scene.connect(2, "w2")
    lost_worker(scene)  # job 1, two starts
    scene.submit(2)  # lost
    scene.submit(3, call=False)  # unexpected
    scene.call("submit", key="key-4", outcome="info")
    scene.submit(4, call=False)  # recovered
    for job_id in (3, 4):
        scene.run(job_id, session_id=2)

    findings = check(scene.evidence(hints=None), Allowance())

    assert (findings.acked, findings.lost, findings.unexpected, findings.recovered) == (2, 1, 1, 1)
    assert (findings.duplicate, findings.extra_starts) == (1, 1)


def test_a_violation_tells_the_whole_story_in_order() -> None:
    findings = Story(expires_too_early, OVERLAP).verdict()

    [violation] = findings.violations
    assert violation.subject == "job 1"
    story = ["pending -> running, fence 0 -> 1", "journal: start, fence 1", "inserted as lost", "journal: end, fence 2"]
    places = [violation.text.index(part) for part in story]
    assert places == sorted(places)
    assert "in the end: completed, fence 2, attempt 1, lost 1" in str(findings)
