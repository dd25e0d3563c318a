//! Two-dimensional convolution and its transpose, with bias and activation in the same pass.
//!
//! On Flex the kernels of `fireproof-kernels` compute the result, the input gradient and the weight gradient; every
//! other backend runs Burn's own convolution.

use std::sync::{Arc, Mutex};

use burn::backend::Flex;
use burn::tensor::{
    Tensor, activation, module,
    ops::{ConvOptions, ConvTransposeOptions},
};
use burn_flex::FlexTensor;
use fireproof_kernels::{
    Activation as KernelActivation, Epilogue,
    conv2d::{self as kernel, Conv2dShape, PackedWeights},
    reduce,
};

use super::{
    DeviceOp,
    activation::through_relu,
    flex,
    footprint::{self, count},
};

/// Stride, padding, dilation and groups of a convolution; square and symmetric, which is all that our networks use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dOptions {
    /// Step between output pixels, both axes.
    pub stride: usize,
    /// Zeros added on each side.
    pub padding: usize,
    /// Step between taps.
    pub dilation: usize,
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

/// What follows a convolution in the same pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// `max(0, x)`.
    Relu,
}

impl Activation {
    /// In a pass of its own, by Burn's operations.
    pub(super) fn apply(self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Activation::None => x,
            Activation::Relu => activation::relu(x),
        }
    }
}

/// Keeps a layer's weights in the form that the CPU kernels read, for as long as they stay the same.
///
/// A layer owns one and passes it to each call; clones share it. What is kept is tied to the very tensor it was made
/// from, so a layer whose weights change (training) or that shares the cache with a clone never reads old ones.
#[derive(Clone, Default)]
pub struct WeightCache(Arc<Mutex<Option<Packed>>>);

struct Packed {
    /// Held so that its memory is neither changed in place nor used for another tensor.
    weight: FlexTensor,
    packed: Arc<PackedWeights>,
}

impl WeightCache {
    /// The packed weights; `keep` them for the next call unless they are about to change.
    fn get(&self, weight: &FlexTensor, shape: &Conv2dShape, keep: bool) -> Arc<PackedWeights> {
        let mut slot = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &*slot {
            Some(kept) if same(&kept.weight, weight) => kept.packed.clone(),
            _ => {
                let packed = PackedWeights::sharing(shape, Numbers(flex::contiguous(weight)));
                let packed = Arc::new(if keep { packed } else { packed.used_once() });
                *slot = keep.then(|| Packed { weight: weight.clone(), packed: packed.clone() });
                packed
            }
        }
    }
}

/// A contiguous tensor, whose memory is the packed weights' own.
struct Numbers(FlexTensor);

impl AsRef<[f32]> for Numbers {
    fn as_ref(&self) -> &[f32] {
        flex::numbers(&self.0)
    }
}

fn same(a: &FlexTensor, b: &FlexTensor) -> bool {
    std::ptr::eq(a.bytes(), b.bytes()) && a.layout() == b.layout()
}

impl std::fmt::Debug for WeightCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WeightCache")
    }
}

/// `x [N, Ci, H, W]`, `weight [Co, Ci / groups, Kh, Kw]`, `bias [Co]` → `[N, Co, Ho, Wo]`.
///
/// # Panics
/// If the channel counts do not fit.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, options: Conv2dOptions) -> Tensor<4> {
    conv2d_fused(x, weight, bias, options, Activation::None, &WeightCache::default())
}

/// [`conv2d`] followed by `activation`, in one pass, with the layer's cache of packed weights.
///
/// # Panics
/// As [`conv2d`].
pub fn conv2d_fused(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: Conv2dOptions,
    activation: Activation,
    cache: &WeightCache,
) -> Tensor<4> {
    let (read, parameters) = (count(&x), count(&weight) + bias.as_ref().map_or(0, count));
    let [_, taps @ ..] = weight.dims();
    let products: usize = taps.iter().product();
    let out = if flex::on_flex(&x) {
        run(x, weight, bias, Convolution { options, activation, transposed: false, cache: cache.clone() })
    } else {
        let Conv2dOptions { stride: s, padding: p, dilation: d, groups } = options;
        activation.apply(module::conv2d(x, weight, bias, ConvOptions::new([s, s], [p, p], [d, d], groups)))
    };
    let (made, kernels) = (count(&out), [1, 1]);
    let out = footprint::note("convolution", kernels, 2 * products * made, [read, parameters], out);
    match activation {
        Activation::None => out,
        Activation::Relu => footprint::note("ReLU", kernels, made, [made, 0], out),
    }
}

