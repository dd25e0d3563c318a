//! How a margin follows from what the search has found.

use serde::{Deserialize, Serialize};

/// The rule by which margins change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "lowercase", deny_unknown_fields)]
pub enum Update {
    /// They do not: adversarial training with a fixed radius (SAT).
    Fixed,
    /// After each epoch: a sample that stood every attack of the epoch expands, one that was fooled is refined, one that the
    /// network gets wrong without any attack stays (IMA, AMAT, AME).
    Grow {
        /// By how much a margin expands.
        #[serde(default)]
        expand: Expand,
        /// What a margin becomes at which the sample was fooled.
        #[serde(default)]
        refine: Refine,
        /// Epochs after which margins no longer change.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        freeze_after: Option<usize>,
        /// Epochs in a row without an expansion after which training ends (AME: 5).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        patience: Option<usize>,
    },
    /// At each visit, by two attacks of its own (IAAT): a sample that stands an attack at `E + gamma` moves there, one that
    /// is fooled at `E` moves to `E − gamma`, and of that move the share `smooth` is made.
    Probe {
        /// How far a margin is probed.
        gamma: f64,
        /// Share of the new value, over 0 to 1.
        #[serde(default = "whole")]
        smooth: f64,
    },
}

fn whole() -> f64 {
    1.0
}

/// By how much a margin expands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expand {
    /// By `delta`.
    #[default]
    Constant,
    /// By `delta / (1 + ‖∇L‖∞) · 0.9^⌊E / delta⌋`, with the gradient of the attacked loss at the last gradient step (AME).
    Decayed,
}

/// What a margin becomes at which the sample was fooled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refine {
    /// The mean of the old margin and the distance at which the sample was fooled: damps what augmentation changes.
    #[default]
    Mean,
    /// The smaller of the two.
    Minimum,
    /// It stays: margins only grow.
    None,
}

/// What one visit to a sample has shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Visit {
    /// Whether the network gets the clean sample right.
    pub right: bool,
    /// Whether an attack fooled it.
    pub fooled: bool,
    /// How far the adversarial image lies from the clean one, in the margins' unit.
    pub distance: f32,
    /// Largest absolute value of the gradient there.
    pub slope: f32,
}

impl Expand {
    /// The step by which a margin `margin` expands.
    pub fn by(self, delta: f32, margin: f32, slope: f32) -> f32 {
        match self {
            Self::Constant => delta,
            Self::Decayed => delta / (1.0 + slope) * 0.9f32.powi((margin / delta).floor() as i32),
        }
    }
}

impl Refine {
    /// The margin after a sample was fooled at `distance`.
    pub fn apply(self, margin: f32, distance: f32) -> f32 {
        match self {
            Self::Mean => (margin + distance) / 2.0,
            Self::Minimum => margin.min(distance),
            Self::None => margin,
        }
    }
}

impl Update {
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Probe { gamma, .. } if !(*gamma > 0.0 && gamma.is_finite()) => {
                Err(format!("gamma is {gamma}, expected a positive number"))
            }
            Self::Probe { smooth, .. } if !(*smooth > 0.0 && *smooth <= 1.0) => {
                Err(format!("smooth is {smooth}, expected over 0 to 1"))
            }
            Self::Grow { patience: Some(0), .. } => Err("patience is 0, expected at least 1".into()),
            _ => Ok(()),
        }
    }

    pub(crate) fn explain(&self) -> String {
        match self {
            Self::Fixed => "the radius stays".into(),
            Self::Grow { expand, refine, freeze_after, .. } => {
                let expand = match expand {
                    Expand::Constant => "expanded by delta",
                    Expand::Decayed => "expanded by a share of delta that shrinks with margin and gradient",
                };
                let refine = match refine {
                    Refine::Mean => "the mean with the distance at which it was fooled",
                    Refine::Minimum => "the distance at which it was fooled, if that is smaller",
                    Refine::None => "what it was",
                };
                let until = freeze_after.map_or(String::new(), |epochs| format!(", for {epochs} epochs"));
                format!(
                    "after an epoch the margin of a sample that stood is {expand}, that of a fooled one {refine}{until}"
                )
            }
            Self::Probe { gamma, smooth } => {
                format!("at each visit two attacks move the margin by {gamma} up or down, smoothed by {smooth}")
            }
        }
    }
}
