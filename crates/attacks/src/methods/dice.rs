//! Dice: lower the overlap of prediction and label, class by class.
//!
//! The soft Dice loss that medical segmentation trains on (Milletari, Navab, Ahmadi. *V-Net*, 3DV 2016.
//! <https://arxiv.org/abs/1606.04797>), here with linear terms below the fraction, and ascended:
//! the mean of `1 − 2 Σ p_k t_k / Σ (p_k + t_k)` over the classes `k` of the image's labels, sums over its valid pixels.
//!
//! A small structure counts as much as a large one, as it does in the score, and a pixel's pull depends on the rest of the
//! image. Targeted runs lower the loss towards the target map.

use burn::tensor::{Tensor, activation::softmax};

use crate::{
    Goal, GradientAttack, Registration, Step,
    objective::{ImageLoss, NamedObjective, PerImage},
};

/// The soft Dice loss.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dice;

impl ImageLoss for Dice {
    fn loss(&self, _step: Step, logits: Tensor<4>, goal: &Goal) -> Tensor<1> {
        let [n, k, height, width] = logits.dims();
        let label = goal.targets.one_hot(k);
        let valid = goal.targets.valid().clone().reshape([n, 1, height, width]);
        // `[N, K]`: the sum over the pixels of an image.
        let sum = |x: Tensor<4>| x.reshape([n, k, height * width]).sum_dim(2).reshape([n, k]);
        let size = sum(label.clone());
        let present = size.clone().greater_elem(0.0).float();
        let classes = present.clone().sum_dim(1).clamp_min(1.0);
        let share = Tensor::from_inner(present / classes);
        let p = softmax(logits, 1) * Tensor::from_inner(valid);
        let overlap = sum(p.clone() * Tensor::from_inner(label)) * 2.0;
        // The floor only keeps 0 / 0 from classes that are absent, whose share is zero.
        let both = (sum(p) + Tensor::from_inner(size)).clamp_min(1e-6);
        let loss = (overlap / both) * -1.0 + 1.0;
        (loss * share).sum_dim(1).reshape([n])
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

inventory::submit! {
    NamedObjective { name: "dice", options: &[], build: |_| Ok(Box::new(PerImage(Dice))) }
}

inventory::submit! {
    Registration {
        name: "dice",
        about: "PGD on the soft Dice loss, each class of an image weighing the same",
        paper: "https://arxiv.org/abs/1606.04797",
        options: &[],
        defaults: |_| {},
        build: |config| Ok(Box::new(GradientAttack::new(config, PerImage(Dice))?)),
    }
}
