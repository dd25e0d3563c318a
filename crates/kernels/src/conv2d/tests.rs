//! Every pass against plain loops in double precision.

use super::*;
use crate::simd::Isa;
use crate::{
    Activation,
    testing::{Sums, numbers, relative_error},
};
use proptest::prelude::*;

/// Calls `visit(output, input, weight)` with the flat indices of every product of the convolution.
fn products(shape: &Conv2dShape, mut visit: impl FnMut(usize, usize, usize)) {
    let (oh, ow) = (shape.out_height(), shape.out_width());
    let (ci, co) = (shape.in_channels / shape.groups, shape.out_channels / shape.groups);
    let [kh, kw] = shape.kernel;
    for n in 0..shape.batch {
        for o in 0..shape.out_channels {
            for i in 0..ci {
                let channel = n * shape.in_channels + o / co * ci + i;
                for (y, x) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
                    for (ky, kx) in (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))) {
                        let iy = (y * shape.stride[0] + ky * shape.dilation[0]).wrapping_sub(shape.padding[0][0]);
                        let ix = (x * shape.stride[1] + kx * shape.dilation[1]).wrapping_sub(shape.padding[1][0]);
                        if iy < shape.height && ix < shape.width {
                            visit(
                                ((n * shape.out_channels + o) * oh + y) * ow + x,
                                (channel * shape.height + iy) * shape.width + ix,
                                ((o * ci + i) * kh + ky) * kw + kx,
                            );
                        }
                    }
                }
            }
        }
    }
}

struct Case {
    shape: Conv2dShape,
    x: Vec<f32>,
    weights: Vec<f32>,
    grad_out: Vec<f32>,
}

impl Case {
    fn new(shape: Conv2dShape) -> Self {
        let shape = shape.checked().unwrap();
        Case {
            x: numbers(1, shape.input_len()),
            weights: numbers(2, shape.weights_len()),
            grad_out: numbers(3, shape.output_len()),
            shape,
        }
    }

    fn reference_forward(&self) -> Sums {
        let mut sums = Sums::new(self.shape.output_len());
        products(&self.shape, |o, i, w| sums.add(o, self.x[i], self.weights[w]));
        sums
    }

    fn reference_input_gradient(&self) -> Sums {
        let mut sums = Sums::new(self.x.len());
        products(&self.shape, |o, i, w| sums.add(i, self.grad_out[o], self.weights[w]));
        sums
    }

    fn reference_weight_gradient(&self) -> Sums {
        let mut sums = Sums::new(self.weights.len());
        products(&self.shape, |o, i, w| sums.add(w, self.grad_out[o], self.x[i]));
        sums
    }

    fn packed(&self) -> PackedWeights {
        PackedWeights::new(&self.shape, &self.weights).with_winograd(Winograd::Never)
    }

    fn forward(&self) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.shape.output_len()];
        forward(&self.shape, &self.x, &self.packed(), Epilogue::default(), &mut out);
        out
    }

    fn input_gradient(&self) -> Vec<f32> {
        let mut grad = vec![f32::NAN; self.shape.input_len()];
        input_gradient(&self.shape, &self.grad_out, &self.packed(), &mut grad);
        grad
    }

    fn weight_gradient(&self) -> Vec<f32> {
        let mut grad = vec![f32::NAN; self.weights.len()];
        weight_gradient_within(Winograd::Never, &self.shape, &self.x, &self.grad_out, &mut grad);
        grad
    }

    /// All passes on all instruction sets.
    fn check(&self) {
        let references = (self.reference_forward(), self.reference_input_gradient(), self.reference_weight_gradient());
        for isa in Isa::available() {
            isa.force(|| {
                let name = isa.name();
                let error = references.0.error(&self.forward());
                assert!(error < 1e-5, "forward {error}, {name}, {:?}", self.shape);
                let error = references.1.error(&self.input_gradient());
                assert!(error < 1e-5, "input gradient {error}, {name}, {:?}", self.shape);
                let error = references.2.error(&self.weight_gradient());
                assert!(error < 1e-5, "weight gradient {error}, {name}, {:?}", self.shape);
            });
        }
    }
}

