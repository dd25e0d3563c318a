//! Bilinear interpolation and its transpose, a unit for every pixel that is written.

use burn_cubecl::cubecl::{self, prelude::*};

/// The two source pixels of output pixel `i` on an axis of `from` pixels, and the weight of the second. `offset` is 0 where
/// the corners' centres coincide, else half a pixel.
#[cube]
fn source(i: usize, from: usize, scale: f32, offset: f32) -> (usize, usize, f32) {
    let position = (f32::cast_from(i) + offset) * scale - offset;
    let position = select(position < 0.0, 0.0, position);
    let low = usize::cast_from(position);
    let low = select(low > from - 1, from - 1, low);
    let high = select(low + 1 > from - 1, from - 1, low + 1);
    (low, high, position - f32::cast_from(low))
}

/// The weight of source pixel `at` in output pixel `i`.
#[cube]
fn share(i: usize, at: usize, from: usize, scale: f32, offset: f32) -> f32 {
    let (low, high, fraction) = source(i, from, scale, offset);
    select(low == at, 1.0 - fraction, 0.0) + select(high == at, fraction, 0.0)
}

/// A range of output pixels that holds all those which read source pixel `at`, and a few more for rounding.
#[cube]
fn readers(at: usize, from: usize, to: usize, scale: f32, offset: f32) -> (usize, usize) {
    let centre = f32::cast_from(at) + offset;
    let first = (centre - 1.0) / scale - offset - 1.0;
    let end = (centre + 1.0) / scale - offset + 3.0;
    // The whole axis where it shrinks to a point, and up to the edges for the pixels there.
    let first = select(scale == 0.0 || first < 0.0 || at == 0, 0.0, first);
    let last = f32::cast_from(to);
    let end = select(scale == 0.0 || end > last || at == from - 1, last, end);
    (usize::cast_from(first), usize::cast_from(end))
}

/// `x [N, C, h, w]` → `out [N, C, H, W]`, row major.
#[cube(launch)]
pub fn bilinear(x: &Tensor<f32>, out: &mut Tensor<f32>, scale_y: f32, scale_x: f32, offset: f32) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    let (height, width, channels) = (out.shape(2), out.shape(3), out.shape(1));
    let plane = at / (height * width);
    let base = plane / channels * x.stride(0) + plane % channels * x.stride(1);
    let (top, bottom, down) = source(at / width % height, x.shape(2), scale_y, offset);
    let (left, right, across) = source(at % width, x.shape(3), scale_x, offset);
    let (top, bottom) = (base + top * x.stride(2), base + bottom * x.stride(2));
    let (left, right) = (left * x.stride(3), right * x.stride(3));
    let upper = x[top + left] * (1.0 - across) + x[top + right] * across;
    let lower = x[bottom + left] * (1.0 - across) + x[bottom + right] * across;
    out[at] = upper * (1.0 - down) + lower * down;
}

/// The gradient at `x`, row major, for a gradient `grad [N, C, H, W]` at the result.
#[cube(launch)]
pub fn bilinear_backward(grad: &Tensor<f32>, out: &mut Tensor<f32>, scale_y: f32, scale_x: f32, offset: f32) {
    let at = ABSOLUTE_POS;
    if at >= out.len() {
        terminate!();
    }
    let (height, width, channels) = (out.shape(2), out.shape(3), out.shape(1));
    let plane = at / (height * width);
    let base = plane / channels * grad.stride(0) + plane % channels * grad.stride(1);
    let (row, column) = (at / width % height, at % width);
    let (top, bottom) = readers(row, height, grad.shape(2), scale_y, offset);
    let (left, right) = readers(column, width, grad.shape(3), scale_x, offset);
    let mut sum = 0.0f32;
    for i in top..bottom {
        let mut line = 0.0f32;
        for j in left..right {
            line += share(j, column, width, scale_x, offset) * grad[base + i * grad.stride(2) + j * grad.stride(3)];
        }
        sum += share(i, row, height, scale_y, offset) * line;
    }
    out[at] = sum;
}
