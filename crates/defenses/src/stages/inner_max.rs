//! Inner maximisation: part of a batch becomes adversarial.
//!
//! Half of each batch attacked is Algorithm 2 of Gu, Zhao, Tresp, Torr, *SegPGD*, ECCV 2022,
//! <https://arxiv.org/abs/2207.12391>, in the setting of DDC-AT (Xu, Zhao, Jia, ICCV 2021): crafted on the network in
//! evaluation mode, then one forward pass in training mode for both halves, so batch norm sees their mixture.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use fireproof_attacks::{Attack, AttackConfig, Context, Iterate};
use serde::{Deserialize, Serialize};

use crate::{
    EpochRecord, Radius, Regulator, Result,
    radius::{Regulation, clean_loss},
    recipe::describe,
    stage::{
        BATCH, Cost, Describe, Moment, Options, Pass, Prepare, Stage, StageConfig, StageEntry, View, options, pass,
    },
};

/// Attacks the last `share` of the batch on the frozen network.
///
/// The adversarial images replace the clean ones in place, or become a view of their own next to the untouched batch.
#[derive(Serialize)]
pub struct InnerMax {
    /// Share of the batch that is attacked, over 0 to 1; rounded up to whole images.
    pub share: f64,
    /// Name of the view that the adversarial images make; without one they replace the clean images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// The attack.
    pub attack: AttackConfig,
    /// What share of its radius and step size the attack has when.
    #[serde(skip_serializing_if = "is_constant")]
    pub radius: Radius,
    #[serde(skip)]
    built: Box<dyn Attack>,
    #[serde(skip)]
    regulation: Option<Regulation>,
}

fn is_constant(radius: &Radius) -> bool {
    *radius == Radius::Constant
}

inventory::submit! {
    StageEntry { name: "inner-max", about: "attacks part of the batch", build: |given| {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Given {
            attack: AttackConfig,
            #[serde(default = "half")]
            share: f64,
            into: Option<String>,
            #[serde(default)]
            radius: Radius,
        }
        fn half() -> f64 {
            0.5
        }
        let Given { attack, share, into, radius } = crate::stage::parse(given)?;
        radius.check()?;
        if into.is_none() && matches!(radius, Radius::Regulated { by: Regulator::CleanLoss, .. }) {
            return Err("radius is regulated by the clean loss, expected a view in 'into': in place there is no clean batch \
                        left".into());
        }
        if !(share > 0.0 && share <= 1.0) {
            return Err(format!("share is {share}, expected over 0 to 1"));
        }
        let stage = InnerMax::new(attack, share, into).map_err(|error| error.to_string())?.with_radius(radius);
        Ok(Stage::Prepare(Box::new(stage)))
    } }
}

impl InnerMax {
    /// Attacks `share` (over 0 to 1) of each batch.
    ///
    /// # Errors
    /// The attack's, for settings it cannot take.
    pub fn new(attack: AttackConfig, share: f64, into: Option<String>) -> Result<Self> {
        let built = fireproof_attacks::build(&attack)?;
        Ok(Self { share, into, attack, radius: Radius::Constant, built, regulation: None })
    }

    /// With a radius that changes over the run.
    #[must_use]
    pub fn with_radius(self, radius: Radius) -> Self {
        let regulation = Regulation::begin(&radius);
        Self { radius, regulation, ..self }
    }

    /// The share of its radius that the attack has at this moment.
    fn radius_share(&self, moment: &Moment<'_>) -> f64 {
        match &self.regulation {
            Some(regulation) => regulation.share(),
            None => self.radius.ramp(moment.step, moment.steps),
        }
    }

    /// Images at the front of a batch of `n` that stay clean.
    fn clean(&self, n: usize) -> usize {
        // The half of an odd batch is a number of images only after rounding; 1e-9 keeps 0.9 of 10 from being 8.
        (n as f64 * (1.0 - self.share) + 1e-9).floor() as usize
    }
}

impl Describe for InnerMax {
    fn explain(&self) -> String {
        let share = match self.share {
            1.0 => "the whole batch".to_string(),
            share => format!("the last {share} of the batch"),
        };
        let place = match &self.into {
            Some(view) => format!("also as the view '{view}'"),
            None => "in place".into(),
        };
        format!(
            "{share} attacked by {}, on the network frozen in evaluation mode, {place}{}",
            describe(&self.attack),
            self.radius.explain()
        )
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn cost(&self) -> Cost {
        let AttackConfig { steps, restarts, iterate, .. } = self.attack;
        // Choosing among iterates or restarts takes a look at the last one too.
        let look = if iterate == Iterate::Last && restarts == 1 { 0 } else { 1 };
        let own = if self.into.is_some() { self.share } else { 0.0 };
        Cost {
            forward: self.share * (restarts * (steps + look)) as f64 + own,
            input_backward: self.share * (restarts * steps) as f64,
            full_backward: own,
        }
    }

    fn makes(&self) -> Vec<String> {
        self.into.iter().cloned().collect()
    }

    fn reads(&self) -> Vec<String> {
        vec![BATCH.into()]
    }

    fn state(&self) -> Vec<(String, TensorData)> {
        self.regulation.iter().map(Regulation::state).collect()
    }

    fn restore(&mut self, mut state: BTreeMap<String, TensorData>) -> Result<(), String> {
        if let Some(regulation) = &mut self.regulation {
            regulation.restore(&mut state)?;
        }
        match state.keys().next() {
            Some(name) => Err(format!("holds '{name}', which the stage does not keep")),
            None => Ok(()),
        }
    }

    fn after_epoch(&mut self, record: &EpochRecord) -> Result<()> {
        if let Some(regulation) = &mut self.regulation {
            regulation.after_epoch(&self.radius, record);
        }
        Ok(())
    }

    fn contradiction(&self, earlier: &[StageConfig]) -> Option<String> {
        let in_place = |stage: &&StageConfig| stage.stage == "inner-max" && !stage.options.contains_key("into");
        earlier.iter().find(in_place).map(|_| {
            "the batch was attacked in place already, so a second radius would not be around the clean images; attack \
             into a view first"
                .into()
        })
    }
}

impl Prepare for InnerMax {
    fn prepare(&mut self, views: &mut Vec<View>, moment: &Moment<'_>) -> Result<()> {
        let batch = &mut views[0].batch;
        let (clean, all) = (self.clean(batch.len()), batch.len());
        let part = batch.slice(clean..all);
        let scaled = |value: f32, share: f64| vec![(f64::from(value) * share) as f32; part.len()];
        let share = self.radius_share(moment);
        let (epsilon, step) = (scaled(self.attack.epsilon, share), scaled(self.attack.step(), share));
        let mut context = Context::new(moment.seed);
        if share != 1.0 {
            context = Context { epsilon: Some(&epsilon), step_size: Some(&step), ..context };
        }
        let images = moment.attack(|victim| self.built.run(victim, &part, &context))?.images;
        match &self.into {
            Some(name) => views.push(View::new(name, part.with_images(images))),
            None if clean == 0 => batch.images = images,
            None => batch.images = Tensor::cat(vec![batch.images.clone().narrow(0, 0, clean), images], 0),
        }
        Ok(())
    }
    fn observe(&mut self, passes: &mut [Pass], _moment: &Moment<'_>) -> Result<()> {
        if let Some(regulation) = &mut self.regulation {
            let clean = pass(passes, BATCH)?;
            let loss = clean_loss(clean.output.logits.clone().inner(), &clean.view.batch.targets);
            regulation.after_step(&self.radius, loss);
        }
        Ok(())
    }
}
