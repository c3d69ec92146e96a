//! The cost of a round of the dispatcher: demand, assign, finish. 2,000 sessions, 10,000 lanes.

#![expect(missing_docs, reason = "criterion_group! makes a public function")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use orqestra_dispatch::hint::Hint;
use orqestra_dispatch::matcher::Matcher;

const SESSIONS: i64 = 2_000;
const SLOTS: u32 = 8;
const QUEUES: i32 = 64;
const LANES: i32 = 10_000;
const BATCH: u64 = 1000;

fn rounds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("matcher");
    group.throughput(Throughput::Elements(BATCH));
    let hints = hints();

    group.bench_function("assign and release 1000", |bencher| {
        let mut matcher = matcher(1);
        bencher.iter(|| {
            let assigned = matcher.assign(0, black_box(&hints)).expect("well-formed");
            matcher.release(&assigned.sessions);
        });
    });

    for profiles in [1, 100, SESSIONS] {
        let mut matcher = matcher(profiles);
        let jobs = round(&mut matcher, &hints, 0);
        group.throughput(Throughput::Elements(jobs as u64));
        group.bench_function(format!("round of {jobs}, {profiles} profiles"), |bencher| {
            let mut now_ms = 0;
            bencher.iter(|| {
                now_ms += 1;
                round(&mut matcher, &hints, now_ms)
            });
        });
    }

    group.throughput(Throughput::Elements(1));
    group.bench_function(
        "demand of 2000 profiles, 1 lane of 10,000 may have something",
        |bencher| {
            let mut matcher = Matcher::new(false);
            add_lanes(&mut matcher);
            open_sessions(&mut matcher, 1, 1);
            matcher.demand(0, LANES as usize, LANES as usize);
            matcher.found_empty(&(1..LANES).collect::<Vec<_>>());
            matcher.close_session(0);
            open_sessions(&mut matcher, SESSIONS, SESSIONS);
            bencher.iter(|| matcher.demand(black_box(1), 64, 1000));
        },
    );
    group.finish();
}

/// Demand, assign and finish. Returns how many jobs that were.
fn round(matcher: &mut Matcher, hints: &[u8], now_ms: i64) -> usize {
    let mut rest = hints;
    for demand in matcher.demand(now_ms, 64, 1000) {
        let (now, later) = rest.split_at(demand.budget * 25);
        let assigned = matcher
            .assign(demand.profile, black_box(now))
            .expect("well-formed");
        matcher.finished(&assigned.sessions, now_ms);
        rest = later;
    }
    (hints.len() - rest.len()) / 25
}

fn matcher(profiles: i64) -> Matcher {
    let mut matcher = Matcher::new(false);
    add_lanes(&mut matcher);
    open_sessions(&mut matcher, SESSIONS, profiles);
    matcher
}

fn add_lanes(matcher: &mut Matcher) {
    for lane in 0..LANES {
        let queue = format!("queue-{}", lane % QUEUES);
        matcher.set_lane(lane, &queue, vec![]).expect("new");
    }
}

fn open_sessions(matcher: &mut Matcher, count: i64, profiles: i64) {
    let queues: Vec<_> = (0..QUEUES).map(|queue| format!("queue-{queue}")).collect();
    for session in 0..count {
        let label = format!("kind={}", session % profiles);
        matcher
            .open_session(session, SLOTS, queues.clone(), vec![label])
            .expect("new");
    }
}

fn hints() -> Vec<u8> {
    let mut packed = Vec::new();
    for id in 0..BATCH as i64 {
        let (lane, score) = (id as u32 % LANES as u32, 5);
        Hint { lane, score, id }.write(&mut packed);
    }
    packed
}

criterion_group!(benches, rounds);
criterion_main!(benches);
