//! AugMix: chains of simple operations, mixed with each other and with the image.
//!
//! Hendrycks, Mu, Cubuk, Zoph, Gilmer, Lakshminarayanan. *AugMix: A Simple Data Processing Method to Improve Robustness and
//! Uncertainty*, ICLR 2020. <https://arxiv.org/abs/1912.02781>
//!
//! Three chains of one to three operations, weighted by Dirichlet(1), give one image, of which Beta(1, 1) is mixed into the
//! original. Severity 3 of 10. Operations: autocontrast, equalize, posterize, solarize, and for images with one label also
//! rotate, shear and translate. Where labels lie on pixels those would move what the labels stand for, so they are left out.
//! The ranges of the operations are the released code's as remembered: 4 bits, all of 256 levels, 30°, 0.3, a third of the side.

use burn::tensor::{Tensor, TensorData};
use fireproof_tensor::random::Stream;
use serde::{Deserialize, Serialize};

use crate::{
    Result, draw,
    stage::{BATCH, Cost, Describe, Moment, Options, Prepare, Stage, StageEntry, View, options, parse, view},
};

/// Augments the images of a view, in place or as further views.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AugMix {
    /// The view that is augmented.
    pub view: String,
    /// Names of views that augmented images make, each with draws of its own; none means in place.
    pub into: Vec<String>,
    /// Number of chains.
    pub width: usize,
    /// Most operations of a chain; each has one to so many.
    pub depth: usize,
    /// Strength of the operations, over 0 to 10.
    pub severity: f64,
}

impl Default for AugMix {
    fn default() -> Self {
        Self { view: BATCH.into(), into: Vec::new(), width: 3, depth: 3, severity: 3.0 }
    }
}

inventory::submit! {
    StageEntry { name: "augmix", about: "mixed chains of simple operations", build: |given| {
        let stage: AugMix = parse(given)?;
        if stage.width == 0 || stage.depth == 0 {
            return Err("width and depth must be at least 1".into());
        }
        match stage.severity > 0.0 && stage.severity <= 10.0 {
            true => Ok(Stage::Prepare(Box::new(stage))),
            false => Err(format!("severity is {}, expected over 0 to 10", stage.severity)),
        }
    } }
}

impl Describe for AugMix {
    fn explain(&self) -> String {
        let Self { view, into, width, depth, severity } = self;
        let place = match &into[..] {
            [] => "in place".to_string(),
            names => format!("also as {}", names.join(", ")),
        };
        format!(
            "'{view}' augmented by AugMix ({width} chains of up to {depth} operations, severity {severity}), {place}"
        )
    }

    fn options(&self) -> Options {
        options(self)
    }

    fn cost(&self) -> Cost {
        let own = self.into.len() as f64;
        Cost { forward: own, input_backward: 0.0, full_backward: own }
    }

    fn makes(&self) -> Vec<String> {
        self.into.clone()
    }

    fn reads(&self) -> Vec<String> {
        vec![self.view.clone()]
    }
}

impl Prepare for AugMix {
    fn prepare(&mut self, views: &mut Vec<View>, moment: &Moment<'_>) -> Result<()> {
        let source = view(views, &self.view)?;
        let batch = source.batch.clone();
        let [n, channels, height, width] = batch.dims();
        let [_, rows, columns] = batch.targets.dims();
        let geometric = [rows, columns] != [height, width];
        let pixels: Vec<f32> = batch.images.to_data().convert::<f32>().try_to_vec().expect("converted to f32 before");
        let augmented = |name: &str| {
            let images = pixels.chunks_exact(channels * height * width).zip(&batch.ids).flat_map(|(image, id)| {
                let stream = Stream::new(&[moment.seed, *id]).child("augmix").child(name);
                self.image(&Picture { data: image.to_vec(), height, width }, geometric, &stream)
            });
            let data = TensorData::new(images.collect::<Vec<f32>>(), [n, channels, height, width]);
            batch.with_images(Tensor::from_data(data, &batch.images.device()))
        };
        if self.into.is_empty() {
            source.batch = augmented("");
        } else {
            let made: Vec<View> = self.into.iter().map(|name| View::new(name, augmented(name))).collect();
            views.extend(made);
        }
        Ok(())
    }
}