/// `max(0, conv2d(x) + residual)`: the end of a residual block of a frozen network, in one pass.
///
/// # Panics
/// As [`conv2d`], or if `residual` has not the shape of the result.
pub fn conv2d_residual(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    residual: Tensor<4>,
    options: Conv2dOptions,
    cache: &WeightCache,
) -> Tensor<4> {
    if flex::on_flex(&x) {
        let (read, parameters) = (count(&x), count(&weight) + count(&bias));
        let [_, products @ ..] = weight.dims();
        let products: usize = products.iter().product();
        let activation = Activation::Relu;
        let convolution = Convolution { options, activation, transposed: false, cache: cache.clone() };
        let inputs = vec![x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch(), residual.into_dispatch()];
        let out = flex::apply_all(inputs, convolution);
        let made = count(&out);
        let out = footprint::note("convolution", [1, 1], 2 * products * made, [read, parameters], out);
        return footprint::note("sum with ReLU", [2, 1], 2 * made, [2 * made, 0], out);
    }
    let sum = conv2d_fused(x, weight, Some(bias), options, Activation::None, cache) + residual;
    let made = count(&sum);
    footprint::note("sum with ReLU", [2, 1], 2 * made, [2 * made, 0], activation::relu(sum))
}

/// `x [N, Ci, H, W]`, `weight [Ci, Co, K, K]` → `[N, Co, (H − 1)·stride + K, …]`: the transpose of [`conv2d`] without padding.
///
/// # Panics
/// If the channel counts do not fit.
pub fn conv_transpose2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    cache: &WeightCache,
) -> Tensor<4> {
    let (read, parameters) = (count(&x), count(&weight) + bias.as_ref().map_or(0, count));
    let [_, products @ ..] = weight.dims();
    let operations = 2 * read * products.iter().product::<usize>();
    let out = if flex::on_flex(&x) {
        let options = Conv2dOptions { stride, ..Conv2dOptions::default() };
        let activation = Activation::None;
        run(x, weight, bias, Convolution { options, activation, transposed: true, cache: cache.clone() })
    } else {
        let options = ConvTransposeOptions::new([stride, stride], [0, 0], [0, 0], [1, 1], 1);
        module::conv_transpose2d(x, weight, bias, options)
    };
    footprint::note("transposed convolution", [1, 1], operations, [read, parameters], out)
}

fn run(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, convolution: Convolution) -> Tensor<4> {
    flex::apply(x.into_dispatch(), Some(weight.into_dispatch()), bias.map(Tensor::into_dispatch), convolution)
}

/// Everything of a call that is not a tensor.
#[derive(Clone, Debug)]
struct Convolution {
    options: Conv2dOptions,
    activation: Activation,
    /// The input gradient of the convolution, read as a forward pass.
    transposed: bool,
    cache: WeightCache,
}

impl Convolution {
    /// The convolution with these weights and images `[n, _, height, width]` on its input side.
    fn shape(&self, n: usize, [height, width]: [usize; 2], weight: &FlexTensor) -> Conv2dShape {
        let [out_channels, in_channels, kh, kw] = flex::dims(weight);
        let Conv2dOptions { stride, padding, dilation, groups } = self.options;
        Conv2dShape {
            stride: [stride; 2],
            dilation: [dilation; 2],
            groups,
            ..Conv2dShape::new(n, in_channels * groups, out_channels, [height, width], [kh, kw]).with_padding(padding)
        }
    }