/// Shapes of every kind, small enough for the reference.
fn shapes() -> impl Strategy<Value = Conv2dShape> {
    let channels = prop_oneof![
        (Just(1usize), 1..20usize, 1..20usize),
        (2..4usize, 1..4usize, 1..4usize),
        (1..20usize, Just(1usize), Just(1usize)),
    ];
    let kernel = prop_oneof![
        4 => (1..4usize, 1..4usize),
        4 => Just((3, 3)),
        2 => Just((1, 1)),
        1 => (1..8usize, 1..8usize),
    ];
    let geometry = ((1..3usize, 1..24usize, 1..50usize), kernel, (1..4usize, 1..4usize), (1..5usize, 1..5usize));
    let padding = ((0..4usize, 0..4usize), (0..4usize, 0..4usize));
    (channels, geometry, padding).prop_filter_map(
        "a kernel larger than the input",
        |((groups, ci, co), ((batch, height, width), kernel, stride, dilation), (vertical, horizontal))| {
            Conv2dShape {
                batch,
                in_channels: groups * ci,
                out_channels: groups * co,
                height,
                width,
                kernel: kernel.into(),
                stride: stride.into(),
                padding: [vertical.into(), horizontal.into()],
                dilation: dilation.into(),
                groups,
            }
            .checked()
            .ok()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_pass_agrees_with_plain_loops_for_random_shapes(shape in shapes()) {
        Case::new(shape).check();
    }
}

/// Shapes with channels enough for every algorithm, taps far apart among them.
fn wide_shapes() -> impl Strategy<Value = Conv2dShape> {
    let channels = prop_oneof![3 => (16..34usize, 8..34usize), 1 => (16..20usize, 16..20usize)];
    let kernel = prop_oneof![4 => Just((3, 3)), 2 => Just((1, 1)), 1 => (1..4usize, 1..4usize)];
    let dilation = prop_oneof![2 => Just((1, 1)), 3 => (1..5usize, 1..5usize).prop_map(|(d, _)| (d, d)), 2 => (1..14usize, 1..14usize)];
    let geometry = ((1..3usize, 1..32usize, 1..40usize), kernel, dilation);
    let padding = prop_oneof![
        // What keeps the size, and anything.
        2 => Just(None),
        1 => ((0..4usize, 0..4usize), (0..4usize, 0..4usize)).prop_map(Some),
    ];
    let stride = prop_oneof![3 => Just((1, 1)), 1 => (1..4usize, 1..4usize)];
    (channels, geometry, padding, stride).prop_filter_map(
        "an output, and a reference of bearable length",
        |((inputs, outputs), ((batch, height, width), kernel, dilation), padding, stride)| {
            let (kernel, dilation): ([usize; 2], [usize; 2]) = (kernel.into(), dilation.into());
            let padding = match padding {
                Some((vertical, horizontal)) => [vertical.into(), horizontal.into()],
                None => [0, 1].map(|a| [(kernel[a] - 1) / 2 * dilation[a], kernel[a] / 2 * dilation[a]]),
            };
            let (stride, groups) = (stride.into(), 1);
            let (in_channels, out_channels) = (inputs, outputs);
            Conv2dShape { batch, in_channels, out_channels, height, width, kernel, stride, padding, dilation, groups }
                .checked()
                .ok()
                .filter(|shape| shape.flops() < 4e6)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_pass_agrees_with_plain_loops_within_every_limit_on_winograd(shape in wide_shapes()) {
        let case = Case::new(shape);
        let references = (case.reference_forward(), case.reference_input_gradient(), case.reference_weight_gradient());
        for isa in Isa::available() {
            for (limit, bound) in [(Winograd::Never, 1e-5), (Winograd::F2, 1e-5), (Winograd::F4, 1e-4)] {
                let weights = case.packed().with_winograd(limit);
                let (mut out, mut grad) = (vec![f32::NAN; case.grad_out.len()], vec![f32::NAN; case.x.len()]);
                let mut grad_weights = vec![f32::NAN; case.weights.len()];
                isa.force(|| {
                    forward(&shape, &case.x, &weights, Epilogue::default(), &mut out);
                    input_gradient(&shape, &case.grad_out, &weights, &mut grad);
                    weight_gradient_within(limit, &shape, &case.x, &case.grad_out, &mut grad_weights);
                });
                let errors = [
                    references.0.error(&out),
                    references.1.error(&grad),
                    references.2.error(&grad_weights),
                ];
                prop_assert!(errors.iter().all(|&e| e < bound), "{:?} {:?} {} {:?}", limit, errors, isa.name(), shape);
            }
        }
    }
}

#[test]
fn nothing_hides_a_nan_or_an_infinity_in_any_pass_of_any_algorithm() {
    for shape in [
        square([17, 20], [20, 22], 3, 1, 2),
        square([17, 20], [20, 22], 3, 1, 9),
        square([20, 18], [13, 14], 3, 1, 1),
        square([20, 18], [12, 13], 1, 2, 1),
        square([40, 24], [9, 11], 1, 1, 1),
    ] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut case = Case::new(shape);
            let (input, output) = (case.x.len() / 2, case.grad_out.len() / 2);
            let clean = case.x[input];
            case.x[input] = bad;
            let weights = PackedWeights::new(&shape, &case.weights);
            let (mut out, mut grad) = (vec![0.0; case.grad_out.len()], vec![0.0; case.x.len()]);
            let (mut from_x, mut from_grad) = (vec![0.0; case.weights.len()], vec![0.0; case.weights.len()]);
            for isa in Isa::available() {
                isa.force(|| {
                    forward(&shape, &case.x, &weights, Epilogue::default(), &mut out);
                    weight_gradient(&shape, &case.x, &case.grad_out, &mut from_x);
                    let (mut x, mut grad_out) = (case.x.clone(), case.grad_out.clone());
                    (x[input], grad_out[output]) = (clean, bad);
                    input_gradient(&shape, &grad_out, &weights, &mut grad);
                    weight_gradient(&shape, &x, &grad_out, &mut from_grad);
                });
                products(&shape, |o, i, w| {
                    let hidden = (i == input && (out[o].is_finite() || from_x[w].is_finite()))
                        || (o == output && (grad[i].is_finite() || from_grad[w].is_finite()));
                    assert!(!hidden, "{bad} is hidden, {} {shape:?}", isa.name());
                });
            }
        }
    }
}

fn square(channels: [usize; 2], size: [usize; 2], kernel: usize, stride: usize, dilation: usize) -> Conv2dShape {
    let padding = dilation * (kernel / 2);
    Conv2dShape {
        stride: [stride; 2],
        dilation: [dilation; 2],
        ..Conv2dShape::new(1, channels[0], channels[1], size, [kernel; 2]).with_padding(padding)
    }
}

#[test]
fn every_pass_agrees_with_plain_loops_for_the_layers_of_segmentation_networks() {
    for shape in [
        square([3, 8], [33, 47], 7, 2, 1),
        square([12, 12], [23, 30], 3, 1, 4),
        square([25, 25], [22, 30], 3, 1, 16),
        square([128, 25], [11, 15], 1, 1, 1),
        square([40, 72], [15, 11], 3, 1, 12),
        square([40, 16], [15, 11], 3, 1, 24),
        square([600, 20], [5, 6], 3, 1, 1),
        square([50, 70], [30, 22], 3, 1, 4),
        Conv2dShape { stride: [2, 2], ..square([9, 20], [21, 37], 5, 1, 3) },
        square([700, 300], [3, 5], 1, 1, 1),
        square([20, 300], [7, 9], 1, 2, 1),
        square([70, 70], [16, 16], 3, 1, 1),
        square([4, 4], [3, 700], 3, 1, 1),
        square([2, 9], [90, 100], 1, 1, 1),
        Conv2dShape { stride: [2; 2], ..Conv2dShape::new(2, 24, 40, [12, 18], [2; 2]) },
        Conv2dShape { groups: 48, ..square([48, 48], [20, 33], 3, 1, 1) },
        Conv2dShape { groups: 3, ..square([30, 60], [9, 17], 3, 2, 1) },
    ] {
        Case::new(shape).check();
    }
}

#[test]
fn an_image_is_computed_alike_in_every_batch_and_with_any_number_of_threads() {
    let run = |limit: Winograd, shape: &Conv2dShape, weights: &[f32], x: &[f32], grad_out: &[f32]| {
        let packed = PackedWeights::new(shape, weights).with_winograd(limit);
        let (mut out, mut grad) = (vec![f32::NAN; shape.output_len()], vec![f32::NAN; shape.input_len()]);
        let mut of_weights = vec![f32::NAN; shape.weights_len()];
        forward(shape, x, &packed, Epilogue::default(), &mut out);
        input_gradient(shape, grad_out, &packed, &mut grad);
        weight_gradient_within(limit, shape, x, grad_out, &mut of_weights);
        (out, grad, of_weights)
    };
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let mut interleaved = 0;
    for shape in [
        square([20, 70], [31, 33], 3, 1, 1),
        square([20, 70], [31, 33], 3, 2, 1),
        square([20, 70], [31, 33], 3, 1, 2),
        square([64, 64], [30, 22], 3, 1, 4),
        square([300, 40], [20, 22], 1, 1, 1),
        square([64, 64], [30, 22], 3, 1, 12),
        Conv2dShape { stride: [2; 2], ..square([32, 300], [21, 30], 1, 1, 1) },
    ] {
        for limit in [Winograd::Never, Winograd::F2, Winograd::F4] {
            let algorithm = Algorithm::new(
                &shape,
                limit,
                shape.in_channels,
                shape.out_channels,
                [shape.out_height(), shape.out_width()],
            );
            interleaved += usize::from(matches!(algorithm, Algorithm::Interleaved(..)));
            let Case { shape: three, x, weights, grad_out } = Case::new(Conv2dShape { batch: 3, ..shape });
            let (out, grad, of_weights) = pool(2).install(|| run(limit, &three, &weights, &x, &grad_out));
            let again = pool(1).install(|| run(limit, &three, &weights, &x, &grad_out));
            assert!(of_weights == again.2, "weight gradient of {shape:?}, {limit:?}");
            for image in 0..3 {
                let of = |all: &[f32]| all[image * (all.len() / 3)..][..all.len() / 3].to_vec();
                let alone = pool(1).install(|| run(limit, &shape, &weights, &of(&x), &of(&grad_out)));
                assert!(alone.0 == of(&out), "image {image} of {shape:?}, {limit:?}");
                assert!(alone.1 == of(&grad), "gradient of image {image} of {shape:?}, {limit:?}");
            }
        }
    }
    assert!(interleaved > 0, "none of the shapes goes through interleaved images");
}

#[test]
fn a_nan_or_an_infinity_reaches_every_output_that_depends_on_it() {
    for shape in [
        square([9, 17], [7, 19], 3, 1, 1),
        square([9, 17], [8, 19], 3, 2, 1),
        square([17, 9], [6, 7], 1, 1, 1),
        square([17, 9], [20, 9], 3, 1, 7),
    ] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut case = Case::new(shape);
            let place = case.x.len() / 2;
            case.x[place] = bad;
            let mut expected = vec![false; case.grad_out.len()];
            products(&shape, |o, i, _| expected[o] |= i == place);
            for isa in Isa::available() {
                let out = isa.force(|| {
                    let mut out = vec![0.0; expected.len()];
                    let epilogue = Epilogue { activation: Activation::None, ..Epilogue::default() };
                    forward(&case.shape, &case.x, &case.packed(), epilogue, &mut out);
                    out
                });
                assert!(out.iter().zip(&expected).all(|(x, &bad)| x.is_finite() != bad), "{} {shape:?}", isa.name());
            }
        }
    }
    for activation in [Activation::Relu, Activation::PRelu(&[0.25])] {
        let shape = Conv2dShape::new(1, 1, 1, [1, 3], [1, 1]);
        let mut out = [0.0; 3];
        let epilogue = Epilogue { activation, ..Epilogue::default() };
        forward(&shape, &[1.0, f32::NAN, -1.0], &PackedWeights::new(&shape, &[1.0]), epilogue, &mut out);
        assert!(out[0] == 1.0 && out[1].is_nan() && out[2] <= 0.0, "{activation:?} {out:?}");
    }
}

