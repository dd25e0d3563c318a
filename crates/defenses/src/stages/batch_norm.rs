//! How batch norm behaves in the pass of one view.
//!
//! Adversarial images have other statistics than clean ones. With `train`, both update the running statistics that the
//! network is evaluated with. Keeping the adversarial view out of them is what Xie, Tan, Gong, Wang, Yuille, Le,
//! *Adversarial Examples Improve Image Recognition*, CVPR 2020, <https://arxiv.org/abs/1911.09665>, do with a second batch
//! norm; here weight and bias stay shared.

use fireproof_models::BatchNormMode;
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    stage::{Describe, Moment, Options, Prepare, Stage, StageEntry, View, options, parse},
};

/// Sets the mode of batch norm for a view.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNorm {
    /// The view.
    pub view: String,
    /// `train`: the view's own statistics, which the running ones follow; `train-without-update`: its own, which leave no
    /// trace; `eval`: the running ones.
    pub mode: BatchNormMode,
}

inventory::submit! {
    StageEntry { name: "batch-norm", about: "batch norm's mode in the pass of one view", build: |given| {
        Ok(Stage::Prepare(Box::new(parse::<BatchNorm>(given)?)))
    } }
}

impl Describe for BatchNorm {
    fn explain(&self) -> String {
        let mode = match self.mode {
            BatchNormMode::Train => "uses its own statistics and updates the running ones",
            BatchNormMode::TrainWithoutUpdate => "uses its own statistics and leaves the running ones alone",
            BatchNormMode::Eval => "uses the running statistics",
        };
        format!("in the pass of '{}' batch norm {mode}", self.view)
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn reads(&self) -> Vec<String> {
        vec![self.view.clone()]
    }
}

impl Prepare for BatchNorm {
    fn prepare(&mut self, views: &mut Vec<View>, _moment: &Moment<'_>) -> Result<()> {
        views.iter_mut().filter(|view| view.name == self.view).for_each(|view| view.batch_norm = self.mode);
        Ok(())
    }
}
