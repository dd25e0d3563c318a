//! The augmentations that nnU-Net trains on, in two dimensions.
//!
//! Isensee, Jaeger, Kohl, Petersen, Maier-Hein. *nnU-Net: a self-configuring method for deep learning-based biomedical
//! image segmentation*, Nature Methods 18, 2021. <https://doi.org/10.1038/s41592-020-01008-z>; probabilities and ranges
//! of the trainer of nnU-Net 2.8.1.
//!
//! | what | probability | range |
//! |---|---|---|
//! | rotation | 0.2 | ± 180°; ± 15° where one side is more than 1.5 times the other |
//! | scale | 0.2 | 1/1.4 to 1/0.7 |
//! | Gaussian noise | 0.1 | standard deviation 0 to 0.1 |
//! | Gaussian blur | 0.2, then 0.5 a channel | σ 0.5 to 1 pixel |
//! | brightness, a factor | 0.15 | 0.75 to 1.25 |
//! | contrast, within the image's own range | 0.15 | 0.75 to 1.25 |
//! | low resolution | 0.25, then 0.5 a channel | 0.5 to 1 |
//! | gamma of the negative, keeping mean and deviation | 0.1 | 0.7 to 1.5 |
//! | gamma, keeping mean and deviation | 0.3 | 0.7 to 1.5 |
//! | mirroring | 0.5 for each axis | |
//!
//! There is no elastic deformation: nnU-Net has switched it off. Factors and gammas are drawn below 1 and above 1 with equal
//! probability. Noise, brightness and padding are in the z-scores of the case (of the image, where it belongs to none).
//!
//! Two things differ. Values are clamped to `[0, 1]` at the end, so that the valid range of an attack holds for augmented
//! images too. And what a view takes from outside its image is void, where nnU-Net calls it background.

use crate::{
    Image, Sample,
    augment::{View, blur},
    math,
    random::Stream,
    resize,
};

/// The view of `sample` in `epoch`, `crop` high and wide or as large as the sample.
pub(crate) fn apply(sample: Sample, crop: Option<(usize, usize)>, seed: u64, epoch: u64) -> Sample {
    let mut stream = Stream::new(&[seed, epoch, sample.id, 0x6e6e_756e_6574]);
    let size = crop.unwrap_or(sample.image.size());
    let (long, short) = (size.0.max(size.1) as f32, size.0.min(size.1) as f32);
    let largest = if long > 1.5 * short { 15.0 } else { 180.0 };
    // All numbers are drawn whatever comes of them, so that one outcome does not change another's draw.
    let (turned, degrees) = (stream.chance(0.2), stream.range(-largest, largest));
    let (scaled, scale) = (stream.chance(0.2), 1.0 / stream.range(0.7, 1.4));
    let offset = (stream.unit(), stream.unit());
    let (degrees, scale) = (if turned { degrees } else { 0.0 }, if scaled { scale } else { 1.0 });

    let channels = sample.image.channels;
    let mut statistics = statistics(&sample.image);
    if let Some(case) = &sample.case {
        statistics = case.mean.iter().copied().zip(case.std.iter().copied()).collect();
    }
    let view = View::new(&sample.image, size, scale, degrees, false, offset);
    let means: Vec<f32> = statistics.iter().map(|(mean, _)| *mean).collect();
    let mut image = view.image(&sample.image, &means);
    let mut mask = if sample.mask.is_single() { sample.mask } else { view.mask(&sample.mask) };

    let (noisy, deviation) = (stream.chance(0.1), stream.range(0.0, 0.1));
    let key = stream.next();
    if noisy {
        each(&mut image, |channel, plane| noise(plane, deviation * statistics[channel].1, key, channel));
    }
    let blurred = stream.chance(0.2);
    for channel in 0..channels {
        let (chosen, sigma) = (stream.chance(0.5), stream.range(0.5, 1.0));
        if blurred && chosen {
            let mut one = single(&image, channel);
            blur(&mut one, sigma, (3.0 * sigma).round() as usize);
            put(&mut image, channel, &one);
        }
    }
    let brighter = stream.chance(0.15);
    for channel in 0..channels {
        let (factor, mean) = (contrast(&mut stream, 0.75, 1.25), statistics[channel].0);
        if brighter {
            plane(&mut image, channel).iter_mut().for_each(|value| *value = mean + (*value - mean) * factor);
        }
    }
    let contrasted = stream.chance(0.15);
    for channel in 0..channels {
        let factor = contrast(&mut stream, 0.75, 1.25);
        if contrasted {
            let plane = plane(&mut image, channel);
            let ((mean, _), [low, high]) = (moments(plane), extremes(plane));
            plane.iter_mut().for_each(|value| *value = (mean + (*value - mean) * factor).clamp(low, high));
        }
    }
    let coarse = stream.chance(0.25);
    for channel in 0..channels {
        let (chosen, zoom) = (stream.chance(0.5), stream.range(0.5, 1.0));
        if coarse && chosen {
            let lower = low_resolution(&single(&image, channel), zoom);
            put(&mut image, channel, &lower);
        }
    }
    for (probability, negative) in [(0.1, true), (0.3, false)] {
        let drawn = stream.chance(probability);
        for channel in 0..channels {
            let exponent = contrast(&mut stream, 0.7, 1.5);
            if drawn {
                gamma(plane(&mut image, channel), exponent, negative);
            }
        }
    }
    for vertical in [true, false] {
        if stream.chance(0.5) {
            let (height, width) = image.size();
            image.data.chunks_exact_mut(height * width).for_each(|plane| mirror(plane, width, vertical));
            if !mask.is_single() {
                let width = mask.width;
                mirror(&mut mask.data, width, vertical);
            }
        }
    }
    image.data.iter_mut().for_each(|value| *value = value.clamp(0.0, 1.0));
    Sample { image, mask, ..sample }
}

