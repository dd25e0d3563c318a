//! One step's data.

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, Targets};

/// The unit in which the values of images are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// As stored, scaled to `[0, 1]`.
    #[default]
    Pixel,
    /// Per-case z-scores: standard deviations of the case from its mean, see [`Affine`].
    Normalised,
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unit::Pixel => "pixel",
            Unit::Normalised => "normalised",
        })
    }
}

impl std::str::FromStr for Unit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "pixel" => Ok(Unit::Pixel),
            "normalised" => Ok(Unit::Normalised),
            _ => Err(Error::Parse { what: "a unit", found: text.to_string(), expected: "'pixel' or 'normalised'" }),
        }
    }
}

/// Per-sample normalisation of per-case data (medical images): `normalised = (pixel − mean) / std`.
///
/// Both are `[N, C]` and constant under attack, so that no gradient leaks into the statistics.
#[derive(Clone, Debug)]
pub struct Affine {
    /// Mean of each sample and channel, `[N, C]`.
    pub mean: Tensor<2>,
    /// Standard deviation of each sample and channel, `[N, C]`.
    pub std: Tensor<2>,
}

impl Affine {
    /// `[N, C, H, W]` of one unit in another. The statistics are constants: a gradient at the result is the one at the
    /// images times a number a channel, whatever the images become under an attack.
    pub fn convert(&self, images: Tensor<4>, from: Unit, to: Unit) -> Tensor<4> {
        let [n, c] = self.mean.dims();
        let row = |v: &Tensor<2>| v.clone().reshape([n, c, 1, 1]);
        match (from, to) {
            (Unit::Pixel, Unit::Normalised) => (images - row(&self.mean)) / row(&self.std),
            (Unit::Normalised, Unit::Pixel) => images * row(&self.std) + row(&self.mean),
            _ => images,
        }
    }

    /// The gradient at images of the unit `from`, given the one at what [`convert`](Affine::convert) makes of them.
    pub fn pull_back(&self, gradient: Tensor<4>, from: Unit, to: Unit) -> Tensor<4> {
        let [n, c] = self.mean.dims();
        let std = self.std.clone().reshape([n, c, 1, 1]);
        match (from, to) {
            (Unit::Pixel, Unit::Normalised) => gradient / std,
            (Unit::Normalised, Unit::Pixel) => gradient * std,
            _ => gradient,
        }
    }
}

/// Images, what they should be labelled, and who they are.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[N, C, H, W]`.
    pub images: Tensor<4>,
    /// The unit of the images' values.
    pub unit: Unit,
    /// Labels of the images.
    pub targets: Targets,
    /// Stable index of each sample in its data set: key of seeds, margins, shards and records.
    pub ids: Vec<u64>,
    /// Per-case normalisation, where the data set has one.
    pub affine: Option<Affine>,
}

impl Batch {
    /// Puts a batch together. Labels lie on the images' pixels, `[N, H, W]`, or name one class an image, `[N, 1, 1]`:
    /// classification is segmentation of one pixel, and the victim's logits are `[N, K, 1, 1]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if images, labels and ids do not count the same samples or pixels.
    pub fn new(images: Tensor<4>, targets: Targets, ids: Vec<u64>) -> Result<Self> {
        let [n, _, height, width] = images.dims();
        if targets.dims() != [n, height, width] && targets.dims() != [n, 1, 1] {
            return Err(Error::Shape {
                what: "labels",
                found: format!("{:?}", targets.dims()),
                expected: format!("{:?} like the images, or {:?} for classification", [n, height, width], [n, 1, 1]),
            });
        }
        if ids.len() != n {
            return Err(Error::Shape {
                what: "ids",
                found: ids.len().to_string(),
                expected: format!("{n}, one an image"),
            });
        }
        Ok(Self { images, unit: Unit::Pixel, targets, ids, affine: None })
    }

