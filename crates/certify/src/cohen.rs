//! Randomized smoothing of a classifier.
//!
//! Cohen, Rosenfeld, Kolter. *Certified Adversarial Robustness via Randomized Smoothing*, ICML 2019.
//! <https://arxiv.org/abs/1902.02918>
//!
//! The class that most of `n0` noisy copies get is tested on `n` further ones: with the lower bound `p` of its probability (Clopper
//! and Pearson, at `alpha`), the smoothed classifier answers it for every ℓ2 perturbation below `sigma · Φ⁻¹(p)`. If `p` is not
//! above one half it abstains.
//!
//! Defaults: `n0` = 100, `n` = 100 000 and `alpha` = 0.001 as in the paper. A classifier here is a segmentation of one pixel:
//! logits `[N, K, 1, 1]`.

use burn::tensor::Tensor;
use fireproof_metrics::binomial::{lower_bound, normal_quantile, two_sided_half};
use fireproof_tensor::Victim;

use crate::{Result, error::ensure, sample::Copies};

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cohen {
    /// Standard deviation of the noise, in the units of the images.
    pub sigma: f32,
    /// Copies that choose the class.
    pub n0: u64,
    /// Copies that test it.
    pub n: u64,
    /// The probability that a certificate is wrong.
    pub alpha: f64,
    /// The noise derives from it, the image's id and the copy's number.
    pub seed: u64,
    /// Copies in a pass; no number depends on it.
    pub batch: usize,
}

/// What is certain about one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The class.
    pub class: usize,
    /// The ℓ2 radius within which the smoothed classifier answers it.
    pub radius: f64,
}

impl Cohen {
    /// The paper's numbers of copies with a noise.
    pub fn new(sigma: f32) -> Self {
        Self { sigma, n0: 100, n: 100_000, alpha: 0.001, seed: 0, batch: 100 }
    }

    fn copies<'a>(&self, victim: &'a dyn Victim, image: &'a Tensor<4>, id: u64) -> Result<Copies<'a>> {
        ensure(self.sigma.is_finite() && self.sigma > 0.0, "sigma", self.sigma, "a positive number, e.g. 0.25")?;
        ensure(self.n0 > 0, "n0", self.n0, "at least 1")?;
        ensure(self.n > 0, "n", self.n, "at least 1")?;
        ensure(self.alpha > 0.0 && self.alpha < 1.0, "alpha", self.alpha, "between 0 and 1, e.g. 0.001")?;
        ensure(self.batch > 0, "batch", self.batch, "at least 1")?;
        ensure(image.dims()[0] == 1, "image", format!("{:?}", image.dims()), "one image, [1, C, H, W]")?;
        Ok(Copies { victim, image, id, sigma: self.sigma, seed: self.seed, batch: self.batch })
    }

    /// Certifies one image `[1, C, H, W]`; `None` if it abstains. `n0 + n` forward passes.
    ///
    /// # Errors
    /// For settings outside their range, a model with more than one label an image, and the model's errors.
    pub fn certify(&self, victim: &dyn Victim, image: &Tensor<4>, id: u64) -> Result<Option<Verdict>> {
        let copies = self.copies(victim, image, id)?;
        let top = copies.top(0..self.n0)?;
        one_label(&top)?;
        let hits = copies.hits(self.n0..self.n0 + self.n, &top)?;
        let bound = lower_bound(hits[0], self.n, self.alpha);
        let radius = f64::from(self.sigma) * normal_quantile(bound);
        Ok((bound > 0.5).then_some(Verdict { class: top[0], radius }))
    }

    /// The smoothed classifier's answer without a radius: the class that most of `n` copies get, if the second is behind it by more
    /// than chance explains at `alpha`; else it abstains.
    ///
    /// # Errors
    /// As [`certify`](Cohen::certify).
    pub fn predict(&self, victim: &dyn Victim, image: &Tensor<4>, id: u64) -> Result<Option<usize>> {
        let copies = self.copies(victim, image, id)?;
        let mut counts: Vec<u64> = Vec::new();
        let mut labels = 1;
        copies.predictions(0..self.n, &mut |classes| {
            labels = classes.len();
            if counts.len() <= classes[0] {
                counts.resize(classes[0] + 1, 0);
            }
            counts[classes[0]] += 1;
        })?;
        one_label(&vec![0; labels])?;
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by_key(|&class| std::cmp::Reverse(counts[class]));
        let second = order.get(1).map_or(0, |&class| counts[class]);
        Ok((two_sided_half(counts[order[0]], second) <= self.alpha).then_some(order[0]))
    }
}

fn one_label(labels: &[usize]) -> Result<()> {
    ensure(labels.len() == 1, "model", format!("{} labels an image", labels.len()), "one: a classifier, [N, K, 1, 1]")
}
