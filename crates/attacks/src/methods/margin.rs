//! Margin: lower the logit of the label against the best other class.
//!
//! Carlini, Wagner. *Towards Evaluating the Robustness of Neural Networks*, IEEE S&P 2017, the loss of a pixel's logits.
//! <https://arxiv.org/abs/1608.04644>
//!
//! `Σ min(max_{j≠y} z_j − z_y, κ)`. With κ = 0, the default, it is the loss of DAG (Xie et al., ICCV 2017): every correct
//! pixel pulls with the same strength, however sure the victim is of it, and fooled ones are left alone. `kappa=inf` is the
//! plain difference of logits, which never stops pulling. A targeted run raises the target's logit above the others, by κ.

use burn::tensor::Tensor;

use crate::{
    AttackConfig, Goal, GradientAttack, OptionSpec, Registration, Result, Step,
    objective::{ImageLoss, NamedObjective, Objective, PerImage, classes, per_image},
};

/// The capped margin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Margin {
    /// The lead of the wrong class beyond which a pixel is left alone, in logits; may be infinite.
    pub kappa: f32,
}

impl ImageLoss for Margin {
    fn loss(&self, _step: Step, logits: Tensor<4>, goal: &Goal) -> Tensor<1> {
        let (lead, counted) = lead(&logits, goal);
        let capped = match (self.kappa.is_finite(), goal.targeted) {
            (false, _) => lead,
            (true, false) => lead.clamp_max(self.kappa),
            (true, true) => lead.clamp_min(-self.kappa),
        };
        let [n, _, height, width] = capped.dims();
        per_image((capped * Tensor::from_inner(counted)).reshape([n, height, width]))
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

/// `max_{j≠y} z_j − z_y` of each pixel, differentiable, and a constant mask of the pixels that have a label and another
/// class beside it; both `[N, 1, H, W]`.
pub(super) fn lead(logits: &Tensor<4>, goal: &Goal) -> (Tensor<4>, Tensor<4>) {
    let plain = logits.clone().inner();
    let classes = plain.dims()[1];
    let label = goal.targets.one_hot(classes);
    let counted = label.clone().sum_dim(1) * if classes > 1 { 1.0 } else { 0.0 };
    let other = classes::highest(&classes::without(&plain, &label));
    (classes::pick(logits, other - label), counted)
}

const VALUES: &str = "0, a number that is not negative, or inf";

const OPTIONS: &[OptionSpec] = &[OptionSpec { name: "kappa", values: VALUES }];

fn objective(config: &AttackConfig) -> Result<Box<dyn Objective>> {
    let kappa: f32 = config.option("kappa", 0.0, VALUES)?;
    if kappa.is_nan() || kappa < 0.0 {
        return Err(config.setting("kappa", kappa, VALUES));
    }
    Ok(Box::new(PerImage(Margin { kappa })))
}

inventory::submit! {
    NamedObjective { name: "margin", options: OPTIONS, build: objective }
}

inventory::submit! {
    Registration {
        name: "margin",
        about: "PGD on the difference of the label's logit to the best other",
        paper: "https://arxiv.org/abs/1608.04644",
        options: OPTIONS,
        defaults: |_| {},
        build: |config| Ok(Box::new(GradientAttack::new(config, objective(config)?)?)),
    }
}
