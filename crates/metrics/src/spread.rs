//! How far apart the same experiment lands with other seeds.

use serde::{Deserialize, Serialize};

/// Mean, deviation and range of a score over runs that differ in their seed only, in the score's own unit.
///
/// ```
/// use fireproof_metrics::Spread;
///
/// let spread = Spread::of(&[0.5, 0.75, 1.0]).unwrap();
/// assert_eq!((spread.mean, spread.deviation, spread.low, spread.high), (0.75, Some(0.25), 0.5, 1.0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many runs.
    pub runs: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation with `n − 1` in the denominator: runs are a sample of all seeds. `None` for a single run.
    pub deviation: Option<f64>,
    /// The lowest score.
    pub low: f64,
    /// The highest score.
    pub high: f64,
}

impl Spread {
    /// The spread of `scores`; `None` when there are none. Sums depend on the order: pass them sorted by seed.
    pub fn of(scores: &[f64]) -> Option<Self> {
        let low = scores.iter().copied().min_by(f64::total_cmp)?;
        let high = scores.iter().copied().max_by(f64::total_cmp)?;
        let runs = scores.len();
        // Rounding may put the mean of equal numbers beside them.
        let mean = (scores.iter().sum::<f64>() / runs as f64).clamp(low, high);
        let squares: f64 = scores.iter().map(|score| (score - mean).powi(2)).sum();
        let deviation = (runs > 1).then(|| (squares / (runs - 1) as f64).sqrt());
        Some(Self { runs, mean, deviation, low, high })
    }
}
