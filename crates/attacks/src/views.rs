//! A victim that is shown changed images, so that an attack does not fit one model too closely.

use std::cell::Cell;

use burn::tensor::{Tensor, TensorData, module::conv2d, ops::ConvOptions};
use fireproof_tensor::{
    Batch, Result, Victim,
    ops::{backward, resize_bilinear},
    random::Stream,
};

use crate::Context;

/// What a step looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Views {
    /// How often an image is shown smaller.
    pub(crate) probability: f32,
    /// The smallest size it is shown at, as a share of its own.
    pub(crate) smallest: f32,
    /// Views over whose gradients a step averages.
    pub(crate) copies: usize,
    /// Side of the Gaussian that smooths the gradient, odd; 0 for none.
    pub(crate) kernel: usize,
}

impl Default for Views {
    fn default() -> Self {
        Self { probability: 0.0, smallest: 0.75, copies: 1, kernel: 0 }
    }
}

/// The victim behind the views. Plain forward passes show the image itself.
pub(crate) struct Viewed<'a> {
    inner: &'a dyn Victim,
    views: Views,
    streams: Vec<Stream>,
    /// Views shown so far: the counter of the random numbers.
    shown: Cell<u64>,
}

impl<'a> Viewed<'a> {
    pub(crate) fn new(inner: &'a dyn Victim, views: Views, attack: &str, batch: &Batch, context: &Context) -> Self {
        let stream = |id: &u64| Stream::new(&[context.seed, *id]).child(attack).child("views");
        Self { inner, views, streams: batch.ids.iter().map(stream).collect(), shown: Cell::new(0) }
    }

    /// Where the images of the next view are shown.
    fn frames(&self, [height, width]: [usize; 2]) -> Vec<Frame> {
        let shown = self.shown.replace(self.shown.get() + 1);
        let frame = |stream: &Stream| {
            let draw = |i: u64| stream.uniform(4 * shown + i);
            let smaller = draw(0) < self.views.probability;
            let scale = if smaller { self.views.smallest + (1.0 - self.views.smallest) * draw(1) } else { 1.0 };
            let side = |whole: usize| ((whole as f32 * scale).round() as usize).clamp(1, whole);
            let place = |whole: usize, side: usize, draw: f32| ((whole - side + 1) as f32 * draw) as usize;
            let size = [side(height), side(width)];
            Frame { size, at: [place(height, size[0], draw(2)), place(width, size[1], draw(3))] }
        };
        self.streams.iter().map(frame).collect()
    }

    /// One view: logits brought back to the images' grid, and the gradient at the images.
    fn look(
        &self,
        images: &Tensor<4>,
        cotangent: &mut dyn FnMut(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<(Tensor<4>, Tensor<4>)> {
        let [_, _, height, width] = images.dims();
        let frames = self.frames([height, width]);
        if frames.iter().all(|frame| frame.size == [height, width]) {
            return self.inner.pull_back(images.clone(), cotangent);
        }
        let leaf = images.clone().autodiff().require_grad();
        let view = each(leaf.clone(), &frames, Frame::shrink);
        let mut seen = None;
        let (_, gradient) = self.inner.pull_back(view.clone().inner(), &mut |logits| {
            // An image with one label has no grid.
            if logits.dims()[2..] != [height, width] {
                seen = Some(logits.clone());
                return cotangent(logits);
            }
            let leaf = logits.autodiff().require_grad();
            let back = each(leaf.clone(), &frames, Frame::grow);
            let plain = back.clone().inner();
            let given = cotangent(plain.clone())?;
            seen = Some(plain);
            let mut gradients = backward(back, given);
            Ok(leaf.grad_remove(&mut gradients).expect("the view depends on the logits"))
        })?;
        let mut gradients = backward(view, gradient);
        let gradient = leaf.grad_remove(&mut gradients).expect("the view depends on the image");
        Ok((seen.expect("a victim's pull_back asks for the gradient at its logits"), gradient))
    }
}

impl Victim for Viewed<'_> {
    fn logits(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        self.inner.logits(images)
    }

    fn pull_back(
        &self,
        images: Tensor<4>,
        cotangent: &mut dyn FnMut(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<(Tensor<4>, Tensor<4>)> {
        let (logits, mut gradient) = self.look(&images, cotangent)?;
        for _ in 1..self.views.copies {
            gradient = gradient + self.look(&images, cotangent)?.1;
        }
        Ok((logits, smooth(gradient, self.views.kernel)))
    }
}

/// Where an image is shown within its own size; around it is black.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Frame {
    size: [usize; 2],
    at: [usize; 2],
}

impl Frame {
    /// `[1, C, H, W]` at its size, at its place on black.
    fn shrink(self, image: Tensor<4>) -> Tensor<4> {
        let [n, c, _, _] = image.dims();
        let canvas = image.zeros_like();
        let small = resize_bilinear(image, self.size, false);
        let [top, left] = self.at;
        canvas.slice_assign([0..n, 0..c, top..top + self.size[0], left..left + self.size[1]], small)
    }

    /// What was shown, `[1, K, H, W]`, at the image's own size again.
    fn grow(self, logits: Tensor<4>) -> Tensor<4> {
        let [n, k, height, width] = logits.dims();
        let [top, left] = self.at;
        let shown = logits.slice([0..n, 0..k, top..top + self.size[0], left..left + self.size[1]]);
        resize_bilinear(shown, [height, width], false)
    }
}

fn each(images: Tensor<4>, frames: &[Frame], change: fn(Frame, Tensor<4>) -> Tensor<4>) -> Tensor<4> {
    let one = |(i, frame): (usize, &Frame)| change(*frame, images.clone().narrow(0, i, 1));
    Tensor::cat(frames.iter().enumerate().map(one).collect(), 0)
}

/// Smooths each channel by a Gaussian of `side` pixels that ends at three standard deviations.
fn smooth(gradient: Tensor<4>, side: usize) -> Tensor<4> {
    if side < 2 {
        return gradient;
    }
    let reach = (side / 2) as i32;
    let weight = |i: i32| (-0.5 * (3.0 * i as f32 / reach as f32).powi(2)).exp();
    let row: Vec<f32> = (-reach..=reach).map(weight).collect();
    let total: f32 = row.iter().sum();
    let row: Vec<f32> = row.iter().map(|w| w / total).collect();
    let device = gradient.device();
    let along = |dims: [usize; 4]| Tensor::<4>::from_data(TensorData::new(row.clone(), dims), &device);
    let [n, c, height, width] = gradient.dims();
    let pad = side / 2;
    let options = |padding| ConvOptions::new([1, 1], padding, [1, 1], 1);
    let x = gradient.reshape([n * c, 1, height, width]);
    let x = conv2d(x, along([1, 1, side, 1]), None, options([pad, 0]));
    let x = conv2d(x, along([1, 1, 1, side]), None, options([0, pad]));
    x.reshape([n, c, height, width])
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use fireproof_tensor::{Targets, victim};

    use super::*;

    fn tensor(values: Vec<f32>, dims: [usize; 4]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values, dims), &Device::flex())
    }

