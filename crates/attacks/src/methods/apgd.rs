//! APGD: steps that adapt to each image, and the lowest accuracy on the way.
//!
//! Croce, Hein. *Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks*,
//! ICML 2020. <https://arxiv.org/abs/2003.01690>; for segmentation Croce, Singh, Hein, ECCV 2024.
//! <https://arxiv.org/abs/2306.12941>
//!
//! The step, 2 ε at first, is halved where it no longer helps ([`Apgd`]), so there is no step size to tune. Iterates are
//! compared by plain cross-entropy whatever loss is ascended, since a masked loss falls as pixels leave the mask; what is
//! returned is the iterate with the lowest accuracy. `radii=2,1.5,1` runs 30 %, 30 % and 40 % of the steps at 2 ε, 1.5 ε and
//! ε, each stage from the best iterate of the one before.
//!
//! Defaults: 300 steps of plain cross-entropy at one radius, from a random start. A given step size replaces 2 ε.

use crate::{
    AttackConfig, GradientAttack, Iterate, OptionSpec, Radii, Registration, Result,
    objective::{Objective, named},
    stage,
    update::Apgd,
};

/// APGD with an objective, as the settings say.
pub(super) fn apgd(config: &AttackConfig, objective: impl Objective + 'static, radii: Radii) -> Result<GradientAttack> {
    let update = Box::new(Apgd { step_size: config.step_size });
    Ok(GradientAttack { update, radii, ..GradientAttack::new(config, objective)? })
}

inventory::submit! {
    Registration {
        name: "apgd",
        about: "PGD with momentum and a step halved where it no longer helps; any objective",
        paper: "https://arxiv.org/abs/2003.01690",
        options: &[
            OptionSpec { name: named::OPTION, values: named::VALUES },
            OptionSpec { name: "radii", values: stage::VALUES },
        ],
        defaults: |config| {
            config.steps = 300;
            config.iterate = Iterate::BestAccuracy;
        },
        build: |config| {
            let radii = config.option("radii", Radii::default(), stage::VALUES)?;
            Ok(Box::new(apgd(config, named::chosen(config)?, radii)?))
        },
    }
}
