//! SegCertify: randomized smoothing for every pixel of an image at once.
//!
//! Fischer, Baader, Vechev. *Scalable Certified Segmentation via Randomized Smoothing*, ICML 2021.
//! <https://arxiv.org/abs/2107.00228>
//!
//! 1. The class of each pixel is the one that most of `n0` noisy copies get.
//! 2. On `n` further copies an exact binomial test asks whether that class has a probability above `tau`. As there are as many
//!    tests as pixels, Holm's (or Bonferroni's) correction keeps the probability that *any* of them is wrong below `alpha`.
//! 3. Pixels whose test rejects keep their class for every ℓ2 perturbation of the image below `R = sigma · Φ⁻¹(tau)`; the others
//!    abstain.
//!
//! The map of radii needs no `tau`: from the same counts each pixel gets `sigma · Φ⁻¹(p)` with the lower bound `p` of Clopper and
//! Pearson at `alpha / pixels`, so that all of them hold at once too.
//!
//! Defaults: `n0` = 10, `n` = 100, `alpha` = 0.001, Holm. Noise is added to pixels in 0..1, before the model's normalisation.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use fireproof_metrics::binomial::{at_least, lower_bound, normal_quantile};
use fireproof_metrics::{ClassCounts, VOID};
use fireproof_tensor::Victim;
use serde::{Deserialize, Serialize};

use crate::{Result, error::ensure, sample::Copies};

/// How the tests of an image's pixels are corrected for being many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Correction {
    /// Holm, *Scandinavian Journal of Statistics* 1979: the `i`-th smallest of `N` p-values against `alpha / (N − i + 1)`, until the
    /// first that fails. Never certifies less than Bonferroni's.
    #[default]
    Holm,
    /// Every p-value against `alpha / N`.
    Bonferroni,
}

impl std::str::FromStr for Correction {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "holm" => Ok(Self::Holm),
            "bonferroni" => Ok(Self::Bonferroni),
            _ => Err("expected holm or bonferroni"),
        }
    }
}

impl Correction {
    /// Which of the null hypotheses with these p-values are rejected, so that any wrong rejection has at most probability `alpha`.
    ///
    /// ```
    /// use fireproof_certify::Correction;
    /// let p = [0.01, 0.04, 0.03, 0.005];
    /// assert_eq!(Correction::Holm.reject(&p, 0.05), [true, false, false, true]);
    /// assert_eq!(Correction::Bonferroni.reject(&[0.0125, 0.0126, 0.9, 0.9], 0.05), [true, false, false, false]);
    /// ```
    pub fn reject(self, p_values: &[f64], alpha: f64) -> Vec<bool> {
        let count = p_values.len();
        match self {
            Self::Bonferroni => p_values.iter().map(|p| *p <= alpha / count as f64).collect(),
            Self::Holm => {
                let mut order: Vec<usize> = (0..count).collect();
                order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
                let mut rejected = vec![false; count];
                for (rank, &at) in order.iter().enumerate() {
                    if p_values[at] > alpha / (count - rank) as f64 {
                        break;
                    }
                    rejected[at] = true;
                }
                rejected
            }
        }
    }
}

/// The settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegCertify {
    /// Standard deviation of the noise, in the units of the images.
    pub sigma: f32,
    /// The probability that a pixel's class must have under noise, at least one half.
    pub tau: f64,
    /// Copies that choose the classes.
    pub n0: u64,
    /// Copies that test them.
    pub n: u64,
    /// The probability that any certified pixel of an image is wrong.
    pub alpha: f64,
    /// How the tests are corrected.
    pub correction: Correction,
    /// The noise derives from it, the image's id and the copy's number.
    pub seed: u64,
    /// Copies in a pass; no number depends on it.
    pub batch: usize,
}

/// What is certain about one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    /// The ℓ2 radius within which every certified pixel keeps its class.
    pub radius: f64,
    /// The class of each pixel, `[H · W]`, certified or not.
    pub top: Vec<usize>,
    /// Whether it is certified, `[H · W]`.
    pub certified: Vec<bool>,
    /// How many of the `n` copies agreed, `[H · W]`.
    pub hits: Vec<u64>,
    settings: SegCertify,
}

impl SegCertify {
    /// The defaults with a noise and a threshold.
    pub fn new(sigma: f32, tau: f64) -> Self {
        Self { sigma, tau, n0: 10, n: 100, alpha: 0.001, correction: Correction::Holm, seed: 0, batch: 10 }
    }

