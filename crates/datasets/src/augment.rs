//! Random scale, rotation, blur, flip and crop: the augmentations that adversarial segmentation training inherits from
//! DDC-AT (Xu, Zhao, Jia, ICCV 2021, <https://arxiv.org/abs/2003.06555>).
//!
//! Scale, rotation, flip and crop are one affine map, so an image is resampled once: bilinear for the image, nearest
//! centre for the mask. What the map takes from outside the image is void in the mask. A sample's augmentation is a
//! function of (seed, epoch, id): neither batch nor worker matters, and a resumed run repeats it.

use serde::{Deserialize, Serialize};

use crate::{Error, Image, Mask, Result, Sample, VOID, math, nnunet, random::Stream};

/// Which augmentations are on. The default leaves samples as they are.
///
/// ```
/// use fireproof_datasets::{Augment, Dataset, Options, Split, open};
///
/// let scenes = open("scenes", None, Split::Train, Options::default())?;
/// let augment = Augment::ddc_at((64, 64), (0.5, 2.0));
/// let view = augment.apply(scenes.get(7)?, 0, 3);
/// assert_eq!((view.id, view.image.size(), view.mask.size()), (7, (64, 64), (64, 64)));
/// assert_eq!(view, augment.apply(scenes.get(7)?, 0, 3));
/// # Ok::<(), fireproof_datasets::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Range of the scale factor, drawn uniformly.
    pub scale: Option<(f32, f32)>,
    /// Largest rotation in degrees, at most 45, drawn uniformly in both directions for every second sample.
    pub rotation: Option<f32>,
    /// Standard deviation in pixels, at most 16, of a Gaussian blur for every second sample.
    pub blur: Option<f32>,
    /// Mirrors every second sample left to right.
    pub flip: bool,
    /// Height and width of the part that is kept; without it a view has the sample's own size.
    pub crop: Option<(usize, usize)>,
    /// What the image holds where it is padded; the mask is void there.
    pub fill: Fill,
    /// nnU-Net's augmentations instead of all the others but `crop`: rotation, scale, noise, blur, brightness, contrast, low
    /// resolution, gamma, mirroring, with nnU-Net's probabilities and ranges.
    #[serde(skip_serializing_if = "is_off")]
    pub nnunet: bool,
}

fn is_off(on: &bool) -> bool {
    !on
}

/// What an image holds where it is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fill {
    /// The mean of the image, channel by channel.
    #[default]
    Mean,
    /// Zero.
    Zero,
}

impl Augment {
    /// The DDC-AT setting: scale, rotation up to 10°, a blur of σ = 1.1 (a 5 × 5 kernel), flip, crop, padding with the mean.
    ///
    /// The published ranges are crop 473 × 473 with scale 0.5–2 for VOC, 449 × 449 with 0.25–1 for Cityscapes.
    pub fn ddc_at(crop: (usize, usize), scale: (f32, f32)) -> Self {
        Self {
            scale: Some(scale),
            rotation: Some(10.0),
            blur: Some(1.1),
            flip: true,
            crop: Some(crop),
            fill: Fill::Mean,
            nnunet: false,
        }
    }

    /// Checks the ranges; [`Loader::new`](crate::Loader::new) does.
    ///
    /// # Errors
    /// Names the option that is out of its range.
    pub fn validate(&self) -> Result<()> {
        if let Some((low, high)) = self.scale
            && !(low >= 0.01 && low <= high && high <= 100.0)
        {
            return Err(Error::argument("scale", format!("{low}..{high}"), "0.01 ≤ smallest ≤ largest ≤ 100"));
        }
        if let Some(degrees) = self.rotation
            && !(0.0..=45.0).contains(&degrees)
        {
            return Err(Error::argument("rotation", degrees, "0 to 45 degrees"));
        }
        if let Some(deviation) = self.blur
            && !(deviation > 0.0 && deviation <= 16.0)
        {
            return Err(Error::argument("blur", deviation, "more than 0 and at most 16 pixels"));
        }
        if let Some((height, width)) = self.crop
            && (height == 0 || width == 0 || height as u64 * width as u64 > 1 << 26)
        {
            return Err(Error::argument("crop", format!("{height}x{width}"), "positive sides, at most 64 megapixels"));
        }
        Ok(())
    }

