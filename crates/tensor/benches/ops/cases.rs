//! Each operation at shapes that it has in our networks, beside the same from Burn's own operations.

use burn::tensor::{
    Device, Distribution, Tensor, activation, module,
    ops::{AvgPoolOptions, ConvOptions, ConvTransposeOptions, InterpolateMode, InterpolateOptions, MaxPoolOptions},
};
use fireproof_tensor::{
    Norm, Targets,
    norm::{per_sample, radii},
    ops::{self, Activation, Conv2dOptions, WeightCache},
};

/// One operation twice. Both do the same work and drop the result.
pub struct Case {
    pub name: String,
    pub ours: Box<dyn Fn()>,
    pub burns: Box<dyn Fn()>,
}

impl Case {
    fn new(name: impl Into<String>, ours: impl Fn() + 'static, burns: impl Fn() + 'static) -> Self {
        Self { name: name.into(), ours: Box::new(ours), burns: Box::new(burns) }
    }

    /// Forward and backward of a function of one tensor, with a gradient at its result as a network has it: a mere sum
    /// would send an expanded number back, which is no tensor in memory.
    fn differentiated(
        name: impl Into<String>,
        x: Tensor<4>,
        ours: impl Fn(Tensor<4>) -> Tensor<4> + 'static,
        burns: impl Fn(Tensor<4>) -> Tensor<4> + 'static,
    ) -> Self {
        fn run(x: &Tensor<4>, cotangent: &Tensor<4>, f: &dyn Fn(Tensor<4>) -> Tensor<4>) {
            let x = x.clone().autodiff().require_grad();
            let mut gradients = (f(x.clone()) * Tensor::from_inner(cotangent.clone())).sum().backward();
            x.grad_remove(&mut gradients).expect("the input is tracked");
        }
        let (y, cotangent) = (x.clone(), noise(ours(x.clone()).dims()));
        let same = cotangent.clone();
        Self::new(name, move || run(&x, &cotangent, &ours), move || run(&y, &same, &burns))
    }
}

fn noise<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex())
}

