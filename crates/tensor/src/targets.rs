//! Labels of a batch, with the masks and weights that losses and scores read.

use burn::tensor::{Bool, Device, Int, IntDType, Tensor, TensorData};

use crate::{
    Error, Result, host,
    ops::{correct, image_sums},
};

/// The label of a void pixel: no loss, no score, but it may be perturbed.
pub const VOID: u8 = 255;

/// What a loss and a score compare logits `[N, K, H, W]` with.
///
/// All tensors are plain (never on an autodiff graph): targets are constants of every gradient.
#[derive(Clone, Debug)]
pub struct Targets {
    labels: Tensor<3, Int>,
    valid: Tensor<3>,
    soft: Option<Tensor<4>>,
    weight: Option<Tensor<1>>,
}

impl Targets {
    /// Hard labels `[N, H, W]`; pixels labelled [`VOID`] are not valid.
    pub fn hard(labels: Tensor<3, Int>) -> Self {
        let labels = labels.cast(IntDType::I32);
        let valid = labels.clone().not_equal_elem(i32::from(VOID)).float();
        Self { labels, valid, soft: None, weight: None }
    }

    /// Hard labels from host memory, row major.
    ///
    /// # Errors
    /// [`Error::Shape`] if `labels` does not hold `n · height · width` values.
    pub fn from_labels(labels: &[u8], [n, height, width]: [usize; 3], device: &Device) -> Result<Self> {
        if labels.len() != n * height * width {
            return Err(Error::Shape {
                what: "labels",
                found: format!("{} values", labels.len()),
                expected: format!("{} ({n} x {height} x {width})", n * height * width),
            });
        }
        let ints: Vec<i32> = labels.iter().map(|&l| i32::from(l)).collect();
        Ok(Self::hard(Tensor::from_data(TensorData::new(ints, [n, height, width]), device)))
    }

    /// Adds a soft label map `[N, K, H, W]` (mixed, smoothed or uniform targets); void pixels stay void.
    pub fn with_soft(mut self, soft: Tensor<4>) -> Self {
        self.soft = Some(soft);
        self
    }

    /// Makes pixels void where `mask` `[N, H, W]` of zeros and ones is zero.
    pub fn with_valid(mut self, mask: Tensor<3>) -> Self {
        self.labels = self.labels.mask_fill(mask.clone().equal_elem(0.0), i32::from(VOID));
        self.valid = self.valid * mask;
        self
    }

    /// Sets the weight `[N]` of each sample in a training loss. Attacks never read it.
    pub fn with_weight(mut self, weight: Tensor<1>) -> Self {
        self.weight = Some(weight);
        self
    }

    /// Labels `[N, H, W]` of 32 bits, [`VOID`] wherever a pixel is not valid.
    pub fn labels(&self) -> &Tensor<3, Int> {
        &self.labels
    }

    /// One where a pixel counts, zero where it is void or masked, `[N, H, W]`.
    pub fn valid(&self) -> &Tensor<3> {
        &self.valid
    }

    /// The soft label map `[N, K, H, W]`, if there is one.
    pub fn soft(&self) -> Option<&Tensor<4>> {
        self.soft.as_ref()
    }

    /// Weight of each sample `[N]`, if any differs from one.
    pub fn weight(&self) -> Option<&Tensor<1>> {
        self.weight.as_ref()
    }

    /// `[N, H, W]`.
    pub fn dims(&self) -> [usize; 3] {
        self.labels.dims()
    }

    /// Valid pixels of each image, `[N]`.
    pub fn valid_pixels(&self) -> Tensor<1> {
        image_sums(self.valid.clone())
    }

    /// One where the highest logit is the label and the pixel is valid, `[N, H, W]`, detached.
    ///
    /// A class beyond the data's classes is simply wrong.
    pub fn correct(&self, logits: &Tensor<4>) -> Tensor<3> {
        correct(logits, self)
    }

    /// Share of valid pixels that are correct, per image, on the host. An image without valid pixels counts as 0.
    pub fn accuracy(&self, logits: &Tensor<4>) -> Vec<f32> {
        host::floats(image_sums(self.correct(logits)) / self.valid_pixels().clamp_min(1.0))
    }

    /// The one-hot label map `[N, classes, H, W]`; void pixels and labels beyond `classes` are all zero.
    pub fn one_hot(&self, classes: usize) -> Tensor<4> {
        let [n, height, width] = self.dims();
        let device = self.labels.device();
        let axis = Tensor::<1, Int>::arange(0..classes as i64, &device).reshape([1, classes, 1, 1]);
        let labels = self.labels.clone().reshape([n, 1, height, width]).repeat_dim(1, classes);
        labels.equal(axis.expand([n, classes, height, width])).float()
            * self.valid.clone().reshape([n, 1, height, width])
    }

