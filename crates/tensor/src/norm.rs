//! Geometry of ℓp balls, per sample.

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The norm in which a perturbation is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// The largest absolute change of any value.
    Linf,
    /// The Euclidean length of the whole image's perturbation.
    L2,
}

impl Norm {
    /// The norm of each sample, `[N, C, H, W]` → `[N]`.
    pub fn of(self, delta: Tensor<4>) -> Tensor<1> {
        let [n, c, h, w] = delta.dims();
        let flat = delta.reshape([n, c * h * w]);
        match self {
            Norm::Linf => flat.abs().max_dim(1),
            Norm::L2 => (flat.clone() * flat).sum_dim(1).sqrt(),
        }
        .reshape([n])
    }

    /// The nearest point of the ball of radius `epsilon` `[N]` around zero.
    pub fn project(self, delta: Tensor<4>, epsilon: &Tensor<1>) -> Tensor<4> {
        let radius = per_sample(epsilon);
        match self {
            Norm::Linf => {
                let bound = radius.expand(delta.dims());
                delta.min_pair(bound.clone()).max_pair(-bound)
            }
            Norm::L2 => {
                let norm = per_sample(&self.of(delta.clone()));
                let factor = (radius / norm.clamp_min(1e-12)).clamp_max(1.0);
                delta * factor
            }
        }
    }

    /// The direction of steepest ascent with unit norm: the sign (ℓ∞), or the normalised gradient (ℓ2). A zero gradient gives zero.
    pub fn steepest(self, gradient: Tensor<4>) -> Tensor<4> {
        match self {
            Norm::Linf => gradient.sign(),
            Norm::L2 => {
                let norm = per_sample(&self.of(gradient.clone()));
                gradient / norm.clamp_min(1e-12)
            }
        }
    }
}

impl std::fmt::Display for Norm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Norm::Linf => "linf",
            Norm::L2 => "l2",
        })
    }
}

impl std::str::FromStr for Norm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "linf" => Ok(Norm::Linf),
            "l2" => Ok(Norm::L2),
            _ => Err(Error::Parse { what: "a norm", found: text.to_string(), expected: "'linf' or 'l2'" }),
        }
    }
}

/// `[N]` → `[N, 1, 1, 1]`, to broadcast over images.
pub fn per_sample(values: &Tensor<1>) -> Tensor<4> {
    values.clone().reshape([-1, 1, 1, 1])
}

/// One value a sample, on the device of `like`.
pub fn radii(values: &[f32], like: &Tensor<4>) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &like.device())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn tensor(values: &[f32], n: usize) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values.to_vec(), [n, 1, 1, values.len() / n]), &Device::flex())
    }

    #[test]
    fn each_sample_is_projected_on_its_own_ball() {
        let delta = tensor(&[3.0, 4.0, 3.0, 4.0], 2);
        let epsilon = radii(&[1.0, 10.0], &delta);
        let l2: Vec<f32> = Norm::L2.project(delta.clone(), &epsilon).into_data().try_to_vec().unwrap();
        assert!((l2[0] - 0.6).abs() < 1e-6 && (l2[1] - 0.8).abs() < 1e-6);
        assert_eq!(&l2[2..], [3.0, 4.0]);
        let linf: Vec<f32> = Norm::Linf.project(delta, &epsilon).into_data().try_to_vec().unwrap();
        assert_eq!(linf, [1.0, 1.0, 3.0, 4.0]);
    }

    #[test]
    fn a_zero_gradient_gives_no_step() {
        for norm in [Norm::Linf, Norm::L2] {
            let step: Vec<f32> = norm.steepest(tensor(&[0.0, 0.0], 1)).into_data().try_to_vec().unwrap();
            assert_eq!(step, [0.0, 0.0]);
        }
    }
}
