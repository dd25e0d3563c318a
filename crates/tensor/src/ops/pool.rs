//! Max and average pooling.

use burn::backend::Flex;
use burn::tensor::{
    DType, Shape, Tensor, module,
    ops::{AvgPoolOptions, MaxPoolOptions},
};
use burn_flex::{FlexTensor, Layout};
use burn_std::Bytes;
use fireproof_kernels::{
    adaptive_pool,
    pool::{self as kernel, PoolShape},
};

use super::{
    DeviceOp, flex,
    footprint::{self, count},
};

/// The largest value of each window: `[N, C, H, W]` → `[N, C, Ho, Wo]`, sizes rounded down. Padding never wins.
///
/// # Panics
/// If a window is larger than the padded input or padding exceeds half a window.
pub fn max_pool2d(x: Tensor<4>, kernel: usize, stride: usize, padding: usize) -> Tensor<4> {
    pooled(x, Pool { maximum: true, kernel, stride, padding })
}

/// The mean of each window, padding counted as zeros (PyTorch's default).
///
/// # Panics
/// As [`max_pool2d`].
pub fn avg_pool2d(x: Tensor<4>, kernel: usize, stride: usize, padding: usize) -> Tensor<4> {
    pooled(x, Pool { maximum: false, kernel, stride, padding })
}

fn pooled(x: Tensor<4>, pool: Pool) -> Tensor<4> {
    let Pool { maximum, kernel, stride, padding } = pool;
    let read = count(&x);
    let out = if flex::on_flex(&x) {
        flex::apply(x.into_dispatch(), None, None, pool)
    } else {
        burns(x, maximum, kernel, stride, padding)
    };
    let operations = kernel * kernel * count(&out);
    footprint::note("pooling", [1, 1], operations, [read, 0], out)
}

/// The mean over a grid of `bins × bins` windows that cover the image, as in PyTorch: `[N, C, H, W]` → `[N, C, bins, bins]`.
pub fn adaptive_avg_pool2d(x: Tensor<4>, bins: usize) -> Tensor<4> {
    if flex::on_flex(&x) {
        flex::apply(x.into_dispatch(), None, None, Adaptive { bins })
    } else {
        module::adaptive_avg_pool2d(x, [bins; 2])
    }
}

#[derive(Debug)]
struct Adaptive {
    bins: usize,
}

impl DeviceOp<Flex> for Adaptive {
    fn forward(&self, inputs: &[FlexTensor], _tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let x = flex::contiguous(&inputs[0]);
        let [n, channels, height, width] = flex::dims(&x);
        let output = flex::written([n, channels, self.bins, self.bins], |out| {
            adaptive_pool::average(flex::numbers(&x), [height, width], [self.bins; 2], out);
        });
        (output, vec![flex::shape_of(&x)])
    }

    fn backward(&self, grad: FlexTensor, kept: &[FlexTensor], _needed: &[bool]) -> Vec<Option<FlexTensor>> {
        let grad = flex::contiguous(&grad);
        let [n, channels, height, width] = flex::dims(&kept[0]);
        let at_x = flex::written([n, channels, height, width], |out| {
            adaptive_pool::average_backward(flex::numbers(&grad), [height, width], [self.bins; 2], out);
        });
        vec![Some(at_x)]
    }
}

/// Burn's own pooling.
fn burns(x: Tensor<4>, maximum: bool, kernel: usize, stride: usize, padding: usize) -> Tensor<4> {
    let (stride, padding) = ([stride; 2], [(padding, padding); 2]);
    if maximum {
        module::max_pool2d(x, MaxPoolOptions { stride, padding, ..MaxPoolOptions::new([kernel; 2]) })
    } else {
        let options = AvgPoolOptions { stride, padding, count_include_pad: true, ..AvgPoolOptions::new([kernel; 2]) };
        module::avg_pool2d(x, options)
    }
}

#[derive(Clone, Copy, Debug)]
struct Pool {
    maximum: bool,
    kernel: usize,
    stride: usize,
    padding: usize,
}

