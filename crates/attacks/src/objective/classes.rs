//! Picking classes out of logits.

use burn::tensor::{Int, Tensor};

/// One at the highest class of each pixel, zero elsewhere, `[N, K, H, W]`; the first of equals.
pub(crate) fn highest(logits: &Tensor<4>) -> Tensor<4> {
    let [n, classes, height, width] = logits.dims();
    let axis = Tensor::<1, Int>::arange(0..classes as i64, &logits.device()).reshape([1, classes, 1, 1]);
    let best = logits.clone().argmax(1).repeat_dim(1, classes);
    best.equal(axis.expand([n, classes, height, width])).float()
}

/// The logits without the classes that `map` `[N, K, H, W]` marks with a one.
pub(crate) fn without(logits: &Tensor<4>, map: &Tensor<4>) -> Tensor<4> {
    logits.clone().mask_fill(map.clone().equal_elem(1.0), f32::NEG_INFINITY)
}

/// `Σ_k logits_k · map_k` of each pixel, `[N, K, H, W]` twice → `[N, 1, H, W]`. The map is a constant of the gradient.
pub(crate) fn pick(logits: &Tensor<4>, map: Tensor<4>) -> Tensor<4> {
    (logits.clone() * Tensor::from_inner(map)).sum_dim(1)
}
