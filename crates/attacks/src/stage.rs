//! Runs in stages of shrinking radius.

use std::str::FromStr;

/// A part of a run with a radius of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// The radius, in units of the threat's.
    pub radius: f32,
    /// Gradient steps.
    pub steps: usize,
}

/// The radii of a run's stages, in units of ε; the last is one, so that what is returned lies in the ball.
///
/// Croce, Singh, Hein, ECCV 2024: a run that begins in a larger ball and is projected twice on its way to the right one
/// finds better points than one that stays in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Radii(Vec<f32>);

impl Default for Radii {
    /// One stage in the ball itself.
    fn default() -> Self {
        Self(vec![1.0])
    }
}

impl Radii {
    /// The published `2 ε → 1.5 ε → ε`.
    pub fn shrinking() -> Self {
        Self(vec![2.0, 1.5, 1.0])
    }

    /// The stages of a run: three take 30, 30 and 40 % of the steps, rounded down but for the last, as published; any other
    /// number takes equal parts. Stages without a step are left out.
    pub fn stages(&self, steps: usize) -> Vec<Stage> {
        let count = self.0.len();
        let share = if count == 3 { 3 * steps / 10 } else { steps / count };
        let all = self.0.iter().enumerate().map(|(i, &radius)| {
            let steps = if i + 1 == count { steps - share * i } else { share };
            Stage { radius, steps }
        });
        all.filter(|stage| stage.steps > 0).collect()
    }
}

pub(crate) const VALUES: &str = "1, or radii in units of epsilon that shrink to 1, e.g. 2,1.5,1";

impl FromStr for Radii {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let radii: Option<Vec<f32>> =
            text.split(',').map(|r| r.trim().parse().ok().filter(|r: &f32| r.is_finite())).collect();
        let radii = radii.filter(|r| r.last() == Some(&1.0) && r.windows(2).all(|pair| pair[0] > pair[1]));
        radii.map(Self).ok_or(VALUES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str, steps: usize) -> Vec<usize> {
        text.parse::<Radii>().unwrap().stages(steps).iter().map(|stage| stage.steps).collect()
    }

    #[test]
    fn three_stages_share_the_steps_as_published() {
        assert_eq!(steps("2,1.5,1", 300), [90, 90, 120]);
        assert_eq!(steps("2,1.5,1", 10), [3, 3, 4]);
        assert_eq!(steps("2,1.5,1", 1), [1]);
        assert_eq!(steps("1", 7), [7]);
        assert_eq!(steps("4,1", 7), [3, 4]);
        assert_eq!("2, 1.5, 1".parse(), Ok(Radii::shrinking()));
        for wrong in ["", "2", "1,2", "1,1", "nan,1", "2;1"] {
            assert_eq!(wrong.parse::<Radii>(), Err(VALUES), "{wrong}");
        }
    }
}