impl Pool {
    fn shape(&self, [n, channels, height, width]: [usize; 4]) -> PoolShape {
        let (kernel, stride, padding) = ([self.kernel; 2], [self.stride; 2], [self.padding; 2]);
        PoolShape { planes: n * channels, height, width, kernel, stride, padding }
    }
}

impl DeviceOp<Flex> for Pool {
    fn forward(&self, inputs: &[FlexTensor], tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let x = flex::contiguous(&inputs[0]);
        let [n, channels, ..] = flex::dims::<4>(&x);
        let shape = self.shape(flex::dims(&x));
        let size = [n, channels, shape.out_height(), shape.out_width()];
        let mut kept = Vec::new();
        if tracked[0] {
            kept.push(flex::shape_of(&x));
        }
        let output = if self.maximum {
            let mut places = vec![0u32; shape.output_len()];
            let output = flex::written(size, |out| kernel::max(&shape, flex::numbers(&x), out, &mut places));
            if tracked[0] {
                let layout = Layout::contiguous(Shape::from(size));
                kept.push(FlexTensor::new(Bytes::from_elems(places), layout, DType::U32));
            }
            output
        } else {
            flex::written(size, |out| kernel::average(&shape, flex::numbers(&x), out))
        };
        (output, kept)
    }

    fn backward(&self, grad: FlexTensor, kept: &[FlexTensor], _needed: &[bool]) -> Vec<Option<FlexTensor>> {
        let grad = flex::contiguous(&grad);
        let size = flex::dims::<4>(&kept[0]);
        let shape = self.shape(size);
        let at_x = flex::written(size, |out| match kept.get(1) {
            Some(places) => kernel::max_backward(&shape, flex::numbers(&grad), places.storage(), out),
            None => kernel::average_backward(&shape, flex::numbers(&grad), out),
        });
        vec![Some(at_x)]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;

    #[test]
    fn adaptive_values_and_gradients_are_those_of_burn() {
        for bins in [1, 2, 3, 6] {
            let x = Tensor::<4>::random([2, 3, 9, 8], Distribution::Normal(0.0, 1.0), &Device::flex());
            let run = |ours: bool| {
                let x = x.clone().autodiff().require_grad();
                let y = if ours {
                    adaptive_avg_pool2d(x.clone(), bins)
                } else {
                    module::adaptive_avg_pool2d(x.clone(), [bins; 2])
                };
                let mut gradients = (y.clone() * y.clone()).sum().backward();
                [y.inner().into_data(), x.grad_remove(&mut gradients).unwrap().into_data()]
            };
            for (ours, burns) in run(true).into_iter().zip(run(false)) {
                ours.assert_approx_eq::<f32>(&burns, Tolerance::rel_abs(1e-5, 1e-5));
            }
        }
    }

    #[test]
    fn values_and_gradients_are_those_of_burn() {
        for (maximum, kernel, stride, padding) in [(true, 2, 2, 0), (true, 3, 2, 1), (false, 3, 2, 1), (false, 2, 2, 0)]
        {
            let x = Tensor::<4>::random([2, 3, 9, 8], Distribution::Normal(0.0, 1.0), &Device::flex());
            let run = |ours: bool| {
                let x = x.clone().autodiff().require_grad();
                let y = match (ours, maximum) {
                    (true, true) => max_pool2d(x.clone(), kernel, stride, padding),
                    (true, false) => avg_pool2d(x.clone(), kernel, stride, padding),
                    (false, _) => burns(x.clone(), maximum, kernel, stride, padding),
                };
                let mut gradients = (y.clone() * y.clone()).sum().backward();
                [y.inner().into_data(), x.grad_remove(&mut gradients).unwrap().into_data()]
            };
            for (ours, burns) in run(true).into_iter().zip(run(false)) {
                ours.assert_approx_eq::<f32>(&burns, Tolerance::rel_abs(1e-5, 1e-5));
            }
        }
    }
}
