//! Our operations and Burn's own, in turn: `cargo bench -p fireproof-tensor --bench ops -- 'unet'`.

mod cases;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

fn operations(c: &mut Criterion) {
    fireproof_tensor::memory::keep_freed_memory();
    for case in cases::cases() {
        let mut group = c.benchmark_group(&case.name);
        group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
        group.bench_function("ours", |b| b.iter(&case.ours));
        group.bench_function("burn", |b| b.iter(&case.burns));
        group.finish();
    }
}

criterion_group!(benches, operations);
criterion_main!(benches);