    fn floats(tensor: Tensor<4>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn the_gradient_through_a_view_is_its_finite_difference() {
        let images = tensor((0..2 * 2 * 6 * 8).map(|i| ((i * 31) % 17) as f32 / 17.0).collect(), [2, 2, 6, 8]);
        let labels = Targets::from_labels(&[0; 96], [2, 6, 8], &Device::flex()).unwrap();
        let batch = Batch::new(images.clone(), labels, vec![3, 9]).unwrap();
        // A model that is not the same everywhere, so that places matter.
        let slope = tensor((0..48).map(|i| (i % 7) as f32 * 0.3 - 1.0).collect(), [1, 1, 6, 8]);
        let model = victim(|x: Tensor<4>| {
            let slope = if x.is_autodiff() { Tensor::from_inner(slope.clone()) } else { slope.clone() };
            x.clone() * x * slope
        });
        let views = Views { probability: 1.0, smallest: 0.4, copies: 2, kernel: 0 };
        let weights = tensor((0..192).map(|i| ((i * 13) % 11) as f32 - 5.0).collect(), [2, 2, 6, 8]);
        let loss = |images: &Tensor<4>| {
            // The same views every time; the sum over both copies.
            let viewed = Viewed::new(&model, views, "test", &batch, &Context::new(1));
            let total = Cell::new(0.0f64);
            let (_, gradient) = viewed
                .pull_back(images.clone(), &mut |logits| {
                    let sum: f32 = (logits * weights.clone()).sum().into_scalar();
                    total.set(total.get() + f64::from(sum));
                    Ok(weights.clone())
                })
                .unwrap();
            (total.get(), floats(gradient))
        };
        let gradient = loss(&images).1;
        let values = floats(images);
        for i in [0, 13, 40, 95, 120, 191] {
            let moved = |by: f32| {
                let mut values = values.clone();
                values[i] += by;
                loss(&tensor(values, [2, 2, 6, 8])).0
            };
            let difference = (moved(0.01) - moved(-0.01)) / 0.02;
            assert!((difference - f64::from(gradient[i])).abs() < 0.02, "{i}: {difference} {}", gradient[i]);
        }
    }

    #[test]
    fn smoothing_keeps_the_sum_and_spreads_a_point_evenly() {
        let mut values = vec![0.0; 2 * 11 * 11];
        values[121 + 5 * 11 + 5] = 1.0;
        let smoothed = floats(smooth(tensor(values, [1, 2, 11, 11]), 5));
        assert!(smoothed[..121].iter().all(|v| *v == 0.0), "channels do not mix");
        let point = |y: usize, x: usize| smoothed[121 + y * 11 + x];
        assert!((smoothed.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert!((point(5, 4) - point(4, 5)).abs() < 1e-7 && point(5, 5) > point(5, 4) && point(5, 7) > 0.0);
        assert_eq!(point(5, 8), 0.0);
        // exp(−½ (3/2)²) against 1.
        assert!((point(5, 4) / point(5, 5) - (-1.125f32).exp()).abs() < 1e-5);
    }
}
