//! Per-pixel softmax cross-entropy over the class axis of NCHW logits, and what attacks ask of the same logits: which
//! pixels are correct, and how well the prediction is aligned with the label.

use crate::parallel::{self, Shared};
use crate::reduce::Sum;
use crate::simd::{Isa, Kernel, Simd};

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

/// The loss of every pixel, `log Σ exp z − z[label]`. Void pixels and those of a class that the logits do not have have
/// loss 0; a NaN among a pixel's logits makes its loss NaN.
///
/// `logits` are `[batch, classes, pixels]`, `labels` and `loss` (overwritten) `[batch, pixels]`.
///
/// ```
/// use fireproof_kernels::cross_entropy;
///
/// let mut loss = [0.0; 2];
/// cross_entropy::forward(&[0.0, 1.0, 0.0, 3.0], 2, &[0u8, 255], 1, &mut loss);
/// assert!((loss[0] - 2f32.ln()).abs() < 1e-6 && loss[1] == 0.0);
/// ```
///
/// # Panics
/// If lengths disagree.
pub fn forward<L: Label>(logits: &[f32], classes: usize, labels: &[L], batch: usize, loss: &mut [f32]) {
    assert_eq!(loss.len(), labels.len(), "losses and labels");
    let isa = Isa::current();
    let loss = Shared::new(loss);
    for_each_strip(logits, classes, labels, batch, |strip| {
        // SAFETY: strips do not overlap.
        let loss = unsafe { loss.slice(strip.pixel, strip.labels.len()) };
        isa.dispatch(Forward { strip, loss });
    });
}

/// [`forward`] of one strip.
struct Forward<'a, L> {
    strip: Strip<'a, L>,
    loss: &'a mut [f32],
}

impl<L: Label> Kernel for Forward<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { strip, loss } = self;
        let count = loss.len();
        let Largest { own, best, of_label } = &strip.largest_and_own();
        let (own, best, of_label) = (&own[..count], &best[..count], &of_label[..count]);
        let sum = &strip.sum(best, |e| e)[..count];
        let statistics = own.iter().zip(best).zip(of_label).zip(sum);
        for (loss, (((own, best), of_label), sum)) in loss.iter_mut().zip(statistics) {
            let value = ln(*sum) + (*best - *of_label);
            *loss = if *own == NO_CLASS { 0.0 } else { value };
        }
    }
}

/// The gradient of `Σ weight · loss` at the logits, `weight · (softmax z − onehot(label))`, overwritten; zero where
/// [`forward`]'s loss is always 0. `weights` are `[batch, pixels]`.
///
/// # Panics
/// If lengths disagree.
pub fn backward<L: Label>(
    logits: &[f32],
    classes: usize,
    labels: &[L],
    batch: usize,
    weights: &[f32],
    grad: &mut [f32],
) {
    let (mut weighted, mut plain) = (vec![0.0; batch], vec![0.0; batch]);
    evaluate(logits, classes, labels, batch, Some(weights), &mut weighted, &mut plain, grad);
}

/// Loss and gradient in one pass over the logits: for each image `Σ weight · loss` into `weighted` and `Σ loss` into
/// `plain`, `[batch]` each, and the gradient of `Σ weighted` at the logits into `grad`, as [`forward`] and [`backward`]
/// define them. Without `weights` `[batch, pixels]` all are one. All outputs are overwritten.
///
/// ```
/// use fireproof_kernels::cross_entropy;
///
/// let (mut weighted, mut plain, mut grad) = ([0.0], [0.0], [0.0; 2]);
/// cross_entropy::evaluate(&[1.0, 1.0], 2, &[0u8], 1, Some(&[3.0]), &mut weighted, &mut plain, &mut grad);
/// assert!((plain[0] - 2f32.ln()).abs() < 1e-6 && (weighted[0] - 3.0 * 2f32.ln()).abs() < 1e-6);
/// assert_eq!(grad, [-1.5, 1.5]);
/// ```
///
/// # Panics
/// If lengths disagree.
pub fn evaluate<L: Label>(
    logits: &[f32],
    classes: usize,
    labels: &[L],
    batch: usize,
    weights: Option<&[f32]>,
    weighted: &mut [f32],
    plain: &mut [f32],
    grad: &mut [f32],
) {
    assert_eq!(weights.map_or(labels.len(), <[f32]>::len), labels.len(), "weights and labels");
    assert_eq!(grad.len(), logits.len(), "logits and their gradient");
    assert_eq!((weighted.len(), plain.len()), (batch, batch), "losses and images");
    let isa = Isa::current();
    let strips = labels.len().checked_div(batch).unwrap_or(0).div_ceil(STRIP);
    let mut parts = vec![[0.0f64; 2]; batch * strips];
    let (shared, grad) = (Shared::new(&mut parts), Shared::new(grad));
    for_each_strip(logits, classes, labels, batch, |strip| {
        // SAFETY: one part a strip.
        let part = unsafe { shared.slice(strip.index, 1) };
        part[0] = isa.dispatch(Evaluate { strip, weights, grad });
    });
    for (image, (weighted, plain)) in weighted.iter_mut().zip(plain).enumerate() {
        let parts = &parts[image * strips..][..strips];
        *weighted = parts.iter().map(|p| p[0]).sum::<f64>() as f32;
        *plain = parts.iter().map(|p| p[1]).sum::<f64>() as f32;
    }
}

