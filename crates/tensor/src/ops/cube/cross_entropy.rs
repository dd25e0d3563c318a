//! Cross-entropy of every pixel and its gradient, a unit for every pixel: the classes of a pixel are read by one unit, neighbouring
//! units read neighbouring numbers.

use burn_cubecl::cubecl::{self, prelude::*};

/// The place of a pixel's first class in `logits [N, K, H, W]`, for the pixel `at` of `[N, H, W]`.
#[cube]
fn first(logits: &Tensor<f32>, at: usize) -> usize {
    let (height, width) = (logits.shape(2), logits.shape(3));
    let n = at / (height * width);
    n * logits.stride(0) + at / width % height * logits.stride(2) + at % width * logits.stride(3)
}

/// The value of a `[N, H, W]` tensor at pixel `at`.
#[cube]
fn pixel<T: Numeric>(map: &Tensor<T>, at: usize) -> T {
    let (height, width) = (map.shape(1), map.shape(2));
    let n = at / (height * width);
    map[n * map.stride(0) + at / width % height * map.stride(1) + at % width * map.stride(2)]
}

/// The largest logit of a pixel, and the sum of the exponentials of the others' distances to it.
#[cube]
fn normaliser(logits: &Tensor<f32>, start: usize) -> (f32, f32) {
    let (classes, step) = (logits.shape(1), logits.stride(1));
    let mut largest = logits[start];
    for k in 1..classes {
        let z = logits[start + k * step];
        largest = select(z > largest, z, largest);
    }
    let mut sum = 0.0f32;
    for k in 0..classes {
        sum += (logits[start + k * step] - largest).exp();
    }
    (largest, sum)
}

/// `logits [N, K, H, W]` and `labels [N, H, W]` → `loss [N, H, W]`, zero where the label is no class of the logits.
#[cube(launch)]
pub fn loss(logits: &Tensor<f32>, labels: &Tensor<i32>, loss: &mut Tensor<f32>) {
    let at = ABSOLUTE_POS;
    if at >= loss.len() {
        terminate!();
    }
    let start = first(logits, at);
    let label = pixel::<i32>(labels, at);
    let mut value = 0.0f32;
    if label >= 0 && usize::cast_from(label) < logits.shape(1) {
        let (largest, sum) = normaliser(logits, start);
        value = sum.ln() + largest - logits[start + usize::cast_from(label) * logits.stride(1)];
    }
    loss[at] = value;
}

/// The same loss, and the gradient `out [N, K, H, W]` of the losses' sum weighted by `weights [N, H, W]`; both row major.
#[cube(launch)]
pub fn loss_and_gradient(
    logits: &Tensor<f32>,
    labels: &Tensor<i32>,
    weights: &Tensor<f32>,
    loss: &mut Tensor<f32>,
    out: &mut Tensor<f32>,
) {
    let at = ABSOLUTE_POS;
    if at >= loss.len() {
        terminate!();
    }
    let (classes, pixels) = (out.shape(1), out.shape(2) * out.shape(3));
    let (start, step) = (first(logits, at), logits.stride(1));
    let label = pixel::<i32>(labels, at);
    let known = label >= 0 && usize::cast_from(label) < classes;
    let class = select(known, usize::cast_from(label), 0);
    let weight = select(known, pixel::<f32>(weights, at), 0.0);
    let (largest, sum) = normaliser(logits, start);
    loss[at] = select(known, sum.ln() + largest - logits[start + class * step], 0.0);
    let into = at / pixels * classes * pixels + at % pixels;
    for k in 0..classes {
        let share = (logits[start + k * step] - largest).exp() / sum;
        let target = select(known && class == k, 1.0, 0.0);
        out[into + k * pixels] = weight * (share - target);
    }
}