    /// The view of `sample` in `epoch`. A single label (classification) stays as it is.
    pub fn apply(&self, sample: Sample, seed: u64, epoch: u64) -> Sample {
        if self.nnunet {
            return nnunet::apply(sample, self.crop, seed, epoch);
        }
        let mut stream = Stream::new(&[seed, epoch, sample.id, 0x6175_676d]);
        // All numbers are drawn whatever is switched on, so that one option does not change another's draw.
        let scale = stream.unit();
        let (turned, angle) = (stream.chance(0.5), stream.range(-1.0, 1.0));
        let blurred = stream.chance(0.5);
        let mirrored = stream.chance(0.5);
        let offset = (stream.unit(), stream.unit());
        let scale = self.scale.map_or(1.0, |(low, high)| low + (high - low) * scale);
        let degrees = self.rotation.filter(|_| turned).map_or(0.0, |largest| largest * angle);
        let (height, width) = self.crop.unwrap_or(sample.image.size());
        let view = View::new(&sample.image, (height, width), scale, degrees, self.flip && mirrored, offset);
        let mut image = view.image(&sample.image, &self.fill.values(&sample.image));
        if let Some(deviation) = self.blur.filter(|_| blurred) {
            blur(&mut image, deviation, (2.0 * deviation).round() as usize);
        }
        let mask = if sample.mask.is_single() { sample.mask } else { view.mask(&sample.mask) };
        Sample { image, mask, ..sample }
    }
}

impl Fill {
    /// What each channel is padded with.
    fn values(self, image: &Image) -> Vec<f32> {
        let size = image.height * image.width;
        let mean = |plane: &[f32]| (plane.iter().map(|&value| f64::from(value)).sum::<f64>() / size as f64) as f32;
        match self {
            Self::Mean => image.data.chunks_exact(size).map(mean).collect(),
            Self::Zero => vec![0.0; image.channels],
        }
    }
}

/// The affine map from a view's pixels to the source's.
pub(crate) struct View {
    height: usize,
    width: usize,
    /// Source column and row of pixel (0, 0)'s centre, and their change per column and per row of the view.
    origin: (f32, f32),
    across: (f32, f32),
    down: (f32, f32),
}

impl View {
    pub(crate) fn new(
        source: &Image,
        (height, width): (usize, usize),
        scale: f32,
        degrees: f32,
        mirrored: bool,
        offset: (f32, f32),
    ) -> Self {
        // Whole pixels, so that an unscaled view is a copy; a smaller picture is centred in its padding.
        let start = |source: usize, size: usize, part: f32| {
            let slack = scale * source as f32 - size as f32;
            let whole = slack.floor();
            if whole >= 0.0 { ((whole + 1.0) * part).floor().min(whole) } else { (0.5 * slack).floor() }
        };
        let (left, top) = (start(source.width, width, offset.0), start(source.height, height, offset.1));
        let (sin, cos) = math::turn(f64::from(degrees));
        let (sin, cos) = (sin as f32 / scale, cos as f32 / scale);
        let mirror = if mirrored { -1.0 } else { 1.0 };
        let (middle_x, middle_y) = (0.5 * source.width as f32, 0.5 * source.height as f32);
        // The view's first pixel, seen from the middle of the scaled picture.
        let x = mirror * (left + 0.5 - middle_x * scale);
        let y = top + 0.5 - middle_y * scale;
        Self {
            height,
            width,
            origin: (middle_x + x * cos + y * sin, middle_y - x * sin + y * cos),
            across: (mirror * cos, -mirror * sin),
            down: (sin, cos),
        }
    }

    /// Calls `each` with the view's pixel and the source position, for every pixel whose source lies inside.
    fn inside(&self, (height, width): (usize, usize), mut each: impl FnMut(usize, f32, f32)) {
        let (right, bottom) = (width as f32, height as f32);
        for row in 0..self.height {
            let start = (self.origin.0 + self.down.0 * row as f32, self.origin.1 + self.down.1 * row as f32);
            for column in 0..self.width {
                let x = start.0 + self.across.0 * column as f32;
                let y = start.1 + self.across.1 * column as f32;
                if x >= 0.0 && x < right && y >= 0.0 && y < bottom {
                    each(row * self.width + column, x, y);
                }
            }
        }
    }

