//! Transfer: images that were made for another model.
//!
//! Papernot, McDaniel, Goodfellow. *Transferability in Machine Learning*, 2016. <https://arxiv.org/abs/1605.07277>
//!
//! Any attack (`attack`) runs on the model of another weights file (`source`); the victim only sees the result. What it
//! hurts the victim bounds the white box from below: where it hurts more than the white-box attacks do, these have failed, and
//! the victim hides its gradient.
//!
//! The steps, radius, start, target and all options are the inner attack's. Whoever runs the attack loads the source and gives it
//! as [`Context::source`]; `bench` and `attack` do. Passes are those through the source.
//!
//! Defaults: `attack` = `mi-fgsm` with its 20 steps from the clean image; `di-fgsm`, `ti-fgsm` and `ds-fgsm` transfer better.

use fireproof_tensor::{Batch, Victim};

use crate::{
    Adversarial, Attack, AttackConfig, Context, OptionSpec, Registration, Result, Start,
    registry::{self, INNER},
};

struct Transfer {
    name: String,
    source: String,
    inner: Box<dyn Attack>,
}

impl Attack for Transfer {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial> {
        let source = context.source.unwrap_or(victim);
        self.inner.run(source, batch, &Context { source: None, ..*context })
    }

    fn step_size(&self) -> Option<f32> {
        self.inner.step_size()
    }

    fn contains_shorter_runs(&self) -> bool {
        self.inner.contains_shorter_runs()
    }

    fn bounded(&self) -> bool {
        self.inner.bounded()
    }

    fn source(&self) -> Option<&str> {
        Some(&self.source)
    }
}

const ATTACK: &str = "mi-fgsm, or another attack that needs nothing but a model";
const SOURCE: &str = "the weights file of the model that the images are made for; without one it is the victim itself";

fn build(config: &AttackConfig) -> Result<Box<dyn Attack>> {
    let mut own = config.clone();
    let name = own.options.remove(INNER).unwrap_or_else(|| DEFAULT.into());
    let source = own.options.remove("source").unwrap_or_default();
    if name == config.name {
        return Err(config.setting(INNER, format!("'{name}'"), ATTACK));
    }
    let inner = registry::build(&AttackConfig { name, ..own })?;
    if inner.learns().is_some() {
        return Err(config.setting(INNER, format!("'{}'", inner.name()), ATTACK));
    }
    Ok(Box::new(Transfer { name: config.name.clone(), source, inner }))
}

const DEFAULT: &str = "mi-fgsm";

inventory::submit! {
    Registration {
        name: "transfer",
        about: "any attack made for the model of another weights file",
        paper: "https://arxiv.org/abs/1605.07277",
        options: &[OptionSpec { name: INNER, values: ATTACK }, OptionSpec { name: "source", values: SOURCE }],
        defaults: |config| {
            config.steps = 20;
            config.start = Start::Zero;
        },
        build,
    }
}
