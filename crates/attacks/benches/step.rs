//! What a PGD step costs beyond the forward and input-gradient pass that it cannot do without.
//!
//! `cargo bench -p fireproof-attacks --bench step` prints the ratio of both for a frozen network of realistic size, at
//! the size of a CamVid frame divided by four, and fails if the attack adds more than 5 %.
//!
//! A shared machine has slow phases, so neighbours are compared: a block of bare passes beside a block of steps, in turns
//! of which comes first, and each such pair gives one ratio. The result is their median, printed with the interval that
//! holds the true median with 95 % probability. How many pairs there are is decided by the clock alone, never by what was
//! measured.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use burn::tensor::{Device, Tensor, TensorData};
use fireproof_attacks::{Attack, AttackConfig, Context, View, build};
use fireproof_tensor::{
    Batch, Victim,
    ops::{Activation, Conv2dOptions, WeightCache, conv2d_fused, resize_bilinear},
    random::Stream,
    victim,
};

const CLASSES: usize = 11;
/// Passes or steps of a block.
const STEPS: u32 = 4;
/// Pairs that are measured at least, and then until the time is up.
const PAIRS: usize = 15;

/// An encoder of stride 8 and a bilinear decoder: 3×3 convolutions from 3 to 128 channels, 1.1 GMAC at 240×176.
struct Network {
    layers: Vec<(Tensor<4>, Tensor<1>, Conv2dOptions, WeightCache)>,
}

impl Network {
    fn new(device: &Device) -> Self {
        // Output channels, input channels, kernel, stride, dilation.
        let plan = [
            (32, 3, 3, 2, 1),
            (32, 32, 3, 1, 1),
            (64, 32, 3, 2, 1),
            (64, 64, 3, 1, 1),
            (64, 64, 3, 1, 1),
            (128, 64, 3, 2, 1),
            (128, 128, 3, 1, 2),
            (128, 128, 3, 1, 4),
            (CLASSES, 128, 1, 1, 1),
        ];
        let layer = |(i, (out, from, kernel, stride, dilation)): (usize, (usize, usize, usize, usize, usize))| {
            let stream = Stream::new(&[i as u64]);
            let scale = (2.0 / (from * kernel * kernel) as f32).sqrt();
            let values =
                (0..(out * from * kernel * kernel) as u64).map(|j| stream.normal(j) * scale).collect::<Vec<_>>();
            let weight = Tensor::from_data(TensorData::new(values, [out, from, kernel, kernel]), device);
            let padding = dilation * (kernel / 2);
            let options = Conv2dOptions { stride, padding, dilation, groups: 1 };
            (weight, Tensor::zeros([out], device), options, WeightCache::default())
        };
        Self { layers: plan.into_iter().enumerate().map(layer).collect() }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = images.dims();
        let mut x = images;
        for (i, (weight, bias, options, cache)) in self.layers.iter().enumerate() {
            let activation = if i + 1 < self.layers.len() { Activation::Relu } else { Activation::None };
            x = conv2d_fused(x, weight.clone(), Some(bias.clone()), *options, activation, cache);
        }
        resize_bilinear(x, [height, width], false)
    }
}

/// The mean time of a bare pass in one block.
fn bare(model: &dyn Victim, batch: &Batch, cotangent: &Tensor<4>) -> Duration {
    let start = Instant::now();
    for _ in 0..STEPS {
        model.pull_back(batch.images.clone(), &mut |_| Ok(cotangent.clone())).expect("a pass");
    }
    start.elapsed() / STEPS
}

/// The mean time of a whole step in one block: from the first forward pass to the one after `STEPS` steps.
fn steps(attack: &dyn Attack, model: &dyn Victim, batch: &Batch) -> Duration {
    let moments = RefCell::new(Vec::new());
    let clock = |_: &View<'_>| moments.borrow_mut().push(Instant::now());
    let context = Context { observer: Some(&clock), ..Context::new(0) };
    attack.run(model, batch, &context).expect("a run");
    let moments = moments.into_inner();
    (moments[STEPS as usize] - moments[0]) / STEPS
}

/// Times of bare passes and of steps, pair by pair, for about `budget`.
fn pairs(attack: &dyn Attack, model: &dyn Victim, batch: &Batch, budget: Duration) -> Vec<[f64; 2]> {
    let [n, _, height, width] = batch.dims();
    // The bare pass still needs some gradient at the logits; a constant one costs nothing.
    let cotangent = Tensor::<4>::ones([n, CLASSES, height, width], &batch.images.device());
    let block = |attacked: bool| {
        if attacked { steps(attack, model, batch) } else { bare(model, batch, &cotangent) }.as_secs_f64()
    };
    block(false);
    block(true);
    let start = Instant::now();
    let mut found = Vec::new();
    while found.len() < PAIRS || start.elapsed() < budget {
        let first = found.len() % 2 == 1;
        let times = [block(first), block(!first)];
        found.push(if first { [times[1], times[0]] } else { times });
    }
    found
}

/// The median, and the bounds of its 95 % interval: the order statistics 0.98 √n ranks beside it.
fn median(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let rank = |beside: f64| values[((n - 1.0) / 2.0 + beside * 0.98 * n.sqrt()).round().clamp(0.0, n - 1.0) as usize];
    [rank(0.0), rank(-1.0), rank(1.0)]
}

fn main() {
    // As the binaries have it: else both return every large tensor to the system, and a step has one more.
    fireproof_tensor::memory::keep_freed_memory();
    let device = Device::flex();
    let network = Network::new(&device);
    let model = victim(|x| network.forward(x));
    let mut failed = false;
    for n in [1, 4] {
        let dims = [n, 3, 176, 240];
        let stream = Stream::new(&[1]);
        let pixels = (0..dims.iter().product::<usize>() as u64).map(|i| stream.uniform(i)).collect();
        let labels: Vec<u8> = (0..(n * 176 * 240) as u64).map(|i| stream.below(i, CLASSES as u64) as u8).collect();
        let batch = Batch::from_host(pixels, &labels, dims, (0..n as u64).collect(), &device).expect("a batch");
        println!("batch of {n}, {}x{}:", dims[2], dims[3]);
        for (name, seconds) in [("pgd", 30), ("segpgd", 10), ("cospgd", 10)] {
            let config = AttackConfig::new(name).expect("a known name");
            let attack = build(&AttackConfig { steps: STEPS as usize + 1, ..config }).expect("an attack");
            let found = pairs(&*attack, &model, &batch, Duration::from_secs(seconds));
            let milliseconds = |i: usize| 1e3 * median(found.iter().map(|pair| pair[i]).collect())[0];
            let ratios = median(found.iter().map(|[bare, step]| step / bare).collect());
            let [middle, low, high] = ratios.map(|ratio| 100.0 * (ratio - 1.0));
            println!(
                "  {name:>6} step {:.2} ms, bare pass {:.2} ms; {middle:+.1} % (median of {} pairs, 95 % interval {low:+.1} to {high:+.1} %)",
                milliseconds(1),
                milliseconds(0),
                found.len(),
            );
            failed |= name == "pgd" && ratios[0] > 1.05;
        }
    }
    if failed {
        eprintln!("a PGD step costs more than 5 % over the bare pass");
        std::process::exit(1);
    }
}
