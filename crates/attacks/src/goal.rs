//! Away from the labels, or towards a target map.

use burn::tensor::Tensor;
use fireproof_tensor::{Batch, Targets, ops::image_sums};

use crate::{Context, Error, Result, Target};

/// What an attack wants of the victim's predictions.
#[derive(Clone, Debug)]
pub struct Goal {
    /// The labels to get away from (untargeted), or the map to reach (targeted).
    pub targets: Targets,
    /// True if `targets` are to be reached. The loss towards them is then minimised.
    pub targeted: bool,
}

impl Goal {
    /// Away from the batch's labels, unless the attack or the context names a target.
    pub(crate) fn of(batch: &Batch, own: Option<&Target>, context: &Context) -> Result<Self> {
        if let Some(target) = context.target {
            let (found, expected) = (target.dims(), batch.targets.dims());
            if found != expected {
                let expected = format!("{expected:?} like the labels");
                return Err(Error::Argument { what: "target map", found: format!("{found:?}"), expected });
            }
            return Ok(Self { targets: target.clone(), targeted: true });
        }
        match own {
            Some(target) => Ok(Self { targets: target.map(batch)?, targeted: true }),
            None => Ok(Self { targets: batch.targets.clone(), targeted: false }),
        }
    }

    /// One on valid pixels where the attack still has to succeed: those classified correctly, or those of a target map
    /// that are not yet reached. `[N, K, H, W]` → `[N, H, W]`, detached.
    pub fn open(&self, logits: &Tensor<4>) -> Tensor<3> {
        let agrees = self.targets.correct(logits);
        if self.targeted { self.targets.valid().clone() - agrees } else { agrees }
    }

    /// Share of valid pixels on which the attack has succeeded, `[N, K, H, W]` → `[N]`.
    pub fn success(&self, logits: &Tensor<4>) -> Tensor<1> {
        let open = image_sums(self.open(logits));
        let valid = self.targets.valid_pixels();
        (valid.clone() - open) / valid.clamp_min(1.0)
    }
}
