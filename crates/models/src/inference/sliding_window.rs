//! Overlapping windows, whose logits are stitched to those of the whole image.
//!
//! Windows begin every `stride` pixels; the last of a row or column ends with the image. Where windows overlap, logits are averaged
//! with the same weight everywhere or with a Gaussian that trusts a window's middle more (Isensee et al., *nnU-Net*, Nature Methods
//! 2021: its standard deviation is an eighth of the window).

use std::str::FromStr;

use burn::tensor::{Device, Tensor, TensorData};
use fireproof_tensor::{Error, Result};

use super::{Views, beside};

/// How much a pixel of a window counts where windows overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// All the same.
    #[default]
    Uniform,
    /// Less towards the window's edge.
    Gaussian,
}

impl FromStr for Weights {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "uniform" => Ok(Self::Uniform),
            "gaussian" => Ok(Self::Gaussian),
            _ => Err("expected uniform or gaussian"),
        }
    }
}

/// Windows over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingWindow {
    /// Height and width of a window. An image that is smaller is one window.
    pub window: [usize; 2],
    /// Pixels from one window to the next, at most a window.
    pub stride: [usize; 2],
    /// How overlapping windows are averaged.
    pub weights: Weights,
}

/// Where windows of `window` pixels begin on an axis of `length`.
fn starts(length: usize, window: usize, stride: usize) -> Vec<usize> {
    let last = length - window;
    let mut starts: Vec<usize> = (0..last).step_by(stride).collect();
    starts.push(last);
    starts
}

/// The weight of each pixel of a window's axis.
fn profile(weights: Weights, length: usize) -> Vec<f32> {
    let middle = (length as f32 - 1.0) / 2.0;
    let deviation = length as f32 / 8.0;
    let one = |i: usize| match weights {
        Weights::Uniform => 1.0,
        Weights::Gaussian => (-0.5 * ((i as f32 - middle) / deviation).powi(2)).exp(),
    };
    (0..length).map(one).collect()
}

/// An axis of the image: windows, and each pixel's share in a window, which add up to one over the windows.
struct Axis {
    window: usize,
    starts: Vec<usize>,
    shares: Vec<Vec<f32>>,
}

impl SlidingWindow {
    fn axis(&self, axis: usize, length: usize) -> Axis {
        let window = self.window[axis].min(length);
        let starts = starts(length, window, self.stride[axis]);
        let profile = profile(self.weights, window);
        let mut total = vec![0.0f32; length];
        for start in &starts {
            total[*start..start + window].iter_mut().zip(&profile).for_each(|(sum, weight)| *sum += weight);
        }
        // A window's weight is a product of both axes', and so is the sum over all windows.
        let share = |start: &usize| (0..window).map(|i| profile[i] / total[start + i]).collect();
        Axis { window, shares: starts.iter().map(share).collect(), starts }
    }

    fn place(&self, view: usize, [height, width]: [usize; 2]) -> Place {
        let (rows, columns) = (self.axis(0, height), self.axis(1, width));
        let (row, column) = (view / columns.starts.len(), view % columns.starts.len());
        Place {
            at: [rows.starts[row], columns.starts[column]],
            window: [rows.window, columns.window],
            shares: [rows.shares[row].clone(), columns.shares[column].clone()],
        }
    }
}

/// One window of an image of known size.
struct Place {
    at: [usize; 2],
    window: [usize; 2],
    shares: [Vec<f32>; 2],
}

impl Place {
    /// `[1, 1, h, w]`.
    fn weights(&self, device: &Device) -> Tensor<4> {
        let [rows, columns] = &self.shares;
        let values: Vec<f32> = rows.iter().flat_map(|row| columns.iter().map(move |column| row * column)).collect();
        Tensor::from_data(TensorData::new(values, [1, 1, self.window[0], self.window[1]]), device)
    }
}

impl Views for SlidingWindow {
    fn count(&self, [height, width]: [usize; 2]) -> Result<usize> {
        for axis in 0..2 {
            let (window, stride) = (self.window[axis], self.stride[axis]);
            if window == 0 || stride == 0 || stride > window {
                return Err(Error::Victim(format!(
                    "sliding window: found {window} pixels every {stride}, expected at least 1, and no gap between windows"
                )));
            }
        }
        Ok(self.axis(0, height).starts.len() * self.axis(1, width).starts.len())
    }

    fn show(&self, view: usize, images: Tensor<4>) -> Tensor<4> {
        let [n, c, height, width] = images.dims();
        let Place { at: [top, left], window: [h, w], .. } = self.place(view, [height, width]);
        images.slice([0..n, 0..c, top..top + h, left..left + w])
    }

    fn part(&self, view: usize, logits: Tensor<4>, [height, width]: [usize; 2]) -> Tensor<4> {
        let place = self.place(view, [height, width]);
        let ([top, left], [h, w]) = (place.at, place.window);
        let [n, k, _, _] = logits.dims();
        let device = logits.device();
        let weights = beside(&logits, place.weights(&device.clone().inner()));
        let canvas = Tensor::zeros([n, k, height, width], &device);
        canvas.slice_assign([0..n, 0..k, top..top + h, left..left + w], logits * weights)
    }

    fn unshow(&self, view: usize, images: Tensor<4>, gradient: Tensor<4>) -> Tensor<4> {
        let [n, c, height, width] = images.dims();
        let Place { at: [top, left], window: [h, w], .. } = self.place(view, [height, width]);
        images.zeros_like().slice_assign([0..n, 0..c, top..top + h, left..left + w], gradient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_the_axis_and_the_last_one_ends_with_it() {
        assert_eq!(starts(10, 4, 3), [0, 3, 6]);
        assert_eq!(starts(11, 4, 3), [0, 3, 6, 7]);
        assert_eq!(starts(4, 4, 3), [0]);
    }

    #[test]
    fn shares_of_a_pixel_add_up_to_one_over_its_windows() {
        for weights in [Weights::Uniform, Weights::Gaussian] {
            let axis = SlidingWindow { window: [6, 6], stride: [4, 4], weights }.axis(0, 17);
            let mut sum = [0.0f32; 17];
            for (start, share) in axis.starts.iter().zip(&axis.shares) {
                (0..6).for_each(|i| sum[start + i] += share[i]);
            }
            assert!(sum.iter().all(|sum| (sum - 1.0).abs() < 1e-6), "{sum:?}");
        }
        let gaussian = profile(Weights::Gaussian, 8);
        assert!(gaussian[3] > 0.99 * 0.88 && gaussian[0] < 0.01 && gaussian[0] > 0.0);
    }
}
