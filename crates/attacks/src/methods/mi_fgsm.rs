//! MI-FGSM and what helps it to fool models that it has not seen.
//!
//! Dong, Liao, Pang, Su, Zhu, Hu, Li. *Boosting Adversarial Attacks with Momentum*, CVPR 2018.
//! <https://arxiv.org/abs/1710.06081>: sign steps along a decaying sum of gradients, each divided by its mean magnitude.
//!
//! Perturbations fitted closely to one model do not transfer, so variants blur what the gradient sees:
//!
//! | name | adds | paper |
//! |---|---|---|
//! | `di-fgsm` | with probability `diversity` the image is shown smaller, at a random place | [1803.06978](https://arxiv.org/abs/1803.06978) |
//! | `ti-fgsm` | the gradient is smoothed by a Gaussian of `kernel` pixels | [1904.02884](https://arxiv.org/abs/1904.02884) |
//! | `ds-fgsm` | the gradient is the mean over `copies` of the image at random scales | [2111.11368](https://arxiv.org/abs/2111.11368) |
//!
//! They are the same attack with other defaults, and all options work together. For segmentation the logits of an image
//! that was shown smaller are cut out and brought back to its size, so that labels fit.
//!
//! Defaults: 20 steps of ε / steps from the clean image with a decay of 1. The variants' options are defaults of this
//! crate. Trace and observer see what the victim saw: the changed image.

use fireproof_tensor::{Batch, Counted, Victim};

use crate::{
    Adversarial, Attack, AttackConfig, Context, GradientAttack, Iterate, OptionSpec, Registration, Result, Start,
    objective::named,
    update::Momentum,
    views::{Viewed, Views},
};

/// MI-FGSM on views of the image.
struct MiFgsm {
    attack: GradientAttack,
    views: Views,
}

impl Attack for MiFgsm {
    fn name(&self) -> &str {
        self.attack.name()
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let counted = Counted::new(victim);
        let viewed = Viewed::new(&counted, self.views, self.name(), batch, context);
        let found = self.attack.run(&viewed, batch, context)?;
        // One step looks at several views.
        Ok(Adversarial { passes: counted.passes(), ..found })
    }

    fn step_size(&self) -> Option<f32> {
        self.attack.step_size()
    }

    fn contains_shorter_runs(&self) -> bool {
        self.attack.contains_shorter_runs()
    }
}

const DECAY: &str = "1, or what remains of the sum at each step, not negative";
const DIVERSITY: &str = "a probability; 0, but 0.5 for di-fgsm and 1 for ds-fgsm";
const SMALLEST: &str = "0.75, or 0.5 for ds-fgsm: the smallest size shown, in (0, 1]";
const COPIES: &str = "1, but 4 for ds-fgsm";
const KERNEL: &str = "0, but 7 for ti-fgsm: an odd number of pixels, or 0";

const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: named::OPTION, values: named::VALUES },
    OptionSpec { name: "decay", values: DECAY },
    OptionSpec { name: "diversity", values: DIVERSITY },
    OptionSpec { name: "smallest", values: SMALLEST },
    OptionSpec { name: "copies", values: COPIES },
    OptionSpec { name: "kernel", values: KERNEL },
];

fn defaults(config: &mut AttackConfig) {
    config.steps = 20;
    config.start = Start::Zero;
}

fn build(config: &AttackConfig, own: Views) -> Result<Box<dyn Attack>> {
    let decay: f32 = config.option("decay", 1.0, DECAY)?;
    let views = Views {
        probability: config.option("diversity", own.probability, DIVERSITY)?,
        smallest: config.option("smallest", own.smallest, SMALLEST)?,
        copies: config.option("copies", own.copies, COPIES)?,
        kernel: config.option("kernel", own.kernel, KERNEL)?,
    };
    let checks = [
        ("decay", decay.to_string(), decay.is_finite() && decay >= 0.0, DECAY),
        ("diversity", views.probability.to_string(), (0.0..=1.0).contains(&views.probability), DIVERSITY),
        ("smallest", views.smallest.to_string(), views.smallest > 0.0 && views.smallest <= 1.0, SMALLEST),
        ("copies", views.copies.to_string(), views.copies > 0, COPIES),
        ("kernel", views.kernel.to_string(), views.kernel == 0 || views.kernel % 2 == 1, KERNEL),
    ];
    if let Some((field, found, _, expected)) = checks.into_iter().find(|(_, _, fine, _)| !fine) {
        return Err(config.setting(field, found, expected));
    }
    // Iterates are scored by the logits of the step, which are those of a view.
    if config.iterate != Iterate::Last && views.probability > 0.0 {
        return Err(config.setting("iterate", config.iterate, "last, since the steps see changed images"));
    }
    let step_size = config.step_size.unwrap_or(config.epsilon / config.steps as f32);
    let update = Box::new(Momentum { step_size, decay });
    // Each image has views of its own.
    let compacts = views.probability == 0.0;
    let attack = GradientAttack { update, compacts, ..GradientAttack::new(config, named::chosen(config)?)? };
    Ok(Box::new(MiFgsm { attack, views }))
}

inventory::submit! {
    Registration {
        name: "mi-fgsm",
        about: "sign steps along a sum of gradients; any objective",
        paper: "https://arxiv.org/abs/1710.06081",
        options: OPTIONS,
        defaults,
        build: |config| build(config, Views::default()),
    }
}

inventory::submit! {
    Registration {
        name: "di-fgsm",
        about: "MI-FGSM that shows the image smaller at random places, for transfer",
        paper: "https://arxiv.org/abs/1803.06978",
        options: OPTIONS,
        defaults,
        build: |config| build(config, Views { probability: 0.5, ..Views::default() }),
    }
}

inventory::submit! {
    Registration {
        name: "ti-fgsm",
        about: "MI-FGSM with a smoothed gradient, for transfer",
        paper: "https://arxiv.org/abs/1904.02884",
        options: OPTIONS,
        defaults,
        build: |config| build(config, Views { kernel: 7, ..Views::default() }),
    }
}

inventory::submit! {
    Registration {
        name: "ds-fgsm",
        about: "MI-FGSM averaged over random scales, for transfer",
        paper: "https://arxiv.org/abs/2111.11368",
        options: OPTIONS,
        defaults,
        build: |config| build(config, Views { probability: 1.0, smallest: 0.5, copies: 4, ..Views::default() }),
    }
}
