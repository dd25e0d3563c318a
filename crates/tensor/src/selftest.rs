//! Whether a device computes what it should: every operation against the same from Burn's primitives on the CPU.
//!
//! Values and gradients, over shapes that are odd on purpose. `cargo xtask doctor --device NAME` prints what this finds; a GPU
//! that nobody of us has can be checked by its owner.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{
    Device, Int, Tensor, TensorData, activation, module,
    ops::{AvgPoolOptions, ConvOptions, ConvTransposeOptions, MaxPoolOptions},
};

use crate::{
    Norm, Targets, VOID, host,
    norm::radii,
    ops::{self, Activation, Conv2dOptions, WeightCache, attack_step, confusion, cross_entropy, resize},
    random::Stream,
};

/// What one operation's comparison found.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// The operation and its shape.
    pub name: String,
    /// The largest difference from the reference, relative to the largest number there; why there is none, if the operation
    /// failed.
    pub difference: Result<f32, String>,
    /// The largest difference that passes.
    pub tolerance: f32,
}

impl Check {
    /// Whether the device computes what the reference does.
    pub fn passed(&self) -> bool {
        // A difference that is not a number does not pass.
        matches!(self.difference, Ok(difference) if difference <= self.tolerance)
    }
}

/// Compares every operation; takes a second or two, and on a GPU the time to compile each kernel.
///
/// ```
/// use burn::tensor::Device;
///
/// assert!(fireproof_tensor::selftest::run(&Device::flex()).iter().all(|check| check.passed()));
/// ```
pub fn run(device: &Device) -> Vec<Check> {
    let mut checks = Vec::new();
    convolutions(device, &mut checks);
    layers(device, &mut checks);
    resizing(device, &mut checks);
    losses(device, &mut checks);
    seeds(device, &mut checks);
    steps(device, &mut checks);
    counts(device, &mut checks);
    checks
}

/// Sums of a few hundred products in another order.
const SUMS: f32 = 2e-5;
/// The same operations in the same order, but for a fused multiplication.
const ELEMENTS: f32 = 2e-6;

/// Runs `ours` on the device and `reference` on the CPU, and compares the lists of tensors that they return.
fn compare(
    device: &Device,
    checks: &mut Vec<Check>,
    name: String,
    tolerance: f32,
    ours: impl Fn(&Device) -> Vec<Tensor<1>>,
    reference: impl Fn(&Device) -> Vec<Tensor<1>>,
) {
    let numbers = |tensors: Vec<Tensor<1>>| tensors.into_iter().map(host::floats).collect::<Vec<_>>();
    let expected = numbers(reference(&Device::flex()));
    let found = catch_unwind(AssertUnwindSafe(|| numbers(ours(device))));
    let difference = found.map_err(said).and_then(|found| {
        let lengths = |all: &[Vec<f32>]| all.iter().map(Vec::len).collect::<Vec<_>>();
        if lengths(&found) != lengths(&expected) {
            return Err(format!("found {:?} numbers, expected {:?}", lengths(&found), lengths(&expected)));
        }
        let worst = found.iter().zip(&expected).map(|(found, expected)| relative(found, expected));
        Ok(worst.fold(0.0, |a, b| if a >= b { a } else { b }))
    });
    checks.push(Check { name, difference, tolerance });
}

/// The largest difference over the largest number of the reference; NaN if a difference is.
fn relative(found: &[f32], expected: &[f32]) -> f32 {
    let scale = expected.iter().fold(1e-6f32, |most, x| most.max(x.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |most: f32, d| if most >= d { most } else { d }) / scale
}

fn said(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "it panicked".into())
}

/// The same numbers between −1 and 1 on every device.
fn noise<const D: usize>(seed: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    let stream = Stream::new(&[0x7e57, seed]);
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| stream.symmetric(i as u64)).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let count: usize = x.dims().iter().product();
    x.reshape([count])
}

