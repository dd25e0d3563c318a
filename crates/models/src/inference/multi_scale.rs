//! The image at several sizes and mirrored: the mean of the logits, each brought back to the image's size.

use burn::tensor::Tensor;
use fireproof_tensor::{Error, Result, ops::resize_bilinear};

use super::Views;

/// Sizes at which an image is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiScale {
    /// Sizes in units of the image's, e.g. 0.75, 1 and 1.25; rounded to whole pixels.
    pub scales: Vec<f32>,
    /// Whether each is shown mirrored too.
    pub mirrored: bool,
}

impl MultiScale {
    fn views(&self) -> usize {
        self.scales.len() * if self.mirrored { 2 } else { 1 }
    }

    fn mirror(&self, view: usize, x: Tensor<4>) -> Tensor<4> {
        if view >= self.scales.len() { x.flip([3]) } else { x }
    }

    fn size(&self, view: usize, size: [usize; 2]) -> [usize; 2] {
        let scale = self.scales[view % self.scales.len()];
        size.map(|side| ((side as f32 * scale).round() as usize).max(1))
    }
}

impl Views for MultiScale {
    fn count(&self, _size: [usize; 2]) -> Result<usize> {
        let wrong = self.scales.iter().find(|scale| !(scale.is_finite() && **scale > 0.0));
        match wrong {
            _ if self.scales.is_empty() => {
                Err(Error::Victim("scales: found none, expected at least one, e.g. 0.75,1,1.25".into()))
            }
            Some(scale) => Err(Error::Victim(format!("scales: found {scale}, expected positive numbers"))),
            None => Ok(self.views()),
        }
    }

    fn show(&self, view: usize, images: Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = images.dims();
        self.mirror(view, resize_bilinear(images, self.size(view, [height, width]), false))
    }

    fn part(&self, view: usize, logits: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
        resize_bilinear(self.mirror(view, logits), size, false) / self.views() as f32
    }
}
