//! How an attack's radius changes over a run.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use fireproof_tensor::{Targets, ops};
use serde::{Deserialize, Serialize};

use crate::EpochRecord;

/// What share of its radius and step size an attack has at a step.
///
/// ```
/// use fireproof_defenses::{Ramp, Radius};
///
/// let half = Radius::Ramp { shape: Ramp::Linear, from: 0.0, over: 0.5 };
/// assert_eq!([0, 25, 50, 99].map(|step| half.ramp(step, 100)), [0.0, 0.5, 1.0, 1.0]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Radius {
    /// All of it, always.
    #[default]
    Constant,
    /// Growing from the share `from` to all of it over the first part of the run.
    Ramp {
        /// The curve.
        #[serde(default)]
        shape: Ramp,
        /// Share at the first step, 0 to 1.
        #[serde(default)]
        from: f64,
        /// Part of the run's steps after which it is whole, over 0 to 1.
        #[serde(default = "half")]
        over: f64,
    },
    /// Regulated by how well the network does on clean images: the share is multiplied by `1 + rate` while they do well enough
    /// and by `1 − rate` while they do not, between `least` and 1.
    Regulated {
        /// What tells how well.
        #[serde(default)]
        by: Regulator,
        /// By how much the share changes, over 0 to below 1.
        #[serde(default = "rate")]
        rate: f64,
        /// Share of the reference by which the loss may be higher or the score lower.
        #[serde(default = "tolerance")]
        tolerance: f64,
        /// What they are compared with. Without it, the mean loss of the first ten steps, or the score of the first epoch
        /// that was validated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reference: Option<f64>,
        /// The share at the first step, and the smallest one, over 0 to 1.
        #[serde(default = "least")]
        least: f64,
    },
}

/// The curve of a ramp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ramp {
    /// Straight.
    #[default]
    Linear,
    /// Half a cosine: flat at both ends.
    Cosine,
}

/// What regulates a radius.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Regulator {
    /// The mean cross-entropy of the clean batch, smoothed over about ten steps: after each step.
    #[default]
    CleanLoss,
    /// The clean mIoU on the validation data: after each epoch that has one.
    CleanScore,
}

fn half() -> f64 {
    0.5
}

fn rate() -> f64 {
    0.05
}

fn tolerance() -> f64 {
    0.1
}

fn least() -> f64 {
    0.05
}

/// Steps whose mean loss is the reference, and over which the loss is smoothed.
const WINDOW: f64 = 10.0;

impl Radius {
    pub(crate) fn check(&self) -> Result<(), String> {
        let share = |what: &str, value: f64, zero: bool| match value <= 1.0 && (value > 0.0 || zero && value == 0.0) {
            true => Ok(()),
            false => {
                Err(format!("{what} of the radius is {value}, expected {}0 to 1", if zero { "" } else { "over " }))
            }
        };
        match self {
            Self::Constant => Ok(()),
            Self::Ramp { from, over, .. } => share("from", *from, true).and_then(|()| share("over", *over, false)),
            Self::Regulated { rate, tolerance, reference, least, .. } => {
                share("least", *least, false)?;
                if !(*rate > 0.0 && *rate < 1.0) {
                    return Err(format!("rate of the radius is {rate}, expected over 0 to below 1"));
                }
                if !(*tolerance >= 0.0 && tolerance.is_finite()) {
                    return Err(format!("tolerance of the radius is {tolerance}, expected zero or more"));
                }
                match reference.filter(|reference| !(*reference > 0.0 && reference.is_finite())) {
                    Some(reference) => {
                        Err(format!("reference of the radius is {reference}, expected a positive number"))
                    }
                    None => Ok(()),
                }
            }
        }
    }

    pub(crate) fn explain(&self) -> String {
        match self {
            Self::Constant => String::new(),
            Self::Ramp { shape, from, over } => {
                let shape = format!("{shape:?}").to_lowercase();
                format!(", radius and step growing from {from} to 1 over {over} of the run ({shape})")
            }
            Self::Regulated { by, rate, tolerance, least, .. } => {
                let by = match by {
                    Regulator::CleanLoss => "the clean loss stays below",
                    Regulator::CleanScore => "the clean validation mIoU stays above",
                };
                format!(
                    ", radius and step from {least} up: times {} while {by} its reference by a tolerance of {tolerance}, \
                     else times {}",
                    1.0 + rate,
                    1.0 - rate
                )
            }
        }
    }

    /// The share at `step` (from 0) of `steps`, for all but regulated radii, whose share is not known before the run.
    pub fn ramp(&self, step: u64, steps: u64) -> f64 {
        let Self::Ramp { shape, from, over } = self else { return 1.0 };
        let t = (step as f64 / (over * steps.max(1) as f64)).min(1.0);
        let t = match shape {
            Ramp::Linear => t,
            Ramp::Cosine => 0.5 - 0.5 * (std::f64::consts::PI * t).cos(),
        };
        from + (1.0 - from) * t
    }
}

/// A regulated radius during a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Regulation {
    share: f64,
    /// Smoothed loss.
    loss: f64,
    /// What it is compared with, once known.
    reference: Option<f64>,
    /// Steps seen.
    seen: f64,
}