/// [`evaluate`] of one strip: the sums of its weighted and of its plain losses.
///
/// No loop over pixels looks anything up by a label, so that all of them vectorise: each class in turn asks which pixels are
/// its own.
struct Evaluate<'a, L> {
    strip: Strip<'a, L>,
    weights: Option<&'a [f32]>,
    grad: Shared<'a, f32>,
}

impl<L: Label> Kernel for Evaluate<'_, L> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [f64; 2] {
        let Self { strip, weights, grad } = self;
        let count = strip.labels.len();
        // SAFETY: strips do not overlap, and nothing else is done with a row meanwhile.
        let grad = |class: usize| unsafe { grad.slice(strip.first + class * strip.plane, count) };
        let Largest { own, best, of_label } = &strip.largest_and_own();
        let (own, best, of_label) = (&own[..count], &best[..count], &of_label[..count]);
        let mut sum = [0.0; STRIP];
        let sum = &mut sum[..count];
        for class in 0..strip.classes {
            for (((z, e), best), sum) in strip.row(class).iter().zip(grad(class)).zip(best).zip(&mut *sum) {
                *e = exp(*z - *best);
                *sum += *e;
            }
        }
        let (ones, mut loss, mut weighted) = ([1.0; STRIP], [0.0; STRIP], [0.0; STRIP]);
        let (loss, weighted) = (&mut loss[..count], &mut weighted[..count]);
        let weight = match weights {
            Some(weights) => &weights[strip.pixel..][..count],
            None => &ones[..count],
        };
        let (mut factor, mut at_label) = ([0.0; STRIP], [0.0; STRIP]);
        let (factor, at_label) = (&mut factor[..count], &mut at_label[..count]);
        let statistics = own.iter().zip(best).zip(of_label).zip(&*sum).zip(weight);
        let results = loss.iter_mut().zip(&mut *weighted).zip(&mut *factor).zip(&mut *at_label);
        for (((((own, best), of_label), sum), weight), (((loss, weighted), factor), at_label)) in
            statistics.zip(results)
        {
            let counts = *own != NO_CLASS;
            let value = ln(*sum) + (*best - *of_label);
            *loss = if counts { value } else { 0.0 };
            *weighted = if counts { *weight * value } else { 0.0 };
            *factor = *weight / *sum;
            // Small where the pixel is right and sure of it: the difference comes before the weight.
            *at_label = *weight * (exp(*of_label - *best) / *sum - 1.0);
        }
        for class in 0..strip.classes {
            for (((e, own), factor), at_label) in grad(class).iter_mut().zip(own).zip(&*factor).zip(&*at_label) {
                let other = if *own == NO_CLASS { 0.0 } else { *e * *factor };
                *e = if *own == class as u32 { *at_label } else { other };
            }
        }
        [Sum(weighted).run(simd), Sum(loss).run(simd)]
    }
}

/// What stands for void, and for a class that the logits do not have.
const NO_CLASS: u32 = u32::MAX;

/// Whether the largest logit (the first of equal ones) is the label's, 1 or 0 for each pixel, into `correct`
/// `[batch, pixels]`, overwritten. Void pixels and those with a NaN among their logits are not.
///
/// ```
/// let mut correct = [0.5; 3];
/// fireproof_kernels::cross_entropy::correct(&[0.0, 1.0, 5.0, 0.0, 3.0, 0.0], 2, &[0u8, 0, 255], 1, &mut correct);
/// assert_eq!(correct, [1.0, 0.0, 0.0]);
/// ```
///
/// # Panics
/// If lengths disagree.
pub fn correct<L: Label>(logits: &[f32], classes: usize, labels: &[L], batch: usize, correct: &mut [f32]) {
    assert_eq!(correct.len(), labels.len(), "correct pixels and labels");
    let isa = Isa::current();
    let correct = Shared::new(correct);
    for_each_strip(logits, classes, labels, batch, |strip| {
        // SAFETY: strips do not overlap.
        let correct = unsafe { correct.slice(strip.pixel, strip.labels.len()) };
        isa.dispatch(Correct { strip, correct });
    });
}

