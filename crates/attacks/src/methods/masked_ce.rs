//! Masked cross-entropy: only pixels that are still correct count.
//!
//! Croce, Singh, Hein. *Towards Reliable Evaluation and Fast Training of Robust Semantic Segmentation Models*, ECCV 2024.
//! <https://arxiv.org/abs/2306.12941>
//!
//! `Σ 1[argmax z = y] · CE`: no effort goes into pixels that are fooled, but nothing keeps them fooled either, so it needs
//! the best iterate. It is SegPGD with λ = 0 at every step. A targeted run looks only at pixels that do not show the target
//! yet.

use burn::tensor::Tensor;

use crate::{
    Goal, GradientAttack, Registration, Step,
    objective::{NamedObjective, PixelWeight, Weighted},
};

/// One on pixels where the attack still has to succeed.
#[derive(Clone, Copy, Debug, Default)]
pub struct MaskedCe;

impl PixelWeight for MaskedCe {
    fn weights(&self, _step: Step, logits: &Tensor<4>, goal: &Goal) -> Option<Tensor<3>> {
        Some(goal.open(logits))
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

inventory::submit! {
    NamedObjective { name: "masked-ce", options: &[], build: |_| Ok(Box::new(Weighted(MaskedCe))) }
}

inventory::submit! {
    Registration {
        name: "masked-ce",
        about: "PGD on the cross-entropy of pixels that are still correct",
        paper: "https://arxiv.org/abs/2306.12941",
        options: &[],
        defaults: |_| {},
        build: |config| Ok(Box::new(GradientAttack::new(config, Weighted(MaskedCe))?)),
    }
}
