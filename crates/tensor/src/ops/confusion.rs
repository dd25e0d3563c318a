//! Label against prediction, counted on the device.

use burn::tensor::{Int, Tensor, TensorData};

#[cfg(feature = "cube")]
use super::cube;
use crate::{Targets, host};

/// Pixels of each image by label and by predicted class, `[N, K, K + 1]` for the `classes` K of the data.
///
/// `predicted` `[N, H, W]` holds the class with the highest logit; one beyond the data's classes is counted in the last column.
/// Void and masked pixels, and labels beyond the classes, are not counted. A few integers per image travel to the host
/// instead of a map.
pub fn confusion(predicted: Tensor<3, Int>, targets: &Targets, classes: usize) -> Tensor<3, Int> {
    #[cfg(feature = "cube")]
    if cube::is_cube(&predicted.device()) && targets.dims().iter().product::<usize>() > 0 {
        return confusion_on_gpu(&predicted, targets, classes);
    }
    on_host(predicted, targets, classes)
}

/// Where the tensors lie in the host's memory, a loop.
fn on_host(predicted: Tensor<3, Int>, targets: &Targets, classes: usize) -> Tensor<3, Int> {
    let [n, height, width] = targets.dims();
    let device = predicted.device();
    let mut counts = vec![0i32; n * classes * (classes + 1)];
    let (predicted, labels) = (host::integers(predicted), host::integers(targets.labels().clone()));
    let pixels = predicted.iter().zip(labels).zip(host::floats(targets.valid().clone())).enumerate();
    for (pixel, ((&predicted, label), valid)) in pixels {
        let label = usize::try_from(label).unwrap_or(usize::MAX);
        if valid > 0.0 && label < classes {
            let column = usize::try_from(predicted).unwrap_or(classes).min(classes);
            counts[(pixel / (height * width) * classes + label) * (classes + 1) + column] += 1;
        }
    }
    Tensor::from_data(TensorData::new(counts, [n, classes, classes + 1]), &device)
}

/// The same from Burn's primitives: a product of one-hot maps, exact below 2²⁴ pixels an image.
pub(crate) fn composition(predicted: Tensor<3, Int>, targets: &Targets, classes: usize) -> Tensor<3, Int> {
    let [n, height, width] = targets.dims();
    let device = predicted.device();
    let maps = |ids: Tensor<3, Int>, count: usize| {
        let ids = ids.reshape([n, 1, height * width]);
        let all = Tensor::<1, Int>::arange(0..count as i64, &device).reshape([1, count, 1]);
        ids.equal(all).float()
    };
    let beyond = predicted.clone().greater_equal_elem(classes as i32);
    let predicted = maps(predicted.mask_fill(beyond, classes as i32), classes + 1);
    let labels = maps(targets.labels().clone(), classes) * targets.valid().clone().reshape([n, 1, height * width]);
    labels.matmul(predicted.swap_dims(1, 2)).int()
}

#[cfg(feature = "cube")]
fn confusion_on_gpu(predicted: &Tensor<3, Int>, targets: &Targets, classes: usize) -> Tensor<3, Int> {
    use burn_cubecl::{CubeBackend, ops::numeric};

    /// Long enough that neighbours of one class make one addition, short enough to keep a GPU busy.
    const RUN: usize = 64;
    let [n, height, width] = targets.dims();
    let predicted = cube::integers(predicted);
    let (client, device) = (predicted.client.clone(), predicted.device.clone());
    let shape = burn::tensor::Shape::from([n, classes, classes + 1]);
    let counts = numeric::zeros_client(client.clone(), device, shape, burn::tensor::DType::I32);
    let (count, dim) = cube::units(&predicted, n * (height * width).div_ceil(RUN));
    let into = counts.clone().into_tensor_arg();
    let labels = cube::integers(targets.labels()).into_tensor_arg();
    let valid = cube::primitive(targets.valid()).into_tensor_arg();
    cube::confusion::confusion::launch(&client, count, dim, predicted.into_tensor_arg(), labels, valid, into, RUN);
    Tensor::from_primitive::<CubeBackend>(counts)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::VOID;

    #[test]
    fn void_masked_and_foreign_pixels_are_where_they_belong() {
        let device = Device::flex();
        let targets = Targets::from_labels(&[0, 0, 1, VOID, 1, 7], [1, 2, 3], &device).unwrap();
        let mask = Tensor::<3>::from_data([[[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]], &device);
        let predicted = Tensor::<3, Int>::from_data(TensorData::from([[[0, 5, 1], [0, 0, 1]]]), &device);
        let targets = targets.with_valid(mask);
        // Label 0: one right, one predicted as class 5, which the data does not have. Label 1: one predicted as 0.
        for count in [confusion, composition] {
            assert_eq!(host::integers(count(predicted.clone(), &targets, 2)), [1, 0, 1, 1, 0, 0]);
        }
    }
}