/// The value of `f` and its gradients at all `inputs`, for a random gradient at the value.
fn differentiated<const A: usize>(inputs: [Tensor<4>; A], f: impl Fn([Tensor<4>; A]) -> Tensor<4>) -> Vec<Tensor<1>> {
    let leaves = inputs.map(|x| x.autodiff().require_grad());
    let y = f(leaves.clone());
    let value = y.clone().inner();
    let cotangent = noise(99, value.dims(), &value.device());
    let mut gradients = (y * Tensor::from_inner(cotangent)).sum().backward();
    let mut all = vec![flat(value)];
    all.extend(leaves.iter().map(|leaf| match leaf.grad_remove(&mut gradients) {
        Some(gradient) => flat(gradient),
        None => flat(leaf.clone().inner()) * f32::NAN,
    }));
    all
}

/// A layer's `[C]` parameter, as `[1, C, 1, 1]` for [`differentiated`].
fn vector(x: Tensor<4>) -> Tensor<1> {
    flat(x)
}

fn convolutions(device: &Device, checks: &mut Vec<Check>) {
    // Input channels, output channels, size, kernel, stride, padding, dilation, groups.
    let layers = [
        (3, 8, [13, 9], 3, 1, 1, 1, 1),
        (16, 16, [14, 18], 3, 1, 1, 1, 1),
        (4, 6, [11, 12], 3, 2, 1, 1, 1),
        (6, 4, [10, 9], 1, 1, 0, 1, 1),
        (6, 8, [15, 13], 3, 1, 2, 2, 2),
        (3, 4, [16, 17], 7, 2, 3, 1, 1),
    ];
    for (input, output, [h, w], k, stride, padding, dilation, groups) in layers {
        let inputs = |device: &Device| {
            let weight = noise(2, [output, input / groups, k, k], device);
            [noise(1, [2, input, h, w], device), weight, noise(3, [1, output, 1, 1], device)]
        };
        let options = Conv2dOptions { stride, padding, dilation, groups };
        let name = format!("conv2d {input}→{output}, {k}x{k}, stride {stride}, dilation {dilation}, groups {groups}");
        compare(
            device,
            checks,
            name,
            SUMS,
            |device| {
                differentiated(inputs(device), |[x, weight, bias]| {
                    let cache = WeightCache::default();
                    ops::conv2d_fused(x, weight, Some(vector(bias)), options, Activation::None, &cache)
                })
            },
            |device| {
                let options = ConvOptions::new([stride; 2], [padding; 2], [dilation; 2], groups);
                differentiated(inputs(device), |[x, weight, bias]| {
                    module::conv2d(x, weight, Some(vector(bias)), options.clone())
                })
            },
        );
    }
    let inputs = |device: &Device| {
        [noise(1, [2, 6, 5, 7], device), noise(2, [6, 4, 2, 2], device), noise(3, [1, 4, 1, 1], device)]
    };
    compare(
        device,
        checks,
        "transposed convolution 6→4, 2x2".into(),
        SUMS,
        |device| {
            differentiated(inputs(device), |[x, weight, bias]| {
                ops::conv_transpose2d(x, weight, Some(vector(bias)), 2, &WeightCache::default())
            })
        },
        |device| {
            let options = ConvTransposeOptions::new([2; 2], [0; 2], [0; 2], [1; 2], 1);
            differentiated(inputs(device), |[x, weight, bias]| {
                module::conv_transpose2d(x, weight, Some(vector(bias)), options.clone())
            })
        },
    );
}