/// Below 1 for every second draw.
fn contrast(stream: &mut Stream, low: f32, high: f32) -> f32 {
    let (below, part) = (stream.chance(0.5), stream.unit());
    if below { low + (1.0 - low) * part } else { 1.0 + (high - 1.0) * part }
}

fn plane(image: &mut Image, channel: usize) -> &mut [f32] {
    let size = image.height * image.width;
    &mut image.data[channel * size..][..size]
}

fn each(image: &mut Image, mut change: impl FnMut(usize, &mut [f32])) {
    let size = image.height * image.width;
    image.data.chunks_exact_mut(size).enumerate().for_each(|(channel, plane)| change(channel, plane));
}

fn single(image: &Image, channel: usize) -> Image {
    let size = image.height * image.width;
    Image { channels: 1, data: image.data[channel * size..][..size].to_vec(), ..*image }
}

fn put(image: &mut Image, channel: usize, one: &Image) {
    plane(image, channel).copy_from_slice(&one.data);
}

/// Mean and standard deviation (with n in the denominator) of each channel.
fn statistics(image: &Image) -> Vec<(f32, f32)> {
    image.data.chunks_exact(image.height * image.width).map(moments).collect()
}

fn moments(plane: &[f32]) -> (f32, f32) {
    let n = plane.len() as f64;
    let mean = plane.iter().map(|&value| f64::from(value)).sum::<f64>() / n;
    let square = plane.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / n;
    (mean as f32, square.sqrt() as f32)
}

fn extremes(plane: &[f32]) -> [f32; 2] {
    plane.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], &v| [low.min(v), high.max(v)])
}

/// Adds normal noise (Box–Muller).
fn noise(plane: &mut [f32], deviation: f32, key: u64, channel: usize) {
    let mut stream = Stream::new(&[key, channel as u64]);
    for value in plane {
        let radius = (-2.0 * math::ln(1.0 - f64::from(stream.unit()))).sqrt();
        let (_, cos) = math::turn(360.0 * f64::from(stream.unit()));
        *value += deviation * (radius * cos) as f32;
    }
}

/// Fewer pixels, each the one in the middle of what it stands for, and back by bilinear interpolation.
fn low_resolution(image: &Image, zoom: f32) -> Image {
    let (height, width) = image.size();
    let shrunk = |side: usize| ((side as f32 * zoom).round() as usize).max(1);
    let (h, w) = (shrunk(height), shrunk(width));
    let source =
        |at: usize, from: usize, to: usize| (((at as f64 + 0.5) * from as f64 / to as f64) as usize).min(from - 1);
    let pixel = |at: usize| image.data[source(at / w, height, h) * width + source(at % w, width, w)];
    let small = Image { channels: 1, height: h, width: w, data: (0..h * w).map(pixel).collect() };
    resize::image(&small, height, width)
}

/// `((x − low) / (high − low))^exponent`, brought back to the mean and deviation that were there.
fn gamma(plane: &mut [f32], exponent: f32, negative: bool) {
    if negative {
        plane.iter_mut().for_each(|value| *value = -*value);
    }
    let ((mean, deviation), [low, high]) = (moments(plane), extremes(plane));
    let range = (high - low).max(1e-7);
    for value in plane.iter_mut() {
        let part = f64::from((*value - low) / range);
        // A power by exponential and logarithm of our own, which are the same on every machine.
        let power = if part > 0.0 { math::exp(f64::from(exponent) * math::ln(part)) } else { 0.0 };
        *value = low + range * power as f32;
    }
    let (there, spread) = moments(plane);
    let factor = deviation / spread.max(1e-7);
    plane.iter_mut().for_each(|value| *value = mean + (*value - there) * factor);
    if negative {
        plane.iter_mut().for_each(|value| *value = -*value);
    }
}