    /// The image; where it is padded, each channel has its value of `fill`.
    pub(crate) fn image(&self, source: &Image, fill: &[f32]) -> Image {
        let size = source.height * source.width;
        let pixels = self.height * self.width;
        let mut out = Image::zeros(source.channels, self.height, self.width);
        out.data.chunks_exact_mut(pixels).zip(fill).for_each(|(plane, &value)| plane.fill(value));
        let (last_x, last_y) = ((source.width - 1) as f32, (source.height - 1) as f32);
        let data = &mut out.data;
        self.inside(source.size(), |pixel, x, y| {
            let (x, y) = ((x - 0.5).clamp(0.0, last_x), (y - 0.5).clamp(0.0, last_y));
            let (left, top) = (x as usize, y as usize);
            let (u, v) = (x - left as f32, y - top as f32);
            let at = top * source.width + left;
            let right = usize::from(left + 1 < source.width);
            let below = if top + 1 < source.height { source.width } else { 0 };
            for channel in 0..source.channels {
                let plane = &source.data[channel * size..][..size];
                let upper = plane[at] + (plane[at + right] - plane[at]) * u;
                let lower = plane[at + below] + (plane[at + below + right] - plane[at + below]) * u;
                data[channel * pixels + pixel] = upper + (lower - upper) * v;
            }
        });
        out
    }

    pub(crate) fn mask(&self, source: &Mask) -> Mask {
        let mut data = vec![VOID; self.height * self.width];
        self.inside(source.size(), |pixel, x, y| data[pixel] = source.data[y as usize * source.width + x as usize]);
        Mask { height: self.height, width: self.width, data }
    }
}

