//! The cost of encoding and draining 1000 hints.

#![expect(missing_docs, reason = "criterion_group! makes a public function")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use orqestra_dispatch::outbox::{self, Columns};

const BATCH: i64 = 1000;
const ROWS: usize = 10;
const LANES: i64 = 20;

fn encode_and_drain(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("outbox");
    group.throughput(Throughput::Elements(BATCH as u64));
    let ids: Vec<_> = (0..BATCH).collect();
    let lanes: Vec<_> = ids.iter().map(|id| id % LANES).collect();
    let priorities: Vec<_> = ids.iter().map(|id| id % 10).collect();
    let due_ms: Vec<_> = ids
        .iter()
        .map(|id| if id % 5 == 0 { 2_000 + id } else { 0 })
        .collect();
    let columns = Columns {
        ids: &ids,
        lanes: &lanes,
        priorities: &priorities,
        due_ms: &due_ms,
    };
    let entries = outbox::encode(columns).expect("in range");
    let rows: Vec<_> = entries.chunks(entries.len() / ROWS).collect();

    group.bench_function("encode 1000", |bencher| {
        bencher.iter(|| outbox::encode(black_box(columns)));
    });
    group.bench_function("drain 1000 of 10 rows", |bencher| {
        bencher.iter(|| outbox::drain(black_box(&rows), 1_000, 1000));
    });
    group.finish();
}

criterion_group!(benches, encode_and_drain);
criterion_main!(benches);