#[test]
fn the_epilogue_adds_bias_and_residual_and_then_activates() {
    for shape in [square([5, 11], [9, 21], 3, 1, 1), square([5, 11], [6, 5], 1, 1, 1)] {
        let case = Case::new(shape);
        let (bias, slopes) = (numbers(7, 11), numbers(8, 11));
        let residual = numbers(9, case.grad_out.len());
        let plane = shape.out_height() * shape.out_width();
        for isa in Isa::available() {
            for activation in [Activation::None, Activation::Relu, Activation::PRelu(&slopes)] {
                let mut want = case.reference_forward().values;
                for (i, w) in want.iter_mut().enumerate() {
                    let channel = i / plane % 11;
                    *w += f64::from(bias[channel]) + f64::from(residual[i]);
                    *w = match activation {
                        Activation::None => *w,
                        Activation::Relu => w.max(0.0),
                        Activation::PRelu(slopes) => w.max(0.0) + f64::from(slopes[channel]) * w.min(0.0),
                    };
                }
                let mut out = vec![f32::NAN; want.len()];
                let epilogue = Epilogue { bias: Some(&bias), residual: Some(&residual), activation };
                isa.force(|| forward(&shape, &case.x, &case.packed(), epilogue, &mut out));
                assert!(relative_error(&out, &want) < 1e-5, "{} {activation:?}", isa.name());
            }
        }
    }
}

