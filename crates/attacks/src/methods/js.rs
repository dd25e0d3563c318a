//! Jensen–Shannon: the divergence of prediction and label, which turns away from pixels as they are fooled.
//!
//! Croce, Singh, Hein. *Towards Reliable Evaluation and Fast Training of Robust Semantic Segmentation Models*, ECCV 2024.
//! <https://arxiv.org/abs/2306.12941>
//!
//! Between `softmax z` and the one-hot label the divergence depends on the label's probability `p` alone:
//! `log 2 − ½ (1 + p) log(1 + p) + ½ p log p`, from 0 at `p = 1` to `log 2` at `p = 0`. Against plain cross-entropy a pixel
//! weighs `½ p log((1 + p) / p)`: smooth, falling to zero as the pixel is lost. A targeted run minimises the divergence to
//! the target.

use burn::tensor::Tensor;

use crate::{
    GradientAttack, Registration, Step,
    objective::{LabelLoss, NamedObjective, OfLabel},
};

/// The Jensen–Shannon divergence of prediction and label.
#[derive(Clone, Copy, Debug, Default)]
pub struct Js;

impl LabelLoss for Js {
    fn value(&self, _step: Step, entropy: Tensor<3>) -> Tensor<3> {
        // p log p = −p c, finite where p underflows.
        let p = (-entropy.clone()).exp();
        let mixture = (p.clone() + 1.0) * p.clone().log1p();
        (mixture + p * entropy) * -0.5 + std::f32::consts::LN_2
    }

    fn slope(&self, _step: Step, entropy: Tensor<3>) -> Tensor<3> {
        let p = (-entropy.clone()).exp();
        (p.clone().log1p() + entropy) * p * 0.5
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

inventory::submit! {
    NamedObjective { name: "js", options: &[], build: |_| Ok(Box::new(OfLabel(Js))) }
}

inventory::submit! {
    Registration {
        name: "js",
        about: "PGD on the Jensen-Shannon divergence of prediction and label",
        paper: "https://arxiv.org/abs/2306.12941",
        options: &[],
        defaults: |_| {},
        build: |config| Ok(Box::new(GradientAttack::new(config, OfLabel(Js))?)),
    }
}