    /// The convolution that turns `x` into the result, or whose input gradient does if transposed.
    fn shape_for(&self, x: &FlexTensor, weight: &FlexTensor) -> Conv2dShape {
        let [n, channels, height, width] = flex::dims(x);
        let [out_channels, in_channels, kh, kw] = flex::dims(weight);
        let (size, expected) = if self.transposed {
            let stride = self.options.stride;
            ([(height - 1) * stride + kh, (width - 1) * stride + kw], out_channels)
        } else {
            ([height, width], in_channels * self.options.groups)
        };
        let (images, weights): ([usize; 4], [usize; 4]) = (flex::dims(x), flex::dims(weight));
        assert_eq!(channels, expected, "channels of images {images:?} for weights {weights:?}");
        self.shape(n, size, weight)
    }

    /// Of `[x, weight]`, and of a bias and a residual where there are. `keep` the packed weights for the next call.
    fn result(&self, inputs: &[FlexTensor], keep: bool) -> FlexTensor {
        let (x, weight) = (&inputs[0], &inputs[1]);
        let x = flex::contiguous(x);
        let shape = self.shape_for(&x, weight);
        let weights = self.cache.get(weight, &shape, keep);
        let [bias, residual] = [2, 3].map(|i| inputs.get(i).map(flex::contiguous));
        let activation = match self.activation {
            Activation::None => KernelActivation::None,
            Activation::Relu => KernelActivation::Relu,
        };
        let [bias, residual] = [&bias, &residual].map(|t| t.as_ref().map(flex::numbers));
        let epilogue = Epilogue { bias, residual, activation };
        if self.transposed {
            flex::written([shape.batch, shape.in_channels, shape.height, shape.width], |out| {
                kernel::transposed(&shape, flex::numbers(&x), &weights, epilogue, out);
            })
        } else {
            flex::written([shape.batch, shape.out_channels, shape.out_height(), shape.out_width()], |out| {
                kernel::forward(&shape, flex::numbers(&x), &weights, epilogue, out);
            })
        }
    }

    fn input_gradient(&self, grad: &FlexTensor, x: &FlexTensor, weight: &FlexTensor, keep: bool) -> FlexTensor {
        if self.transposed {
            let forward = Self { transposed: false, activation: Activation::None, ..self.clone() };
            return forward.result(&[grad.clone(), weight.clone()], keep);
        }
        let grad = flex::contiguous(grad);
        let shape = self.shape_for(x, weight);
        let weights = self.cache.get(weight, &shape, keep);
        flex::written([shape.batch, shape.in_channels, shape.height, shape.width], |out| {
            kernel::input_gradient(&shape, flex::numbers(&grad), &weights, out);
        })
    }

    fn weight_gradient(&self, grad: &FlexTensor, x: &FlexTensor, weight: &FlexTensor) -> FlexTensor {
        // In the convolution that a transposed one comes from, images and gradient have each other's place.
        let (x, grad) = if self.transposed { (grad, x) } else { (x, grad) };
        let (x, grad) = (flex::contiguous(x), flex::contiguous(grad));
        let [n, _, height, width] = flex::dims(&x);
        let shape = self.shape(n, [height, width], weight);
        flex::written(flex::dims::<4>(weight), |out| {
            kernel::weight_gradient(&shape, flex::numbers(&x), flex::numbers(&grad), out);
        })
    }
}

impl DeviceOp<Flex> for Convolution {
    fn forward(&self, inputs: &[FlexTensor], tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        // Weights with a gradient change with every step.
        let output = self.result(inputs, !tracked[1]);
        if !tracked.contains(&true) {
            return (output, Vec::new());
        }
        // A frozen victim's images are needed for their shape only; a view of one number keeps it without their memory.
        let x = if tracked[1] { inputs[0].clone() } else { flex::shape_of(&inputs[0]) };
        let mut kept = vec![x, inputs[1].clone()];
        if self.activation != Activation::None {
            kept.push(output.clone());
        }
        (output, kept)
    }

    fn backward(&self, grad: FlexTensor, kept: &[FlexTensor], needed: &[bool]) -> Vec<Option<FlexTensor>> {
        let (x, weight) = (&kept[0], &kept[1]);
        let grad = match self.activation {
            Activation::None => grad,
            Activation::Relu => through_relu(grad, &kept[2]),
        };
        let gradient = |input: usize| match input {
            0 => self.input_gradient(&grad, x, weight, !needed[1]),
            1 => self.weight_gradient(&grad, x, weight),
            2 => channel_sums(&grad),
            _ => grad.clone(),
        };
        (0..needed.len()).map(|input| needed[input].then(|| gradient(input))).collect()
    }
}

