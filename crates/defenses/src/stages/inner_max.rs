//! Inner maximisation: part of a batch becomes adversarial.
//!
//! Half of each batch attacked is Algorithm 2 of Gu, Zhao, Tresp, Torr, *SegPGD*, ECCV 2022,
//! <https://arxiv.org/abs/2207.12391>, in the setting of DDC-AT (Xu, Zhao, Jia, ICCV 2021): crafted on the network in
//! evaluation mode, then one forward pass in training mode for both halves, so batch norm sees their mixture.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use fireproof_attacks::{Attack, AttackConfig, Context, Iterate};
use fireproof_models::BatchNormMode;
use fireproof_tensor::{Batch, Passes, random::Stream};
use serde::{Deserialize, Serialize};

use super::epsilon::{self, Drawn, EpsilonSchedule, Steps};
use crate::{
    EpochRecord, Radius, Regulator, Result,
    radius::{Regulation, clean_loss},
    recipe::describe,
    stage::{
        BATCH, Cost, Dawn, Describe, Moment, Options, Pass, Prepare, Stage, StageConfig, StageEntry, View, options,
        pass,
    },
};

/// What recipes call the view of adversarial images, and terms that compare it with clean ones read.
pub const ADVERSARIAL: &str = "adversarial";

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
    /// How batch norm behaves during the attack.
    pub batch_norm: BatchNormMode,
    /// What share of its radius and step size the attack has when.
    #[serde(skip_serializing_if = "is_constant")]
    pub radius: Radius,
    /// How the radius is chosen by epochs, draws or held-out losses, instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_schedule: Option<EpsilonSchedule>,
    /// How the attack's steps follow a radius of the schedule.
    pub steps: Steps,
    /// Frames of a clip: samples whose ids differ in their place within so many share a draw of the radius. Without it all of
    /// a batch do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<u64>,
    /// The attack.
    pub attack: AttackConfig,
    #[serde(skip)]
    built: Box<dyn Attack>,
    #[serde(skip)]
    drawn: Drawn,
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
            #[serde(default = "eval")]
            batch_norm: BatchNormMode,
            #[serde(default)]
            radius: Radius,
            epsilon_schedule: Option<EpsilonSchedule>,
            #[serde(default)]
            steps: Steps,
            clip: Option<u64>,
        }
        fn half() -> f64 {
            0.5
        }
        fn eval() -> BatchNormMode {
            BatchNormMode::Eval
        }
        let Given { attack, share, into, batch_norm, radius, epsilon_schedule, steps, clip } = crate::stage::parse(given)?;
        radius.check()?;
        if into.is_none() && matches!(radius, Radius::Regulated { by: Regulator::CleanLoss, .. }) {
            return Err("radius is regulated by the clean loss, expected a view in 'into': in place there is no clean batch \
                        left".into());
        }
        if epsilon_schedule.is_some() && !is_constant(&radius) {
            return Err("'radius' and 'epsilon_schedule' are two rules for one radius".into());
        }
        if !(share > 0.0 && share <= 1.0) {
            return Err(format!("share is {share}, expected over 0 to 1"));
        }
        match (&epsilon_schedule, steps, clip) {
            (_, _, Some(0)) => return Err("clip is 0, expected at least one frame".into()),
            (_, Steps::Table, Some(_)) => {
                return Err("steps = 'table' makes as many steps as the radius says, so a batch has one radius: leave out \
                            'clip'".into());
            }
            (None, Steps::Table, _) | (None, _, Some(_)) => {
                return Err("'steps' and 'clip' are about a radius that changes, but there is no 'epsilon_schedule'".into());
            }
            _ => {}
        }
        epsilon_schedule.iter().try_for_each(|schedule| schedule.check(&attack))?;
        let stage = InnerMax::new(attack, share, into).map_err(|error| error.to_string())?.with_radius(radius);
        Ok(Stage::Prepare(Box::new(InnerMax { batch_norm, epsilon_schedule, steps, clip, ..stage })))
    } }
}

