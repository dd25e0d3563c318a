//! What an attack is, and what it returns.

use burn::tensor::Tensor;
use fireproof_tensor::{Batch, Passes, Victim};

use crate::{Context, Result, Trace};

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
}

/// The result of an attack.
#[derive(Clone, Debug)]
pub struct Adversarial {
    /// `[N, C, H, W]`, inside the threat model.
    pub images: Tensor<4>,
    /// What each run of an ensemble has found; empty for an attack that is a single run. `images` holds the run that is
    /// worst for the pixel accuracy of each image. Which is worst for mIoU depends on the other images of the data set, so
    /// that choice is the evaluator's.
    pub candidates: Vec<Candidate>,
    /// What an attack that looks for the smallest perturbation has found; `images` are the same, clipped to the ball.
    pub minimal: Option<Minimal>,
    /// Loss and accuracy at every forward pass, if [`Context::trace`] asked for it.
    pub trace: Option<Trace>,
    /// Passes through the victim, summed over the images.
    pub passes: Passes,
}

/// The result of one run of an ensemble.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What the run maximised, e.g. `js`.
    pub name: String,
    /// `[N, C, H, W]`, inside the threat model.
    pub images: Tensor<4>,
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