/// [`correct`] of one strip.
struct Correct<'a, L> {
    strip: Strip<'a, L>,
    correct: &'a mut [f32],
}

impl<L: Label> Kernel for Correct<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { strip, correct } = self;
        let count = correct.len();
        let (mut own, mut best, mut class_of_best) = ([NO_CLASS; STRIP], [f32::NEG_INFINITY; STRIP], [0u32; STRIP]);
        let (own, best, class_of_best) = (&mut own[..count], &mut best[..count], &mut class_of_best[..count]);
        strip.own_classes(own);
        for class in 0..strip.classes {
            for ((z, best), at) in strip.row(class).iter().zip(&mut *best).zip(&mut *class_of_best) {
                let larger = *z > *best;
                *best = if larger { *z } else { *best };
                // Nothing is the class of a pixel with a NaN, and nothing that comes later is either.
                *at = if *at == NAN_SEEN || z.is_nan() {
                    NAN_SEEN
                } else if larger {
                    class as u32
                } else {
                    *at
                };
            }
        }
        for ((correct, own), at) in correct.iter_mut().zip(&*own).zip(&*class_of_best) {
            *correct = if own == at { 1.0 } else { 0.0 };
        }
    }
}

/// What stands for the best class of a pixel with a NaN; no label is it.
const NAN_SEEN: u32 = NO_CLASS - 1;

/// The cosine of the softmax of each pixel's logits and its one-hot label, `p[label] / ‖p‖₂`, into `cosine`
/// `[batch, pixels]`, overwritten; 0 at void pixels. It is `exp z[label] / √Σ exp 2z`, so no probability is lost where
/// it underflows.
///
/// # Panics
/// If lengths disagree.
pub fn cosine<L: Label>(logits: &[f32], classes: usize, labels: &[L], batch: usize, cosine: &mut [f32]) {
    assert_eq!(cosine.len(), labels.len(), "cosines and labels");
    let isa = Isa::current();
    let cosine = Shared::new(cosine);
    for_each_strip(logits, classes, labels, batch, |strip| {
        // SAFETY: strips do not overlap.
        let cosine = unsafe { cosine.slice(strip.pixel, strip.labels.len()) };
        isa.dispatch(Cosine { strip, cosine });
    });
}

/// [`cosine`] of one strip.
struct Cosine<'a, L> {
    strip: Strip<'a, L>,
    cosine: &'a mut [f32],
}

impl<L: Label> Kernel for Cosine<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { strip, cosine } = self;
        let count = cosine.len();
        let Largest { own, best, of_label } = &strip.largest_and_own();
        let (own, best, of_label) = (&own[..count], &best[..count], &of_label[..count]);
        let sum = &strip.sum(best, |e| e * e)[..count];
        let statistics = own.iter().zip(best).zip(of_label).zip(sum);
        for (cosine, (((own, best), of_label), sum)) in cosine.iter_mut().zip(statistics) {
            let value = exp(*of_label - *best) / sum.sqrt();
            *cosine = if *own == NO_CLASS { 0.0 } else { value };
        }
    }
}

/// Up to `STRIP` neighbouring pixels of one image.
struct Strip<'a, L> {
    /// From the first pixel's first logit to the last pixel's last one.
    logits: &'a [f32],
    classes: usize,
    labels: &'a [L],
    /// Pixels of an image.
    plane: usize,
    /// Which strip of the batch it is.
    index: usize,
    /// The place of the first pixel among the labels, and of its first logit among the logits.
    pixel: usize,
    first: usize,
}

/// Of each pixel of a strip its class, [`NO_CLASS`] where it has no loss, its largest logit, and that of its class.
struct Largest {
    own: [u32; STRIP],
    best: [f32; STRIP],
    of_label: [f32; STRIP],
}

