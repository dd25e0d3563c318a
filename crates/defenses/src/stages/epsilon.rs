//! Radii that change during training: curriculum and adaptive adversarial training.
//!
//! Kinfu, Vidal. *Analysis and Extensions of Adversarial Training for Video Classification*, CVPR workshops 2022.
//! <https://arxiv.org/abs/2206.07953>
//!
//! Curriculum: the radius grows linearly over the epochs to the attack's own. Adaptive: every ten epochs the loss on held-out data
//! is measured at ten radii from zero to the attack's own, and each batch draws one with a probability proportional to its loss.
//! The paper's code takes the loss of the last batch alone; here it is the mean over all.
//!
//! The paper finds that the best step grows with the radius. Steps are scaled with it, or taken from the paper's table.

use std::collections::BTreeMap;

use burn::tensor::TensorData;
use fireproof_attacks::{Attack, AttackConfig, Context};
use fireproof_datasets::{Sample, batch};
use fireproof_tensor::{Batch, Passes, Victim, ops::weighted_cross_entropy, random::Stream};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, draw, stage::Dawn};

/// How the radius of a training attack is chosen, between zero and the attack's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum EpsilonSchedule {
    /// From `from` in the first epoch to the attack's own in the last one, linearly.
    Linear {
        /// The radius of the first epoch.
        from: f32,
    },
    /// Drawn: the attack's own times Beta(`alpha`, `alpha`), 1.5 in the paper.
    Beta {
        /// Both parameters of the distribution.
        alpha: f64,
    },
    /// Drawn from a grid, by the loss on held-out data at each radius.
    Adaptive {
        /// Radii of the grid, from zero to the attack's own.
        #[serde(default = "ten")]
        levels: usize,
        /// Epochs between two measurements.
        #[serde(default = "ten")]
        every: usize,
    },
}

fn ten() -> usize {
    10
}

/// How the steps of an attack follow its radius.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Steps {
    /// The attack's number of steps, whose length is scaled with the radius.
    #[default]
    Scaled,
    /// Length and number from the table that the paper's authors tuned for videos, between its rows by interpolation.
    Table,
}

impl EpsilonSchedule {
    pub(super) fn check(&self, attack: &AttackConfig) -> Result<(), String> {
        match *self {
            Self::Linear { from } if !(from >= 0.0 && from <= attack.epsilon) => {
                Err(format!("epsilon_schedule.from is {from}, expected 0 to the attack's epsilon {}", attack.epsilon))
            }
            Self::Beta { alpha } if !(alpha > 0.0 && alpha.is_finite()) => {
                Err(format!("epsilon_schedule.alpha is {alpha}, expected a positive number"))
            }
            Self::Adaptive { levels: 0 | 1, .. } => Err("epsilon_schedule.levels must be at least 2".into()),
            Self::Adaptive { every: 0, .. } => Err("epsilon_schedule.every is 0, expected at least 1".into()),
            _ => Ok(()),
        }
    }

    pub(super) fn explain(&self, epsilon: f32) -> String {
        match self {
            Self::Linear { from } => format!("radius from {from:.5} to {epsilon:.5} over the epochs"),
            Self::Beta { alpha } => format!("radius {epsilon:.5} times Beta({alpha}, {alpha})"),
            Self::Adaptive { levels, every } => format!(
                "radius drawn from {levels} up to {epsilon:.5} by the loss on held-out data, measured every {every} epochs"
            ),
        }
    }
}

/// The grid of an adaptive radius.
pub(super) fn grid(levels: usize, epsilon: f32) -> Vec<f32> {
    (0..levels).map(|level| epsilon * level as f32 / (levels - 1) as f32).collect()
}

/// A radius during a run.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    /// What each radius of the grid is drawn with.
    probabilities: Vec<f64>,
}

const PROBABILITIES: &str = "radius-probabilities";

impl Drawn {
    /// The radius of a draw with this stream.
    pub fn radius(&self, rule: &EpsilonSchedule, epsilon: f32, [epoch, epochs]: [usize; 2], stream: &Stream) -> f32 {
        match rule {
            EpsilonSchedule::Linear { from } => {
                let share = if epochs > 1 { epoch.min(epochs - 1) as f32 / (epochs - 1) as f32 } else { 1.0 };
                if share == 1.0 { epsilon } else { from + (epsilon - from) * share }
            }
            EpsilonSchedule::Beta { alpha } => epsilon * draw::beta(stream, *alpha) as f32,
            EpsilonSchedule::Adaptive { levels, .. } => {
                let grid = grid(*levels, epsilon);
                let mut left = f64::from(stream.uniform(0));
                let found = self.probabilities.iter().position(|probability| {
                    left -= probability;
                    left < 0.0
                });
                grid[found.unwrap_or(*levels - 1)]
            }
        }
    }

