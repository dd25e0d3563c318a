//! KL: move the prediction away from that of the clean image, whatever the label.
//!
//! Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan. *Theoretically Principled Trade-off between Robustness and Accuracy*, ICML 2019.
//! <https://arxiv.org/abs/1901.08573>: the inner maximisation of TRADES.
//!
//! `Σ KL(p(x) ‖ p(x'))` over valid pixels. The clean prediction costs one forward pass more. At the clean image the gradient is
//! zero, so the start is random; the released code starts from normal noise of 0.001, this one anywhere in the ball.

use burn::tensor::{Tensor, activation::log_softmax};

use crate::{
    Error, GradientAttack, Registration, Result, Scene, Start, Step,
    objective::{NamedObjective, Objective, ObjectiveRun, per_image},
};

/// Divergence from the clean prediction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kl;

impl Objective for Kl {
    fn begin<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn ObjectiveRun + 'a>> {
        if scene.goal.targeted {
            return Err(Error::Argument {
                what: "target",
                found: "a target map".into(),
                expected: "none: kl only knows the clean prediction".into(),
            });
        }
        let clean = scene.victim.logits(scene.batch.images.clone())?;
        Ok(Box::new(Run { clean: log_softmax(clean, 1), valid: scene.goal.targets.valid().clone() }))
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

struct Run {
    /// Logarithms of the clean probabilities, `[N, K, H, W]`.
    clean: Tensor<4>,
    valid: Tensor<3>,
}

impl ObjectiveRun for Run {
    fn loss(&mut self, _step: Step, logits: Tensor<4>) -> Tensor<1> {
        let [n, _, height, width] = logits.dims();
        let p = Tensor::from_inner(self.clean.clone());
        let divergence = p.clone().exp() * (p - log_softmax(logits, 1));
        per_image(divergence.sum_dim(1).reshape([n, height, width]) * Tensor::from_inner(self.valid.clone()))
    }
}

inventory::submit! {
    NamedObjective { name: "kl", options: &[], build: |_| Ok(Box::new(Kl)) }
}

inventory::submit! {
    Registration {
        name: "kl",
        about: "PGD on the divergence from the clean prediction, as TRADES trains with it",
        paper: "https://arxiv.org/abs/1901.08573",
        options: &[],
        defaults: |config| config.start = Start::Random,
        build: |config| Ok(Box::new(GradientAttack::new(config, Kl)?)),
    }
}
