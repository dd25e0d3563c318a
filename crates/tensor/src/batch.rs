//! One step's data.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{Error, Result, Targets};

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

/// Images, what they should be labelled, and who they are.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[N, C, H, W]`, pixel space.
    pub images: Tensor<4>,
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
        Ok(Self { images, targets, ids, affine: None })
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

    /// The same samples with other images (an attack's result).
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
    fn labels_of_another_size_are_refused() {
        let device = Device::flex();
        let targets = Targets::from_labels(&[0; 4], [1, 2, 2], &device).unwrap();
        let error = Batch::new(Tensor::zeros([1, 3, 2, 3], &device), targets, vec![0]).unwrap_err();
        assert!(error.to_string().starts_with("labels: found [1, 2, 2]"), "{error}");
    }
}