/// Gaussian blur in place, mirrored at the borders; the kernel reaches so many pixels, at least one.
pub(crate) fn blur(image: &mut Image, deviation: f32, reach: usize) {
    let deviation = f64::from(deviation);
    let reach = reach.max(1);
    let half: Vec<f64> =
        (0..=reach).map(|step| math::exp(-((step * step) as f64) / (2.0 * deviation * deviation))).collect();
    let total = half[0] + 2.0 * half[1..].iter().sum::<f64>();
    let half: Vec<f32> = half.iter().map(|weight| (weight / total) as f32).collect();
    let (height, width) = image.size();
    let mut rows = vec![0.0f32; height * width];
    // The mirror image of an index without repeating the border; folded again when the picture is smaller than the kernel.
    let mirrored = |index: isize, size: usize| {
        let period = 2 * (size as isize - 1).max(1);
        let folded = index.rem_euclid(period);
        (if folded < size as isize { folded } else { period - folded }).min(size as isize - 1) as usize
    };
    let mut padded = vec![0.0f32; width + 2 * reach];
    for plane in image.data.chunks_exact_mut(height * width) {
        for (row, out) in plane.chunks_exact(width).zip(rows.chunks_exact_mut(width)) {
            for (index, value) in padded.iter_mut().enumerate() {
                *value = row[mirrored(index as isize - reach as isize, width)];
            }
            for (x, value) in out.iter_mut().enumerate() {
                *value = half[0] * padded[x + reach];
            }
            for (step, weight) in half.iter().enumerate().skip(1) {
                let (before, after) = (&padded[reach - step..], &padded[reach + step..]);
                for ((value, a), b) in out.iter_mut().zip(before).zip(after) {
                    *value += weight * (a + b);
                }
            }
        }
        for (y, out) in plane.chunks_exact_mut(width).enumerate() {
            out.iter_mut().zip(&rows[y * width..]).for_each(|(value, row)| *value = half[0] * row);
            for (step, weight) in half.iter().enumerate().skip(1) {
                let above = &rows[mirrored(y as isize - step as isize, height) * width..];
                let below = &rows[mirrored((y + step) as isize, height) * width..];
                for ((value, a), b) in out.iter_mut().zip(above).zip(below) {
                    *value += weight * (a + b);
                }
            }
            // Weights rounded to f32 may sum to a little more than one.
            out.iter_mut().for_each(|value| *value = value.min(1.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(height: usize, width: usize) -> Sample {
        let pixels = height * width;
        let image = Image {
            channels: 2,
            height,
            width,
            data: (0..2 * pixels).map(|index| (index % 251) as f32 / 255.0).collect(),
        };
        let mask = Mask { height, width, data: (0..pixels).map(|index| (index % 7) as u8).collect() };
        Sample { id: 3, name: "x".into(), image, mask, case: None }
    }

    #[test]
    fn without_options_a_sample_stays_as_it_is() {
        let original = sample(9, 13);
        assert_eq!(Augment::default().apply(original.clone(), 1, 2), original);
    }

    #[test]
    fn a_crop_copies_pixels_and_labels_from_the_same_place() {
        let original = sample(9, 13);
        let augment = Augment { crop: Some((4, 5)), ..Augment::default() };
        let mut places = std::collections::BTreeSet::new();
        for epoch in 0..1000 {
            let view = augment.apply(original.clone(), 0, epoch);
            let found = (0..=9 - 4)
                .flat_map(|top| (0..=13 - 5).map(move |left| (top, left)))
                .find(|&(top, left)| {
                    (0..4).all(|y| {
                        let source = (top + y) * 13 + left;
                        view.mask.data[y * 5..][..5] == original.mask.data[source..][..5]
                            && view.image.data[y * 5..][..5] == original.image.data[source..][..5]
                            && view.image.data[20 + y * 5..][..5] == original.image.data[117 + source..][..5]
                    })
                })
                .expect("the view is a part of the sample");
            places.insert(found);
        }
        assert_eq!(places.len(), 54, "every one of 6 x 9 places occurs");
    }

    #[test]
    fn flipping_mirrors_every_second_sample() {
        let original = sample(3, 4);
        let augment = Augment { flip: true, ..Augment::default() };
        let mut mirrored = 0;
        for epoch in 0..400 {
            let view = augment.apply(original.clone(), 0, epoch);
            if view != original {
                mirrored += 1;
                for y in 0..3 {
                    let expected: Vec<u8> = original.mask.data[4 * y..][..4].iter().rev().copied().collect();
                    assert_eq!(view.mask.data[4 * y..][..4], expected);
                }
            }
        }
        assert!((150..250).contains(&mirrored), "{mirrored} of 400");
    }

    #[test]
    fn padding_is_void_in_the_mask_and_the_mean_or_zero_in_the_image() {
        let original = sample(4, 4);
        for (fill, expected) in [(Fill::Zero, 0.0), (Fill::Mean, original.image.data[..16].iter().sum::<f32>() / 16.0)]
        {
            let view = Augment { crop: Some((8, 8)), fill, ..Augment::default() }.apply(original.clone(), 0, 0);
            let void: Vec<usize> = (0..64).filter(|&pixel| view.mask.data[pixel] == VOID).collect();
            assert_eq!(void.len(), 48);
            assert!(void.iter().all(|&pixel| (view.image.data[pixel] - expected).abs() < 1e-6));
        }
    }

    #[test]
    fn labels_stay_on_their_pixels_under_scale_and_rotation() {
        // The image shows its own label, in blocks large enough that most pixels are not interpolated across a border.
        let (height, width) = (80, 120);
        let label = |pixel: usize| ((pixel / width / 20) * 6 + pixel % width / 20) as u8;
        let mask = Mask { height, width, data: (0..height * width).map(label).collect() };
        let data = mask.data.iter().map(|&label| f32::from(label) / 100.0).collect();
        let image = Image { channels: 1, height, width, data };
        let original = Sample { id: 0, name: "x".into(), image, mask, case: None };
        let augment = Augment { blur: None, ..Augment::ddc_at((60, 60), (0.5, 2.0)) };
        for epoch in 0..50 {
            let view = augment.apply(original.clone(), 0, epoch);
            let valid: Vec<usize> = (0..3600).filter(|&pixel| view.mask.data[pixel] != VOID).collect();
            let agree = valid
                .iter()
                .filter(|&&pixel| (view.image.data[pixel] - f32::from(view.mask.data[pixel]) / 100.0).abs() < 1e-4)
                .count();
            assert!(agree as f32 > 0.75 * valid.len() as f32, "{agree} of {} pixels in epoch {epoch}", valid.len());
        }
    }

    #[test]
    fn blur_keeps_constants_and_spreads_a_point_evenly() {
        let mut flat = Image { channels: 1, height: 3, width: 2, data: vec![0.4; 6] };
        blur(&mut flat, 1.1, 2);
        assert!(flat.data.iter().all(|value| (value - 0.4).abs() < 1e-6), "{:?}", flat.data);
        let mut point = Image::zeros(1, 9, 9);
        point.data[40] = 1.0;
        blur(&mut point, 1.1, 2);
        assert!((point.data.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        let expected = (-0.5f32 / (1.1 * 1.1)).exp();
        assert!((point.data[41] / point.data[40] - expected).abs() < 1e-5 && point.data[41] == point.data[31]);
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let wrong = Augment { rotation: Some(90.0), ..Augment::default() };
        assert_eq!(wrong.validate().unwrap_err().to_string(), "rotation: found 90, expected 0 to 45 degrees");
        assert!(Augment { scale: Some((2.0, 1.0)), ..Augment::default() }.validate().is_err());
        assert!(Augment { scale: Some((f32::NAN, 1.0)), ..Augment::default() }.validate().is_err());
        assert!(Augment::ddc_at((473, 473), (0.5, 2.0)).validate().is_ok());
    }
}
