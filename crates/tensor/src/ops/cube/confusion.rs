//! Counts of label and predicted class. Integers, so the order of the atomic additions never matters.

use burn_cubecl::cubecl::{self, prelude::*};

/// `predicted` and `labels` are `[N, H, W]`, `valid` likewise with zero where a pixel does not count; `counts` is `[N, K, K + 1]`,
/// zero at first: pixels by label and prediction, the last column those predicted as another class than the `K`.
///
/// A unit follows `run` pixels of an image and adds neighbours with equal label and prediction at once.
#[cube(launch)]
pub fn confusion(
    predicted: &Tensor<i32>,
    labels: &Tensor<i32>,
    valid: &Tensor<f32>,
    counts: &Tensor<Atomic<i32>>,
    run: usize,
) {
    let (height, width) = (labels.shape(1), labels.shape(2));
    let pixels = height * width;
    let per_image = (pixels + run - 1) / run;
    let n = ABSOLUTE_POS / per_image;
    if n >= labels.shape(0) {
        terminate!();
    }
    let classes = counts.shape(1);
    let first = ABSOLUTE_POS % per_image * run;
    let end = select(first + run > pixels, pixels, first + run);
    let mut pending = 0i32;
    let mut slot = 0usize;
    for pixel in first..end {
        let (y, x) = (pixel / width, pixel % width);
        let label = labels[n * labels.stride(0) + y * labels.stride(1) + x * labels.stride(2)];
        let says = predicted[n * predicted.stride(0) + y * predicted.stride(1) + x * predicted.stride(2)];
        let counted = valid[n * valid.stride(0) + y * valid.stride(1) + x * valid.stride(2)];
        if counted != 0.0 && label >= 0 && usize::cast_from(label) < classes {
            let says = select(says < 0 || usize::cast_from(says) > classes, classes, usize::cast_from(says));
            let here = (n * classes + usize::cast_from(label)) * (classes + 1) + says;
            if here != slot && pending > 0 {
                counts[slot].fetch_add(pending);
                pending = 0;
            }
            slot = here;
            pending += 1;
        }
    }
    if pending > 0 {
        counts[slot].fetch_add(pending);
    }
}
