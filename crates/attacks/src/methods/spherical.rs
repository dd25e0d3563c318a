//! Masked spherical loss: turn the logits of correct pixels away from their label.
//!
//! Croce, Singh, Hein, arXiv 2306.12941, first version; used in the battery of Halmosi, Mohos, Jelasity. *Evaluating the
//! Adversarial Robustness of Semantic Segmentation: Trying Harder Pays Off*, ECCV 2024. <https://arxiv.org/abs/2407.09150>
//!
//! `−Σ 1[argmax z = y] · z_y / ‖z‖₂` on raw logits: it sees their direction, not their length, so a model that scales its
//! logits up does not flatten its gradient. It is compared by its own value, not by cross-entropy.

use burn::tensor::Tensor;

use super::cosine::cosine;
use crate::{
    Goal, GradientAttack, Registration, Step,
    objective::{ImageLoss, NamedObjective, PerImage, per_image},
};

/// The masked spherical loss.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spherical;

impl ImageLoss for Spherical {
    fn loss(&self, _step: Step, logits: Tensor<4>, goal: &Goal) -> Tensor<1> {
        let open = goal.open(&logits.clone().inner());
        per_image(cosine(logits, &goal.targets) * Tensor::from_inner(-open))
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

inventory::submit! {
    NamedObjective { name: "spherical", options: &[], build: |_| Ok(Box::new(PerImage(Spherical))) }
}

inventory::submit! {
    Registration {
        name: "spherical",
        about: "PGD that turns the logits of correct pixels away from the label",
        paper: "https://arxiv.org/abs/2407.09150",
        options: &[],
        defaults: |_| {},
        build: |config| Ok(Box::new(GradientAttack::new(config, PerImage(Spherical))?)),
    }
}
