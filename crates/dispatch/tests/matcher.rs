//! What the matcher promises, one promise a test. The whole of it is compared with a plain twin in
//! `tests/property/test_matcher.py`.

use orqestra_dispatch::hint::Hint;
use orqestra_dispatch::matcher::{
    Assignment, Matcher, PREFETCH_MAX, PREFETCH_STALE_MS, PREFETCH_TIMES, PREFETCH_WINDOW_MS,
};

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn hints(lane: u32, ids: std::ops::Range<i64>) -> Vec<u8> {
    let mut packed = Vec::new();
    for id in ids {
        Hint { lane, score: 5, id }.write(&mut packed);
    }
    packed
}

/// A matcher with lane 1 in queue `default`, and sessions 1, 2, ... with these slots.
fn matcher(slots: &[u32], pack: bool) -> Matcher {
    let mut matcher = Matcher::new(pack);
    matcher.set_lane(1, "default", vec![]).unwrap();
    for (session, slots) in (1..).zip(slots) {
        matcher
            .open_session(session, *slots, names(&["default"]), vec![])
            .unwrap();
    }
    matcher
}

fn assign(matcher: &mut Matcher, count: i64) -> Assignment {
    matcher.assign(0, &hints(1, 0..count)).unwrap()
}

#[test]
fn jobs_go_round_the_sessions_with_credit() {
    let mut matcher = matcher(&[1, 3, 2], false);
    let assigned = assign(&mut matcher, 8);
    assert_eq!(assigned.sessions, [1, 2, 3, 2, 3, 2]);
    assert_eq!(assigned.ids, [0, 1, 2, 3, 4, 5]);
    assert_eq!(assigned.leftover_from, 6 * 25);
}

#[test]
fn pack_fills_one_session_before_the_next() {
    let mut matcher = matcher(&[2, 2], true);
    let filled = assign(&mut matcher, 3).sessions;
    assert_eq!(filled[0], filled[1]);
    assert_ne!(filled[1], filled[2]);
}

#[test]
fn what_finished_lately_is_prefetched_until_the_window_has_passed() {
    let mut matcher = matcher(&[2], false);
    assign(&mut matcher, 2);
    matcher.finished(&[1], 1000);
    assert_eq!(matcher.free(1), 1 + PREFETCH_TIMES);
    matcher.demand(1000 + PREFETCH_WINDOW_MS - 1, 64, 1000);
    assert_eq!(matcher.free(1), 1 + PREFETCH_TIMES);
    matcher.demand(1000 + PREFETCH_WINDOW_MS, 64, 1000);
    assert_eq!(matcher.free(1), 1);
}

#[test]
fn the_window_stands_still_while_a_session_waits_for_work() {
    let mut matcher = matcher(&[2], false);
    assign(&mut matcher, 1);
    matcher.finished(&[1], 1000);
    matcher.demand(1000 + 5 * PREFETCH_WINDOW_MS, 64, 1000);
    assert_eq!(matcher.free(1), 2 + PREFETCH_TIMES);
    assign(&mut matcher, 1);
    matcher.demand(1000 + 6 * PREFETCH_WINDOW_MS - 1, 64, 1000);
    assert_eq!(matcher.free(1), 1 + PREFETCH_TIMES);
    matcher.demand(1000 + 6 * PREFETCH_WINDOW_MS, 64, 1000);
    assert_eq!(matcher.free(1), 1);
}

#[test]
fn what_finished_a_second_ago_does_not_count_though_nothing_came_since() {
    let mut matcher = matcher(&[2], false);
    assign(&mut matcher, 1);
    matcher.finished(&[1], 1000);
    matcher.demand(1000 + PREFETCH_STALE_MS - 1, 64, 1000);
    assert_eq!(matcher.free(1), 2 + PREFETCH_TIMES);
    matcher.demand(1000 + PREFETCH_STALE_MS, 64, 1000);
    assert_eq!(matcher.free(1), 2);
}

#[test]
fn prefetch_has_a_bound_and_a_draining_session_has_none() {
    let mut matcher = matcher(&[1000], false);
    assign(&mut matcher, 1000);
    matcher.finished(&vec![1; 1000], 0);
    assert_eq!(matcher.free(1), 1000 + PREFETCH_MAX);
    matcher.set_slots(1, 0);
    assert_eq!(matcher.free(1), 0);
    assert!(matcher.demand(0, 64, 1000).is_empty());
}

