//! PGD: steepest ascent of the cross-entropy from a random start, projected on the ball after every step.
//!
//! Madry, Makelov, Schmidt, Tsipras, Vladu. *Towards Deep Learning Models Resistant to Adversarial Attacks*, ICLR 2018.
//! <https://arxiv.org/abs/1706.06083>
//!
//! Every valid pixel counts the same, also those that are wrong already: that is what SegPGD and CosPGD improve on.
//!
//! ```
//! use fireproof_attacks::{AttackConfig, build};
//! let pgd = build(&AttackConfig { steps: 100, ..AttackConfig::new("pgd")? })?;
//! assert!(pgd.contains_shorter_runs());
//! # Ok::<(), fireproof_attacks::Error>(())
//! ```

use burn::tensor::Tensor;

use crate::{
    Goal, GradientAttack, Registration, Step,
    objective::{NamedObjective, PixelWeight, Weighted},
};

/// The plain cross-entropy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pgd;

impl PixelWeight for Pgd {
    fn weights(&self, _step: Step, _logits: &Tensor<4>, _goal: &Goal) -> Option<Tensor<3>> {
        None
    }

    fn depends_on_total(&self) -> bool {
        false
    }
}

inventory::submit! {
    NamedObjective { name: "ce", options: &[], build: |_| Ok(Box::new(Weighted(Pgd))) }
}

inventory::submit! {
    Registration {
        name: "pgd",
        about: "steepest ascent of the cross-entropy from a random start",
        paper: "https://arxiv.org/abs/1706.06083",
        options: &[],
        defaults: |_| {},
        build: |config| Ok(Box::new(GradientAttack::new(config, Weighted(Pgd))?)),
    }
}