#[test]
fn a_transposed_convolution_is_an_input_gradient_with_an_epilogue() {
    for (kernel, stride) in [(2, 2), (3, 2), (4, 4), (3, 3), (3, 1)] {
        let shape = Conv2dShape { stride: [stride; 2], ..Conv2dShape::new(2, 10, 6, [13, 40], [kernel; 2]) };
        let case = Case::new(shape);
        let bias = numbers(7, 10);
        let mut want = case.reference_input_gradient().values;
        for (i, w) in want.iter_mut().enumerate() {
            *w = (*w + f64::from(bias[i / (13 * 40) % 10])).max(0.0);
        }
        for isa in Isa::available() {
            let mut out = vec![f32::NAN; want.len()];
            let epilogue = Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Epilogue::default() };
            isa.force(|| transposed(&shape, &case.grad_out, &case.packed(), epilogue, &mut out));
            assert!(relative_error(&out, &want) < 1e-5, "{} {shape:?}", isa.name());
        }
    }
}

#[test]
fn an_impossible_shape_is_refused_with_its_numbers() {
    let shape = Conv2dShape::new(1, 4, 4, [2, 9], [3, 3]);
    assert_eq!(
        shape.checked().unwrap_err().to_string(),
        "convolution: the kernel covers 3 pixels of the height, more than the padded input's 2"
    );
    let groups = Conv2dShape { groups: 3, ..shape.with_padding(1) };
    assert_eq!(
        groups.checked().unwrap_err().to_string(),
        "convolution: 4 input channels cannot be cut into 3 equal groups"
    );
    let zero = Conv2dShape { stride: [1, 0], ..shape };
    assert_eq!(zero.checked().unwrap_err().to_string(), "convolution: horizontal stride is 0, expected at least 1");
    assert!(Conv2dShape { batch: 0, ..shape.with_padding(1) }.checked().is_ok());
}

