//! SegFGSM: one step of length ε that looks only at pixels still classified correctly.
//!
//! Gu, Zhao, Tresp, Torr. *SegPGD*, ECCV 2022. <https://arxiv.org/abs/2207.12391>: SegPGD with one step, where λ = 0.

use super::{
    fgsm::{defaults, single_step},
    segpgd::{LambdaSchedule, SegPgd},
};
use crate::{GradientAttack, Registration, objective::Weighted};

inventory::submit! {
    Registration {
        name: "segfgsm",
        about: "FGSM on the pixels that are still correct",
        paper: "https://arxiv.org/abs/2207.12391",
        options: &[],
        defaults,
        build: |config| {
            let objective = Weighted(SegPgd { schedule: LambdaSchedule::Fixed(0.0) });
            Ok(Box::new(GradientAttack::new(&single_step(config)?, objective)?))
        },
    }
}