fn layers(device: &Device, checks: &mut Vec<Check>) {
    let image = |device: &Device| noise(1, [2, 5, 9, 11], device);
    let parameter = |seed, device: &Device| noise(seed, [1, 5, 1, 1], device);
    let mut unary = |name: &str, ours: fn(Tensor<4>) -> Tensor<4>, reference: fn(Tensor<4>) -> Tensor<4>| {
        let run = |device: &Device, f: fn(Tensor<4>) -> Tensor<4>| differentiated([image(device)], |[x]| f(x));
        compare(device, checks, name.into(), ELEMENTS, |device| run(device, ours), |device| run(device, reference));
    };
    unary("ReLU", ops::relu, activation::relu);
    unary(
        "max pool 3x3, stride 2",
        |x| ops::max_pool2d(x, 3, 2, 1),
        |x| {
            let (stride, padding) = ([2; 2], [(1, 1); 2]);
            module::max_pool2d(x, MaxPoolOptions { stride, padding, ..MaxPoolOptions::new([3; 2]) })
        },
    );
    unary(
        "average pool 3x3, stride 2",
        |x| ops::avg_pool2d(x, 3, 2, 1),
        |x| {
            let (stride, padding) = ([2; 2], [(1, 1); 2]);
            let options = AvgPoolOptions { stride, padding, count_include_pad: true, ..AvgPoolOptions::new([3; 2]) };
            module::avg_pool2d(x, options)
        },
    );
    compare(
        device,
        checks,
        "PReLU".into(),
        SUMS,
        |device| differentiated([image(device), parameter(2, device)], |[x, slopes]| ops::prelu(x, vector(slopes))),
        |device| {
            differentiated([image(device), parameter(2, device)], |[x, slopes]| activation::prelu(x, vector(slopes)))
        },
    );
    let inputs = |device: &Device| [image(device), parameter(2, device), parameter(3, device)];
    compare(
        device,
        checks,
        "batch norm in training".into(),
        SUMS,
        |device| differentiated(inputs(device), |[x, w, b]| ops::batch_norm_train(x, vector(w), vector(b), 1e-5).0),
        |device| {
            differentiated(inputs(device), |[x, w, b]| module::batch_norm_train(x, vector(w), vector(b), 1e-5).output)
        },
    );
}

fn resizing(device: &Device, checks: &mut Vec<Check>) {
    let pick = Stream::new(&[0x5ea1]);
    for case in 0..12u64 {
        let side = |axis: u64| 1 + pick.below(4 * case + axis, 19) as usize;
        let (from, to, align) = ([side(0), side(1)], [side(2), side(3)], case % 2 == 1);
        let image = |device: &Device| [noise(case, [2, 3, from[0], from[1]], device)];
        compare(
            device,
            checks,
            format!("bilinear {}x{} → {}x{}, corners {align}", from[0], from[1], to[0], to[1]),
            SUMS,
            |device| differentiated(image(device), |[x]| ops::resize_bilinear(x, to, align)),
            |device| differentiated(image(device), |[x]| resize::composition(x, to, align)),
        );
    }
}

/// Labels of `classes` and one more, and some void.
fn targets(shape: [usize; 3], classes: usize, device: &Device) -> Targets {
    let stream = Stream::new(&[0x1abe1]);
    let label = |i: usize| match stream.below(i as u64, classes as u64 + 2) {
        void if void == classes as u64 + 1 => VOID,
        class => class as u8,
    };
    let labels: Vec<u8> = (0..shape.iter().product()).map(label).collect();
    Targets::from_labels(&labels, shape, device).expect("as many labels as pixels")
}

fn losses(device: &Device, checks: &mut Vec<Check>) {
    for (case, [n, k, h, w]) in [[2, 12, 7, 9], [1, 2, 1, 1], [3, 21, 5, 16]].into_iter().enumerate() {
        let logits = |device: &Device| noise(case as u64, [n, k, h, w], device) * 5.0;
        let labels = |device: &Device| targets([n, h, w], k, device);
        let weights = |device: &Device| noise::<3>(7, [n, h, w], device).abs();
        compare(
            device,
            checks,
            format!("cross-entropy of {k} classes, {h}x{w}"),
            SUMS,
            |device| {
                let targets = labels(device);
                differentiated([logits(device)], |[x]| ops::cross_entropy(x, &targets).unsqueeze_dim(1))
            },
            |device| {
                // A soft map takes Burn's primitives.
                let targets = labels(device);
                let targets = targets.clone().with_soft(targets.one_hot(k));
                differentiated([logits(device)], |[x]| ops::cross_entropy(x, &targets).unsqueeze_dim(1))
            },
        );
        compare(
            device,
            checks,
            format!("weighted cross-entropy of {k} classes, {h}x{w}"),
            SUMS,
            |device| {
                let weights = weights(device);
                let both = ops::weighted_cross_entropy(&logits(device), &labels(device), Some(&weights));
                vec![both.loss, both.plain, flat(both.gradient)]
            },
            |device| {
                let weights = weights(device);
                let both = cross_entropy::composition(&logits(device), &labels(device), Some(&weights));
                vec![both.loss, both.plain, flat(both.gradient)]
            },
        );
    }
}