    /// `sigma · Φ⁻¹(tau)`.
    ///
    /// ```
    /// use fireproof_certify::SegCertify;
    /// assert!((SegCertify::new(0.25, 0.75).radius() - 0.168622).abs() < 1e-6);
    /// ```
    pub fn radius(&self) -> f64 {
        f64::from(self.sigma) * normal_quantile(self.tau)
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting).
    pub fn check(&self) -> Result<()> {
        ensure(self.sigma.is_finite() && self.sigma > 0.0, "sigma", self.sigma, "a positive number, e.g. 0.25")?;
        ensure((0.5..1.0).contains(&self.tau), "tau", self.tau, "at least 0.5 and below 1, e.g. 0.75")?;
        ensure(self.n0 > 0, "n0", self.n0, "at least 1")?;
        ensure(self.n > 0, "n", self.n, "at least 1")?;
        ensure(self.alpha > 0.0 && self.alpha < 1.0, "alpha", self.alpha, "between 0 and 1, e.g. 0.001")?;
        ensure(self.batch > 0, "batch", self.batch, "at least 1")
    }

    /// Certifies one image `[1, C, H, W]`; `id` keys its noise. `n0 + n` forward passes.
    ///
    /// # Errors
    /// For settings outside their range, a batch of several images, and the model's errors.
    pub fn certify(&self, victim: &dyn Victim, image: &Tensor<4>, id: u64) -> Result<Certificate> {
        self.check()?;
        ensure(image.dims()[0] == 1, "image", format!("{:?}", image.dims()), "one image, [1, C, H, W]")?;
        let copies = Copies { victim, image, id, sigma: self.sigma, seed: self.seed, batch: self.batch };
        let top = copies.top(0..self.n0)?;
        let hits = copies.hits(self.n0..self.n0 + self.n, &top)?;
        Ok(self.judge(top, hits))
    }

    /// The certificate for given counts: of each pixel the class, and how many of `n` copies agreed.
    pub fn judge(&self, top: Vec<usize>, hits: Vec<u64>) -> Certificate {
        // There are at most n + 1 different counts, however many pixels.
        let mut known: BTreeMap<u64, f64> = BTreeMap::new();
        let p = hits.iter().map(|&k| *known.entry(k).or_insert_with(|| at_least(k, self.n, self.tau)));
        let p: Vec<f64> = p.collect();
        let certified = self.correction.reject(&p, self.alpha);
        Certificate { radius: self.radius(), top, certified, hits, settings: *self }
    }
}

impl Certificate {
    /// The class of each certified pixel; `None` where the certificate abstains.
    pub fn classes(&self) -> Vec<Option<usize>> {
        self.top.iter().zip(&self.certified).map(|(&class, &sure)| sure.then_some(class)).collect()
    }

    /// Share of all pixels that abstain.
    pub fn abstained(&self) -> f64 {
        let count = self.certified.iter().filter(|sure| !**sure).count();
        count as f64 / self.certified.len().max(1) as f64
    }

    /// Certified pixels against labels; a pixel that abstains counts as wrong. Pool over images, then ask for accuracy and mIoU.
    ///
    /// # Errors
    /// If labels and pixels are not as many, or a label is no class.
    pub fn counts(&self, labels: &[u8], classes: usize) -> Result<ClassCounts> {
        // No class: neither void nor one of at most 255.
        const NOBODY: i64 = 1 << 16;
        let predictions: Vec<i64> =
            self.classes().iter().map(|class| class.map_or(NOBODY, |class| class as i64)).collect();
        Ok(ClassCounts::count(classes, labels, &predictions)?)
    }

    /// The ℓ2 radius of each pixel by itself, `[H · W]`, all of which hold at once; 0 where nothing is certain.
    pub fn radii(&self) -> Vec<f64> {
        let SegCertify { n, alpha, sigma, .. } = self.settings;
        let share = alpha / self.hits.len().max(1) as f64;
        let mut known: BTreeMap<u64, f64> = BTreeMap::new();
        let radius = |hits: u64| {
            let bound = lower_bound(hits, n, share);
            if bound > 0.5 { f64::from(sigma) * normal_quantile(bound) } else { 0.0 }
        };
        self.hits.iter().map(|&hits| *known.entry(hits).or_insert_with(|| radius(hits))).collect()
    }

    /// The median of [`radii`](Certificate::radii) over valid pixels whose class is their label and 0 elsewhere: how far an attacker
    /// must go at least before half of the image may be wrong. `None` without valid pixels.
    pub fn median_radius(&self, labels: &[u8]) -> Option<f64> {
        let radii = self.radii();
        let valid = labels.iter().zip(&self.top).zip(&radii).filter(|((label, _), _)| **label != VOID);
        let mut kept: Vec<f64> =
            valid.map(|((label, class), radius)| if usize::from(*label) == *class { *radius } else { 0.0 }).collect();
        kept.sort_by(f64::total_cmp);
        kept.get(kept.len().checked_sub(1)? / 2).copied()
    }
}