    /// Measures the losses of an adaptive radius where it is time to.
    pub fn measure(
        &mut self,
        rule: &EpsilonSchedule,
        attack: &AttackConfig,
        steps: Steps,
        dawn: &Dawn<'_>,
    ) -> Result<Passes> {
        let EpsilonSchedule::Adaptive { levels, every } = rule else { return Ok(Passes::default()) };
        if !dawn.epoch.is_multiple_of(*every) {
            return Ok(Passes::default());
        }
        let victim = dawn.network.victim();
        let (mut losses, mut passes) = (Vec::new(), Passes::default());
        for radius in grid(*levels, attack.epsilon) {
            let built =
                (radius > 0.0).then(|| fireproof_attacks::build(&at_radius(attack, radius, steps))).transpose()?;
            losses.push(loss(&*victim, dawn, built.as_deref(), &mut passes)?);
        }
        self.probabilities = shares(&losses);
        Ok(passes)
    }

    pub fn state(&self) -> Vec<(String, TensorData)> {
        match self.probabilities.len() {
            0 => Vec::new(),
            n => vec![(PROBABILITIES.into(), TensorData::new(self.probabilities.clone(), [n]))],
        }
    }

    pub fn restore(
        &mut self,
        rule: Option<&EpsilonSchedule>,
        state: &mut BTreeMap<String, TensorData>,
    ) -> Result<(), String> {
        let Some(found) = state.remove(PROBABILITIES) else { return Ok(()) };
        let values = found.try_to_vec::<f64>().map_err(|error| format!("'{PROBABILITIES}': {error:?}"))?;
        match rule {
            Some(EpsilonSchedule::Adaptive { levels, .. }) if values.len() == *levels => {
                self.probabilities = values;
                Ok(())
            }
            _ => Err(format!("holds {} probabilities of radii, which the stage does not draw from", values.len())),
        }
    }
}

/// Probabilities that are proportional to losses; even where there is nothing to tell radii apart.
pub(super) fn shares(losses: &[f64]) -> Vec<f64> {
    let sum: f64 = losses.iter().sum();
    if sum > 0.0 {
        losses.iter().map(|loss| loss / sum).collect()
    } else {
        vec![1.0 / losses.len() as f64; losses.len()]
    }
}

/// The attack with another radius, whose steps follow it.
pub(super) fn at_radius(attack: &AttackConfig, radius: f32, steps: Steps) -> AttackConfig {
    let (size, count) = match steps {
        Steps::Scaled => (attack.step() * radius / attack.epsilon, attack.steps),
        Steps::Table => {
            let [size, count] = table(radius * 255.0);
            (size / 255.0, count.round() as usize)
        }
    };
    AttackConfig { epsilon: radius, step_size: Some(size), steps: count, ..attack.clone() }
}

/// Rows of the authors' table: radius and step size in 1/255, number of steps.
const TABLE: [[f32; 3]; 12] = [
    [1.0, 0.325, 8.0],
    [2.0, 0.5, 8.0],
    [3.0, 0.7, 7.0],
    [4.0, 1.0, 6.0],
    [5.0, 1.3, 5.0],
    [6.0, 1.45, 4.0],
    [7.0, 1.75, 4.0],
    [8.0, 1.85, 3.0],
    [9.0, 1.9, 3.0],
    [10.0, 2.0, 3.0],
    [12.0, 2.27, 2.0],
    [15.0, 2.4, 2.0],
];

/// Most steps that the table has.
pub(super) const MOST_STEPS: usize = 8;

/// Step size and number of steps at a radius, all in 1/255. Outside the table its ends; below it steps shrink with the radius.
pub(super) fn table(radius: f32) -> [f32; 2] {
    let first = TABLE[0];
    if radius <= first[0] {
        return [first[1] * radius / first[0], first[2]];
    }
    let pair = TABLE.windows(2).find(|pair| radius <= pair[1][0]);
    let Some([low, high]) = pair.map(|pair| [pair[0], pair[1]]) else {
        let last = TABLE[TABLE.len() - 1];
        return [last[1], last[2]];
    };
    let share = (radius - low[0]) / (high[0] - low[0]);
    [1, 2].map(|column| low[column] + (high[column] - low[column]) * share)
}

