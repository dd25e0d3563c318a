//! PAdam: projected Adam, with a step of its own for every value.
//!
//! Halmosi, Mohos, Jelasity. *Evaluating the Adversarial Robustness of Semantic Segmentation: Trying Harder Pays Off*,
//! ECCV 2024. <https://arxiv.org/abs/2407.09150>
//!
//! Adam with AMSGrad ascends the loss and is projected after every step. Where the sign step moves every value alike, a
//! value with a small or wavering gradient moves less here. The paper runs it with cross-entropy and with the cosine of
//! logits, `padam.objective=cosine`. With `padam.drop=5` a step has a tenth of its length from the sixth on, as training with it
//! does (Rebuffi et al., <https://arxiv.org/abs/2111.05328>: ten steps of 0.1).
//!
//! Defaults: 200 steps of 2/255 from a random start, last iterate, plain cross-entropy.

use crate::{GradientAttack, OptionSpec, Registration, objective::named, update::Adam};

inventory::submit! {
    Registration {
        name: "padam",
        about: "projected Adam; any objective",
        paper: "https://arxiv.org/abs/2407.09150",
        options: &[
            OptionSpec { name: named::OPTION, values: named::VALUES },
            OptionSpec { name: "drop", values: "0 for never, or the number of steps after which steps are a tenth as long" },
        ],
        defaults: |config| {
            config.steps = 200;
            config.step_size = Some(2.0 / 255.0);
        },
        build: |config| {
            let drop: usize = config.option("drop", 0, "a number of steps, 0 for never")?;
            let update = Box::new(Adam { step_size: config.step(), drop_after: (drop > 0).then_some(drop) });
            Ok(Box::new(GradientAttack { update, ..GradientAttack::new(config, named::chosen(config)?)? }))
        },
    }
}
