//! FGSM: one step of length ε from the clean image.
//!
//! Goodfellow, Shlens, Szegedy. *Explaining and Harnessing Adversarial Examples*, ICLR 2015.
//! <https://arxiv.org/abs/1412.6572>

use super::pgd::Pgd;
use crate::{AttackConfig, GradientAttack, Registration, Result, Start, objective::Weighted};

/// One step whose length is the radius, unless said.
pub(super) fn single_step(config: &AttackConfig) -> Result<AttackConfig> {
    if config.steps != 1 {
        return Err(config.setting("steps", config.steps, "1, since it is a single-step attack"));
    }
    Ok(AttackConfig { step_size: config.step_size.or(Some(config.epsilon)), ..config.clone() })
}

/// The defaults of a single-step attack.
pub(super) fn defaults(config: &mut AttackConfig) {
    config.steps = 1;
    config.start = Start::Zero;
}

inventory::submit! {
    Registration {
        name: "fgsm",
        about: "one step of length epsilon from the clean image",
        paper: "https://arxiv.org/abs/1412.6572",
        options: &[],
        defaults,
        build: |config| Ok(Box::new(GradientAttack::new(&single_step(config)?, Weighted(Pgd))?)),
    }
}
