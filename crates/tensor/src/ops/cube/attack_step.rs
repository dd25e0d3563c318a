//! One step of a sign attack: move, project, clamp, a unit for every number.

use burn_cubecl::cubecl::{self, prelude::*};

/// `current`, `direction`, `clean` are `[N, C, H, W]`, `steps` and `epsilons` `[N]`; `out` is row major. A direction that is
/// not a number gives none, so that it is noticed.
#[cube(launch)]
pub fn sign_step(
    current: &Tensor<f32>,
    direction: &Tensor<f32>,
    clean: &Tensor<f32>,
    steps: &Tensor<f32>,
    epsilons: &Tensor<f32>,
    out: &mut Tensor<f32>,
    low: f32,
    high: f32,
) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    let (channels, height, width) = (out.shape(1), out.shape(2), out.shape(3));
    let (x, y, plane) = (at % width, at / width % height, at / (width * height));
    let (n, c) = (plane / channels, plane % channels);
    let g = direction
        [n * direction.stride(0) + c * direction.stride(1) + y * direction.stride(2) + x * direction.stride(3)];
    let from = current[n * current.stride(0) + c * current.stride(1) + y * current.stride(2) + x * current.stride(3)];
    let around = clean[n * clean.stride(0) + c * clean.stride(1) + y * clean.stride(2) + x * clean.stride(3)];
    let sign = select(g > 0.0, 1.0, select(g < 0.0, -1.0, 0.0 * g));
    let moved = from + steps[n * steps.stride(0)] * sign;
    let epsilon = epsilons[n * epsilons.stride(0)];
    let moved = select(moved < around - epsilon, around - epsilon, moved);
    let moved = select(moved > around + epsilon, around + epsilon, moved);
    let moved = select(moved < low, low, moved);
    out[at] = select(moved > high, high, moved);
}
