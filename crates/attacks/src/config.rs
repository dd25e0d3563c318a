//! The settings of an attack, as a value: what a command line sets, a recipe holds and a results file names.

use std::{collections::BTreeMap, str::FromStr};

use fireproof_tensor::{Norm, Unit};
use serde::{Deserialize, Serialize};

use crate::{Error, Iterate, Result, Start, Target, registry};

/// Name and settings of a registered attack.
///
/// [`new`](AttackConfig::new) fills in the defaults of the method's paper, and so does reading a file: only `name` must
/// be there.
///
/// ```
/// use fireproof_attacks::AttackConfig;
/// let config = AttackConfig { steps: 40, ..AttackConfig::new("pgd")? };
/// assert_eq!((config.epsilon, config.step()), (8.0 / 255.0, 0.01));
/// # Ok::<(), fireproof_attacks::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Partial")]
pub struct AttackConfig {
    /// The registered name.
    pub name: String,
    /// Norm of the ball.
    pub norm: Norm,
    /// Radius of the ball, in `unit`. 8/255 unless said; the papers also use 0.03, which is 7.65/255.
    pub epsilon: f32,
    /// What radius and step size count: pixels, or standard deviations of the case that an image belongs to.
    pub unit: Unit,
    /// Length of a step; `None` for the method's own rule, see [`step`](AttackConfig::step).
    pub step_size: Option<f32>,
    /// Number of gradient steps, each one forward and one backward pass.
    pub steps: usize,
    /// Independent runs, of which each image keeps the best.
    pub restarts: usize,
    /// Which iterate is returned.
    pub iterate: Iterate,
    /// The first iterate.
    pub start: Start,
    /// The map to reach; `None` for an untargeted attack.
    pub target: Option<Target>,
    /// Lowest and highest valid value of a pixel, in pixels whatever the unit: in normalised units each case has a range
    /// of its own, these two less its mean, over its standard deviation.
    pub range: [f32; 2],
    /// What only this method has, by name; [`list`](crate::list) tells which.
    pub options: BTreeMap<String, String>,
}

/// The radius of an attack that does not say otherwise, in ℓ∞.
const RADIUS: f32 = 8.0 / 255.0;

impl AttackConfig {
    /// The defaults of a registered attack.
    ///
    /// # Errors
    /// [`Error::UnknownAttack`] with the names that exist.
    pub fn new(name: &str) -> Result<Self> {
        let mut config = Self {
            name: name.to_string(),
            norm: Norm::Linf,
            epsilon: RADIUS,
            unit: Unit::Pixel,
            step_size: None,
            steps: 10,
            restarts: 1,
            iterate: Iterate::Last,
            start: Start::Random,
            target: None,
            range: [0.0, 1.0],
            options: BTreeMap::new(),
        };
        (registry::find(name)?.defaults)(&mut config);
        Ok(config)
    }

    /// Refuses any other unit than pixels.
    pub(crate) fn in_pixels(&self) -> Result<()> {
        match self.unit {
            Unit::Pixel => Ok(()),
            other => Err(self.setting("unit", other, "pixel")),
        }
    }

    /// Whether the method has a radius of its own, which an evaluation's common radius is not meant for: a patch may look like
    /// anything, C&W's ball is ℓ2. To be asked of defaults.
    pub fn has_own_radius(&self) -> bool {
        self.norm != Norm::Linf || self.epsilon != RADIUS
    }

    /// The step size in use: the given one, else 0.01 (ℓ∞ in pixels, never more than ε) or 0.4 ε (ℓ2, and all normalised
    /// units: what IMA's evaluation takes for ten steps).
    pub fn step(&self) -> f32 {
        self.step_size.unwrap_or(match self.norm {
            Norm::Linf if self.unit == Unit::Pixel => self.epsilon.min(0.01),
            _ => 0.4 * self.epsilon,
        })
    }

    /// Checks what every attack needs.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the setting.
    pub fn check(&self) -> Result<()> {
        let positive = |x: f32| x.is_finite() && x > 0.0;
        if !positive(self.epsilon) {
            return Err(self.setting("epsilon", self.epsilon, "a positive, finite number, e.g. 0.03 for 7.65/255"));
        }
        if let Some(step) = self.step_size.filter(|&s| !positive(s)) {
            return Err(self.setting("step_size", step, "a positive, finite number, e.g. 0.01"));
        }
        if self.steps == 0 {
            return Err(self.setting("steps", self.steps, "at least 1"));
        }
        if self.restarts == 0 {
            return Err(self.setting("restarts", self.restarts, "at least 1"));
        }
        if self.restarts > 1 && self.start == Start::Zero {
            return Err(self.setting("restarts", self.restarts, "1, since every run from the clean image is the same"));
        }
        let [low, high] = self.range;
        if !(low.is_finite() && high.is_finite() && low < high) {
            return Err(self.setting("range", format!("{:?}", self.range), "lowest and highest pixel value"));
        }
        if self.norm == Norm::Linf && self.unit == Unit::Pixel && self.epsilon > high - low {
            let expected = format!("at most {}, the width of the range (is it in units of 1/255?)", high - low);
            return Err(self.setting("epsilon", self.epsilon, &expected));
        }
        Ok(())
    }

    /// A method's own option, or its default.
    ///
    /// # Errors
    /// [`Error::Setting`] if the text does not parse.
    pub fn option<T: FromStr>(&self, name: &str, default: T, expected: &str) -> Result<T> {
        match self.options.get(name) {
            Some(text) => text.parse().map_err(|_| self.setting(name, format!("'{text}'"), expected)),
            None => Ok(default),
        }
    }

    /// The error of a setting of this attack.
    pub fn setting(&self, field: &str, found: impl ToString, expected: &str) -> Error {
        Error::Setting {
            attack: self.name.clone(),
            field: field.to_string(),
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }
}

/// What a file says; the rest comes from the method's defaults.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Partial {
    name: String,
    norm: Option<Norm>,
    epsilon: Option<f32>,
    unit: Option<Unit>,
    step_size: Option<f32>,
    steps: Option<usize>,
    restarts: Option<usize>,
    iterate: Option<Iterate>,
    start: Option<Start>,
    target: Option<Target>,
    range: Option<[f32; 2]>,
    #[serde(default)]
    options: BTreeMap<String, String>,
}

impl TryFrom<Partial> for AttackConfig {
    type Error = Error;

    fn try_from(said: Partial) -> Result<Self> {
        let default = Self::new(&said.name)?;
        let config = Self {
            name: said.name,
            norm: said.norm.unwrap_or(default.norm),
            epsilon: said.epsilon.unwrap_or(default.epsilon),
            unit: said.unit.unwrap_or(default.unit),
            step_size: said.step_size.or(default.step_size),
            steps: said.steps.unwrap_or(default.steps),
            restarts: said.restarts.unwrap_or(default.restarts),
            iterate: said.iterate.unwrap_or(default.iterate),
            start: said.start.unwrap_or(default.start),
            target: said.target.or(default.target),
            range: said.range.unwrap_or(default.range),
            options: default.options.into_iter().chain(said.options).collect(),
        };
        config.check()?;
        Ok(config)
    }
}
