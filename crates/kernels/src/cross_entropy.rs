//! Per-pixel softmax cross-entropy over the class axis of NCHW logits, one pass each for the loss and for the gradient.

use crate::parallel::{self, Shared};
use crate::simd::Isa;
use crate::vectorized::vectorized;

/// The label of pixels without loss and without score.
pub const VOID: usize = 255;

/// Pixels that are worked on together: their statistics stay in L1.
const STRIP: usize = 256;
/// Strips of one job.
const STRIPS: usize = 8;

/// An integer that can name a class.
pub trait Label: Copy + Send + Sync {
    /// The class; numbers that name none become one that no network has.
    fn class(self) -> usize;
}

macro_rules! labels {
    ($($t:ty),*) => {$(
        impl Label for $t {
            fn class(self) -> usize {
                usize::try_from(self).unwrap_or(usize::MAX)
            }
        }
    )*};
}
labels!(u8, u16, u32, i32, i64);

/// The loss of every pixel, `log Σ exp z − z[label]`, and whether the largest logit (the first of equal ones) is the
/// label's. Void pixels have loss 0 and are not correct; a NaN among a pixel's logits makes its loss NaN.
///
/// `logits` are `[batch, classes, pixels]`, `labels` `[batch, pixels]` in `0..classes` or [`VOID`]; `loss` and `correct`
/// (1 or 0) are `[batch, pixels]` and overwritten.
///
/// ```
/// use fireproof_kernels::cross_entropy;
///
/// let (mut loss, mut correct) = ([0.0; 2], [0.0; 2]);
/// cross_entropy::forward(&[0.0, 1.0, 0.0, 3.0], 2, &[0u8, 255], 1, &mut loss, &mut correct);
/// assert!((loss[0] - 2f32.ln()).abs() < 1e-6 && loss[1] == 0.0);
/// assert_eq!(correct, [1.0, 0.0]);
/// ```
///
/// # Panics
/// If lengths disagree, or a label names no class.
pub fn forward<L: Label>(
    logits: &[f32],
    classes: usize,
    labels: &[L],
    batch: usize,
    loss: &mut [f32],
    correct: &mut [f32],
) {
    assert_eq!((loss.len(), correct.len()), (labels.len(), labels.len()), "losses, correct pixels and labels");
    let isa = Isa::current();
    let (loss, correct) = (Shared::new(loss), Shared::new(correct));
    for_each_strip(logits, classes, labels, batch, |strip| {
        let count = strip.labels.len();
        // SAFETY: strips do not overlap.
        let (loss, correct) = unsafe { (loss.slice(strip.pixel, count), correct.slice(strip.pixel, count)) };
        let mut best = Best::new();
        maximum(isa, strip.logits, strip.plane, classes, count, &mut best);
        let mut sum = [0.0; STRIP];
        sum_exp(isa, strip.logits, strip.plane, classes, &best.value[..count], &mut sum);
        for (i, label) in strip.labels.iter().enumerate() {
            let class = label.class();
            (loss[i], correct[i]) = if class == VOID {
                (0.0, 0.0)
            } else {
                let right = best.class[i] == class as u32 && !sum[i].is_nan();
                (sum[i].ln() + (best.value[i] - strip.logits[class * strip.plane + i]), f32::from(u8::from(right)))
            };
        }
    });
}

/// The gradient of `Σ weight · loss` at the logits, `weight · (softmax z − onehot(label))`, overwritten; zero at void
/// pixels. `weights` are `[batch, pixels]`.
///
/// # Panics
/// If lengths disagree, or a label names no class.
pub fn backward<L: Label>(
    logits: &[f32],
    classes: usize,
    labels: &[L],
    batch: usize,
    weights: &[f32],
    grad: &mut [f32],
) {
    assert_eq!(weights.len(), labels.len(), "weights and labels");
    assert_eq!(grad.len(), logits.len(), "logits and their gradient");
    let isa = Isa::current();
    let grad = Shared::new(grad);
    for_each_strip(logits, classes, labels, batch, |strip| {
        let count = strip.labels.len();
        let mut best = Best::new();
        maximum(isa, strip.logits, strip.plane, classes, count, &mut best);
        let mut sum = [0.0; STRIP];
        sum_exp(isa, strip.logits, strip.plane, classes, &best.value[..count], &mut sum);
        let mut factor = [0.0; STRIP];
        for (i, label) in strip.labels.iter().enumerate() {
            let weight = if label.class() == VOID { 0.0 } else { weights[strip.pixel + i] };
            factor[i] = weight / sum[i];
        }
        for class in 0..classes {
            let logits = &strip.logits[class * strip.plane..][..count];
            // SAFETY: strips do not overlap.
            let grad = unsafe { grad.slice(strip.first + class * strip.plane, count) };
            softmax(isa, logits, &best.value[..count], &factor[..count], grad);
        }
        for (i, label) in strip.labels.iter().enumerate() {
            let class = label.class();
            if class == VOID {
                for class in 0..classes {
                    // SAFETY: as above. Written again, because an overflowing sum or a NaN times zero is NaN.
                    unsafe { *grad.pointer(strip.first + class * strip.plane + i) = 0.0 };
                }
            } else {
                // SAFETY: as above, and the class is below `classes`.
                unsafe { *grad.pointer(strip.first + class * strip.plane + i) -= weights[strip.pixel + i] };
            }
        }
    });
}

