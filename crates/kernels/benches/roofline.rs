//! The two rates that bound a layer on this machine, and how near the 1×1 layers of a ResNet-50 come to the first:
//! multiply-adds in registers, a large product by the `gemm` crate and by our own 1×1 convolution, and a copy.
//!
//! `cargo bench -p fireproof-kernels --bench roofline` prints the fastest of many rounds; `RAYON_NUM_THREADS` chooses the
//! threads, `FIREPROOF_ISA` the instruction set. Noise only adds to a time, so that the fastest round is the machine's.

#![allow(missing_docs, reason = "a program")]

use fireproof_kernels::conv2d::{Conv2dShape, PackedWeights, forward, input_gradient, weight_gradient};
use fireproof_kernels::simd::{Isa, Kernel, Simd};
use fireproof_kernels::{Activation, Epilogue, parallel};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Seconds of the fastest round.
fn fastest(budget: Duration, mut work: impl FnMut()) -> f64 {
    work();
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    let mut rounds = 0;
    while rounds < 5 || start.elapsed() < budget {
        let round = Instant::now();
        work();
        best = best.min(round.elapsed().as_secs_f64());
        rounds += 1;
    }
    best
}

const BUDGET: Duration = Duration::from_millis(400);
const SUMS: usize = 12;

/// Independent sums in registers, more than a multiply-add takes cycles times units.
struct MultiplyAdds(usize);

impl Kernel for MultiplyAdds {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.zero(); SUMS];
        let factor = s.splat(black_box(0.999));
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = s.fma(*sum, factor, factor);
            }
        }
        let mut total = [0.0; fireproof_kernels::simd::MAX_LANES];
        for sum in sums {
            // SAFETY: the array has at least as many numbers as a vector.
            unsafe { s.store(total.as_mut_ptr(), s.add(sum, s.load(total.as_ptr()))) };
        }
        total.iter().sum()
    }
}

struct Lanes;

impl Kernel for Lanes {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        S::LANES
    }
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn product_of_gemm([m, k, n]: [usize; 3], threads: usize) -> f64 {
    let (a, b, mut c) = (numbers(m * k), numbers(k * n), vec![0.0f32; m * n]);
    let parallelism = if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
    let seconds = fastest(BUDGET, || {
        // SAFETY: three row-major matrices of these sizes.
        unsafe {
            let (ld_a, ld_b, ld_c) = (k as isize, n as isize, n as isize);
            let (to, a, b) = (c.as_mut_ptr(), a.as_ptr(), b.as_ptr());
            gemm::gemm(m, n, k, to, 1, ld_c, false, a, 1, ld_a, b, 1, ld_b, 0.0, 1.0, false, false, false, parallelism);
        }
    });
    2.0 * (m * k * n) as f64 / seconds / 1e9
}

/// Input channels, output channels, rows and columns, stride: the 1×1 layers at 240×176 and 360×480.
const LAYERS: [([usize; 2], [usize; 2], usize); 13] = [
    ([64, 64], [60, 44], 1),
    ([64, 256], [60, 44], 1),
    ([256, 64], [60, 44], 1),
    ([256, 128], [60, 44], 1),
    ([256, 512], [60, 44], 2),
    ([512, 128], [30, 22], 1),
    ([128, 512], [30, 22], 1),
    ([1024, 256], [30, 22], 1),
    ([256, 1024], [30, 22], 1),
    ([2048, 512], [30, 22], 1),
    ([512, 2048], [30, 22], 1),
    ([512, 2048], [45, 60], 1),
    ([2048, 512], [6, 6], 1),
];

fn main() {
    let (isa, threads) = (Isa::current(), rayon::current_num_threads());
    let lanes = isa.dispatch(Lanes);
    println!("{}, {threads} threads", isa.name());
    let steps = 2_000_000;
    let seconds = fastest(BUDGET, || {
        parallel::for_each(threads, |_| {
            black_box(isa.dispatch(MultiplyAdds(steps)));
        });
    });
    let peak = 2.0 * (threads * steps * SUMS * lanes) as f64 / seconds / 1e9;
    println!("multiply-adds in registers          {peak:7.1} GFLOP/s");
    for size in [[1024, 1024, 1024], [2048, 2048, 2048]] {
        println!("gemm {:22}         {:7.1} GFLOP/s", format!("{size:?}"), product_of_gemm(size, threads));
    }
    let (source, mut target) = (numbers(1 << 26), vec![0.0f32; 1 << 26]);
    let seconds = fastest(BUDGET, || {
        let half = source.len() / threads;
        parallel::for_each_chunk(&mut target, half, |i, to| to.copy_from_slice(&source[i * half..][..to.len()]));
    });
    println!("copy of 256 MiB, bytes read and written {:.1} GB/s", 2.0 * 4.0 * source.len() as f64 / seconds / 1e9);

    println!(
        "\n1×1 layers, batch 2, GFLOP/s (share of the first rate): forward, input gradient, weight gradient, gemm"
    );
    for ([inputs, outputs], size, stride) in LAYERS {
        let shape = Conv2dShape { stride: [stride; 2], ..Conv2dShape::new(2, inputs, outputs, size, [1, 1]) };
        let (x, grad_out) = (numbers(shape.input_len()), numbers(shape.output_len()));
        let weights = PackedWeights::new(&shape, &numbers(shape.weights_len()));
        let bias = numbers(outputs);
        let (mut out, mut grad_in) = (vec![0.0; shape.output_len()], vec![0.0; shape.input_len()]);
        let mut grad_weights = vec![0.0; shape.weights_len()];
        let epilogue = Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Epilogue::default() };
        let points = shape.out_height() * shape.out_width();
        let rates = [
            fastest(BUDGET, || forward(&shape, &x, &weights, epilogue, &mut out)),
            fastest(BUDGET, || input_gradient(&shape, &grad_out, &weights, &mut grad_in)),
            fastest(BUDGET, || weight_gradient(&shape, &x, &grad_out, &mut grad_weights)),
        ]
        .map(|seconds| shape.flops() / seconds / 1e9);
        let name = format!("{inputs}→{outputs} {}×{} stride {stride}", size[0], size[1]);
        print!("{name:30}");
        for rate in rates {
            print!(" {rate:6.1} ({:3.0} %)", 100.0 * rate / peak);
        }
        println!(" {:7.1}", product_of_gemm([outputs, inputs, points], threads));
    }
}