impl<L: Label> Strip<'_, L> {
    /// The class of each pixel, [`NO_CLASS`] where it has no loss.
    #[inline(always)]
    fn own_classes(&self, own: &mut [u32]) {
        for (own, label) in own.iter_mut().zip(self.labels) {
            let class = label.class();
            *own = if class < self.classes && class != VOID { class as u32 } else { NO_CLASS };
        }
    }

    /// What all losses of a pixel begin with.
    #[inline(always)]
    fn largest_and_own(&self) -> Largest {
        let count = self.labels.len();
        let mut found = Largest { own: [NO_CLASS; STRIP], best: [f32::NEG_INFINITY; STRIP], of_label: [0.0; STRIP] };
        // Slices of one length under zipped iterators: an index that the compiler cannot bound keeps a loop scalar.
        let (own, best, of_label) = (&mut found.own[..count], &mut found.best[..count], &mut found.of_label[..count]);
        self.own_classes(own);
        for class in 0..self.classes {
            for (((z, own), best), of_label) in self.row(class).iter().zip(&*own).zip(&mut *best).zip(&mut *of_label) {
                *best = if *z > *best { *z } else { *best };
                *of_label = if *own == class as u32 { *z } else { *of_label };
            }
        }
        found
    }

    /// `Σ term(exp(z − best))` of each pixel over the classes.
    #[inline(always)]
    fn sum(&self, best: &[f32], term: impl Fn(f32) -> f32) -> [f32; STRIP] {
        let mut sum = [0.0; STRIP];
        for class in 0..self.classes {
            for ((z, best), sum) in self.row(class).iter().zip(best).zip(&mut sum[..best.len()]) {
                *sum += term(exp(*z - *best));
            }
        }
        sum
    }

    /// The logits of one class.
    #[inline(always)]
    fn row(&self, class: usize) -> &[f32] {
        &self.logits[class * self.plane..][..self.labels.len()]
    }
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
            let labels = &labels[pixel..pixel + to - from];
            work(Strip { logits, classes, labels, plane, index: image * strips + strip, pixel, first });
        }
    });
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