fn mirror<T>(plane: &mut [T], width: usize, vertical: bool) {
    if !vertical {
        plane.chunks_exact_mut(width).for_each(<[T]>::reverse);
        return;
    }
    let height = plane.len() / width;
    for row in 0..height / 2 {
        let (upper, lower) = plane.split_at_mut((height - 1 - row) * width);
        upper[row * width..][..width].swap_with_slice(&mut lower[..width]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Augment, Case, Mask, Slice, VOID};

    /// 40 × 32 pixels in two channels; the mask tells bright from dark.
    fn sample(id: u64) -> Sample {
        let (height, width) = (40, 32);
        let value = |at: usize| {
            let (y, x) = (at / width % height, at % width);
            0.3 + 0.3 * f32::from(u8::from((y / 10 + x / 8) % 2 == 0)) + 0.002 * (at % 7) as f32
        };
        let data = (0..2 * height * width).map(value).collect();
        let mask = (0..height * width).map(|at| u8::from(value(at) > 0.5)).collect();
        let slice = Slice { volume: 0, name: "v".into(), z: 0 };
        let case = Some(Case { slice, spacing: None, mean: vec![0.45, 0.4], std: vec![0.15, 0.2] });
        let image = Image { channels: 2, height, width, data };
        Sample { id, name: "x".into(), image, mask: Mask { height, width, data: mask }, case }
    }

    fn nnunet() -> Augment {
        Augment { nnunet: true, ..Augment::default() }
    }

    #[test]
    fn a_view_is_a_function_of_seed_epoch_and_id() {
        let view = |seed, epoch, id| nnunet().apply(sample(id), seed, epoch);
        assert_eq!(view(1, 2, 3), view(1, 2, 3));
        let others = [view(2, 2, 3), view(1, 3, 3), Sample { id: 3, ..view(1, 2, 4) }];
        assert!(others.iter().filter(|other| **other == view(1, 2, 3)).count() < 2, "keys matter");
    }

    #[test]
    fn labels_stay_on_their_pixels_and_values_in_the_range() {
        let mut agree = 0.0;
        for epoch in 0..200 {
            let view = nnunet().apply(sample(0), 7, epoch);
            assert_eq!((view.image.size(), view.mask.size()), ((40, 32), (40, 32)));
            assert!(view.image.data.iter().all(|value| (0.0..=1.0).contains(value)));
            assert!(view.mask.data.iter().all(|label| [0, 1, VOID].contains(label)));
            // Whatever happened, bright squares are still brighter than dark ones.
            let mean = |label: u8| {
                let of = view.image.data.iter().zip(&view.mask.data).filter(|(_, other)| **other == label);
                let (sum, count) = of.fold((0.0, 0), |(sum, count), (value, _)| (sum + value, count + 1));
                sum / count as f32
            };
            agree += f32::from(u8::from(mean(1) > mean(0) + 0.05));
        }
        assert!(agree > 195.0, "{agree} of 200");
    }

    #[test]
    fn each_augmentation_comes_as_often_as_nnunet_has_it() {
        let (mut plain, mut void, mut upright) = (0, 0, 0);
        for epoch in 0..2000 {
            let view = nnunet().apply(sample(0), 3, epoch);
            upright += u32::from(view.mask.data == sample(0).mask.data);
            void += u32::from(view.mask.data.contains(&VOID));
            plain += u32::from(view.image == sample(0).image);
        }
        // Nothing at all: 0.8² · 0.9 · 0.9 · 0.85² · 0.8125 · 0.9 · 0.7 · 0.25 ≈ 0.048, with a channel's coin in blur and
        // low resolution.
        assert!((60..140).contains(&plain), "{plain} of 2000 are as they were");
        // Rotated by anything or shrunk: 1 − 0.8 · (1 − 0.2 · 4 / 7).
        assert!((400..720).contains(&void), "{void} of 2000 reach outside");
        assert!(upright > plain, "{upright}");
    }

    #[test]
    fn gamma_keeps_mean_and_deviation_and_order() {
        for negative in [false, true] {
            let mut plane: Vec<f32> = (0..50).map(|i| 0.01 * i as f32).collect();
            let before = moments(&plane);
            gamma(&mut plane, 1.4, negative);
            let after = moments(&plane);
            assert!((before.0 - after.0).abs() < 1e-5 && (before.1 - after.1).abs() < 1e-5, "{before:?} {after:?}");
            assert!(plane.is_sorted() && (plane[25] - 0.25).abs() > 0.005, "{plane:?}");
        }
    }

    #[test]
    fn noise_has_its_deviation_and_low_resolution_keeps_constants() {
        let mut plane = vec![0.5; 20_000];
        noise(&mut plane, 0.1, 9, 0);
        let (mean, deviation) = moments(&plane);
        assert!((mean - 0.5).abs() < 3e-3 && (deviation - 0.1).abs() < 3e-3, "{mean} {deviation}");
        let flat = Image { channels: 1, height: 9, width: 7, data: vec![0.4; 63] };
        assert!(low_resolution(&flat, 0.6).data.iter().all(|value| (value - 0.4).abs() < 1e-6));
    }

    #[test]
    fn mirroring_twice_changes_nothing() {
        for vertical in [true, false] {
            let original: Vec<u8> = (0..15).collect();
            let mut plane = original.clone();
            mirror(&mut plane, 3, vertical);
            assert_eq!(plane[0], if vertical { 12 } else { 2 });
            mirror(&mut plane, 3, vertical);
            assert_eq!(plane, original);
        }
    }
}