/// Mean cross-entropy of the valid pixels of held-out images, attacked or not.
fn loss(victim: &dyn Victim, dawn: &Dawn<'_>, attack: Option<&dyn Attack>, passes: &mut Passes) -> Result<f64> {
    let count = dawn.images.unwrap_or(usize::MAX).min(dawn.held_out.len());
    let (mut sum, mut pixels) = (0.0, 0.0);
    let mut add = |samples: &mut Vec<Sample>| -> Result<()> {
        let batch: Batch =
            batch(samples, &dawn.network.device())?.in_unit(dawn.network.architecture().normalisation.unit)?;
        samples.clear();
        let images = match attack {
            Some(attack) => {
                let found = attack.run(victim, &batch, &Context::new(dawn.seed))?;
                *passes = *passes + found.passes;
                found.images
            }
            None => batch.images.clone(),
        };
        let logits = victim.logits(images)?;
        *passes = *passes + Passes { forward: batch.len() as u64, backward: 0 };
        let entropy = weighted_cross_entropy(&logits, &batch.targets, None);
        sum += f64::from(entropy.loss.sum().into_scalar::<f32>());
        pixels += f64::from(batch.targets.valid().clone().sum().into_scalar::<f32>());
        Ok(())
    };
    let mut pending: Vec<Sample> = Vec::new();
    for position in 0..count {
        let sample = dawn.held_out.get(position * dawn.held_out.len() / count)?;
        if pending.len() == dawn.batch_size
            || pending.first().is_some_and(|first| first.image.size() != sample.image.size())
        {
            add(&mut pending)?;
        }
        pending.push(sample);
    }
    if !pending.is_empty() {
        add(&mut pending)?;
    }
    match pixels > 0.0 {
        true => Ok(sum / pixels),
        false => Err(Error::Setting {
            what: "held-out data",
            found: "no labelled pixel".into(),
            expected: "labels, by which radii are weighed".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_met_at_its_rows_and_interpolated_between_them() {
        for [radius, size, steps] in TABLE {
            assert_eq!(table(radius), [size, steps]);
        }
        let [size, steps] = table(11.0);
        assert!((size - 2.135).abs() < 1e-6 && (steps - 2.5).abs() < 1e-6);
        assert_eq!(table(20.0), [2.4, 2.0]);
        assert_eq!(table(0.5), [0.1625, 8.0]);
        let most = TABLE.iter().map(|row| row[2] as usize).max().unwrap();
        assert_eq!(most, MOST_STEPS);
    }

    #[test]
    fn a_curriculum_meets_both_ends_exactly() {
        let rule = EpsilonSchedule::Linear { from: 1.0 / 255.0 };
        let (drawn, stream) = (Drawn::default(), Stream::new(&[0]));
        let radii: Vec<f32> = (0..5).map(|epoch| drawn.radius(&rule, 8.0 / 255.0, [epoch, 5], &stream)).collect();
        assert_eq!((radii[0], radii[4]), (1.0 / 255.0, 8.0 / 255.0));
        assert!(radii.is_sorted());
        assert_eq!(drawn.radius(&rule, 0.5, [0, 1], &stream), 0.5, "a run of one epoch trains at the full radius");
    }

    #[test]
    fn drawn_radii_follow_the_losses() {
        let losses = [1.0, 2.0, 5.0, 8.0];
        let probabilities = shares(&losses);
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12 && probabilities.is_sorted());
        let drawn = Drawn { probabilities: probabilities.clone() };
        let rule = EpsilonSchedule::Adaptive { levels: 4, every: 1 };
        let n = 8000;
        let mut counts = [0.0; 4];
        for i in 0..n {
            let radius = drawn.radius(&rule, 0.3, [0, 1], &Stream::new(&[i]));
            counts[(radius / 0.1).round() as usize] += 1.0;
        }
        // χ² with three degrees of freedom: 16.3 is exceeded once in a thousand.
        let chi: f64 =
            counts.iter().zip(&probabilities).map(|(c, p)| (c - p * n as f64).powi(2) / (p * n as f64)).sum();
        assert!(chi < 16.3, "{chi}: {counts:?}");
    }
}
