//! What a PGD step costs beyond the forward and input-gradient pass that it cannot do without.
//!
//! `cargo bench -p fireproof-attacks --bench step` prints the ratio of both for a frozen network of realistic size, at
//! the size of a CamVid frame divided by four, and fails if the attack adds more than 5 %. Bare passes and attacks
//! alternate, every step is timed by itself, and the fastest of each counts, so that other work on the machine does not.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use burn::tensor::{Device, Tensor, TensorData};
use fireproof_attacks::{AttackConfig, Context, View, build};
use fireproof_tensor::{
    Batch, Victim,
    ops::{Activation, Conv2dOptions, WeightCache, conv2d_fused, resize_bilinear},
    random::Stream,
    victim,
};

const CLASSES: usize = 11;
const STEPS: usize = 5;
const ROUNDS: usize = 20;

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

/// The shortest time between two of the moments.
fn shortest(moments: &[Instant]) -> Duration {
    moments.windows(2).map(|pair| pair[1] - pair[0]).min().expect("at least two moments")
}

fn main() {
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
        // The bare pass still needs some gradient at the logits; a constant one costs nothing.
        let cotangent = Tensor::<4>::ones([n, CLASSES, 176, 240], &device);
        let bare = || {
            let mut moments = vec![Instant::now()];
            for _ in 0..STEPS {
                let pass = model.pull_back(batch.images.clone(), &mut |_| Ok(cotangent.clone()));
                pass.expect("a pass");
                moments.push(Instant::now());
            }
            shortest(&moments)
        };
        let attacks = ["pgd", "segpgd", "cospgd"].map(|name| {
            let config = AttackConfig::new(name).expect("a known name");
            build(&AttackConfig { steps: STEPS + 1, ..config }).expect("an attack")
        });
        let mut best = [Duration::MAX; 4];
        for _ in 0..ROUNDS {
            best[0] = best[0].min(bare());
            for (attack, best) in attacks.iter().zip(&mut best[1..]) {
                // From one forward pass to the next is one whole step.
                let moments = RefCell::new(Vec::new());
                let clock = |_: &View<'_>| moments.borrow_mut().push(Instant::now());
                let context = Context { observer: Some(&clock), ..Context::new(0) };
                attack.run(&model, &batch, &context).expect("a run");
                *best = (*best).min(shortest(&moments.borrow()));
            }
        }
        let milliseconds = |time: Duration| 1e3 * time.as_secs_f64();
        println!("batch of {n}, 176x240: bare forward + input gradient {:.2} ms", milliseconds(best[0]));
        for (attack, time) in attacks.iter().zip(&best[1..]) {
            let ratio = time.as_secs_f64() / best[0].as_secs_f64();
            println!("  {:>6} step {:.2} ms, {:+.1} %", attack.name(), milliseconds(*time), 100.0 * (ratio - 1.0));
            failed |= attack.name() == "pgd" && ratio > 1.05;
        }
    }
    if failed {
        eprintln!("a PGD step costs more than 5 % over the bare pass");
        std::process::exit(1);
    }
}
