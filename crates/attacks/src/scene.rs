//! What every part of an attack is shown when a run begins.

use burn::tensor::Tensor;
use fireproof_tensor::{Batch, Victim};

use crate::{Context, Goal};

/// The model, the data and the goal of one run.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// The model under attack. Objectives may ask it for clean logits; those passes are counted.
    pub victim: &'a dyn Victim,
    /// The clean batch.
    pub batch: &'a Batch,
    /// The labels to get away from, or the target map to reach.
    pub goal: &'a Goal,
    /// Steps of the run.
    pub steps: usize,
    /// The rest of what the caller said.
    pub context: &'a Context<'a>,
}

/// Position in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Steps done so far, from 0.
    pub index: usize,
    /// Steps of the whole run.
    pub total: usize,
}

impl Step {
    /// `index / total`, in `[0, 1)` while steps are taken.
    pub fn fraction(self) -> f32 {
        self.index as f32 / self.total as f32
    }
}

/// What an attack changes: the perturbed images, a shared patch, a latent code, a flow field, weights of a network.
/// How they become images is the [`Threat`](crate::threat::Threat)'s affair.
pub type Variables = Vec<Tensor<4>>;
