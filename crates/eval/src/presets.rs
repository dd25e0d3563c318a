//! Ready-made lists of attacks: the tiers of the evaluation protocol, as data.

use fireproof_attacks::{AttackConfig, Iterate, build};
use fireproof_tensor::Unit;

use crate::{
    Checks, Error, Result,
    settings::{steps_of, variants},
};

/// A named choice of attacks and their settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    /// The name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// What is run besides the clean images.
    pub entries: &'static [Entry],
    /// Radius, in `unit`.
    pub epsilon: f32,
    /// What the radius counts.
    pub unit: Unit,
    /// The first so many images, unless the user chooses; `None` for all.
    pub images: Option<usize>,
    /// Which sanity checks are run.
    pub checks: Checks,
    /// What a complete evaluation would hold and this one does not.
    pub lacks: &'static [&'static str],
}

/// An attack of a preset, and how it differs from its defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// The attack's name.
    pub attack: &'static str,
    /// Numbers of steps, one row each; none for the attack's own number.
    pub steps: &'static [usize],
    /// Which iterate is scored; `None` for the attack's own.
    pub iterate: Option<Iterate>,
    /// Step size; `None` for the attack's own rule.
    pub step_size: Option<f32>,
    /// Radius in pixel units; `None` for the preset's. It stays where the user asks for another radius.
    pub epsilon: Option<f32>,
    /// What only this attack has.
    pub options: &'static [(&'static str, &'static str)],
}

impl Entry {
    /// An attack with its own settings.
    pub const fn new(attack: &'static str) -> Self {
        Self { attack, steps: &[], iterate: None, step_size: None, epsilon: None, options: &[] }
    }

    const fn steps(self, steps: &'static [usize]) -> Self {
        Self { steps, ..self }
    }

    const fn options(self, options: &'static [(&'static str, &'static str)]) -> Self {
        Self { options, ..self }
    }

    const fn iterate(self, iterate: Iterate) -> Self {
        Self { iterate: Some(iterate), ..self }
    }

    const fn step_size(self, step_size: f32) -> Self {
        Self { step_size: Some(step_size), ..self }
    }

    const fn epsilon(self, epsilon: f32) -> Self {
        Self { epsilon: Some(epsilon), ..self }
    }

    /// Whether this program has the attack.
    pub fn exists(&self) -> bool {
        AttackConfig::new(self.attack).is_ok()
    }

    /// Whether the attack looks at another model, whose weights only the user can name.
    pub fn needs_source(&self) -> bool {
        let built = AttackConfig::new(self.attack).and_then(|config| build(&config));
        built.is_ok_and(|attack| attack.source() == Some(""))
    }

