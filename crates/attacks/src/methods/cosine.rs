//! Cosine of logits: turn the logits of every pixel away from their label.
//!
//! Halmosi, Mohos, Jelasity. *Evaluating the Adversarial Robustness of Semantic Segmentation: Trying Harder Pays Off*,
//! ECCV 2024. <https://arxiv.org/abs/2407.09150>, where Adam follows it (`padam.objective=cosine`).
//!
//! `Σ (1 − cos(z, e_y))` on raw logits, `cos(z, e_y) = z_y / ‖z‖₂`. Not CosPGD, whose cosine is a constant weight of the
//! cross-entropy.

use burn::tensor::Tensor;
use fireproof_tensor::Targets;

use crate::{
    Goal, GradientAttack, Registration, Step,
    objective::{ImageLoss, NamedObjective, PerImage, per_image},
};

/// The cosine distance of logits and label.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cosine;

impl ImageLoss for Cosine {
    fn loss(&self, _step: Step, logits: Tensor<4>, goal: &Goal) -> Tensor<1> {
        let distance = cosine(logits, &goal.targets) * -1.0 + 1.0;
        per_image(distance * Tensor::from_inner(goal.targets.valid().clone()))
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

/// `z_y / ‖z‖₂` of each pixel, `[N, K, H, W]` → `[N, H, W]`, differentiable; 0 on void pixels and where the logits are zero.
pub(super) fn cosine(logits: Tensor<4>, targets: &Targets) -> Tensor<3> {
    let [n, classes, height, width] = logits.dims();
    let label = Tensor::from_inner(targets.one_hot(classes));
    // The floor is below any length that matters, and keeps the root's derivative finite at zero.
    let length = (logits.clone().square().sum_dim(1) + 1e-24).sqrt();
    ((logits * label).sum_dim(1) / length).reshape([n, height, width])
}

inventory::submit! {
    NamedObjective { name: "cosine", options: &[], build: |_| Ok(Box::new(PerImage(Cosine))) }
}

inventory::submit! {
    Registration {
        name: "cosine",
        about: "PGD that turns all logits away from the label",
        paper: "https://arxiv.org/abs/2407.09150",
        options: &[],
        defaults: |_| {},
        build: |config| Ok(Box::new(GradientAttack::new(config, PerImage(Cosine))?)),
    }
}