/// Network and layer, input, output channels, kernel, stride, padding, dilation.
type Layer = (&'static str, [usize; 4], usize, usize, usize, usize, usize);

const LAYERS: [Layer; 9] = [
    ("unet 3x3", [2, 32, 128, 128], 32, 3, 1, 1, 1),
    ("unet 3x3 deep", [2, 256, 16, 16], 256, 3, 1, 1, 1),
    ("resnet stem", [2, 3, 120, 88], 64, 7, 2, 3, 1),
    ("resnet stride 2", [2, 128, 60, 44], 128, 3, 2, 1, 1),
    ("resnet pointwise", [2, 256, 30, 22], 128, 1, 1, 0, 1),
    ("resnet dilation 2", [2, 128, 30, 22], 128, 3, 1, 2, 2),
    ("deeplabv3 dilation 12", [2, 128, 30, 22], 64, 3, 1, 12, 12),
    ("espnet reduce", [2, 128, 22, 30], 25, 1, 1, 0, 1),
    ("espnet dilation 8", [2, 25, 22, 30], 25, 3, 1, 8, 8),
];

/// The forward pass with a frozen layer's packed weights, as an attack runs it, and all gradients, as training does.
fn convolutions(all: &mut Vec<Case>) {
    for (name, size, out, kernel, stride, padding, dilation) in LAYERS {
        let (x, weight, bias) = (noise(size), noise([out, size[1], kernel, kernel]), noise([out]));
        let options = Conv2dOptions { stride, padding, dilation, groups: 1 };
        let own = move || ConvOptions::new([stride; 2], [padding; 2], [dilation; 2], 1);
        let cache = WeightCache::default();
        let (a, b, c) = (x.clone(), weight.clone(), bias.clone());
        let (d, e, f) = (x.clone(), weight.clone(), bias.clone());
        all.push(Case::new(
            format!("{name}, frozen, with ReLU"),
            move || drop(ops::conv2d_fused(a.clone(), b.clone(), Some(c.clone()), options, Activation::Relu, &cache)),
            move || drop(activation::relu(module::conv2d(d.clone(), e.clone(), Some(f.clone()), own()))),
        ));
        let train = move |x: &Tensor<4>, weight: &Tensor<4>, bias: &Tensor<1>, ours: bool| {
            let [x, weight] = [x, weight].map(|t| t.clone().autodiff().require_grad());
            let bias = Some(bias.clone().autodiff().require_grad());
            let y = if ours { ops::conv2d(x, weight, bias, options) } else { module::conv2d(x, weight, bias, own()) };
            y.sum().backward();
        };
        let (a, b, c) = (x.clone(), weight.clone(), bias.clone());
        all.push(Case::new(
            format!("{name}, all gradients"),
            move || train(&a, &b, &c, true),
            move || train(&x, &weight, &bias, false),
        ));
    }
}

/// Every operation.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    convolutions(&mut all);

    let up = noise([64, 32, 2, 2]);
    let (ours, burns, cache) = (up.clone(), up, WeightCache::default());
    all.push(Case::differentiated(
        "transposed 2x2",
        noise([2, 64, 64, 64]),
        move |x| ops::conv_transpose2d(x, ours.clone(), None, 2, &cache),
        move |x| {
            let options = ConvTransposeOptions::new([2; 2], [0; 2], [0; 2], [1; 2], 1);
            module::conv_transpose2d(x, burns.clone(), None, options)
        },
    ));
    let map = || noise([2, 32, 128, 128]);
    all.push(Case::differentiated("relu", map(), ops::relu, activation::relu));
    let slopes = || noise([32]);
    all.push(Case::differentiated(
        "prelu",
        map(),
        {
            let s = slopes();
            move |x| ops::prelu(x, s.clone())
        },
        {
            let s = slopes();
            move |x| activation::prelu(x, s.clone())
        },
    ));
    all.push(Case::differentiated(
        "batch norm in training",
        map(),
        {
            let (w, b) = (slopes(), slopes());
            move |x| ops::batch_norm_train(x, w.clone(), b.clone(), 1e-5).0
        },
        {
            let (w, b) = (slopes(), slopes());
            move |x| module::batch_norm_train(x, w.clone(), b.clone(), 1e-5).output
        },
    ));
    all.push(Case::differentiated(
        "max pool 3x3, stride 2",
        map(),
        |x| ops::max_pool2d(x, 3, 2, 1),
        |x| {
            let (stride, padding) = ([2; 2], [(1, 1); 2]);
            module::max_pool2d(x, MaxPoolOptions { stride, padding, ..MaxPoolOptions::new([3; 2]) })
        },
    ));
    all.push(Case::differentiated(
        "average pool 3x3, stride 2",
        map(),
        |x| ops::avg_pool2d(x, 3, 2, 1),
        |x| {
            let (stride, padding) = ([2; 2], [(1, 1); 2]);
            let options = AvgPoolOptions { stride, padding, count_include_pad: true, ..AvgPoolOptions::new([3; 2]) };
            module::avg_pool2d(x, options)
        },
    ));
    all.push(Case::differentiated(
        "bilinear resize by 8",
        noise([2, 12, 22, 30]),
        |x| ops::resize_bilinear(x, [176, 240], false),
        |x| {
            let options = InterpolateOptions::new(InterpolateMode::Bilinear).with_align_corners(false);
            module::interpolate(x, options.with_output_size([176, 240]))
        },
    ));
    let (loss, loss_of_burn) = (targets(), targets());
    all.push(Case::differentiated(
        "cross-entropy",
        logits(),
        move |x| ops::cross_entropy(x, &loss).unsqueeze_dim(1),
        move |x| {
            let map = Tensor::from_inner(loss_of_burn.one_hot(CLASSES));
            -(activation::log_softmax(x, 1) * map).sum_dim(1)
        },
    ));
    all.push(attack_step());
    all
}

const CLASSES: usize = 12;

fn logits() -> Tensor<4> {
    noise([2, CLASSES, 176, 240])
}

fn targets() -> Targets {
    let labels: Vec<u8> = (0..2 * 176 * 240u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as u8 % 12).collect();
    Targets::from_labels(&labels, [2, 176, 240], &Device::flex()).expect("as many labels as pixels")
}

fn attack_step() -> Case {
    let clean = noise([2, 3, 176, 240]).abs();
    let gradient = noise([2, 3, 176, 240]);
    let (step, epsilon) = (radii(&[0.01, 0.01], &clean), radii(&[0.03, 0.03], &clean));
    let (a, b, c, d) = (clean.clone(), gradient.clone(), step.clone(), epsilon.clone());
    Case::new(
        "attack step",
        move || drop(ops::attack_step(a.clone(), b.clone(), &a, Norm::Linf, &c, &d, [0.0, 1.0])),
        move || {
            let moved = clean.clone() + gradient.clone().sign() * per_sample(&step);
            let (low, high) = (clean.clone() - per_sample(&epsilon), clean.clone() + per_sample(&epsilon));
            drop(moved.max_pair(low).min_pair(high).clamp(0.0, 1.0));
        },
    )
}
