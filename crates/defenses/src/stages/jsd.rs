//! Jensen–Shannon consistency of several views, as AugMix trains with it.
//!
//! Hendrycks, Mu, Cubuk, Zoph, Gilmer, Lakshminarayanan. *AugMix: A Simple Data Processing Method to Improve Robustness and
//! Uncertainty*, ICLR 2020. <https://arxiv.org/abs/1912.02781>
//!
//! `weight · mean_v KL(p_v ‖ M)` with the mean prediction `M`, clamped at 1e-7. Weight 12, beside the cross-entropy of the
//! clean view alone.

use burn::tensor::{Tensor, activation::log_softmax};
use serde::{Deserialize, Serialize};

use super::pair::{mean_over_valid, positive};
use crate::{
    Error, Result,
    stage::{Describe, Moment, Options, Pass, Stage, StageEntry, Term, options, parse, pass},
};

/// Divergence of the views' predictions from their mean.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jsd {
    /// The views, two or more, of the same samples.
    pub views: Vec<String>,
    /// What the mean divergence is multiplied by.
    #[serde(default = "weight")]
    pub weight: f64,
}

fn weight() -> f64 {
    12.0
}

inventory::submit! {
    StageEntry { name: "jsd", about: "Jensen-Shannon divergence of views", build: |given| {
        let stage: Jsd = parse(given)?;
        positive("weight", stage.weight)?;
        match stage.views.len() {
            0 | 1 => Err(format!("views are {:?}, expected two or more", stage.views)),
            _ => Ok(Stage::Term(Box::new(stage))),
        }
    } }
}

impl Describe for Jsd {
    fn explain(&self) -> String {
        format!("{} x Jensen-Shannon divergence of the predictions of {}", self.weight, self.views.join(", "))
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn reads(&self) -> Vec<String> {
        self.views.clone()
    }
}

impl Term for Jsd {
    fn loss(&mut self, passes: &[Pass], _: &Moment<'_>) -> Result<Tensor<1>> {
        let views: Vec<&Pass> = self.views.iter().map(|name| pass(passes, name)).collect::<Result<_>>()?;
        let first = &views[0].view.batch;
        if let Some(other) = views.iter().find(|pass| pass.view.batch.ids != first.ids) {
            return Err(Error::Setting {
                what: "views of 'jsd'",
                found: format!("other samples in '{}' than in '{}'", other.view.name, self.views[0]),
                expected: "the same samples in all".into(),
            });
        }
        let log_p: Vec<Tensor<4>> = views.iter().map(|pass| log_softmax(pass.output.logits.clone(), 1)).collect();
        let [n, _, height, width] = log_p[0].dims();
        let count = log_p.len() as f64;
        let sum = log_p.iter().map(|p| p.clone().exp()).reduce(|a, b| a + b).expect("two or more views");
        let log_mean = (sum / count).clamp(1e-7, 1.0).log();
        let divergence = log_p.into_iter().map(|p| p.clone().exp() * (p - log_mean.clone())).reduce(|a, b| a + b);
        let divergence = divergence.expect("two or more views").sum_dim(1).reshape([n, height, width]);
        Ok(mean_over_valid(divergence, &first.targets) * (self.weight / count))
    }
}