/// Up to `STRIP` neighbouring pixels of one image.
struct Strip<'a, L> {
    /// From the first pixel's first logit to the last pixel's last one.
    logits: &'a [f32],
    labels: &'a [L],
    /// Pixels of an image.
    plane: usize,
    /// The place of the first pixel among the labels, and of its first logit among the logits.
    pixel: usize,
    first: usize,
}

fn for_each_strip<L: Label>(
    logits: &[f32],
    classes: usize,
    labels: &[L],
    batch: usize,
    work: impl Fn(Strip<'_, L>) + Sync + Send,
) {
    let plane = crate::reduce::plane_len(labels.len(), batch, 1);
    assert_eq!(
        logits.len(),
        batch * classes * plane,
        "logits of {batch} images of {plane} pixels and {classes} classes"
    );
    if let Some(i) = labels.iter().position(|l| l.class() >= classes && l.class() != VOID) {
        panic!("label {} of pixel {i}: expected one of {classes} classes or {VOID} for void", labels[i].class());
    }
    if classes == 0 {
        return;
    }
    let strips = plane.div_ceil(STRIP);
    let jobs = strips.div_ceil(STRIPS);
    parallel::for_each(batch * jobs, |job| {
        let (image, job) = (job / jobs, job % jobs);
        for strip in job * STRIPS..((job + 1) * STRIPS).min(strips) {
            let (from, to) = (strip * STRIP, ((strip + 1) * STRIP).min(plane));
            let first = image * classes * plane + from;
            let pixel = image * plane + from;
            let logits = &logits[first..first + (classes - 1) * plane + to - from];
            work(Strip { logits, labels: &labels[pixel..pixel + to - from], plane, pixel, first });
        }
    });
}

/// The largest logit of each pixel.
struct Best {
    value: [f32; STRIP],
    class: [u32; STRIP],
}

impl Best {
    fn new() -> Self {
        Best { value: [f32::NEG_INFINITY; STRIP], class: [0; STRIP] }
    }
}

vectorized! {
    fn maximum<'a>(logits: &'a [f32], plane: usize, classes: usize, count: usize, best: &'a mut Best) {
        for class in 0..classes {
            let row = &logits[class * plane..][..count];
            for ((z, value), at) in row.iter().zip(&mut best.value).zip(&mut best.class) {
                let larger = *z > *value;
                *value = if larger { *z } else { *value };
                *at = if larger { class as u32 } else { *at };
            }
        }
    }
}

vectorized! {
    fn sum_exp<'a>(logits: &'a [f32], plane: usize, classes: usize, best: &'a [f32], sum: &'a mut [f32; STRIP]) {
        for class in 0..classes {
            let row = &logits[class * plane..][..best.len()];
            for ((z, best), sum) in row.iter().zip(best).zip(&mut *sum) {
                *sum += exp(*z - *best);
            }
        }
    }
}

vectorized! {
    fn softmax<'a>(logits: &'a [f32], best: &'a [f32], factor: &'a [f32], grad: &'a mut [f32]) {
        for (((z, best), factor), grad) in logits.iter().zip(best).zip(factor).zip(grad) {
            *grad = exp(*z - *best) * *factor;
        }
    }
}

