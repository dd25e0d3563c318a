//! What a data set hands out: images, masks and their classes, in host memory.

/// The label of a pixel that has no loss and no score.
pub const VOID: u8 = 255;

/// An image, channels first.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Number of channels `C`: 1 (grey), 3 (RGB), or the modalities of a medical scan.
    pub channels: usize,
    /// Number of rows `H`.
    pub height: usize,
    /// Number of columns `W`.
    pub width: usize,
    /// `C · H · W` values in `[0, 1]`, index `(c · H + y) · W + x`.
    pub data: Vec<f32>,
}

/// A label map: one class index per pixel, or [`VOID`].
///
/// Image classification is the case of a 1 × 1 mask beside a larger image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Number of rows `H`.
    pub height: usize,
    /// Number of columns `W`.
    pub width: usize,
    /// `H · W` class indices, index `y · W + x`.
    pub data: Vec<u8>,
}

/// One image with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Position in the list of the data set's split; a subset keeps it, so margins, seeds and records can refer to it.
    pub id: u64,
    /// The name in that list: a file's stem or relative path, or what the format calls a sample.
    pub name: String,
    /// The image.
    pub image: Image,
    /// Its labels.
    pub mask: Mask,
    /// The volume that it was cut from; `None` for pictures that belong to no volume.
    pub case: Option<Case>,
}

/// Where a 2-D sample lies in a volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slice {
    /// Position of the volume in the list of the data set's split: what scores per volume are pooled by.
    pub volume: u64,
    /// The volume's name.
    pub name: String,
    /// Position along the axis that was sliced, from 0.
    pub z: usize,
}

/// A medical case as one of its slices sees it.
///
/// Mean and standard deviation are in the units of [`Image::data`], so that `(value − mean) / std` is the per-case z-score:
/// it does not change when a volume's values are scaled, so neither does it matter how they became `[0, 1]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Which slice of which volume.
    pub slice: Slice,
    /// Distance of neighbours along `[z, y, x]` in mm, where the data says it. Resizing on reading is accounted for,
    /// augmentation is not.
    pub spacing: Option<[f64; 3]>,
    /// Mean of each channel over the whole volume, `[C]`; padding that is void does not count.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel over the whole volume, `[C]`, at least 1e-8.
    pub std: Vec<f32>,
}

impl Case {
    /// The smallest standard deviation: a volume of one value is divided by it.
    pub(crate) const SMALLEST: f32 = 1e-8;
}

/// A class: its index is its position in [`Dataset::classes`](crate::Dataset::classes).
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Class {
    /// Name as tables and legends print it.
    pub name: String,
    /// 8-bit RGB for pictures.
    pub color: [u8; 3],
}

impl Image {
    /// An image filled with zeros.
    pub fn zeros(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width, data: vec![0.0; channels * height * width] }
    }

    /// `(height, width)`.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }
}

impl Mask {
    /// `(height, width)`.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// Whether this is one label for the whole image rather than one per pixel.
    pub fn is_single(&self) -> bool {
        self.size() == (1, 1)
    }
}
