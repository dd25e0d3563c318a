//! Mixup: weighted means of images and of labels.
//!
//! Zhang, Cisse, Dauphin, Lopez-Paz. *mixup: Beyond Empirical Risk Minimization*, ICLR 2018.
//! <https://arxiv.org/abs/1710.09412>
//!
//! `x = λ x_i + (1 − λ) x_j`, and the label maps likewise, pixel by pixel.

use fireproof_tensor::random::Stream;

use super::{Mixer, Overlay};

/// The same share at every pixel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mixup;

impl Mixer for Mixup {
    fn name(&self) -> &'static str {
        "mixup"
    }

    fn overlay(&self, lambda: f64, _: &Stream, [height, width]: [usize; 2]) -> Overlay {
        Overlay { keep: vec![lambda as f32; height * width], frame: None }
    }
}
