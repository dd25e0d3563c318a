//! How the error of convolutions grows with depth: stacks of 3×3 layers with ReLU against double precision.
//!
//! `cargo test --release -p fireproof-kernels --test depth -- --nocapture` prints the table of docs/performance.md.

use fireproof_kernels::{
    Activation, Epilogue,
    conv2d::{Conv2dShape, PackedWeights, Winograd, forward, input_gradient},
};

const CHANNELS: usize = 32;
const SIDE: usize = 24;
const DEPTHS: [usize; 5] = [1, 5, 10, 20, 50];
const AREA: usize = SIDE * SIDE;

/// About normal numbers of this deviation, the same for a seed.
fn normal(seed: u64, count: usize, deviation: f64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1u32 << 31)
    };
    (0..count).map(|_| (deviation * ((0..12).map(|_| uniform()).sum::<f64>() - 6.0)) as f32).collect()
}

/// The rows of an output whose tap in row `offset` of the filter lies inside the image.
fn overlap(offset: usize) -> std::ops::Range<usize> {
    1usize.saturating_sub(offset)..(SIDE + 1 - offset).min(SIDE)
}

/// The sum over all taps with one pixel of padding; transposed, that of the input gradient.
fn convolve(from: &[f64], weights: &[f32], transposed: bool) -> Vec<f64> {
    let mut to = vec![0.0; CHANNELS * AREA];
    for (k, &weight) in weights.iter().enumerate() {
        let (o, c, i, j) = (k / 9 / CHANNELS, k / 9 % CHANNELS, k % 9 / 3, k % 3);
        let (into, out_of) = if transposed { (c, o) } else { (o, c) };
        let (i, j) = if transposed { (2 - i, 2 - j) } else { (i, j) };
        for y in overlap(i) {
            let row = (y + i - 1) * SIDE;
            for x in overlap(j) {
                to[into * AREA + y * SIDE + x] += f64::from(weight) * from[out_of * AREA + row + x + j - 1];
            }
        }
    }
    to
}

/// max|a − b| / max|b|.
fn error(found: &[f32], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(0.0f64, |most, value| most.max(value.abs()));
    found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max) / largest
}

#[test]
fn fifty_layers_of_winograd_stay_far_below_what_parity_allows() {
    let shape =
        Conv2dShape { padding: [[1, 1], [1, 1]], ..Conv2dShape::new(1, CHANNELS, CHANNELS, [SIDE, SIDE], [3, 3]) };
    let deepest = DEPTHS[DEPTHS.len() - 1];
    let layers: Vec<Vec<f32>> = (0..deepest as u64)
        .map(|seed| normal(seed + 1, CHANNELS * CHANNELS * 9, (2.0 / (9.0 * CHANNELS as f64)).sqrt()))
        .collect();
    let images = normal(0, CHANNELS * AREA, 1.0);
    let mut maps: Vec<Vec<f64>> = vec![images.iter().copied().map(f64::from).collect()];
    for weights in &layers {
        let next = convolve(maps.last().unwrap(), weights, false).into_iter().map(|value| value.max(0.0)).collect();
        maps.push(next);
    }
    // The gradient passes where the reference passes: what a ReLU near zero does is another question.
    let start = normal(1000, CHANNELS * AREA, 1.0);
    let gradients = DEPTHS.map(|depth| {
        let mut gradient: Vec<f64> = start.iter().copied().map(f64::from).collect();
        for layer in (0..depth).rev() {
            gradient.iter_mut().zip(&maps[layer + 1]).filter(|(_, map)| **map == 0.0).for_each(|(g, _)| *g = 0.0);
            gradient = convolve(&gradient, &layers[layer], true);
        }
        gradient
    });

    let mut found = Vec::new();
    for limit in [Winograd::Never, Winograd::F2, Winograd::F4] {
        let packed: Vec<PackedWeights> =
            layers.iter().map(|weights| PackedWeights::new(&shape, weights).with_winograd(limit)).collect();
        let mut outputs: Vec<Vec<f32>> = vec![images.clone()];
        for weights in &packed {
            let mut out = vec![0.0; CHANNELS * AREA];
            let epilogue = Epilogue { activation: Activation::Relu, ..Epilogue::default() };
            forward(&shape, outputs.last().unwrap(), weights, epilogue, &mut out);
            outputs.push(out);
        }
        for (depth, expected) in DEPTHS.into_iter().zip(&gradients) {
            let mut gradient = start.clone();
            for layer in (0..depth).rev() {
                gradient.iter_mut().zip(&maps[layer + 1]).filter(|(_, map)| **map == 0.0).for_each(|(g, _)| *g = 0.0);
                let mut out = vec![0.0; gradient.len()];
                input_gradient(&shape, &gradient, &packed[layer], &mut out);
                gradient = out;
            }
            found.push((limit, depth, error(&outputs[depth], &maps[depth]), error(&gradient, expected)));
        }
    }
    println!(
        "| layers | output: `never` | `f2` | `f4` | gradient: `never` | `f2` | `f4` |\n|--:|--:|--:|--:|--:|--:|--:|"
    );
    for (at, depth) in DEPTHS.into_iter().enumerate() {
        let of = |k: usize| found[k * DEPTHS.len() + at];
        let [outputs, gradients] = [[0, 1, 2].map(|k| of(k).2), [0, 1, 2].map(|k| of(k).3)];
        let cells: Vec<String> = outputs.iter().chain(&gradients).map(|error| format!("{error:.1e}")).collect();
        println!("| {depth} | {} |", cells.join(" | "));
    }
    for (limit, depth, output, gradient) in found {
        let allowed = if limit == Winograd::F4 { 2e-5 } else { 1e-5 };
        assert!(output < allowed && gradient < allowed, "{limit:?} after {depth} layers: {output:.1e}, {gradient:.1e}");
    }
}
