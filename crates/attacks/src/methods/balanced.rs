//! Class-balanced masked cross-entropy: a pixel of a rare class counts more.
//!
//! Croce, Singh, Hein. *Towards Reliable Evaluation and Fast Training of Robust Semantic Segmentation Models*, ECCV 2024.
//! <https://arxiv.org/abs/2306.12941>
//!
//! `Σ 1[argmax z = y] · CE / N_y` with the number of pixels `N_y` of class `y`: since IoU never exceeds class accuracy,
//! mIoU is bounded by an accuracy in which every class weighs the same, and this is its loss. The authors count pixels of
//! the training set; give them with `counts`. Without, each image's own labels are counted, which balances classes within
//! the image. Weights are scaled to a mean of about one, which no step that follows a direction sees.

use std::str::FromStr;

use burn::tensor::{Tensor, TensorData};
use fireproof_tensor::Targets;

use crate::{
    AttackConfig, Error, GradientAttack, OptionSpec, Registration, Result, Scene,
    host::{floats, integers},
    objective::{NamedObjective, Objective, ObjectiveRun, weighted_by},
};

/// The objective.
#[derive(Clone, Debug, Default)]
pub struct Balanced {
    /// Pixels of each class in the training set; `None` counts each image's own labels.
    pub counts: Option<Vec<u64>>,
}

impl Objective for Balanced {
    fn begin<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn ObjectiveRun + 'a>> {
        let goal = scene.goal;
        let class_weight = self.map(&goal.targets)?;
        Ok(weighted_by(goal, move |_, logits| Some(goal.open(logits) * class_weight.clone())))
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

impl Balanced {
    /// What each pixel's class weighs, `[N, H, W]`; void pixels zero.
    ///
    /// # Errors
    /// If a label is beyond the counts.
    fn map(&self, targets: &Targets) -> Result<Tensor<3>> {
        let [n, height, width] = targets.dims();
        let labels = integers(targets.labels().clone());
        let valid = floats(targets.valid().clone());
        let mut weights = vec![0.0f32; labels.len()];
        for (image, weights) in weights.chunks_mut(height * width).enumerate() {
            let at = image * height * width..(image + 1) * height * width;
            let pixels: Vec<Option<usize>> = labels[at.clone()]
                .iter()
                .zip(&valid[at])
                .map(|(&label, &valid)| usize::try_from(label).ok().filter(|_| valid > 0.0))
                .collect();
            let own;
            let counts = match &self.counts {
                Some(counts) => counts,
                None => {
                    own = count(&pixels);
                    &own
                }
            };
            // A class without a single pixel takes no part in the mean; one of the training set's is as rare as can be.
            let present = counts.iter().filter(|&&c| c > 0).count().max(1) as f64;
            let mean = counts.iter().sum::<u64>() as f64 / present;
            for (weight, class) in weights.iter_mut().zip(&pixels) {
                let Some(class) = *class else { continue };
                let Some(&pixels) = counts.get(class) else {
                    return Err(Error::Argument {
                        what: "counts of class pixels",
                        found: format!("{} entries", counts.len()),
                        expected: format!("one for class {class}, which the batch holds"),
                    });
                };
                *weight = (mean / pixels.max(1) as f64) as f32;
            }
        }
        Ok(Tensor::from_data(TensorData::new(weights, [n, height, width]), &targets.labels().device()))
    }
}

fn count(pixels: &[Option<usize>]) -> Vec<u64> {
    let mut counts = Vec::new();
    for class in pixels.iter().flatten() {
        if counts.len() <= *class {
            counts.resize(class + 1, 0);
        }
        counts[*class] += 1;
    }
    counts
}

/// `image`, or the pixels of each class.
struct Counts(Option<Vec<u64>>);

impl FromStr for Counts {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        if text == "image" {
            return Ok(Self(None));
        }
        let counts: Option<Vec<u64>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
        counts.filter(|counts| counts.iter().any(|&c| c > 0)).map(|counts| Self(Some(counts))).ok_or(VALUES)
    }
}

pub(super) const VALUES: &str = "image, or the training set's pixels of each class, N0,N1,…";

const OPTIONS: &[OptionSpec] = &[OptionSpec { name: "counts", values: VALUES }];

pub(super) fn objective(config: &AttackConfig) -> Result<Box<dyn Objective>> {
    let Counts(counts) = config.option("counts", Counts(None), VALUES)?;
    Ok(Box::new(Balanced { counts }))
}

inventory::submit! {
    NamedObjective { name: "balanced", options: OPTIONS, build: objective }
}

inventory::submit! {
    Registration {
        name: "balanced",
        about: "PGD on correct pixels, each class weighing the same",
        paper: "https://arxiv.org/abs/2306.12941",
        options: OPTIONS,
        defaults: |_| {},
        build: |config| Ok(Box::new(GradientAttack::new(config, objective(config)?)?)),
    }
}
