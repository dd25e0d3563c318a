//! Inner maximisation: part of a batch becomes adversarial.
//!
//! Half of each batch attacked is Algorithm 2 of Gu, Zhao, Tresp, Torr, *SegPGD*, ECCV 2022,
//! <https://arxiv.org/abs/2207.12391>, in the setting of DDC-AT (Xu, Zhao, Jia, ICCV 2021): crafted on the network in
//! evaluation mode, then one forward pass in training mode for both halves, so batch norm sees their mixture.

use burn::tensor::Tensor;
use fireproof_attacks::{Attack, AttackConfig, Context, Iterate};
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    recipe::describe,
    stage::{BATCH, Cost, Describe, Moment, Options, Prepare, Stage, StageConfig, StageEntry, View, options},
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
    #[serde(skip)]
    built: Box<dyn Attack>,
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
        }
        fn half() -> f64 {
            0.5
        }
        let Given { attack, share, into } = crate::stage::parse(given)?;
        if !(share > 0.0 && share <= 1.0) {
            return Err(format!("share is {share}, expected over 0 to 1"));
        }
        let stage = InnerMax::new(attack, share, into).map_err(|error| error.to_string())?;
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
        Ok(Self { share, into, attack, built })
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
        format!("{share} attacked by {}, on the network frozen in evaluation mode, {place}", describe(&self.attack))
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
        let images = moment.attack(|victim| self.built.run(victim, &part, &Context::new(moment.seed)))?.images;
        match &self.into {
            Some(name) => views.push(View { name: name.clone(), batch: part.with_images(images) }),
            None if clean == 0 => batch.images = images,
            None => batch.images = Tensor::cat(vec![batch.images.clone().narrow(0, 0, clean), images], 0),
        }
        Ok(())
    }
}