/// `[N, C, H, W]` → `[C]`: the gradient at a bias.
fn channel_sums(grad: &FlexTensor) -> FlexTensor {
    let grad = flex::contiguous(grad);
    let [n, channels, ..] = flex::dims::<4>(&grad);
    flex::written([channels], |sums| reduce::channel_sums(flex::numbers(&grad), n, channels, sums))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;

    /// Ours against Burn's own convolution: values and all three gradients.
    fn agrees(x: [usize; 4], weight: [usize; 4], options: Conv2dOptions, transposed: bool, bias: bool, relu: bool) {
        let device = Device::flex();
        let x = Tensor::<4>::random(x, Distribution::Normal(0.0, 1.0), &device);
        let weight = Tensor::<4>::random(weight, Distribution::Normal(0.0, 0.2), &device);
        let channels = if transposed { weight.dims()[1] } else { weight.dims()[0] };
        let bias = bias.then(|| Tensor::<1>::random([channels], Distribution::Normal(0.0, 0.1), &device));
        let activation = if relu { Activation::Relu } else { Activation::None };
        let run = |ours: bool| {
            let leaf = |t: &Tensor<4>| t.clone().autodiff().require_grad();
            let (x, weight) = (leaf(&x), leaf(&weight));
            let bias = bias.clone().map(|b| b.autodiff().require_grad());
            let Conv2dOptions { stride: s, padding: p, dilation: d, groups } = options;
            let out = match (ours, transposed) {
                (true, true) => conv_transpose2d(x.clone(), weight.clone(), bias.clone(), s, &WeightCache::default()),
                (true, false) => {
                    conv2d_fused(x.clone(), weight.clone(), bias.clone(), options, activation, &WeightCache::default())
                }
                (false, true) => module::conv_transpose2d(
                    x.clone(),
                    weight.clone(),
                    bias.clone(),
                    ConvTransposeOptions::new([s, s], [0, 0], [0, 0], [1, 1], 1),
                ),
                (false, false) => {
                    let options = ConvOptions::new([s, s], [p, p], [d, d], groups);
                    let out = module::conv2d(x.clone(), weight.clone(), bias.clone(), options);
                    if relu { activation::relu(out) } else { out }
                }
            };
            let mut gradients = (out.clone() * out.clone()).sum().backward();
            let mut all = vec![out.inner().into_data()];
            all.push(x.grad_remove(&mut gradients).unwrap().into_data());
            all.push(weight.grad_remove(&mut gradients).unwrap().into_data());
            all.extend(bias.map(|b| b.grad_remove(&mut gradients).unwrap().into_data()));
            all
        };
        for (ours, burns) in run(true).into_iter().zip(run(false)) {
            ours.assert_approx_eq::<f32>(&burns, Tolerance::rel_abs(1e-3, 1e-3));
        }
    }

    #[test]
    fn values_and_gradients_are_those_of_burn() {
        let plain = Conv2dOptions::default();
        let same = Conv2dOptions { padding: 1, ..plain };
        agrees([2, 3, 9, 7], [5, 3, 3, 3], same, false, true, true);
        agrees([1, 4, 12, 10], [6, 4, 3, 3], Conv2dOptions { padding: 4, dilation: 4, ..plain }, false, false, false);
        agrees([2, 4, 11, 9], [8, 4, 3, 3], Conv2dOptions { stride: 2, ..same }, false, true, false);
        agrees([2, 3, 15, 16], [4, 3, 7, 7], Conv2dOptions { stride: 2, padding: 3, ..plain }, false, false, true);
        agrees([1, 16, 5, 6], [9, 16, 1, 1], plain, false, true, false);
        agrees([2, 6, 8, 8], [4, 3, 3, 3], Conv2dOptions { groups: 2, ..same }, false, true, false);
    }

    #[test]
    fn a_residual_is_added_before_the_relu_and_gets_its_gradient() {
        let device = Device::flex();
        let random = |dims: [usize; 4]| Tensor::<4>::random(dims, Distribution::Normal(0.0, 1.0), &device);
        let (x, residual, weight) = (random([2, 16, 9, 7]), random([2, 20, 9, 7]), random([20, 16, 1, 1]));
        let bias = Tensor::<1>::random([20], Distribution::Normal(0.0, 1.0), &device);
        let run = |fused: bool| {
            let (x, residual) = (x.clone().autodiff().require_grad(), residual.clone().autodiff().require_grad());
            let (options, cache) = (Conv2dOptions::default(), WeightCache::default());
            let (weight, bias) = (weight.clone(), bias.clone());
            let out = if fused {
                conv2d_residual(x.clone(), weight, bias, residual.clone(), options, &cache)
            } else {
                activation::relu(conv2d(x.clone(), weight, Some(bias), options) + residual.clone())
            };
            let mut gradients = (out.clone() * out.clone()).sum().backward();
            [
                out.inner().into_data(),
                x.grad_remove(&mut gradients).unwrap().into_data(),
                residual.grad_remove(&mut gradients).unwrap().into_data(),
            ]
        };
        for (fused, composed) in run(true).into_iter().zip(run(false)) {
            fused.assert_approx_eq::<f32>(&composed, Tolerance::rel_abs(1e-4, 1e-4));
        }
    }

    #[test]
    fn a_view_gives_the_bits_of_its_copy() {
        let device = Device::flex();
        let random = |dims: [usize; 4]| Tensor::<4>::random(dims, Distribution::Normal(0.0, 1.0), &device);
        // Copying a tensor of the same numbers into row-major order.
        let copy = |t: &Tensor<4>| Tensor::<4>::from_data(t.to_data(), &device);
        let (images, filters) = (random([20, 12, 11, 3]), random([3, 3, 18, 24]));
        let x = images.permute([3, 0, 2, 1]).narrow(1, 2, 18);
        let weight = filters.permute([3, 2, 1, 0]);
        let scale = random([12, 11, 1, 1]).permute([2, 3, 0, 1]);
        for (dilation, padding) in [(1, 1), (2, 2), (6, 6)] {
            let options = Conv2dOptions { dilation, padding, ..Conv2dOptions::default() };
            let run = |x: Tensor<4>, weight: Tensor<4>| {
                let (x, weight) = (x.autodiff().require_grad(), weight.autodiff().require_grad());
                let y = conv2d(x.clone(), weight.clone(), None, options);
                // The gradient arrives as a view too.
                let y = y.swap_dims(2, 3) * Tensor::from_inner(scale.clone());
                let mut gradients = y.clone().sum().backward();
                [
                    y.inner().into_data(),
                    x.grad_remove(&mut gradients).unwrap().into_data(),
                    weight.grad_remove(&mut gradients).unwrap().into_data(),
                ]
            };
            assert!(run(x.clone(), weight.clone()) == run(copy(&x), copy(&weight)), "{options:?}");
        }
    }

    #[test]
    fn transposed_values_and_gradients_are_those_of_burn() {
        let doubling = Conv2dOptions { stride: 2, ..Conv2dOptions::default() };
        agrees([2, 6, 5, 4], [6, 3, 2, 2], doubling, true, true, false);
        agrees([1, 3, 5, 4], [3, 5, 2, 2], doubling, true, false, false);
    }

    #[test]
    fn a_cache_never_serves_the_weights_of_before() {
        let device = Device::flex();
        let cache = WeightCache::default();
        let x = Tensor::<4>::ones([1, 1, 2, 2], &device);
        let at = |value: f32| {
            let weight = Tensor::<4>::full([1, 1, 1, 1], value, &device);
            let out = conv2d_fused(x.clone(), weight, None, Conv2dOptions::default(), Activation::None, &cache);
            out.into_data().try_to_vec::<f32>().unwrap()[0]
        };
        for value in [1.0, 2.0, 3.0] {
            assert_eq!(at(value), value);
        }
    }
}
