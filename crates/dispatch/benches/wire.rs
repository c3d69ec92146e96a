//! The cost of the messages of 1000 jobs, in the order in which a job meets them.

#![expect(missing_docs, reason = "criterion_group! makes a public function")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use orqestra_dispatch::wire::assign::{self, Claimed, Columns};
use orqestra_dispatch::wire::attempt::Attempt;
use orqestra_dispatch::wire::owed::Owed;
use orqestra_dispatch::wire::results::{self, Successes};
use orqestra_dispatch::wire::{acks, jobs};

const BATCH: usize = 1000;
const FIRST_ID: i64 = 1_000_000;
const TOKEN: i64 = (1 << 62) + 1;
const SESSION: i64 = 7;
const JOBS: u32 = 2;
const SHAPE: &[u8] = b"\x0a\x05shell";
const PAYLOAD: &[u8] = b"{\"command\": \"true\"}";
const MOST_BYTES: usize = 4 << 20;

fn attempts() -> Vec<Attempt> {
    (FIRST_ID..)
        .take(BATCH)
        .map(|job_id| Attempt {
            job_id,
            fence: 1,
            token: TOKEN,
        })
        .collect()
}

fn claimed() -> Claimed<Vec<u8>> {
    let columns = Columns {
        sessions: vec![SESSION; BATCH],
        attempts: attempts(),
        types: vec!["shell".into(); BATCH],
        payloads: vec![PAYLOAD.to_vec(); BATCH],
        counted: vec![0; BATCH],
        timeouts_ms: vec![0; BATCH],
        graces_ms: vec![5000; BATCH],
        steps: vec![],
    };
    // Each column is made for BATCH jobs right here: a failure is a mistake of this file, and ends the benchmark.
    Claimed::new(columns).expect("all columns have one entry for each job")
}

fn owed() -> Owed {
    let mut owed = Owed::default();
    owed.add_noops(&attempts(), 5);
    owed
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Elements(BATCH as u64));

    let mut request = Vec::new();
    for _ in 0..BATCH {
        jobs::put(&mut request, JOBS, SHAPE, PAYLOAD, "");
    }
    group.bench_function("read 1000 jobs of a submit", |bencher| {
        bencher.iter(|| jobs::read(black_box(&request), JOBS));
    });

    let claimed = claimed();
    let encode = || claimed.encode(SESSION, |_| b"", (BATCH, MOST_BYTES));
    group.bench_function("write an Assign of 1000", |bencher| {
        bencher.iter(|| {
            encode()
                .into_iter()
                .map(|jobs| assign::message(3, &jobs))
                .collect::<Vec<_>>()
        });
    });
    let assigned = assign::message(3, &encode().into_iter().flatten().collect::<Vec<_>>());
    group.bench_function("read an Assign of 1000", |bencher| {
        bencher.iter(|| assign::read(black_box(&assigned), true));
    });

    group.bench_function("owe and send 1000 results", |bencher| {
        bencher.iter(|| owed().take(BATCH, MOST_BYTES));
    });
    // `owed` has just owed them.
    let reported = owed().take(BATCH, MOST_BYTES).expect("they are owed");
    group.bench_function("read 1000 results to columns", |bencher| {
        bencher.iter(|| {
            // What `take` has written is a message of results; handling an error here would be measured as well.
            let read = results::read(black_box(&reported)).expect("a message");
            Successes::of([read.expect("of results").as_slice()])
        });
    });

    let attempts = attempts();
    let answer = || {
        let mut parts = Vec::new();
        results::accept(&mut parts, &attempts);
        acks::message(&[parts])
    };
    group.bench_function("answer 1000 results", |bencher| bencher.iter(answer));
    let answer = answer();
    group.bench_function("acknowledge 1000 results", |bencher| {
        bencher.iter_batched_ref(
            || {
                let mut owed = owed();
                owed.take(BATCH, MOST_BYTES);
                owed
            },
            |owed| {
                // As above, of `acks::message`.
                let told = owed.acknowledge(black_box(&answer)).expect("a message");
                assert!(owed.is_empty(), "{told:?} were not owed");
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, messages);
criterion_main!(benches);
