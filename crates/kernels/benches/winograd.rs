//! Winograd's two tiles against the direct sum, for the 3×3 layers of a U-Net of base 32 at 256×256, of DeepLabv3 and
//! PSPNet at 240×176, and for the small channel counts and images around the limits of the table that chooses between them.
//!
//! `FIREPROOF_ISA=avx2 cargo bench --bench winograd -- 'forward/64'` runs a part of it.

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use fireproof_kernels::conv2d::{
    Conv2dShape, PackedWeights, Winograd, forward, input_gradient, weight_gradient_within,
};
use fireproof_kernels::winograd::{Tile, TransformedWeights};
use fireproof_kernels::{Activation, Epilogue};
use std::time::Duration;

/// Input channels, output channels, rows and columns.
const LAYERS: [(usize, usize, [usize; 2]); 17] = [
    (32, 32, [256, 256]),
    (64, 32, [256, 256]),
    (64, 64, [128, 128]),
    (128, 64, [128, 128]),
    (128, 128, [64, 64]),
    (256, 128, [64, 64]),
    (256, 256, [32, 32]),
    (512, 512, [16, 16]),
    (256, 256, [30, 22]),
    (512, 512, [30, 22]),
    (256, 256, [45, 60]),
    (12, 12, [128, 128]),
    (16, 16, [128, 128]),
    (28, 28, [128, 128]),
    (256, 256, [12, 12]),
    (256, 256, [8, 8]),
    (4096, 512, [30, 22]),
];
const BATCH: usize = 2;
const LIMITS: [Winograd; 3] = [Winograd::Never, Winograd::F2, Winograd::F4];

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect()
}

fn group<'a>(c: &'a mut Criterion, pass: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(pass);
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(700));
    group
}

fn shapes() -> impl Iterator<Item = (Conv2dShape, String)> {
    LAYERS.into_iter().map(|(inputs, outputs, size)| {
        let shape = Conv2dShape::new(BATCH, inputs, outputs, size, [3, 3]).with_padding(1);
        (shape, format!("{inputs}x{outputs}@{}x{}", size[0], size[1]))
    })
}

fn passes(c: &mut Criterion) {
    for (shape, name) in shapes() {
        let (x, w, y) = (numbers(shape.input_len()), numbers(shape.weights_len()), numbers(shape.output_len()));
        let bias = numbers(shape.out_channels);
        let epilogue = Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Epilogue::default() };
        for limit in LIMITS {
            let weights = PackedWeights::new(&shape, &w).with_winograd(limit);
            let id = format!("{name}/{limit:?}");
            let mut out = vec![0.0; shape.output_len()];
            group(c, "forward").bench_function(&id, |b| b.iter(|| forward(&shape, &x, &weights, epilogue, &mut out)));
            let mut grad_in = vec![0.0; shape.input_len()];
            group(c, "input gradient")
                .bench_function(&id, |b| b.iter(|| input_gradient(&shape, &y, &weights, &mut grad_in)));
            let mut grad_weights = vec![0.0; shape.weights_len()];
            group(c, "weight gradient")
                .bench_function(&id, |b| b.iter(|| weight_gradient_within(limit, &shape, &x, &y, &mut grad_weights)));
        }
    }
}

fn transformed_weights(c: &mut Criterion) {
    for (shape, name) in shapes() {
        let w = numbers(shape.weights_len());
        for tile in [Tile::F2, Tile::F4] {
            let id = format!("{name}/{tile:?}");
            group(c, "weights").bench_function(&id, |b| {
                b.iter(|| TransformedWeights::new(tile, &w, shape.out_channels, shape.in_channels));
            });
        }
    }
}

criterion_group!(benches, passes, transformed_weights);
criterion_main!(benches);
