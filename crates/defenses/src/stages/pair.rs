//! What the terms that compare a clean view with an adversarial one share.

use burn::tensor::{Tensor, activation::log_softmax};
use fireproof_tensor::Targets;

use crate::{
    Error, Result,
    stage::{Pass, StageConfig, pass},
};

/// Logits `[N, K, H, W]` of the same samples, clean and adversarial.
pub(super) struct Pair {
    pub clean: Tensor<4>,
    pub adversarial: Tensor<4>,
}

impl Pair {
    /// The adversarial view's samples, and the same ones of the clean view, which may have further ones before them.
    pub fn of<'a>(passes: &'a [Pass], clean: &str, adversarial: &str) -> Result<(Self, &'a Targets)> {
        let (first, second) = (pass(passes, clean)?, pass(passes, adversarial)?);
        let (all, some) = (&first.view.batch.ids, &second.view.batch.ids);
        if !all.ends_with(some) {
            return Err(Error::Setting {
                what: "pair of views",
                found: format!("{} samples of '{clean}', {} of '{adversarial}'", all.len(), some.len()),
                expected: "that the second view holds the last samples of the first".into(),
            });
        }
        let from = all.len() - some.len();
        let clean = first.output.logits.clone().narrow(0, from, some.len());
        Ok((Self { clean, adversarial: second.output.logits.clone() }, &second.view.batch.targets))
    }

    /// `KL(clean ‖ adversarial)` of each pixel, `[N, H, W]`.
    pub fn divergence(&self) -> Tensor<3> {
        let [n, _, height, width] = self.clean.dims();
        let (p, q) = (log_softmax(self.clean.clone(), 1), log_softmax(self.adversarial.clone(), 1));
        (p.clone().exp() * (p - q)).sum_dim(1).reshape([n, height, width])
    }
}

/// The mean of `[N, H, W]` over the valid pixels of all samples, each multiplied by its sample's weight where there is one; the
/// weight does not change what is divided by. A batch that is all void has a mean of zero.
pub(super) fn mean_over_valid(values: Tensor<3>, targets: &Targets) -> Tensor<1> {
    let valid = targets.valid().clone();
    let count = valid.clone().sum();
    let count = count.clone().equal_elem(0.0).float() + count;
    let scale = match targets.weight() {
        Some(weight) => valid * weight.clone().reshape([-1, 1, 1]),
        None => valid,
    };
    (values * Tensor::from_inner(scale)).sum() / Tensor::from_inner(count)
}

/// Why two views no longer show the same images, if an earlier stage took them apart.
pub(super) fn mixed_apart(earlier: &[StageConfig], clean: &str, adversarial: &str) -> Option<String> {
    let made = |stage: &StageConfig| stage.options.get("into").and_then(|into| into.as_str()) == Some(adversarial);
    let position = earlier.iter().position(made)?;
    let mixes = ["mixup", "cutmix", "fmix", "resizemix", "random-mix", "manifold-mixup"];
    let later = earlier[position + 1..].iter().find(|stage| {
        let view = stage.options.get("view").and_then(|view| view.as_str());
        mixes.contains(&stage.stage.as_str()) && (view == Some(clean) || view == Some(adversarial))
    })?;
    Some(format!(
        "'{}' mixes '{clean}' and '{adversarial}' apart, so a pair no longer shows one image; mix before the attack",
        later.stage
    ))
}

/// Refuses a weight that is not a positive number.
pub(super) fn positive(what: &str, value: f64) -> Result<(), String> {
    match value > 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(format!("{what} is {value}, expected a positive number")),
    }
}