impl AugMix {
    fn image(&self, image: &Picture, geometric: bool, stream: &Stream) -> Vec<f32> {
        let operations = if geometric { OPERATIONS } else { &OPERATIONS[..PHOTOMETRIC] };
        let shares = draw::shares(&stream.child("shares"), self.width);
        let original = draw::beta(&stream.child("original"), 1.0);
        let mut mixed = vec![0.0; image.data.len()];
        for (chain, share) in shares.into_iter().enumerate() {
            let stream = Stream::new(&[stream.child("chain").bits(chain as u64)]);
            let length = 1 + stream.below(0, self.depth as u64);
            let mut picture = image.clone();
            for at in 1..=length {
                let operation = operations[stream.below(2 * at, operations.len() as u64) as usize];
                // The released code draws a level from 0.1 to the severity, of 10.
                let level = 0.1 + f64::from(stream.uniform(2 * at + 1)) * (self.severity - 0.1).max(0.0);
                let sign = if stream.child("sign").uniform(at) < 0.5 { -1.0 } else { 1.0 };
                picture = operation(picture, level / 10.0, sign);
            }
            mixed.iter_mut().zip(&picture.data).for_each(|(sum, v)| *sum += share * f64::from(*v));
        }
        let pixel =
            |(&own, mixed): (&f32, f64)| ((1.0 - original) * f64::from(own) + original * mixed).clamp(0.0, 1.0) as f32;
        image.data.iter().zip(mixed).map(pixel).collect()
    }
}

/// An image `[C, H, W]` in 0 to 1.
#[derive(Clone)]
struct Picture {
    data: Vec<f32>,
    height: usize,
    width: usize,
}

/// Changes a picture by a strength of 0 to 1 and a direction of ±1.
type Operation = fn(Picture, f64, f64) -> Picture;

/// How many of the operations leave every pixel at its place.
const PHOTOMETRIC: usize = 4;

const OPERATIONS: &[Operation] = &[
    autocontrast,
    equalize,
    posterize,
    solarize,
    |picture, level, sign| {
        let (sin, cos) = (sign * level * 30.0_f64.to_radians()).sin_cos();
        warped(picture, [cos, sin, -sin, cos], [0.0; 2])
    },
    |picture, level, sign| warped(picture, [1.0, sign * level * 0.3, 0.0, 1.0], [0.0; 2]),
    |picture, level, sign| warped(picture, [1.0, 0.0, sign * level * 0.3, 1.0], [0.0; 2]),
    |picture, level, sign| {
        let by = sign * level * picture.width as f64 / 3.0;
        warped(picture, [1.0, 0.0, 0.0, 1.0], [by, 0.0])
    },
    |picture, level, sign| {
        let by = sign * level * picture.height as f64 / 3.0;
        warped(picture, [1.0, 0.0, 0.0, 1.0], [0.0, by])
    },
];

fn planes(picture: &mut Picture) -> std::slice::ChunksExactMut<'_, f32> {
    let plane = picture.height * picture.width;
    picture.data.chunks_exact_mut(plane)
}

/// Stretches each channel to the whole range.
fn autocontrast(mut picture: Picture, _: f64, _: f64) -> Picture {
    for plane in planes(&mut picture) {
        let low = plane.iter().copied().fold(f32::INFINITY, f32::min);
        let high = plane.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if high > low {
            plane.iter_mut().for_each(|v| *v = (*v - low) / (high - low));
        }
    }
    picture
}