#[test]
fn the_bias_gradient_is_the_sum_over_images_and_pixels() {
    let shape = square([2, 5], [9, 31], 3, 2, 1);
    let case = Case::new(Conv2dShape { batch: 3, ..shape });
    let plane = case.shape.out_height() * case.shape.out_width();
    let mut want = vec![0.0f64; 5];
    for (i, &g) in case.grad_out.iter().enumerate() {
        want[i / plane % 5] += f64::from(g);
    }
    let mut grad = vec![f32::NAN; 5];
    bias_gradient(&case.shape, &case.grad_out, &mut grad);
    assert!(relative_error(&grad, &want) < 1e-6);
}

#[test]
fn layers_that_winograd_computes_agree_with_plain_loops() {
    for shape in [
        square([34, 40], [13, 21], 3, 1, 1),
        square([70, 32], [4, 16], 3, 1, 1),
        Conv2dShape { padding: [[0, 2], [1, 0]], ..square([33, 37], [12, 35], 3, 1, 1) },
        square([24, 40], [31, 33], 3, 1, 2),
        square([40, 17], [30, 22], 3, 1, 4),
        Conv2dShape { batch: 2, ..square([16, 18], [29, 38], 3, 1, 3) },
        Conv2dShape { dilation: [1, 2], padding: [[1, 0], [4, 2]], ..square([19, 16], [30, 33], 3, 1, 1) },
    ] {
        let case = Case::new(shape);
        let references = (case.reference_forward(), case.reference_input_gradient(), case.reference_weight_gradient());
        for isa in Isa::available() {
            for limit in [Winograd::F2, Winograd::F4] {
                let weights = case.packed().with_winograd(limit);
                let (mut out, mut grad) = (vec![f32::NAN; case.grad_out.len()], vec![f32::NAN; case.x.len()]);
                let mut grad_weights = vec![f32::NAN; case.weights.len()];
                isa.force(|| {
                    forward(&shape, &case.x, &weights, Epilogue::default(), &mut out);
                    input_gradient(&shape, &case.grad_out, &weights, &mut grad);
                    weight_gradient_within(limit, &shape, &case.x, &case.grad_out, &mut grad_weights);
                });
                let errors = [references.0.error(&out), references.1.error(&grad), references.2.error(&grad_weights)];
                assert!(errors.iter().all(|&e| e < 1e-5), "{limit:?} {errors:?} {} {shape:?}", isa.name());
                // F(2×2) saves too little to pay for the copies of a dilated layer.
                if limit == Winograd::F4 || shape.dilation == [1, 1] {
                    assert!(out != isa.force(|| case.forward()), "{limit:?} was not used for {shape:?}");
                    let sums = isa.force(|| case.weight_gradient());
                    assert!(grad_weights != sums, "{limit:?} was not used for {shape:?}");
                }
            }
        }
    }
}
