//! Learning rates over the steps of a run.

use serde::{Deserialize, Serialize};

/// How the learning rate falls, per optimizer step.
///
/// ```
/// use fireproof_defenses::Schedule;
///
/// let schedule = Schedule::Poly { power: 0.9 };
/// assert_eq!(schedule.factor(0, 100), 1.0);
/// assert_eq!(schedule.factor(75, 100), 0.25_f64.powf(0.9));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Schedule {
    /// The same rate at every step.
    Constant,
    /// `(1 − step / steps)^power`, the rule of DeepLab, PSPNet and DDC-AT.
    Poly {
        /// The exponent, 0.9 in those papers.
        power: f64,
    },
}

impl Schedule {
    /// What the base rate is multiplied by at `step` (from 0) of `steps`.
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Poly { power } => (1.0 - step.min(steps) as f64 / steps.max(1) as f64).powf(*power),
        }
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Constant => write!(f, "constant"),
            Self::Poly { power } => write!(f, "poly decay of power {power} per step"),
        }
    }
}