/// Makes the 256 levels of each channel equally frequent.
fn equalize(mut picture: Picture, _: f64, _: f64) -> Picture {
    for plane in planes(&mut picture) {
        let bin = |v: f32| (v * 255.0).round().clamp(0.0, 255.0) as usize;
        let mut counts = [0usize; 256];
        plane.iter().for_each(|&v| counts[bin(v)] += 1);
        let first = counts.iter().copied().find(|&count| count > 0).unwrap_or(0);
        let rest = plane.len() - first;
        if rest == 0 {
            continue;
        }
        let mut below = 0;
        let level = counts.map(|count| {
            below += count;
            (below.saturating_sub(first) as f32 / rest as f32).clamp(0.0, 1.0)
        });
        plane.iter_mut().for_each(|v| *v = level[bin(*v)]);
    }
    picture
}

/// Keeps the highest 4 bits, or up to four less.
fn posterize(mut picture: Picture, level: f64, _: f64) -> Picture {
    let bits = (4 - (level * 4.0) as i32).clamp(1, 8);
    let step = (1 << (8 - bits)) as f32;
    picture.data.iter_mut().for_each(|v| *v = ((*v * 255.0).round() / step).floor() * step / 255.0);
    picture
}

/// Turns the brightest levels into their negatives.
fn solarize(mut picture: Picture, level: f64, _: f64) -> Picture {
    let threshold = 1.0 - level as f32;
    picture.data.iter_mut().filter(|v| **v >= threshold).for_each(|v| *v = 1.0 - *v);
    picture
}

/// Takes each pixel from `matrix · (position − middle) + middle + shift`, bilinearly; what lies outside is black.
fn warped(picture: Picture, [a, b, c, d]: [f64; 4], [right, down]: [f64; 2]) -> Picture {
    let Picture { data, height, width } = picture;
    let (middle_x, middle_y) = (0.5 * (width as f64 - 1.0), 0.5 * (height as f64 - 1.0));
    let mut out = vec![0.0; data.len()];
    for y in 0..height {
        for x in 0..width {
            let (u, v) = (x as f64 - middle_x, y as f64 - middle_y);
            let (sx, sy) = (a * u + b * v + middle_x + right, c * u + d * v + middle_y + down);
            let (left, top) = (sx.floor(), sy.floor());
            let (fx, fy) = (sx - left, sy - top);
            for (plane, out) in data.chunks_exact(height * width).zip(out.chunks_exact_mut(height * width)) {
                let at = |dx: f64, dy: f64| {
                    let (column, row) = (left + dx, top + dy);
                    let inside = column >= 0.0 && row >= 0.0 && column < width as f64 && row < height as f64;
                    if inside { f64::from(plane[row as usize * width + column as usize]) } else { 0.0 }
                };
                let upper = at(0.0, 0.0) * (1.0 - fx) + at(1.0, 0.0) * fx;
                let lower = at(0.0, 1.0) * (1.0 - fx) + at(1.0, 1.0) * fx;
                out[y * width + x] = (upper * (1.0 - fy) + lower * fy) as f32;
            }
        }
    }
    Picture { data: out, height, width }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        Picture { data: (0..48).map(|i| 0.2 + 0.01 * (i % 24) as f32).collect(), height: 4, width: 6 }
    }

    #[test]
    fn operations_of_no_strength_leave_a_picture_alone() {
        for (place, operation) in OPERATIONS.iter().enumerate().filter(|(place, _)| *place > 2) {
            let changed = operation(picture(), 0.0, 1.0);
            let same = changed.data.iter().zip(picture().data).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(same, "operation {place}");
        }
    }

    #[test]
    fn every_operation_stays_in_the_range_and_a_shift_moves_pixels() {
        for operation in OPERATIONS {
            let changed = operation(picture(), 0.7, -1.0);
            assert!(changed.data.iter().all(|v| (0.0..=1.0).contains(v)));
        }
        let shifted = warped(picture(), [1.0, 0.0, 0.0, 1.0], [2.0, 0.0]);
        assert_eq!(
            shifted.data[..6],
            [picture().data[2], picture().data[3], picture().data[4], picture().data[5], 0.0, 0.0]
        );
        let stretched = autocontrast(picture(), 0.0, 0.0);
        assert_eq!((stretched.data[0], stretched.data[23]), (0.0, 1.0));
    }
}