#[test]
fn a_released_job_gives_its_credit_back_and_counts_as_nothing() {
    let mut matcher = matcher(&[2], false);
    matcher.hold(1, 1);
    assert_eq!(assign(&mut matcher, 2).sessions, [1]);
    matcher.release(&[1]);
    assert_eq!(matcher.free(1), 1);
}

#[test]
fn empty_lanes_are_asked_again_only_after_a_wake() {
    let mut matcher = matcher(&[1], false);
    assert_eq!(matcher.demand(0, 64, 1000)[0].lanes, "1");
    matcher.found_empty(&[1]);
    assert!(matcher.demand(0, 64, 1000).is_empty());
    assert_eq!(matcher.wake(&[1, 99]), [99]);
    assert_eq!(matcher.demand(0, 64, 1000).len(), 1);
}

#[test]
fn a_wake_during_a_take_is_not_lost() {
    let mut matcher = matcher(&[1], false);
    matcher.demand(0, 64, 1000);
    matcher.wake(&[1]);
    matcher.found_empty(&[1]);
    assert_eq!(matcher.demand(0, 64, 1000).len(), 1);
}

#[test]
fn a_profile_serves_the_lanes_whose_labels_it_has() {
    let mut matcher = Matcher::new(false);
    matcher.set_lane(1, "a", names(&["os=linux"])).unwrap();
    matcher
        .open_session(1, 1, names(&["b", "a"]), names(&["zone=x", "os=linux"]))
        .unwrap();
    matcher
        .open_session(2, 1, names(&["a", "b"]), names(&["os=linux", "zone=x"]))
        .unwrap();
    matcher
        .set_lane(2, "a", names(&["os=linux", "gpu=1"]))
        .unwrap();
    matcher.set_lane(3, "b", vec![]).unwrap();
    matcher.set_lane(4, "c", vec![]).unwrap();
    let demands = matcher.demand(0, 64, 1000);
    assert_eq!(demands.len(), 1);
    assert_eq!(demands[0].budget, 2);
    let mut queues: Vec<_> = demands[0].lanes.split(';').collect();
    queues.sort_unstable();
    assert_eq!(queues, ["1", "3"]);
}

#[test]
fn two_queues_with_one_slot_take_turns() {
    let mut matcher = Matcher::new(false);
    matcher.set_lane(1, "a", vec![]).unwrap();
    matcher.set_lane(2, "b", vec![]).unwrap();
    matcher
        .open_session(1, 1, names(&["a", "idle", "b"]), vec![])
        .unwrap();
    let firsts: Vec<_> = (0..100)
        .map(|_| matcher.demand(0, 64, 1000)[0].lanes.clone())
        .collect();
    let first_a = firsts.iter().filter(|lanes| *lanes == "1;2").count();
    assert!((45..=55).contains(&first_a), "{first_a} of 100");
}

#[test]
fn profiles_share_what_there_is() {
    let mut matcher = matcher(&[900], false);
    matcher
        .open_session(2, 300, names(&["default"]), names(&["gpu=1"]))
        .unwrap();
    let budgets = |demands: Vec<orqestra_dispatch::matcher::Demand>| {
        let mut budgets: Vec<_> = demands.iter().map(|demand| demand.budget).collect();
        budgets.sort_unstable();
        budgets
    };
    assert_eq!(budgets(matcher.demand(0, 64, 1000)), [300, 700]);
    assert_eq!(budgets(matcher.demand(0, 64, 100)), [50, 50]);
    assert_eq!(budgets(matcher.demand(0, 1, 100)), [100]);
}

#[test]
fn hints_for_a_profile_that_closed_are_left_over() {
    let mut matcher = matcher(&[4], false);
    matcher.close_session(1);
    matcher
        .open_session(2, 4, names(&["default"]), vec![])
        .unwrap();
    let assigned = assign(&mut matcher, 3);
    assert!(assigned.ids.is_empty());
    assert_eq!(assigned.leftover_from, 0);
}

#[test]
fn a_malformed_hint_assigns_nothing() {
    let mut matcher = matcher(&[4], false);
    let mut packed = hints(1, 0..2);
    packed[30] = b'x';
    assert!(matcher.assign(0, &packed).is_err());
    assert_eq!(matcher.free(1), 4);
}

#[test]
fn contradictions_are_refused() {
    let mut matcher = matcher(&[1], false);
    assert!(matcher.set_lane(1, "default", vec![]).is_ok());
    assert!(matcher.set_lane(1, "other", vec![]).is_err());
    assert!(
        matcher
            .set_lane(1, "default", names(&["os=linux"]))
            .is_err()
    );
    assert!(matcher.open_session(1, 1, vec![], vec![]).is_err());
}
