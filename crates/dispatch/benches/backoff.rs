//! The cost of 1000 delays.

#![expect(missing_docs, reason = "criterion_group! makes a public function")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use orqestra_dispatch::backoff::{Columns, Jitter};

const BATCH: usize = 1000;

fn delays(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("backoff");
    group.throughput(Throughput::Elements(BATCH as u64));
    let attempts: Vec<_> = (1..=BATCH as i64).collect();
    group.bench_function("delays 1000", |bencher| {
        let columns = Columns {
            base_ms: &[1000; BATCH],
            factors: &[2.0; BATCH],
            cap_ms: &[300_000; BATCH],
            attempts: &attempts,
        };
        bencher.iter(|| black_box(columns).delays(&[Jitter::Full; BATCH], &attempts));
    });
    group.finish();
}

criterion_group!(benches, delays);
criterion_main!(benches);
