//! Which iterate an attack returns.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The iterate that an attack returns, image by image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Iterate {
    /// The one after the last step, as most papers do.
    Last,
    /// The one with the lowest accuracy over valid pixels (targeted: the highest agreement with the target); the later
    /// of equals, but the first at which the attack has succeeded everywhere: a run ends there. Use it to evaluate a
    /// defense.
    BestAccuracy,
    /// The one with the highest tracked loss.
    BestLoss,
}

impl Iterate {
    /// The score that cannot be improved upon: every valid pixel fooled. A loss has none.
    pub(crate) fn ceiling(self) -> f32 {
        match self {
            Iterate::Last | Iterate::BestAccuracy => 1.0,
            Iterate::BestLoss => f32::INFINITY,
        }
    }
}

impl std::fmt::Display for Iterate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Iterate::Last => "last",
            Iterate::BestAccuracy => "best-accuracy",
            Iterate::BestLoss => "best-loss",
        })
    }
}

impl std::str::FromStr for Iterate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "last" => Ok(Iterate::Last),
            "best-accuracy" => Ok(Iterate::BestAccuracy),
            "best-loss" => Ok(Iterate::BestLoss),
            _ => Err(Error::Argument {
                what: "iterate",
                found: format!("'{text}'"),
                expected: "'last', 'best-accuracy' or 'best-loss'".into(),
            }),
        }
    }
}

/// The best images so far, chosen image by image on the device.
pub(crate) struct Best {
    pub(crate) images: Tensor<4>,
    pub(crate) score: Tensor<1>,
}

impl Best {
    /// Takes over every image whose `score` `[N]` is higher, and with `ties` also those that are equal.
    pub(crate) fn merge(best: Option<Self>, images: Tensor<4>, score: Tensor<1>, ties: bool) -> Self {
        Self::merge_below(best, images, score, ties, f32::INFINITY)
    }

    /// The same, but an image whose best score has reached `ceiling` is settled: it is kept, so that a run may end there.
    pub(crate) fn merge_below(
        best: Option<Self>,
        images: Tensor<4>,
        score: Tensor<1>,
        ties: bool,
        ceiling: f32,
    ) -> Self {
        let Some(best) = best else { return Self { images, score } };
        let better = if ties {
            score.clone().greater_equal(best.score.clone())
        } else {
            score.clone().greater(best.score.clone())
        };
        let better = better.bool_and(best.score.clone().lower_elem(ceiling));
        let everywhere = better.clone().reshape([-1, 1, 1, 1]).expand(images.dims());
        Self { images: best.images.mask_where(everywhere, images), score: best.score.mask_where(better, score) }
    }
}
