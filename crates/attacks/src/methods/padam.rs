//! PAdam: projected Adam, with a step of its own for every value.
//!
//! Halmosi, Mohos, Jelasity. *Evaluating the Adversarial Robustness of Semantic Segmentation: Trying Harder Pays Off*,
//! ECCV 2024. <https://arxiv.org/abs/2407.09150>
//!
//! Adam with AMSGrad ascends the loss and is projected after every step. Where the sign step moves every value alike, a
//! value with a small or wavering gradient moves less here. The paper runs it with cross-entropy and with the cosine of
//! logits, `padam.objective=cosine`.
//!
//! Defaults: 200 steps of 2/255 from a random start, last iterate, plain cross-entropy.

use crate::{GradientAttack, OptionSpec, Registration, objective::named, update::Adam};

inventory::submit! {
    Registration {
        name: "padam",
        about: "projected Adam; any objective",
        paper: "https://arxiv.org/abs/2407.09150",
        options: &[OptionSpec { name: named::OPTION, values: named::VALUES }],
        defaults: |config| {
            config.steps = 200;
            config.step_size = Some(2.0 / 255.0);
        },
        build: |config| {
            let update = Box::new(Adam { step_size: config.step() });
            Ok(Box::new(GradientAttack { update, ..GradientAttack::new(config, named::chosen(config)?)? }))
        },
    }
}