/// `ln x` for `x >= 1` within 2 units in the last place; NaN stays NaN. Straight-line code, as above.
#[inline(always)]
fn ln(x: f32) -> f32 {
    // x = 2ⁿ (1 + r) with 1 + r in [√½, √2): where the exponent changes is shifted from 1 to √½.
    const SHIFT: u32 = 0x3f80_0000 - 0x3f35_04f3;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let bits = x.to_bits();
    let n = (bits.wrapping_add(SHIFT) >> 23).wrapping_sub(127);
    let r = f32::from_bits(bits.wrapping_sub(n << 23)) - 1.0;
    let n = n as i32 as f32;
    let square = r * r;
    let series = 7.037_683_6e-2;
    let series = series * r - 1.151_461e-1;
    let series = series * r + 1.167_699_9e-1;
    let series = series * r - 1.242_014_1e-1;
    let series = series * r + 1.424_932_3e-1;
    let series = series * r - 1.666_805_8e-1;
    let series = series * r + 2.000_071_5e-1;
    let series = series * r - 2.499_999_4e-1;
    let series = series * r + 3.333_333_1e-1;
    let small = series * r * square + n * LN_2_LOW - 0.5 * square;
    let y = r + small + n * LN_2_HIGH;
    if x.is_nan() { x } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{difference, hash, numbers};
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

    #[test]
    fn the_logarithm_is_accurate_and_keeps_nan() {
        let worst = (0..2_000_000u32)
            .map(|i| 1.0 + i as f32 * 1e-4)
            .map(|x| (f64::from(ln(x)) - f64::from(x).ln()).abs() / f64::from(x).ln().max(1e-30))
            .fold(0.0, f64::max);
        assert!(worst < 2.5e-7, "{worst}");
        assert!(ln(f32::NAN).is_nan() && ln(1.0) == 0.0);
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
            let (mut want_correct, mut want_cosine) = (vec![0.0f32; labels.len()], vec![0.0f64; labels.len()]);
            for (i, &label) in labels.iter().enumerate().filter(|l| *l.1 != 255) {
                let at = |class: usize| i / plane * classes * plane + class * plane + i % plane;
                let z: Vec<f64> = (0..classes).map(|c| f64::from(logits[at(c)])).collect();
                let largest = z.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = z.iter().map(|z| (z - largest).exp()).sum();
                want_loss[i] = sum.ln() + largest - z[label as usize];
                let length = z.iter().map(|z| (2.0 * (z - largest)).exp()).sum::<f64>().sqrt();
                want_cosine[i] = (z[label as usize] - largest).exp() / length;
                want_correct[i] = f32::from(u8::from(z.iter().position(|&z| z == largest) == Some(label as usize)));
                for (c, z) in z.iter().enumerate() {
                    let onehot = f64::from(u8::from(c == label as usize));
                    want_grad[at(c)] = f64::from(weights[i]) * ((z - largest).exp() / sum - onehot);
                }
            }
            let per_image = |f: &dyn Fn(usize) -> f64| -> Vec<f64> {
                (0..batch).map(|n| (n * plane..(n + 1) * plane).map(f).sum()).collect()
            };
            let want_plain = per_image(&|i| want_loss[i]);
            let want_weighted = per_image(&|i| f64::from(weights[i]) * want_loss[i]);
            let scale = 1.0 + want_plain.iter().copied().fold(0.0, f64::max);
            for isa in Isa::available() {
                let new = || vec![f32::NAN; labels.len()];
                let (mut loss, mut right, mut aligned) = (new(), new(), new());
                let (mut weighted, mut plain) = (vec![f32::NAN; batch], vec![f32::NAN; batch]);
                let (mut grad, mut again) = (vec![f32::NAN; logits.len()], vec![f32::NAN; logits.len()]);
                isa.force(|| {
                    forward(&logits, classes, &labels, batch, &mut loss);
                    backward(&logits, classes, &labels, batch, &weights, &mut again);
                    evaluate(&logits, classes, &labels, batch, Some(&weights), &mut weighted, &mut plain, &mut grad);
                    correct(&logits, classes, &labels, batch, &mut right);
                    cosine(&logits, classes, &labels, batch, &mut aligned);
                });
                prop_assert!(difference(&loss, &want_loss) < 1e-6 * (1.0 + want_loss.iter().copied().fold(0.0, f64::max)));
                prop_assert_eq!(&right, &want_correct);
                prop_assert!(grad.iter().zip(&want_grad).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6));
                prop_assert_eq!(&grad, &again);
                let close = |a: &[f32], b: &[f64]| a.iter().zip(b).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6 * scale);
                prop_assert!(close(&plain, &want_plain) && close(&weighted, &want_weighted));
                prop_assert!(aligned.iter().zip(&want_cosine).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6));
                // No weights are weights of one.
                isa.force(|| {
                    evaluate(&logits, classes, &labels, batch, None, &mut weighted, &mut plain, &mut grad);
                    backward(&logits, classes, &labels, batch, &vec![1.0; labels.len()], &mut again);
                });
                prop_assert_eq!((&weighted, &grad), (&plain, &again));
            }
        }
    }

    #[test]
    fn a_nan_logit_shows_in_the_loss_and_the_gradient_but_not_at_void_pixels() {
        let logits = [f32::NAN, 1.0, f32::NAN, 0.0, 2.0, 0.0];
        let labels = [1u8, 1, 255];
        let (mut loss, mut right, mut grad) = ([0.0; 3], [0.5; 3], [0.5; 6]);
        forward(&logits, 2, &labels, 1, &mut loss);
        correct(&logits, 2, &labels, 1, &mut right);
        let mut sum = [0.0];
        evaluate(&logits, 2, &labels, 1, None, &mut [0.0], &mut sum, &mut grad);
        assert!(loss[0].is_nan() && loss[1].is_finite() && loss[2] == 0.0 && sum[0].is_nan());
        assert_eq!(right, [0.0, 1.0, 0.0]);
        assert!(grad[0].is_nan() && grad[3].is_nan() && grad[2] == 0.0 && grad[5] == 0.0);
    }

    #[test]
    fn a_label_whose_class_the_logits_do_not_have_is_void() {
        let (mut loss, mut right, mut grad) = ([9.0; 2], [0.5; 2], [9.0; 4]);
        forward(&[0.0; 4], 2, &[0u8, 7], 1, &mut loss);
        correct(&[0.0; 4], 2, &[0u8, 7], 1, &mut right);
        backward(&[0.0; 4], 2, &[0i64, -3], 1, &[1.0; 2], &mut grad);
        assert_eq!((loss[1], right, grad), (0.0, [1.0, 0.0], [-0.5, 0.0, 0.5, 0.0]));
    }

    #[test]
    fn an_image_has_the_same_bits_in_any_batch_and_pool() {
        let (classes, plane) = (5, 3 * STRIP * STRIPS + 77);
        let logits = numbers(4, 3 * classes * plane);
        let labels: Vec<u8> = (0..3 * plane).map(|i| (hash(5, i as u64) % 5) as u8).collect();
        let run = |images: std::ops::Range<usize>, threads: usize| {
            let n = images.len();
            let (mut weighted, mut plain) = (vec![0.0; n], vec![0.0; n]);
            let mut grad = vec![0.0; n * classes * plane];
            let logits = &logits[images.start * classes * plane..images.end * classes * plane];
            let labels = &labels[images.start * plane..images.end * plane];
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| evaluate(logits, classes, labels, n, None, &mut weighted, &mut plain, &mut grad));
            (plain.last().unwrap().to_bits(), grad[(n - 1) * classes * plane..].to_vec())
        };
        let alone = run(2..3, 1);
        assert!(alone == run(0..3, 1) && alone == run(1..3, 3));
    }
}
