//! Learning rates over the steps of a run.

use serde::{Deserialize, Serialize};

/// How the learning rate changes, per optimizer step. Places in a run are shares of its steps, 0 to 1.
///
/// ```
/// use fireproof_defenses::Schedule;
///
/// let schedule = Schedule::Poly { power: 0.9 };
/// assert_eq!(schedule.factor(0, 100), 1.0);
/// assert_eq!(schedule.factor(75, 100), 0.25_f64.powf(0.9));
/// let schedule = Schedule::Piecewise { milestones: vec![0.5, 0.75], factor: 0.1 };
/// assert_eq!([0, 50, 75].map(|step| schedule.factor(step, 100)), [1.0, 0.1, 0.1 * 0.1]);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Schedule {
    /// The same rate at every step.
    Constant,
    /// `(1 − step / steps)^power`, the rule of DeepLab, PSPNet and DDC-AT.
    Poly {
        /// The exponent, 0.9 in those papers.
        power: f64,
    },
    /// Multiplied by `factor` at each milestone: 0.1 at 0.5 and 0.75 in Rice et al. and AWP.
    Piecewise {
        /// Where in the run, rising.
        milestones: Vec<f64>,
        /// What the rate is multiplied by there.
        factor: f64,
    },
    /// A linear rise over `warmup`, then half a cosine down to zero: Rebuffi et al.
    Cosine {
        /// Share of the run that the rise takes, 0.025 there; 0 for none.
        warmup: f64,
    },
    /// Linear from zero to the full rate at `peak`, and back to zero at the end: one cycle, as fast adversarial training has it.
    Cyclic {
        /// Where in the run the rate is highest.
        peak: f64,
    },
}

impl Schedule {
    /// What the base rate is multiplied by at `step` (from 0) of `steps`.
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        let at = step.min(steps) as f64 / steps.max(1) as f64;
        // The first step of a rise from zero is its first part, not zero: a step of rate zero would be lost.
        let risen = |over: f64| (at + 1.0 / steps.max(1) as f64).min(over) / over;
        match self {
            Self::Constant => 1.0,
            Self::Poly { power } => (1.0 - at).powf(*power),
            Self::Piecewise { milestones, factor } => {
                milestones.iter().filter(|milestone| at >= **milestone).fold(1.0, |rate, _| rate * factor)
            }
            Self::Cosine { warmup } if at < *warmup => risen(*warmup),
            Self::Cosine { warmup } => 0.5 * (1.0 + (std::f64::consts::PI * (at - warmup) / (1.0 - warmup)).cos()),
            Self::Cyclic { peak } if at < *peak => risen(*peak),
            Self::Cyclic { peak } => (1.0 - at) / (1.0 - peak),
        }
    }

    /// What is wrong with the settings: what it is, what was found, what was expected.
    pub(crate) fn problem(&self) -> Option<(&'static str, String, &'static str)> {
        let share = |value: f64| (0.0..1.0).contains(&value);
        match self {
            Self::Poly { power } if !(*power > 0.0 && power.is_finite()) => {
                Some(("power of the schedule", power.to_string(), "a positive number"))
            }
            Self::Piecewise { milestones, .. }
                if !(milestones.is_sorted() && milestones.iter().all(|&milestone| share(milestone))) =>
            {
                Some((
                    "milestones of the schedule",
                    format!("{milestones:?}"),
                    "rising shares of the run, 0 to below 1",
                ))
            }
            Self::Piecewise { factor, .. } if !(*factor > 0.0 && factor.is_finite()) => {
                Some(("factor of the schedule", factor.to_string(), "a positive number"))
            }
            Self::Cosine { warmup } if !share(*warmup) => {
                Some(("warm-up of the schedule", warmup.to_string(), "a share of the run, 0 to below 1"))
            }
            Self::Cyclic { peak } if !(share(*peak) && *peak > 0.0) => {
                Some(("peak of the schedule", peak.to_string(), "a share of the run, over 0 and below 1"))
            }
            _ => None,
        }
    }
}