impl Regulation {
    /// Where a run begins; `None` for a radius that is not regulated.
    pub(crate) fn begin(radius: &Radius) -> Option<Self> {
        let Radius::Regulated { reference, least, .. } = *radius else { return None };
        Some(Self { share: least, loss: 0.0, reference, seen: 0.0 })
    }

    pub(crate) fn share(&self) -> f64 {
        self.share
    }

    /// After a step whose clean batch has this loss.
    pub(crate) fn after_step(&mut self, radius: &Radius, loss: f64) {
        let Radius::Regulated { by: Regulator::CleanLoss, tolerance, .. } = radius else { return };
        self.seen += 1.0;
        // The plain mean at first, then an exponential one.
        self.loss += (loss - self.loss) / self.seen.min(WINDOW);
        if self.seen < WINDOW && self.reference.is_none() {
            return;
        }
        let reference = *self.reference.get_or_insert(self.loss);
        self.move_share(radius, self.loss <= reference * (1.0 + tolerance));
    }

    /// After an epoch.
    pub(crate) fn after_epoch(&mut self, radius: &Radius, record: &EpochRecord) {
        let Radius::Regulated { by: Regulator::CleanScore, tolerance, .. } = radius else { return };
        let Some(score) = record.clean_miou else { return };
        let reference = *self.reference.get_or_insert(score);
        self.move_share(radius, score >= reference * (1.0 - tolerance));
    }

    fn move_share(&mut self, radius: &Radius, well: bool) {
        let Radius::Regulated { rate, least, .. } = radius else { return };
        let factor = if well { 1.0 + rate } else { 1.0 - rate };
        self.share = (self.share * factor).clamp(*least, 1.0);
    }

    pub(crate) fn state(&self) -> (String, TensorData) {
        let numbers = vec![self.share, self.loss, self.reference.unwrap_or(-1.0), self.seen];
        ("radius".into(), TensorData::new(numbers, [4]))
    }

    pub(crate) fn restore(&mut self, state: &mut BTreeMap<String, TensorData>) -> Result<(), String> {
        let numbers = state.remove("radius").and_then(|data| data.try_to_vec::<f64>().ok());
        let Some([share, loss, reference, seen]) = numbers.as_deref() else { return Err("has no 'radius'".into()) };
        let reference = (*reference >= 0.0).then_some(*reference);
        *self = Self { share: *share, loss: *loss, reference, seen: *seen };
        Ok(())
    }
}

/// The mean cross-entropy over the valid pixels of plain logits.
pub(crate) fn clean_loss(logits: Tensor<4>, targets: &Targets) -> f64 {
    let valid: f32 = targets.valid().clone().sum().into_scalar();
    let sum: f32 = ops::cross_entropy(logits, targets).sum().into_scalar();
    f64::from(sum) / f64::from(valid.max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regulated(by: Regulator, reference: Option<f64>) -> Radius {
        Radius::Regulated { by, rate: 0.5, tolerance: 0.1, reference, least: 0.1 }
    }

    #[test]
    fn a_radius_grows_while_the_clean_loss_is_low_and_shrinks_while_it_is_high() {
        let radius = regulated(Regulator::CleanLoss, None);
        let mut now = Regulation::begin(&radius).unwrap();
        (0..9).for_each(|_| now.after_step(&radius, 1.0));
        assert_eq!(now.share(), 0.1, "the first ten steps make the reference");
        let shares: Vec<f64> = [1.0, 1.0, 1.0].map(|loss| (now.after_step(&radius, loss), now.share()).1).into();
        assert!(shares.windows(2).all(|pair| (pair[1] / pair[0] - 1.5).abs() < 1e-12), "{shares:?}");
        (0..20).for_each(|_| now.after_step(&radius, 1.0));
        assert_eq!(now.share(), 1.0, "never beyond the attack's own radius");
        // Smoothed over ten steps, a loss of 3 takes the mean from 1 to 1.2 at once.
        now.after_step(&radius, 3.0);
        assert_eq!(now.share(), 0.5);
        (0..50).for_each(|_| now.after_step(&radius, 3.0));
        assert_eq!(now.share(), 0.1);
    }

    #[test]
    fn a_radius_follows_the_clean_score_of_epochs_that_have_one() {
        let radius = regulated(Regulator::CleanScore, Some(0.8));
        let mut now = Regulation::begin(&radius).unwrap();
        let mut after = |clean_miou| {
            let record = EpochRecord { epoch: 1, step: 1, loss: 0.0, clean_miou, robust_miou: None, seconds: 0.0 };
            now.after_epoch(&radius, &record);
            now.after_step(&radius, 100.0);
            now.share()
        };
        let shares = [Some(0.73), None, Some(0.9), Some(0.71), Some(0.71)].map(&mut after);
        for (found, expected) in shares.into_iter().zip([0.15, 0.15, 0.225, 0.1125, 0.1]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn ramps_end_where_they_should() {
        let cosine = Radius::Ramp { shape: Ramp::Cosine, from: 0.2, over: 1.0 };
        assert!((cosine.ramp(0, 100) - 0.2).abs() < 1e-12 && (cosine.ramp(50, 100) - 0.6).abs() < 1e-12);
        assert!(cosine.ramp(10, 100) < 0.2 + 0.08, "flat at the start");
        assert!(
            Radius::Ramp { shape: Ramp::Linear, from: 1.5, over: 0.5 }
                .check()
                .unwrap_err()
                .contains("from of the radius is 1.5")
        );
    }
}
