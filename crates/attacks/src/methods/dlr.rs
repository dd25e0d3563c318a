//! Difference of logits ratio: the margin, over the spread of the logits.
//!
//! Croce, Hein. *Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks*,
//! ICML 2020. <https://arxiv.org/abs/2003.01690>
//!
//! `Σ (max_{j≠y} z_j − z_y) / (z₍₁₎ − z₍₃₎)` with the sorted logits `z₍₁₎ ≥ z₍₂₎ ≥ …`; targeted `z₍₁₎ − (z₍₃₎ + z₍₄₎) / 2`
//! below. Neither the scale of the logits nor a constant added to them changes it, so a model cannot hide its gradient
//! behind large logits. Where there are fewer classes the last one takes the place of those that are missing; with two the
//! ratio would be a constant, and the plain margin is taken.

use burn::tensor::Tensor;

use super::margin::lead;
use crate::{
    Goal, GradientAttack, Registration, Step,
    objective::{ImageLoss, NamedObjective, PerImage, classes, per_image},
};

/// The difference of logits ratio.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dlr;

/// Keeps the ratio finite where the highest logits are all equal.
const FLOOR: f32 = 1e-8;

impl ImageLoss for Dlr {
    fn loss(&self, _step: Step, logits: Tensor<4>, goal: &Goal) -> Tensor<1> {
        let [n, k, height, width] = logits.dims();
        let (lead, counted) = lead(&logits, goal);
        let ratio = if k < 3 { lead } else { lead / (spread(&logits, goal.targeted) + FLOOR) };
        per_image((ratio * Tensor::from_inner(counted)).reshape([n, height, width]))
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

/// `z₍₁₎ − z₍₃₎`, or `z₍₁₎ − (z₍₃₎ + z₍₄₎) / 2` for a targeted run, `[N, K, H, W]` → `[N, 1, H, W]`.
pub(super) fn spread(logits: &Tensor<4>, targeted: bool) -> Tensor<4> {
    let mut rest = logits.clone().inner();
    let mut next = || {
        let map = classes::highest(&rest);
        rest = classes::without(&rest, &map);
        map
    };
    let (first, _, third) = (next(), next(), next());
    let low = match targeted && logits.dims()[1] > 3 {
        true => (third + next()) * 0.5,
        false => third,
    };
    classes::pick(logits, first - low)
}

inventory::submit! {
    NamedObjective { name: "dlr", options: &[], build: |_| Ok(Box::new(PerImage(Dlr))) }
}

inventory::submit! {
    Registration {
        name: "dlr",
        about: "PGD on the margin over the spread of the logits",
        paper: "https://arxiv.org/abs/2003.01690",
        options: &[],
        defaults: |_| {},
        build: |config| Ok(Box::new(GradientAttack::new(config, PerImage(Dlr))?)),
    }
}
