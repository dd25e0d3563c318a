//! The image under Gaussian noise: the mean of the logits over draws.
//!
//! Cohen, Rosenfeld, Kolter. *Certified Adversarial Robustness via Randomized Smoothing*, ICML 2019.
//! <https://arxiv.org/abs/1902.02918>; an attack on the smoothed model goes through the same draws (Salman et al., NeurIPS 2019,
//! <https://arxiv.org/abs/1906.04584>).
//!
//! The draws are fixed by the seed and the same for every image, so the model stays a function of its image. A certificate counts
//! predictions instead of averaging logits; see `fireproof-certify`.

use burn::tensor::Tensor;
use fireproof_tensor::{Error, Result, random::gaussian};

use super::{Views, beside};

/// Noise under which an image is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Smoothed {
    /// Standard deviation of the noise, in the units of the images. Noisy pixels are not clamped.
    pub sigma: f32,
    /// How many draws.
    pub draws: usize,
    /// The draws derive from it.
    pub seed: u64,
}

impl Views for Smoothed {
    fn count(&self, _size: [usize; 2]) -> Result<usize> {
        if self.draws == 0 || !(self.sigma.is_finite() && self.sigma >= 0.0) {
            let found = format!("{} draws of deviation {}", self.draws, self.sigma);
            return Err(Error::Victim(format!("smoothing: found {found}, expected at least 1 and a number from 0 on")));
        }
        Ok(self.draws)
    }

    fn show(&self, view: usize, images: Tensor<4>) -> Tensor<4> {
        let [_, c, height, width] = images.dims();
        let noise = gaussian([1, c, height, width], self.sigma, &[self.seed, view as u64], &images.device().inner());
        images.clone() + beside(&images, noise).expand(images.dims())
    }

    fn part(&self, _view: usize, logits: Tensor<4>, _size: [usize; 2]) -> Tensor<4> {
        logits / self.draws as f32
    }

    fn unshow(&self, _view: usize, _images: Tensor<4>, gradient: Tensor<4>) -> Tensor<4> {
        gradient
    }
}
