//! Boundary PGD: weigh pixels by how close the runner-up class is.
//!
//! An example of an attack in one page, not a published method: `w = exp(−margin)` for pixels that are still right, where the
//! margin is the logit of the label minus the highest other one. Pixels that are about to flip count most.

use burn::tensor::Tensor;
use fireproof::attacks::{
    Goal, GradientAttack, Registration, Step, inventory,
    objective::{PixelWeight, Weighted},
};

/// The weight map.
struct BoundaryPgd;

impl PixelWeight for BoundaryPgd {
    fn weights(&self, _step: Step, logits: &Tensor<4>, goal: &Goal) -> Option<Tensor<3>> {
        let [n, k, height, width] = logits.dims();
        let label = goal.targets.one_hot(k);
        let own = (logits.clone() * label.clone()).sum_dim(1);
        let other = (logits.clone() - label * 1e9).max_dim(1);
        let margin = (own - other).reshape([n, height, width]).clamp_min(0.0);
        Some((-margin).exp() * goal.open(logits))
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

inventory::submit! {
    Registration {
        name: "boundary-pgd",
        about: "PGD that weighs pixels by how close they are to flipping",
        paper: "an example of fireproof",
        options: &[],
        defaults: |_| {},
        build: |config| Ok(Box::new(GradientAttack::new(config, Weighted(BoundaryPgd))?)),
    }
}
