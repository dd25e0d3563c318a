//! What an attack is, and what it returns.

use burn::tensor::Tensor;
use fireproof_tensor::{Batch, Passes, Targets, Victim};

use crate::{AttackConfig, Context, Error, Result, Trace};

/// Something that turns images into adversarial images for a victim.
///
/// An attack is a value without state: the same attack, batch and [`Context`] give the same images, and an image's
/// result does not depend on its neighbours in the batch.
pub trait Attack: Send + Sync {
    /// The name on the command line and in results, e.g. `segpgd`.
    fn name(&self) -> &str;

    /// Attacks every image of the batch.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) if a loss or gradient is NaN or infinite, errors of the victim, and
    /// arguments that do not fit the batch.
    fn run(&self, victim: &dyn Victim, batch: &Batch, context: &Context) -> Result<Adversarial>;

    /// The length of a step in the units of the images, where all steps have one length; APGD's have not.
    fn step_size(&self) -> Option<f32> {
        None
    }

    /// True if the iterate after `t` steps of this run is the result of the same attack with `t` steps.
    ///
    /// Then one long run, watched by an [`Observer`](crate::Observer), scores every shorter run too. It does not hold
    /// for an attack whose loss depends on the number of steps (SegPGD's λ), that returns its best iterate, or restarts.
    fn contains_shorter_runs(&self) -> bool {
        false
    }

    /// False if ε bounds no perturbation of this attack (a patch, fog), so that it belongs to no ball and to no worst case of
    /// one. Its images are still in the valid range.
    fn bounded(&self) -> bool {
        true
    }

    /// The weights file of the model that this attack looks at instead of the victim, and that whoever runs it gives as
    /// [`Context::source`]; empty if none was named yet.
    fn source(&self) -> Option<&str> {
        None
    }

    /// The attack as several, of which each is a row of its own in an evaluation; empty for an attack that is one.
    fn variants(&self) -> Vec<AttackConfig> {
        Vec::new()
    }

    /// How it learns, if it does: one perturbation or patch for all images.
    fn learns(&self) -> Option<&dyn Learns> {
        None
    }
}

/// An attack that learns one tensor from many images, and then only applies it to each.
pub trait Learns {
    /// How many images it asks for.
    fn images(&self) -> usize;

    /// What it learns from images of one size, `[1, C, h, w]`, and the passes that this takes. Which images share a batch does
    /// not matter.
    ///
    /// # Errors
    /// Those of [`Attack::run`], and for images of several sizes.
    fn learn(&self, victim: &dyn Victim, data: &[Batch], context: &Context) -> Result<(Tensor<4>, Passes)>;

    /// The attack that applies what was learned.
    ///
    /// # Errors
    /// If the tensor is none that it could have learned.
    fn with(&self, learned: Tensor<4>) -> Result<Box<dyn Attack>>;
}

/// Learns from `data`, and gives the attack that applies what it has learned to any image of that size.
///
/// # Errors
/// Those of [`Learns::learn`], and [`Error::Argument`] for an attack that learns nothing.
pub fn fit(attack: &dyn Attack, victim: &dyn Victim, data: &[Batch], context: &Context) -> Result<Box<dyn Attack>> {
    let Some(learns) = attack.learns() else {
        let expected = "one that learns from many images, e.g. 'universal'".into();
        return Err(Error::Argument { what: "attack to fit", found: format!("'{}'", attack.name()), expected });
    };
    learns.with(learns.learn(victim, data, context)?.0)
}

/// The result of an attack.
#[derive(Clone, Debug)]
pub struct Adversarial {
    /// `[N, C, H, W]`, inside the threat model.
    pub images: Tensor<4>,
    /// The labels that belong to these images, where they are not the batch's: moved as a corruption moved the image, void under
    /// a patch.
    pub targets: Option<Targets>,
    /// What each run of an ensemble has found; empty for an attack that is a single run. `images` holds the run that is
    /// worst for the pixel accuracy of each image. Which is worst for mIoU depends on the other images of the data set, so
    /// that choice is the evaluator's.
    pub candidates: Vec<Candidate>,
    /// What an attack that looks for the smallest perturbation has found; `images` are the same, clipped to the ball.
    pub minimal: Option<Minimal>,
    /// Loss and accuracy at every forward pass, if [`Context::trace`] asked for it.
    pub trace: Option<Trace>,
    /// Passes through the victim (or the model that the attack looks at in its place), summed over the images.
    pub passes: Passes,
}

impl Adversarial {
    /// Images and what they took; nothing else.
    pub fn new(images: Tensor<4>, passes: Passes) -> Self {
        Self { images, targets: None, candidates: Vec::new(), minimal: None, trace: None, passes }
    }
}

/// The result of one run of an ensemble.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What the run maximised, e.g. `js`.
    pub name: String,
    /// `[N, C, H, W]`, inside the threat model.
    pub images: Tensor<4>,
    /// See [`Adversarial::targets`].
    pub targets: Option<Targets>,
}

/// The smallest perturbations that fool an image, whatever their size: for curves of success against ε.
#[derive(Clone, Debug)]
pub struct Minimal {
    /// `[N, C, H, W]`, in the valid range, at any distance from the clean images.
    pub images: Tensor<4>,
    /// The norm of each perturbation, in the units of the images.
    pub norms: Vec<f32>,
    /// Share of valid pixels that each perturbation fools (APSR). An image counts as fooled from 0.99 on; below, the
    /// perturbation is the most successful that was seen, and its norm means nothing.
    pub success: Vec<f32>,
}
