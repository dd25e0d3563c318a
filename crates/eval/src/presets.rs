//! Ready-made lists of attacks.

use crate::{Error, Result};

/// A named choice of attacks and their settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    /// The name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Attacks by name; `none` is the clean row.
    pub attacks: &'static [&'static str],
    /// Numbers of steps of those that iterate.
    pub steps: &'static [usize],
    /// Radius in pixel units.
    pub epsilon: f32,
    /// The first so many images, unless the user chooses; `None` for all.
    pub images: Option<usize>,
    /// What a complete evaluation would hold and this one does not.
    pub lacks: &'static [&'static str],
}

const NO_ENSEMBLE: &str = "No ensemble of attacks with best iterates was run: single attacks of few steps overestimate robustness, often by \
     far.";

/// All presets, the default first.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "quick",
        about: "a first look in minutes: the classics with few steps",
        attacks: &["none", "fgsm", "pgd", "segpgd", "cospgd"],
        steps: &[3, 10, 20],
        epsilon: 8.0 / 255.0,
        images: Some(24),
        lacks: &[NO_ENSEMBLE],
    },
    Preset {
        name: "legacy",
        about: "the SegPGD paper's table: PGD and SegPGD with 3 to 100 steps, radius 0.03",
        attacks: &["none", "fgsm", "segfgsm", "pgd", "segpgd"],
        steps: &[3, 5, 7, 10, 20, 40, 100],
        epsilon: 0.03,
        images: None,
        lacks: &[NO_ENSEMBLE],
    },
];

/// The preset of a name.
///
/// # Errors
/// Lists the names there are.
pub fn preset(name: &str) -> Result<&'static Preset> {
    let names = || PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(" or ");
    PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| Error::setting("--preset", name, names()))
}