impl InnerMax {
    /// Attacks `share` (over 0 to 1) of each batch.
    ///
    /// # Errors
    /// The attack's, for settings it cannot take.
    pub fn new(attack: AttackConfig, share: f64, into: Option<String>) -> Result<Self> {
        let built = fireproof_attacks::build(&attack)?;
        Ok(Self {
            share,
            into,
            batch_norm: BatchNormMode::Eval,
            radius: Radius::Constant,
            epsilon_schedule: None,
            steps: Steps::Scaled,
            clip: None,
            attack,
            built,
            drawn: Drawn::default(),
            regulation: None,
        })
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

    /// The adversarial images of a batch.
    fn craft(&self, part: &Batch, moment: &Moment<'_>) -> Result<Tensor<4>> {
        let run = |attack: &dyn Attack, context: &Context<'_>| {
            moment.attack_in(self.batch_norm, |victim| attack.run(victim, part, context))
        };
        let context = Context::new(moment.seed);
        let Some(rule) = &self.epsilon_schedule else {
            let share = self.radius_share(moment);
            if share == 1.0 {
                return Ok(run(&*self.built, &context)?.images);
            }
            let scaled = |value: f32| vec![(f64::from(value) * share) as f32; part.len()];
            let (epsilon, step) = (scaled(self.attack.epsilon), scaled(self.attack.step()));
            let context = Context { epsilon: Some(&epsilon), step_size: Some(&step), ..context };
            return Ok(run(&*self.built, &context)?.images);
        };
        let key = |clip: u64| Stream::new(&[moment.seed, clip]).child("radius");
        let draw = |clip| self.drawn.radius(rule, self.attack.epsilon, [moment.epoch, moment.epochs], &key(clip));
        if self.steps == Steps::Table {
            let radius = draw(0);
            if radius == 0.0 {
                return Ok(part.images.clone());
            }
            let attack = fireproof_attacks::build(&epsilon::at_radius(&self.attack, radius, Steps::Table))?;
            return Ok(run(&*attack, &context)?.images);
        }
        let radii: Vec<f32> = part.ids.iter().map(|id| draw(self.clip.map_or(0, |frames| 1 + id / frames))).collect();
        let steps: Vec<f32> = radii.iter().map(|radius| self.attack.step() * radius / self.attack.epsilon).collect();
        Ok(run(&*self.built, &Context { epsilon: Some(&radii), step_size: Some(&steps), ..context })?.images)
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
        let mode = match self.batch_norm {
            BatchNormMode::Eval => "frozen in evaluation mode",
            _ => "frozen, with the statistics of the attacked batch",
        };
        let schedule = self.epsilon_schedule.as_ref().map(|rule| format!(", {}", rule.explain(self.attack.epsilon)));
        let steps = match self.steps {
            Steps::Table => format!(", at most {} steps by the radius", epsilon::MOST_STEPS),
            Steps::Scaled => String::new(),
        };
        let (attack, schedule, radius) = (describe(&self.attack), schedule.unwrap_or_default(), self.radius.explain());
        format!("{share} attacked by {attack}{schedule}{steps}, on the network {mode}, {place}{radius}")
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn cost(&self) -> Cost {
        let AttackConfig { restarts, iterate, .. } = self.attack;
        let steps = if self.steps == Steps::Table { epsilon::MOST_STEPS } else { self.attack.steps };
        // Choosing among iterates or restarts takes a look at the last one too; a divergence from the clean prediction takes one
        // at the clean images.
        let looks = usize::from(!(iterate == Iterate::Last && restarts == 1));
        let clean =
            usize::from(self.attack.name == "kl" || self.attack.options.get("objective").is_some_and(|o| o == "kl"));
        let own = if self.into.is_some() { self.share } else { 0.0 };
        Cost {
            forward: self.share * (restarts * (steps + looks + clean)) as f64 + own,
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

    fn contradiction(&self, earlier: &[StageConfig]) -> Option<String> {
        let in_place = |stage: &&StageConfig| stage.stage == "inner-max" && !stage.options.contains_key("into");
        earlier.iter().find(in_place).map(|_| {
            "the batch was attacked in place already, so a second radius would not be around the clean images; attack \
             into a view first"
                .into()
        })
    }

    fn before_epoch(&mut self, dawn: &Dawn<'_>) -> Result<Passes> {
        match &self.epsilon_schedule {
            Some(rule) => self.drawn.measure(rule, &self.attack, self.steps, dawn),
            None => Ok(Passes::default()),
        }
    }

    fn state(&self) -> Vec<(String, TensorData)> {
        self.drawn.state().into_iter().chain(self.regulation.iter().map(Regulation::state)).collect()
    }

    fn restore(&mut self, mut state: BTreeMap<String, TensorData>) -> Result<(), String> {
        self.drawn.restore(self.epsilon_schedule.as_ref(), &mut state)?;
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
}

impl Prepare for InnerMax {
    fn prepare(&mut self, views: &mut Vec<View>, moment: &Moment<'_>) -> Result<()> {
        let (clean, all) = (self.clean(views[0].batch.len()), views[0].batch.len());
        let part = views[0].batch.slice(clean..all);
        let images = self.craft(&part, moment)?;
        let batch = &mut views[0].batch;
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
