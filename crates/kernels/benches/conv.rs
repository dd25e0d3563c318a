//! The convolutions of U-Net (base 32, 2×256×256), ESPNet (2×176×240) and the dilated ResNet-50 of DeepLabv3 and PSPNet
//! (2×240×176): forward, input gradient and weight gradient of each layer, in floating-point operations per second (of the
//! direct sum, so Winograd may exceed the machine's peak).
//!
//! `cargo bench -p fireproof-kernels -- unet/` measures one network; `FIREPROOF_ISA` and `RAYON_NUM_THREADS` choose the
//! instruction set and the threads.

#![allow(missing_docs, reason = "criterion's macro makes a public function without documentation")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fireproof_kernels::Epilogue;
use fireproof_kernels::conv2d::{Conv2dShape, PackedWeights, forward, input_gradient, weight_gradient};
use std::sync::Arc;
use std::time::Duration;

fn layer(channels: [usize; 2], size: [usize; 2], kernel: usize, stride: usize, dilation: usize) -> Conv2dShape {
    let padding = if kernel % 2 == 1 { dilation * (kernel / 2) } else { 0 };
    let shape = Conv2dShape::new(2, channels[0], channels[1], size, [kernel; 2]).with_padding(padding);
    Conv2dShape { stride: [stride; 2], dilation: [dilation; 2], ..shape }.checked().expect("a layer of a network")
}

fn networks() -> Vec<(&'static str, Vec<Conv2dShape>)> {
    let mut unet = vec![layer([3, 32], [256; 2], 3, 1, 1)];
    for (level, width) in [32, 64, 128, 256, 512].into_iter().enumerate() {
        let size = [256 >> level; 2];
        if level > 0 {
            unet.push(layer([width / 2, width], size, 3, 1, 1));
        }
        unet.push(layer([width, width], size, 3, 1, 1));
        if level < 4 {
            unet.push(layer([2 * width, width], size, 3, 1, 1));
            // The convolution whose input gradient is the 2×2 transposed convolution up to this level.
            unet.push(layer([width, 2 * width], size, 2, 2, 1));
        }
    }
    unet.push(layer([32, 12], [256; 2], 1, 1, 1));

    let mut espnet = vec![layer([3, 16], [176, 240], 3, 2, 1), layer([19, 12], [88, 120], 3, 2, 1)];
    espnet.extend([1, 2, 4, 8, 16].map(|d| layer([12, if d == 1 { 16 } else { 12 }], [44, 60], 3, 1, d)));
    espnet.extend([layer([64, 12], [44, 60], 1, 1, 1), layer([131, 25], [44, 60], 3, 2, 1)]);
    espnet.extend([1, 2, 4, 8, 16].map(|d| layer([25, if d == 1 { 28 } else { 25 }], [22, 30], 3, 1, d)));
    espnet.push(layer([128, 25], [22, 30], 1, 1, 1));

    let mut resnet = vec![layer([3, 64], [240, 176], 7, 2, 1)];
    for (inputs, outputs) in [(64, 64), (64, 256), (256, 64)] {
        resnet.push(layer([inputs, outputs], [60, 44], 1, 1, 1));
    }
    resnet.extend([layer([64, 64], [60, 44], 3, 1, 1), layer([128, 128], [60, 44], 3, 2, 1)]);
    resnet.push(layer([256, 512], [60, 44], 1, 2, 1));
    for (inputs, outputs) in [(512, 128), (128, 512), (1024, 256), (256, 1024), (2048, 512), (512, 2048), (2048, 256)] {
        resnet.push(layer([inputs, outputs], [30, 22], 1, 1, 1));
    }
    for (channels, dilation) in [(128, 1), (256, 2), (512, 4)] {
        resnet.push(layer([channels; 2], [30, 22], 3, 1, dilation));
    }
    resnet.extend([12, 24, 36].map(|d| layer([2048, 256], [30, 22], 3, 1, d)));
    resnet.extend([[30, 22], [45, 60]].map(|size| layer([4096, 512], size, 3, 1, 1)));
    vec![("unet", unet), ("espnet", espnet), ("resnet50", resnet)]
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn convolutions(criterion: &mut Criterion) {
    for (network, layers) in networks() {
        let mut group = criterion.benchmark_group(network);
        group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(500));
        for shape in layers {
            let [kernel, stride, dilation] = [shape.kernel[0], shape.stride[0], shape.dilation[0]];
            let (inputs, outputs) = (shape.in_channels, shape.out_channels);
            let name = format!("{inputs}x{}x{}to{outputs}k{kernel}s{stride}d{dilation}", shape.height, shape.width);
            let (x, grad_out) = (numbers(shape.input_len()), numbers(shape.output_len()));
            let weights = PackedWeights::new(&shape, &numbers(shape.weights_len()));
            let mut out = vec![0.0; shape.output_len()];
            let mut grad_in = vec![0.0; shape.input_len()];
            let mut grad_weights = vec![0.0; shape.weights_len()];
            group.throughput(Throughput::Elements(shape.flops() as u64));
            group.bench_function(format!("{name}/forward"), |b| {
                b.iter(|| forward(&shape, &x, &weights, Epilogue::default(), &mut out));
            });
            group.bench_function(format!("{name}/input_gradient"), |b| {
                b.iter(|| input_gradient(&shape, &grad_out, &weights, &mut grad_in));
            });
            // As in training, where they change after every pass.
            let changing: Arc<[f32]> = weights.as_slice().into();
            let once = || PackedWeights::sharing(&shape, changing.clone()).used_once();
            group.bench_function(format!("{name}/forward, new weights"), |b| {
                b.iter(|| forward(&shape, &x, &once(), Epilogue::default(), &mut out));
            });
            group.bench_function(format!("{name}/input_gradient, new weights"), |b| {
                b.iter(|| input_gradient(&shape, &grad_out, &once(), &mut grad_in));
            });
            group.bench_function(format!("{name}/weight_gradient"), |b| {
                b.iter(|| weight_gradient(&shape, &x, &grad_out, &mut grad_weights));
            });
        }
    }
}

criterion_group!(benches, convolutions);
criterion_main!(benches);