    /// A batch from host memory: `pixels` are `[N, C, H, W]` row major, `labels` `[N, H, W]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths do not match `dims`.
    pub fn from_host(
        pixels: Vec<f32>,
        labels: &[u8],
        dims: [usize; 4],
        ids: Vec<u64>,
        device: &Device,
    ) -> Result<Self> {
        let [n, _, height, width] = dims;
        let expected: usize = dims.iter().product();
        if pixels.len() != expected {
            return Err(Error::Shape {
                what: "images",
                found: format!("{} values", pixels.len()),
                expected: format!("{expected} ({dims:?})"),
            });
        }
        let targets = Targets::from_labels(labels, [n, height, width], device)?;
        Self::new(Tensor::from_data(TensorData::new(pixels, dims), device), targets, ids)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True for a batch without samples.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// `[N, C, H, W]` of the images.
    pub fn dims(&self) -> [usize; 4] {
        self.images.dims()
    }

    /// The samples at `positions` (indices in this batch), in that order.
    ///
    /// # Panics
    /// If a position is not in the batch.
    pub fn select(&self, positions: &[usize]) -> Self {
        let indices: Vec<i32> = positions.iter().map(|&p| p as i32).collect();
        let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [positions.len()]), &self.images.device());
        Self {
            images: self.images.clone().select(0, indices.clone()),
            unit: self.unit,
            targets: self.targets.select(&indices),
            ids: positions.iter().map(|&p| self.ids[p]).collect(),
            affine: self.affine.as_ref().map(|a| Affine {
                mean: a.mean.clone().select(0, indices.clone()),
                std: a.std.clone().select(0, indices.clone()),
            }),
        }
    }

    /// The samples `start..end`.
    ///
    /// # Panics
    /// If the range is empty or reaches beyond the batch.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        self.select(&range.collect::<Vec<_>>())
    }

    /// The same samples with their images in another unit.
    ///
    /// # Errors
    /// [`Error::Shape`] if the batch does not know its cases' statistics.
    pub fn in_unit(&self, unit: Unit) -> Result<Self> {
        Ok(Self { images: self.convert(self.images.clone(), self.unit, unit)?, unit, ..self.clone() })
    }

    /// Images of the batch's samples, `[N, C, H, W]`, of one unit in another.
    ///
    /// # Errors
    /// As [`in_unit`](Batch::in_unit).
    pub fn convert(&self, images: Tensor<4>, from: Unit, to: Unit) -> Result<Tensor<4>> {
        match &self.affine {
            _ if from == to => Ok(images),
            Some(affine) => Ok(affine.convert(images, from, to)),
            None => Err(Error::Shape {
                what: "per-case normalisation",
                found: "no mean and standard deviation in the batch".into(),
                expected: "those of each image's case, which data sets of medical volumes have".into(),
            }),
        }
    }

    /// The same samples with other images (an attack's result) in the same unit.
    pub fn with_images(&self, images: Tensor<4>) -> Self {
        Self { images, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selecting_keeps_images_labels_and_ids_together() {
        let batch =
            Batch::from_host(vec![0.1, 0.2, 0.3], &[0, 1, 2], [3, 1, 1, 1], vec![7, 8, 9], &Device::flex()).unwrap();
        let picked = batch.select(&[2, 0]);
        assert_eq!(picked.ids, [9, 7]);
        assert_eq!(picked.images.into_data().try_to_vec::<f32>().unwrap(), [0.3, 0.1]);
        assert_eq!(picked.targets.labels().to_data().convert::<i32>().try_to_vec::<i32>().unwrap(), [2, 0]);
    }

    #[test]
    fn a_unit_and_back_gives_the_same_images_and_the_gradient_does_not_see_the_statistics() {
        let device = Device::flex();
        let mut batch =
            Batch::from_host(vec![0.25, 0.5, 0.75, 1.0], &[0; 2], [2, 2, 1, 1], vec![0, 1], &device).unwrap();
        let error = batch.in_unit(Unit::Normalised).unwrap_err().to_string();
        assert!(error.starts_with("per-case normalisation: found no mean"), "{error}");
        let table = |values: [f32; 4]| Tensor::<2>::from_data(TensorData::new(values.to_vec(), [2, 2]), &device);
        let (mean, std) = (table([0.25, 0.25, 0.5, 0.5]), table([0.5, 0.125, 0.25, 0.5]));
        batch.affine = Some(Affine { mean, std });
        let normalised = batch.in_unit(Unit::Normalised).unwrap();
        assert_eq!(normalised.images.to_data().try_to_vec::<f32>().unwrap(), [0.0, 2.0, 1.0, 1.0]);
        let picked = normalised.select(&[1]).in_unit(Unit::Pixel).unwrap();
        assert_eq!(picked.images.into_data().try_to_vec::<f32>().unwrap(), [0.75, 1.0]);
        let leaf = batch.images.clone().autodiff().require_grad();
        let z = batch.convert(leaf.clone(), Unit::Pixel, Unit::Normalised).unwrap();
        let gradient = leaf.grad_remove(&mut z.sum().backward()).unwrap();
        assert_eq!(gradient.into_data().try_to_vec::<f32>().unwrap(), [2.0, 8.0, 4.0, 2.0]);
    }

    #[test]
    fn labels_of_another_size_are_refused() {
        let device = Device::flex();
        let targets = Targets::from_labels(&[0; 4], [1, 2, 2], &device).unwrap();
        let error = Batch::new(Tensor::zeros([1, 3, 2, 3], &device), targets, vec![0]).unwrap_err();
        assert!(error.to_string().starts_with("labels: found [1, 2, 2]"), "{error}");
    }
}