    /// The targets that a head at a coarser resolution learns, `[N, ⌈H / stride⌉, ⌈W / stride⌉]`: of each square of
    /// pixels the one in its middle, the lower right of four (PyTorch's `nearest-exact`). Where that lies outside the
    /// image, the target is void.
    pub fn coarse(&self, stride: usize) -> Self {
        let [_, height, width] = self.dims();
        let device = self.labels.device();
        let axis = |size: usize| {
            let places: Vec<usize> = (0..size.div_ceil(stride)).map(|i| i * stride + stride / 2).collect();
            let inside: Vec<f32> = places.iter().map(|&p| if p < size { 1.0 } else { 0.0 }).collect();
            let indices: Vec<i32> = places.iter().map(|&p| p.min(size - 1) as i32).collect();
            let n = indices.len();
            let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [n]), &device);
            (indices, Tensor::<1>::from_data(TensorData::new(inside, [n]), &device))
        };
        let ((rows, in_height), (columns, in_width)) = (axis(height), axis(width));
        let pick = |map: Tensor<3>| map.select(1, rows.clone()).select(2, columns.clone());
        let inside = in_height.reshape([1, -1, 1]) * in_width.reshape([1, 1, -1]);
        Self {
            labels: self.labels.clone().select(1, rows.clone()).select(2, columns.clone()),
            valid: pick(self.valid.clone()) * inside,
            soft: self.soft.as_ref().map(|soft| soft.clone().select(2, rows.clone()).select(3, columns.clone())),
            weight: self.weight.clone(),
        }
    }

    /// The targets of the samples at `indices` (positions in the batch), in that order.
    pub fn select(&self, indices: &Tensor<1, Int>) -> Self {
        Self {
            labels: self.labels.clone().select(0, indices.clone()),
            valid: self.valid.clone().select(0, indices.clone()),
            soft: self.soft.as_ref().map(|s| s.clone().select(0, indices.clone())),
            weight: self.weight.as_ref().map(|w| w.clone().select(0, indices.clone())),
        }
    }

    /// A mask of the void pixels, `[N, H, W]`.
    pub fn void(&self) -> Tensor<3, Bool> {
        self.valid.clone().equal_elem(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits() -> Tensor<4> {
        // Two classes, pixels: class 1, class 0, class 1.
        Tensor::from_data(TensorData::new(vec![0.0f32, 2.0, 0.0, 1.0, 1.0, 3.0], [1, 2, 1, 3]), &Device::flex())
    }

    #[test]
    fn void_pixels_are_neither_correct_nor_counted() {
        let targets = Targets::from_labels(&[1, 0, VOID], [1, 1, 3], &Device::flex()).unwrap();
        assert_eq!(targets.correct(&logits()).into_data().try_to_vec::<f32>().unwrap(), [1.0, 1.0, 0.0]);
        assert_eq!(targets.valid_pixels().into_data().try_to_vec::<f32>().unwrap(), [2.0]);
        assert_eq!(targets.accuracy(&logits()), [1.0]);
    }

    #[test]
    fn one_hot_leaves_void_out_of_the_last_class() {
        let targets = Targets::from_labels(&[1, 0, VOID], [1, 1, 3], &Device::flex()).unwrap();
        let map: Vec<f32> = targets.one_hot(2).into_data().try_to_vec().unwrap();
        assert_eq!(map, [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn coarse_targets_are_those_of_nearest_exact() {
        // torch.nn.functional.interpolate(arange(24).view(1, 1, 4, 6), size, mode="nearest-exact"), torch 2.11.
        let labels: Vec<u8> = (0..24).collect();
        let targets = Targets::from_labels(&labels, [1, 4, 6], &Device::flex()).unwrap();
        let coarse = targets.coarse(2);
        let values = coarse.labels().to_data().convert::<i32>().try_to_vec::<i32>().unwrap();
        assert_eq!((values, coarse.dims()), (vec![7, 9, 11, 19, 21, 23], [1, 2, 3]));
        let values = targets.coarse(4);
        assert_eq!(values.labels().to_data().convert::<i32>().try_to_vec::<i32>().unwrap()[0], 14);
        // The second square of four columns has its middle at column 6, beyond the image.
        assert_eq!(values.valid().to_data().try_to_vec::<f32>().unwrap(), [1.0, 0.0]);
    }

    #[test]
    fn a_wrong_number_of_labels_is_refused_with_both_numbers() {
        let error = Targets::from_labels(&[0; 5], [1, 2, 3], &Device::flex()).unwrap_err();
        assert_eq!(error.to_string(), "labels: found 5 values, expected 6 (1 x 2 x 3)");
    }
}