/// `constant`, `poly=0.9`, `piecewise` (by 0.1 at 0.5 and 0.75) or `piecewise=0.4,0.8`, `cosine` or `cosine=0.025` (the
/// warm-up), `cyclic` or `cyclic=0.4` (the peak).
impl std::str::FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, values) = text.split_once('=').unwrap_or((text, ""));
        let numbers = values.split(',').filter(|part| !part.is_empty()).map(|part| part.trim().parse::<f64>());
        let numbers: Vec<f64> = numbers.collect::<Result<_, _>>().map_err(|error| format!("'{values}': {error}"))?;
        let one = |default: f64| match numbers[..] {
            [] => Ok(default),
            [value] => Ok(value),
            _ => Err(format!("'{text}' has {} numbers, expected one", numbers.len())),
        };
        let schedule = match kind {
            "constant" if numbers.is_empty() => Self::Constant,
            "poly" => Self::Poly { power: one(0.9)? },
            "piecewise" if numbers.is_empty() => Self::Piecewise { milestones: vec![0.5, 0.75], factor: 0.1 },
            "piecewise" => Self::Piecewise { milestones: numbers, factor: 0.1 },
            "cosine" => Self::Cosine { warmup: one(0.0)? },
            "cyclic" => Self::Cyclic { peak: one(0.4)? },
            _ => {
                return Err(format!(
                    "found '{text}', expected constant, poly=0.9, piecewise=0.5,0.75, cosine=0.025 or cyclic=0.4"
                ));
            }
        };
        match schedule.problem() {
            Some((what, found, expected)) => Err(format!("{what}: found {found}, expected {expected}")),
            None => Ok(schedule),
        }
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Constant => write!(f, "constant"),
            Self::Poly { power } => write!(f, "poly decay of power {power} per step"),
            Self::Piecewise { milestones, factor } => write!(f, "times {factor} at {milestones:?} of the run"),
            Self::Cosine { warmup } => write!(f, "cosine decay after a rise over {warmup} of the run"),
            Self::Cyclic { peak } => write!(f, "one cycle with its peak at {peak} of the run"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, steps: [u64; 5]) -> [f64; 5] {
        let schedule: Schedule = text.parse().unwrap();
        steps.map(|step| (schedule.factor(step, 1000) * 1e6).round() / 1e6)
    }

    #[test]
    fn schedules_have_the_values_of_their_formulas() {
        assert_eq!(at("constant", [0, 1, 500, 999, 1000]), [1.0; 5]);
        // (1 - t)^0.9
        assert_eq!(at("poly=0.9", [0, 100, 500, 900, 1000]), [1.0, 0.909533, 0.535887, 0.125893, 0.0]);
        assert_eq!(at("piecewise", [0, 499, 500, 749, 750]), [1.0, 1.0, 0.1, 0.1, 0.01]);
        assert_eq!(at("piecewise=0.4,0.8,0.9", [399, 400, 799, 800, 900]), [1.0, 0.1, 0.1, 0.01, 0.001]);
        // A rise over 25 steps that ends at the full rate, then (1 + cos) / 2 of what is left.
        assert_eq!(at("cosine=0.025", [0, 9, 24, 25, 1000]), [0.04, 0.4, 1.0, 1.0, 0.0]);
        assert_eq!(at("cosine", [0, 250, 500, 750, 1000]), [1.0, 0.853553, 0.5, 0.146447, 0.0]);
        assert_eq!(at("cyclic=0.4", [0, 199, 399, 400, 700]), [0.0025, 0.5, 1.0, 1.0, 0.5]);
    }

    #[test]
    fn a_schedule_that_makes_no_sense_is_refused_with_what_was_found() {
        for (text, found) in [
            ("poly=-1", "-1"),
            ("poly=1,2", "2 numbers"),
            ("piecewise=0.8,0.4", "[0.8, 0.4]"),
            ("piecewise=1.5", "[1.5]"),
            ("cosine=1", "1"),
            ("cyclic=0", "0"),
            ("constant=1", "constant=1"),
            ("linear", "linear"),
            ("poly=x", "'x'"),
        ] {
            let message = text.parse::<Schedule>().unwrap_err();
            assert!(message.contains(found), "{text}: {message}");
        }
    }
}