/// The backward pass that begins with a given gradient.
fn seeds(device: &Device, checks: &mut Vec<Check>) {
    let run = |device: &Device, seeded: bool| {
        let x = noise(1, [2, 3, 4, 5], device).autodiff().require_grad();
        let y = x.clone() * x.clone();
        let given = noise(2, [2, 3, 4, 5], device);
        let mut gradients =
            if seeded { ops::backward(y, given) } else { (y * Tensor::from_inner(given)).sum().backward() };
        vec![flat(x.grad_remove(&mut gradients).expect("the input is tracked"))]
    };
    let name = "backward from a given gradient".into();
    compare(device, checks, name, ELEMENTS, |device| run(device, true), |device| run(device, false));
}

fn steps(device: &Device, checks: &mut Vec<Check>) {
    for norm in [Norm::Linf, Norm::L2] {
        for shape in [[3, 3, 7, 5], [1, 1, 1, 1], [2, 4, 16, 17]] {
            let inputs = |device: &Device| {
                let clean = noise(1, shape, device).abs();
                let current = (clean.clone() + noise(2, shape, device) * 0.02).clamp(0.0, 1.0);
                let direction = norm.steepest(noise(3, shape, device));
                let radius = |r: f32| radii(&(0..shape[0]).map(|i| r * (i as f32 + 1.0)).collect::<Vec<_>>(), &clean);
                let (step, epsilon) = (radius(0.01), radius(0.03));
                (current, direction, clean, step, epsilon)
            };
            compare(
                device,
                checks,
                format!("attack step in {norm}, {shape:?}"),
                if norm == Norm::Linf { ELEMENTS } else { SUMS },
                |device| {
                    let (current, direction, clean, step, epsilon) = inputs(device);
                    vec![flat(ops::attack_step(current, direction, &clean, norm, &step, &epsilon, [0.0, 1.0]))]
                },
                |device| {
                    let (current, direction, clean, step, epsilon) = inputs(device);
                    vec![flat(attack_step::composition(current, direction, &clean, norm, &step, &epsilon, [0.0, 1.0]))]
                },
            );
        }
    }
}

fn counts(device: &Device, checks: &mut Vec<Check>) {
    for (classes, [n, h, w]) in [(5, [2, 9, 13]), (2, [1, 1, 1]), (21, [3, 16, 30])] {
        let predicted = |device: &Device| {
            let stream = Stream::new(&[0xc0de]);
            // Neighbours agree now and then, and some say a class that the data does not have.
            let says: Vec<i32> =
                (0..n * h * w).map(|i| stream.below(i as u64 / 3, classes as u64 + 2) as i32).collect();
            Tensor::<3, Int>::from_data(TensorData::new(says, [n, h, w]), device)
        };
        compare(
            device,
            checks,
            format!("confusion counts of {classes} classes, {n}x{h}x{w}"),
            0.0,
            |device| {
                vec![flat(ops::confusion(predicted(device), &targets([n, h, w], classes, device), classes).float())]
            },
            |device| {
                let targets = targets([n, h, w], classes, device);
                vec![flat(confusion::composition(predicted(device), &targets, classes).float())]
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_a_missing_and_a_failing_result_do_not_pass() {
        let device = Device::flex();
        let one = |device: &Device| vec![Tensor::<1>::ones([3], device)];
        let found = |ours: fn(&Device) -> Vec<Tensor<1>>| {
            let mut checks = Vec::new();
            compare(&device, &mut checks, "planted".into(), 1e-3, ours, one);
            checks.remove(0)
        };
        assert!(found(one).passed());
        assert!(!found(|device| vec![Tensor::<1>::ones([3], device) * 1.01]).passed());
        assert!(!found(|device| vec![Tensor::<1>::ones([3], device) * f32::NAN]).passed());
        assert!(!found(|device| vec![Tensor::<1>::ones([2], device)]).passed());
        let failed = found(|_| panic!("no such kernel"));
        assert_eq!(failed.difference, Err("no such kernel".into()));
    }
}
