//! What a single run is told besides the model and the data.

use burn::tensor::Tensor;
use fireproof_tensor::{Batch, Targets, Victim};

use crate::{Error, Result};

/// Seed, observer, and whatever replaces an attack's own settings for one batch.
///
/// Per-sample values are listed in the order of the batch.
///
/// ```
/// use fireproof_attacks::Context;
/// let context = Context { epsilon: Some(&[0.01, 0.03]), ..Context::new(7) };
/// ```
#[derive(Clone, Copy, Default)]
pub struct Context<'a> {
    /// All randomness derives from this, the sample's id, the attack's name and the restart.
    pub seed: u64,
    /// Records loss and accuracy at every forward pass; read from the device once, at the end.
    pub trace: bool,
    /// Told about every forward pass.
    pub observer: Option<&'a dyn Observer>,
    /// Radius of each sample, `N` values, instead of the threat's.
    pub epsilon: Option<&'a [f32]>,
    /// Step size of each sample, `N` values, instead of the update's.
    pub step_size: Option<&'a [f32]>,
    /// Where the perturbation may live: ones and zeros, `[N, C, H, W]` or `[N, 1, H, W]`.
    pub mask: Option<&'a Tensor<4>>,
    /// Images to start from, `[N, C, H, W]`, projected into the threat model first.
    pub start: Option<&'a Tensor<4>>,
    /// A target map of any kind: makes the attack targeted, instead of the attack's own target.
    pub target: Option<&'a Targets>,
    /// The model that [`Attack::source`](crate::Attack::source) asks for. Without one the victim is its own source.
    pub source: Option<&'a dyn Victim>,
}

impl Context<'_> {
    /// Only a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// `own` for each of `n` samples, unless `given` replaces it.
    pub(crate) fn per_sample(what: &'static str, given: Option<&[f32]>, own: f32, n: usize) -> Result<Vec<f32>> {
        let Some(values) = given else { return Ok(vec![own; n]) };
        if values.len() != n {
            let expected = format!("{n}, one an image");
            return Err(Error::Argument { what, found: format!("{} values", values.len()), expected });
        }
        match values.iter().position(|v| v.is_nan() || *v < 0.0) {
            Some(i) => Err(Error::Argument {
                what,
                found: format!("{} for sample {i} of the batch", values[i]),
                expected: "a number that is not negative".into(),
            }),
            None => Ok(values.to_vec()),
        }
    }
}

/// Watches an attack at every forward pass, at no extra pass: scores shorter runs, draws curves, collects margins.
///
/// Nothing is read from the device unless the observer reads it. An attack that later meets a NaN returns an error; what
/// was observed before must then be discarded.
pub trait Observer {
    /// Called after the forward pass at the iterate that has `view.step` steps behind it.
    ///
    /// An attack that returns its last iterate makes no pass there, so its observer sees steps `0..T`; trackers and
    /// restarts need that pass, and it is shown with `view.step == T`.
    fn observe(&self, view: &View<'_>);
}

impl<F: Fn(&View<'_>)> Observer for F {
    fn observe(&self, view: &View<'_>) {
        self(view);
    }
}

/// What an [`Observer`] sees.
///
/// An attack with radius reduction passes through images outside the ball: all but its last stage are in larger ones.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Which restart this is, from 0.
    pub restart: usize,
    /// Steps done so far: 0 at the start.
    pub step: usize,
    /// Steps of the whole run.
    pub steps: usize,
    /// The clean batch these images come from, with its true labels and ids.
    pub batch: &'a Batch,
    /// The current images, `[N, C, H, W]`.
    pub images: &'a Tensor<4>,
    /// Their logits, `[N, K, H, W]`.
    pub logits: &'a Tensor<4>,
    /// The loss that the attack ascends, `[N]`.
    pub loss: &'a Tensor<1>,
}