/// `eˣ` for `x <= 0` within 2 units in the last place, 10⁻³⁸ below -87; NaN stays NaN. Straight-line code, so that loops
/// over it vectorise, which calls of the standard function prevent.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // x = n ln 2 + r with |r| <= ln 2 / 2. Adding 1.5 · 2²³ rounds to an integer, which the low bits then hold; ln 2 is
    // taken off in two parts, the first short enough for exact products.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let series = 1.0 / 5040.0;
    let series = series * r + 1.0 / 720.0;
    let series = series * r + 1.0 / 120.0;
    let series = series * r + 1.0 / 24.0;
    let series = series * r + 1.0 / 6.0;
    let series = series * r + 0.5;
    let series = series * r + 1.0;
    let series = series * r + 1.0;
    series * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hash, numbers, relative_error};
    use proptest::prelude::*;

    #[test]
    fn the_exponential_is_accurate_and_keeps_nan() {
        let worst = (0..=870_000u32)
            .map(|i| -(i as f32) * 1e-4)
            .map(|x| (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs())
            .fold(0.0, f64::max);
        assert!(worst < 2.5e-7, "{worst}");
        assert!(exp(f32::NAN).is_nan() && exp(f32::NEG_INFINITY) < 1e-37 && exp(0.0) == 1.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn loss_and_gradient_agree_with_plain_loops(batch in 1..4usize, classes in 1..22usize, plane in 1..700usize, size in 0.1f32..40.0) {
            let logits: Vec<f32> = numbers(1, batch * classes * plane).iter().map(|z| z * size).collect();
            let labels: Vec<i64> = (0..batch * plane)
                .map(|i| match hash(2, i as u64) % (classes as u64 + 1) {
                    void if void == classes as u64 => 255,
                    class => class as i64,
                })
                .collect();
            let weights = numbers(3, batch * plane);
            let (mut want_loss, mut want_grad) = (vec![0.0f64; labels.len()], vec![0.0f64; logits.len()]);
            let mut want_correct = vec![0.0f32; labels.len()];
            for (i, &label) in labels.iter().enumerate().filter(|l| *l.1 != 255) {
                let at = |class: usize| i / plane * classes * plane + class * plane + i % plane;
                let z: Vec<f64> = (0..classes).map(|c| f64::from(logits[at(c)])).collect();
                let largest = z.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = z.iter().map(|z| (z - largest).exp()).sum();
                want_loss[i] = sum.ln() + largest - z[label as usize];
                want_correct[i] = f32::from(u8::from(z.iter().position(|&z| z == largest) == Some(label as usize)));
                for (c, z) in z.iter().enumerate() {
                    let onehot = f64::from(u8::from(c == label as usize));
                    want_grad[at(c)] = f64::from(weights[i]) * ((z - largest).exp() / sum - onehot);
                }
            }
            for isa in Isa::available() {
                let (mut loss, mut correct) = (vec![f32::NAN; labels.len()], vec![f32::NAN; labels.len()]);
                let mut grad = vec![f32::NAN; logits.len()];
                isa.force(|| {
                    forward(&logits, classes, &labels, batch, &mut loss, &mut correct);
                    backward(&logits, classes, &labels, batch, &weights, &mut grad);
                });
                prop_assert!(classes == 1 || relative_error(&loss, &want_loss) < 1e-6 || want_loss.iter().all(|&l| l == 0.0));
                prop_assert_eq!(&correct, &want_correct);
                prop_assert!(grad.iter().zip(&want_grad).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6));
            }
        }
    }

    #[test]
    fn a_nan_logit_shows_in_the_loss_and_the_gradient_but_not_at_void_pixels() {
        let logits = [f32::NAN, 1.0, f32::NAN, 0.0, 2.0, 0.0];
        let labels = [1u8, 1, 255];
        let (mut loss, mut correct, mut grad) = ([0.0; 3], [0.5; 3], [0.5; 6]);
        forward(&logits, 2, &labels, 1, &mut loss, &mut correct);
        backward(&logits, 2, &labels, 1, &[1.0; 3], &mut grad);
        assert!(loss[0].is_nan() && loss[1].is_finite() && loss[2] == 0.0);
        assert_eq!(correct, [0.0, 1.0, 0.0]);
        assert!(grad[0].is_nan() && grad[3].is_nan() && grad[2] == 0.0 && grad[5] == 0.0);
    }

    #[test]
    #[should_panic(expected = "label 7 of pixel 1: expected one of 2 classes or 255 for void")]
    fn a_label_without_a_class_is_refused() {
        forward(&[0.0; 4], 2, &[0u8, 7], 1, &mut [0.0; 2], &mut [0.0; 2]);
    }
}
