//! What a preprocessor leaves of the image: a denoiser, or fewer bits.
//!
//! Guo, Rana, Cissé, van der Maaten. *Countering Adversarial Images using Input Transformations*, ICLR 2018.
//! <https://arxiv.org/abs/1711.00117>. Rounding has a gradient of zero: a model behind it looks robust to attacks that follow the
//! gradient and is not. With `straight_through` the gradient passes as if nothing had been rounded (BPDA: Athalye, Carlini, Wagner,
//! ICML 2018, <https://arxiv.org/abs/1802.00420>).

use std::str::FromStr;

use burn::tensor::{Tensor, TensorData, module::conv2d, ops::ConvOptions};
use fireproof_tensor::{Error, Result};

use super::{Views, beside};

/// What is done to an image before the model sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preprocessor {
    /// A Gaussian blur with this standard deviation in pixels; beyond the edge is the nearest pixel.
    Blur(f32),
    /// Rounding to `2^bits` values a channel between 0 and 1.
    Bits(u32),
}

impl FromStr for Preprocessor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected blur=SIGMA in pixels or bits=N from 1 to 8";
        let (name, value) = text.split_once('=').ok_or(EXPECTED)?;
        let parsed = match name {
            "blur" => value.parse().ok().filter(|sigma: &f32| sigma.is_finite() && *sigma > 0.0).map(Self::Blur),
            "bits" => value.parse().ok().filter(|bits| (1..=8).contains(bits)).map(Self::Bits),
            _ => None,
        };
        parsed.ok_or(EXPECTED)
    }
}

/// A model behind a preprocessor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preprocessed {
    /// What happens to the image.
    pub preprocessor: Preprocessor,
    /// Whether the gradient passes it unchanged.
    pub straight_through: bool,
}

impl Views for Preprocessed {
    fn count(&self, _size: [usize; 2]) -> Result<usize> {
        match self.preprocessor {
            Preprocessor::Bits(bits) if !(1..=16).contains(&bits) => {
                Err(Error::Victim(format!("bits: found {bits}, expected 1 to 16")))
            }
            Preprocessor::Blur(sigma) if !(sigma.is_finite() && sigma > 0.0) => {
                Err(Error::Victim(format!("blur: found {sigma}, expected a positive number of pixels")))
            }
            _ => Ok(1),
        }
    }

    fn show(&self, _view: usize, images: Tensor<4>) -> Tensor<4> {
        match self.preprocessor {
            Preprocessor::Bits(bits) => {
                let levels = ((1u32 << bits) - 1) as f32;
                (images * levels).round() / levels
            }
            Preprocessor::Blur(sigma) => blur(images, sigma),
        }
    }

    fn part(&self, _view: usize, logits: Tensor<4>, _size: [usize; 2]) -> Tensor<4> {
        logits
    }

    fn unshow(&self, view: usize, images: Tensor<4>, gradient: Tensor<4>) -> Tensor<4> {
        if self.straight_through {
            return gradient;
        }
        match self.preprocessor {
            // Burn's own rounding passes the gradient; the derivative of a staircase is zero.
            Preprocessor::Bits(_) => gradient.zeros_like(),
            Preprocessor::Blur(_) => super::adjoint(images, gradient, |x| self.show(view, x)),
        }
    }
}

/// A Gaussian that ends at three standard deviations, one axis after the other.
fn blur(images: Tensor<4>, sigma: f32) -> Tensor<4> {
    let reach = (3.0 * sigma).ceil().max(1.0) as usize;
    let weight = |i: usize| (-0.5 * ((i as f32 - reach as f32) / sigma).powi(2)).exp();
    let row: Vec<f32> = (0..=2 * reach).map(weight).collect();
    let total: f32 = row.iter().sum();
    let row: Vec<f32> = row.iter().map(|w| w / total).collect();
    let [n, c, height, width] = images.dims();
    let device = images.device().inner();
    let kernel = |dims| beside(&images, Tensor::from_data(TensorData::new(row.clone(), dims), &device));
    let (down, across) = (kernel([1, 1, row.len(), 1]), kernel([1, 1, 1, row.len()]));
    let plain = || ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
    let x = images.reshape([n * c, 1, height, width]);
    let x = conv2d(edges(x, 2, reach), down, None, plain());
    let x = conv2d(edges(x, 3, reach), across, None, plain());
    x.reshape([n, c, height, width])
}

/// Repeats the first and last row (or column) `by` times.
fn edges(x: Tensor<4>, axis: usize, by: usize) -> Tensor<4> {
    let length = x.dims()[axis];
    let first = x.clone().narrow(axis, 0, 1).repeat_dim(axis, by);
    let last = x.clone().narrow(axis, length - 1, 1).repeat_dim(axis, by);
    Tensor::cat(vec![first, x, last], axis)
}