    /// One configuration a row; `epsilon` is the preset's radius for attacks without one of their own, `steps` the user's numbers of steps, if any, and `adjust`
    /// sets what else the user said.
    ///
    /// # Errors
    /// If the name is unknown or the attack refuses its settings.
    pub fn configs(
        &self,
        epsilon: f32,
        steps: &[usize],
        adjust: impl Fn(&mut AttackConfig) -> Result<()>,
    ) -> Result<Vec<AttackConfig>> {
        let default = AttackConfig::new(self.attack)?;
        let wanted = if steps.is_empty() { self.steps } else { steps };
        let one = |steps| {
            let epsilon = if default.has_own_radius() { default.epsilon } else { epsilon };
            let mut config = AttackConfig { steps, epsilon, ..default.clone() };
            config.iterate = self.iterate.unwrap_or(config.iterate);
            config.step_size = self.step_size.or(config.step_size);
            config.options.extend(self.options.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
            adjust(&mut config)?;
            config.epsilon = self.epsilon.unwrap_or(config.epsilon);
            variants(config)
        };
        let rows: Vec<Vec<AttackConfig>> = steps_of(&default, wanted).into_iter().map(one).collect::<Result<_>>()?;
        Ok(rows.concat())
    }
}

/// The sentence that an ensemble takes away.
pub const NO_ENSEMBLE: &str = "No ensemble of attacks with best iterates was run: single attacks of few steps overestimate robustness, often by \
     far.";

const NO_MASKING_ROWS: &str = "No black box, transfer or larger radius was run on all images (--preset masking); the sanity checks do so on a few.";

/// The sentence that a transfer attack takes away.
pub const NO_TRANSFER: &str =
    "No transfer was run: it takes another model's weights (--attack-option transfer.source=FILE).";

const NO_CERTIFICATE: &str = "Nothing is certified: a stronger attack may leave less (cargo xtask certify).";

/// Radius reduction, as SEA runs APGD.
const SHRINKING: (&str, &str) = ("radii", "2,1.5,1");

/// All presets, the default first.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "quick",
        about: "a first look in minutes: the classics with few steps",
        entries: &[
            Entry::new("fgsm"),
            Entry::new("pgd").steps(&[3, 10, 20]),
            Entry::new("segpgd").steps(&[3, 10, 20]),
            Entry::new("cospgd").steps(&[3, 10, 20]),
        ],
        epsilon: 8.0 / 255.0,
        unit: Unit::Pixel,
        images: Some(24),
        checks: Checks::Cheap,
        lacks: &[NO_ENSEMBLE],
    },
    Preset {
        name: "legacy",
        about: "tier A, the SegPGD paper's table: PGD and SegPGD with 3 to 100 steps, radius 0.03",
        entries: &[
            Entry::new("fgsm"),
            Entry::new("segfgsm"),
            Entry::new("pgd").steps(&[3, 5, 7, 10, 20, 40, 100]),
            Entry::new("segpgd").steps(&[3, 5, 7, 10, 20, 40, 100]),
        ],
        epsilon: 0.03,
        unit: Unit::Pixel,
        images: None,
        checks: Checks::Cheap,
        lacks: &[NO_ENSEMBLE],
    },
    Preset {
        name: "fast",
        about: "tier B, for CI and training curves: four losses, 20 steps, the best iterate",
        entries: &[
            Entry::new("segpgd").steps(&[20]).iterate(Iterate::BestAccuracy),
            Entry::new("cospgd").steps(&[20]).iterate(Iterate::BestAccuracy),
            Entry::new("masked-ce").steps(&[20]).iterate(Iterate::BestAccuracy),
            Entry::new("js").steps(&[20]).iterate(Iterate::BestAccuracy),
        ],
        epsilon: 8.0 / 255.0,
        unit: Unit::Pixel,
        images: None,
        checks: Checks::Cheap,
        lacks: &[NO_ENSEMBLE],
    },
    Preset {
        name: "standard",
        about: "tier C, the headline number: SEA and Tsallis, four runs of 300 steps with radius reduction, and all ten checks",
        entries: &[Entry::new("sea+")],
        epsilon: 8.0 / 255.0,
        unit: Unit::Pixel,
        images: None,
        checks: Checks::All,
        lacks: &[NO_MASKING_ROWS, NO_CERTIFICATE],
    },
    Preset {
        name: "full",
        about: "tier D, for claims of robustness: standard, two more losses, PAdam and the minimal-norm attacks",
        entries: &[
            Entry::new("sea+"),
            Entry::new("apgd").options(&[("objective", "segpgd"), SHRINKING]),
            Entry::new("apgd").options(&[("objective", "cospgd"), SHRINKING]),
            Entry::new("padam"),
            Entry::new("padam").options(&[("objective", "cosine")]),
            Entry::new("alma-prox"),
            Entry::new("dag").step_size(0.001),
            Entry::new("dag").step_size(0.003),
            Entry::new("pdpgd"),
        ],
        epsilon: 8.0 / 255.0,
        unit: Unit::Pixel,
        images: None,
        checks: Checks::All,
        lacks: &[NO_MASKING_ROWS, NO_CERTIFICATE],
    },
    Preset {
        name: "masking",
        about: "tier E, does the model hide its gradient: noise, black boxes, transfer, and larger radii",
        entries: &[
            Entry::new("noise"),
            Entry::new("apgd").steps(&[100]).options(&[("objective", "masked-ce")]),
            Entry::new("square"),
            Entry::new("dla"),
            Entry::new("apgd").steps(&[100]).options(&[("objective", "masked-ce")]).epsilon(16.0 / 255.0),
            Entry::new("apgd").steps(&[100]).options(&[("objective", "masked-ce")]).epsilon(64.0 / 255.0),
            Entry::new("transfer").options(&[("attack", "ds-fgsm")]),
        ],
        epsilon: 8.0 / 255.0,
        unit: Unit::Pixel,
        images: None,
        checks: Checks::All,
        lacks: &[NO_ENSEMBLE, NO_CERTIFICATE, NO_TRANSFER],
    },
    Preset {
        name: "medical",
        about: "slices of volumes, as IMA's revision tests them: FGSM, I-FGSM and PGD with ten steps, and the Dice loss, 8/255 deviations",
        entries: &[
            Entry::new("noise"),
            Entry::new("fgsm"),
            Entry::new("bim").steps(&[10]),
            Entry::new("pgd").steps(&[10]),
            Entry::new("dice").steps(&[10]),
        ],
        epsilon: 8.0 / 255.0,
        unit: Unit::Normalised,
        images: None,
        checks: Checks::Cheap,
        lacks: &[NO_ENSEMBLE],
    },
];

/// The preset of a name.
///
/// # Errors
/// Lists the names there are.
pub fn preset(name: &str) -> Result<&'static Preset> {
    let names = || PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ");
    PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| Error::setting("--preset", name, names()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_every_preset_builds_but_those_whose_attack_is_not_linked() {
        for preset in PRESETS {
            for entry in preset.entries.iter().filter(|entry| entry.exists()) {
                let configs = entry.configs(preset.epsilon, &[], |_| Ok(())).unwrap();
                assert_eq!(configs.len(), entry.steps.len().max(1), "{} of {}", entry.attack, preset.name);
            }
        }
    }

    #[test]
    fn what_the_user_says_wins_but_over_the_radius_of_an_entry_that_has_its_own() {
        let four = |config: &mut AttackConfig| {
            config.epsilon = 4.0 / 255.0;
            Ok(())
        };
        let fast = preset("fast").unwrap();
        let config = &fast.entries[0].configs(fast.epsilon, &[3], four).unwrap()[0];
        assert_eq!((config.epsilon, config.steps, config.iterate), (4.0 / 255.0, 3, Iterate::BestAccuracy));
        let masking = preset("masking").unwrap();
        let far = masking.entries.iter().find(|entry| entry.epsilon == Some(64.0 / 255.0)).unwrap();
        assert_eq!(far.configs(masking.epsilon, &[], four).unwrap()[0].epsilon, 64.0 / 255.0);
        // A single step has nothing to count.
        assert_eq!(masking.entries[0].configs(masking.epsilon, &[3, 5], four).unwrap()[0].steps, 1);
    }

    #[test]
    fn the_headline_tier_is_the_published_ensemble_with_all_checks() {
        let standard = preset("standard").unwrap();
        let config = &standard.entries[0].configs(standard.epsilon, &[], |_| Ok(())).unwrap()[0];
        assert_eq!((config.name.as_str(), config.steps, config.iterate), ("sea+", 300, Iterate::BestAccuracy));
        for (name, checks) in [("quick", Checks::Cheap), ("legacy", Checks::Cheap), ("full", Checks::All)] {
            assert_eq!(preset(name).unwrap().checks, checks);
        }
    }
}
