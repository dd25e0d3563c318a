//! Deterministic synthetic street scenes: the data set that is always there.
//!
//! A scene is a pin-hole camera in a street: facades, pavement and road in perspective, trees, poles, signs, parked and
//! moving cars, pedestrians, drawn back to front, then lit, hazed, blurred and given sensor noise. What makes it hard is
//! what makes real scenes hard: a pixel's colour says little about its class (road, pavement and facades draw their greys
//! from overlapping ranges, shadows cross borders, light and white balance change from scene to scene), classes have
//! very different shares (sky and road tens of per cent, signs and pedestrians less than one), and thin things are a
//! pixel wide. Outlines of objects are void, as in Pascal VOC; the void ring lies outside the object, so that thin things
//! keep their pixels.
//!
//! Every scene is a function of (seed, split, index, size). Only `+ − × ÷ √ floor` and integer hashes are used, which
//! IEEE 754 rounds the same everywhere, so images and masks are identical to the last bit on every platform.

mod camera;
mod layout;
mod objects;
mod render;
mod texture;

use crate::{Class, Dataset, Error, Image, Mask, Result, Sample, VOID, random};

/// The classes in the order of their indices.
const CLASSES: [(&str, [u8; 3]); 9] = [
    ("sky", [70, 130, 180]),
    ("building", [110, 70, 70]),
    ("road", [128, 64, 128]),
    ("pavement", [244, 35, 232]),
    ("tree", [107, 142, 35]),
    ("car", [0, 0, 142]),
    ("pedestrian", [220, 20, 60]),
    ("pole", [250, 170, 30]),
    ("sign", [220, 220, 0]),
];

pub(crate) const SKY: u8 = 0;
pub(crate) const BUILDING: u8 = 1;
pub(crate) const ROAD: u8 = 2;
pub(crate) const PAVEMENT: u8 = 3;
pub(crate) const TREE: u8 = 4;
pub(crate) const CAR: u8 = 5;
pub(crate) const PEDESTRIAN: u8 = 6;
pub(crate) const POLE: u8 = 7;
pub(crate) const SIGN: u8 = 8;

/// Version of the generator: shipped weights name it, a change of any pixel raises it.
pub const VERSION: u32 = 2;

/// A split of synthetic scenes.
///
/// ```
/// use fireproof_datasets::{Dataset, scenes::Scenes};
///
/// let scenes = Scenes::new(0, "train", 1000, 96, 128)?;
/// let sample = scenes.get(41)?;
/// assert_eq!(sample.image.size(), (96, 128));
/// assert_eq!(sample, Scenes::new(0, "train", 1000, 96, 128)?.get(41)?);
/// # Ok::<(), fireproof_datasets::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Scenes {
    seed: u64,
    split: String,
    len: usize,
    height: usize,
    width: usize,
    classes: Vec<Class>,
}

impl Scenes {
    /// Height and width unless said otherwise: what the quick bench uses.
    pub const DEFAULT_SIZE: (usize, usize) = (96, 128);

    /// `len` scenes of `height` × `width` pixels; splits of different names share no scene.
    ///
    /// # Errors
    /// If `len` is zero or a side is outside 16..=4096.
    pub fn new(seed: u64, split: &str, len: usize, height: usize, width: usize) -> Result<Self> {
        if len == 0 {
            return Err(Error::argument("number of scenes", 0, "at least one"));
        }
        if !(16..=4096).contains(&height) || !(16..=4096).contains(&width) {
            return Err(Error::argument("size of scenes", format!("{height}x{width}"), "sides of 16 to 4096 pixels"));
        }
        let classes = CLASSES.map(|(name, color)| Class { name: name.into(), color }).to_vec();
        Ok(Self { seed, split: split.to_owned(), len, height, width, classes })
    }
}

impl Dataset for Scenes {
    fn name(&self) -> &str {
        "scenes"
    }
    fn split(&self) -> &str {
        &self.split
    }
    fn len(&self) -> usize {
        self.len
    }
    fn classes(&self) -> &[Class] {
        &self.classes
    }
    fn channels(&self) -> usize {
        3
    }
    fn sample_name(&self, index: usize) -> String {
        assert!(index < self.len, "scene {index} of {}", self.len);
        format!("{}_{index:05}", self.split)
    }
    fn stored_as(&self, _index: usize) -> Result<String> {
        Ok("generated RGB 8-bit".into())
    }
    fn get(&self, index: usize) -> Result<Sample> {
        let name = self.sample_name(index);
        let key = random::key(&[self.seed, random::name_key(&self.split), index as u64]);
        let mut canvas = render::scene(key, self.height, self.width);
        let image = camera::expose(&mut canvas, key);
        let mask = outlined(&canvas);
        Ok(Sample { id: index as u64, name, image, mask, case: None })
    }
}

/// Colours, classes and object numbers of a scene that is being drawn.
pub(crate) struct Canvas {
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Linear RGB, not yet clamped.
    pub(crate) color: Vec<[f32; 3]>,
    pub(crate) class: Vec<u8>,
    /// 0 for the background, else the drawing order of the object that covers the pixel: higher is nearer.
    pub(crate) object: Vec<u16>,
}

impl Canvas {
    fn new(height: usize, width: usize) -> Self {
        let pixels = height * width;
        Self { height, width, color: vec![[0.0; 3]; pixels], class: vec![SKY; pixels], object: vec![0; pixels] }
    }
}

/// The mask with a void ring around every object, on the side of what lies behind it.
fn outlined(canvas: &Canvas) -> Mask {
    let (height, width) = (canvas.height, canvas.width);
    let reach = (height / 160).max(1);
    let mut data = canvas.class.clone();
    for y in 0..height {
        for x in 0..width {
            let here = y * width + x;
            let behind =
                |other: usize| canvas.object[other] > canvas.object[here] && canvas.class[other] != canvas.class[here];
            let ring = (1..=reach).any(|step| {
                (x >= step && behind(here - step))
                    || (x + step < width && behind(here + step))
                    || (y >= step && behind(here - step * width))
                    || (y + step < height && behind(here + step * width))
            });
            if ring {
                data[here] = VOID;
            }
        }
    }
    Mask { height, width, data }
}

/// An image of 8-bit values over 255, so that a scene survives being saved as PNG.
pub(crate) fn quantised(height: usize, width: usize, channel: impl Fn(usize, usize) -> f32) -> Image {
    let pixels = height * width;
    let mut data = Vec::with_capacity(3 * pixels);
    for c in 0..3 {
        data.extend((0..pixels).map(|pixel| (channel(pixel, c).clamp(0.0, 1.0) * 255.0 + 0.5).floor() / 255.0));
    }
    Image { channels: 3, height, width, data }
}
