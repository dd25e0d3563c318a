//! The argument of margin training in one picture: two moons, a small network, three ways to train it.
//!
//! ```text
//! cargo run --release -p fireproof-defenses --example moons -- docs/images/moons.png
//! ```
//!
//! Left: standard training. Middle: adversarial training with one radius for all samples. Right: IMA, where each sample's
//! radius follows its margin. Circles are the radii that were trained with, of every second sample; the line is the decision
//! boundary. The table beside it is printed.

use std::{error::Error, fs::File, io::BufWriter, sync::Arc};

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use fireproof_attacks::{AttackConfig, Context};
use fireproof_datasets::{Class, Dataset, Image, Mask, Sample, batch};
use fireproof_defenses::{
    CHECKPOINT, Checkpoint, Control, Display, Method, OptimizerConfig, Recipe, Schedule, TrainConfig, train,
};
use fireproof_models::{
    Architecture, Definition, Forward, Network, Normalisation, Output, Taps, Trained, build,
    layers::{Conv2d, ConvSpec},
};
use fireproof_tensor::{Norm, host, ops::relu, random::Stream};

/// The radius for all samples: about twice what the narrowest place between the moons allows.
const FIXED: f64 = 0.12;
const EPOCHS: usize = 150;

/// Three layers on points, which are images of one pixel and two channels.
#[derive(Module, Debug)]
struct Perceptron {
    layers: Vec<Conv2d>,
}

impl Forward for Perceptron {
    fn forward(&self, images: Tensor<4>, _: &mut Taps) -> Output {
        let mut x = images;
        for (position, layer) in self.layers.iter().enumerate() {
            x = layer.forward(if position > 0 { relu(x) } else { x });
        }
        x.into()
    }
    fn sites(&self) -> Vec<String> {
        Vec::new()
    }
}

inventory::submit! {
    Definition {
        name: "perceptron", about: "three layers on points", options: &[], normalisation: Normalisation::identity,
        plan: None,
        recognise: |_| None,
        build: |architecture, seed, device| Trained::assemble(architecture, seed, device, |builder| Perceptron {
            layers: [(2, 48), (48, 48), (48, 2)].into_iter().enumerate()
                .map(|(i, (input, output))| Conv2d::with_bias(&builder.at(i), ConvSpec::new(input, output, 1)))
                .collect(),
        }),
    }
}

/// Points of two interleaved half circles, scaled into the unit square.
struct Moons {
    split: &'static str,
    points: Vec<[f32; 2]>,
}

impl Moons {
    fn new(split: &'static str, count: u64) -> Self {
        let stream = Stream::new(&[4]).child(split);
        let point = |i: u64| {
            let angle = std::f32::consts::PI * stream.uniform(i);
            let (x, y) = (angle.cos(), angle.sin());
            let [x, y] = if i.is_multiple_of(2) { [x, y] } else { [1.0 - x, 0.4 - y] };
            let noise = |k: u64| 0.06 * stream.child("noise").normal(2 * i + k);
            [(x + noise(0) + 1.25) / 3.5, (y + noise(1) + 1.55) / 3.5]
        };
        Self { split, points: (0..count).map(point).collect() }
    }

    fn label(index: usize) -> u8 {
        (index % 2) as u8
    }
}

impl Dataset for Moons {
    fn name(&self) -> &str {
        "moons"
    }
    fn split(&self) -> &str {
        self.split
    }
    fn len(&self) -> usize {
        self.points.len()
    }
    fn classes(&self) -> &[Class] {
        static CLASSES: std::sync::LazyLock<Vec<Class>> = std::sync::LazyLock::new(|| {
            ["upper", "lower"].map(|name| Class { name: name.into(), color: [0; 3] }).into()
        });
        &CLASSES
    }
    fn channels(&self) -> usize {
        2
    }
    fn sample_name(&self, index: usize) -> String {
        format!("{} {index}", self.split)
    }
    fn stored_as(&self, _: usize) -> fireproof_datasets::Result<String> {
        Ok("in memory".into())
    }
    fn get(&self, index: usize) -> fireproof_datasets::Result<Sample> {
        Ok(Sample {
            id: index as u64,
            name: self.sample_name(index),
            image: Image { channels: 2, height: 1, width: 1, data: self.points[index].to_vec() },
            mask: Mask { height: 1, width: 1, data: vec![Self::label(index)] },
            case: None,
        })
    }
}

/// A trained network with the radius that each training sample ended with.
type Outcome = (Box<dyn Network>, Vec<f32>);

fn run(recipe: Recipe) -> Result<Outcome, Box<dyn Error>> {
    let mut architecture = Architecture::new("perceptron", &["upper", "lower"])?;
    architecture.input_channels = 2;
    architecture.normalisation = Normalisation { mean: vec![0.5; 2], std: vec![0.2; 2], ..Normalisation::identity(2) };
    let mut network = build(&architecture, 1, &Device::flex())?;
    let config = TrainConfig {
        epochs: EPOCHS,
        batch_size: 32,
        optimizer: OptimizerConfig {
            method: Method::AdamW { betas: [0.9, 0.999] },
            learning_rate: 0.005,
            head_factor: 1.0,
            ..OptimizerConfig::default()
        },
        schedule: Schedule::Poly { power: 0.9 },
        ..TrainConfig::new(recipe)
    };
    let folder = tempfile::tempdir()?;
    let control = Control { display: Display::Silent, ..Control::default() };
    let (data, held_out) = (Arc::new(Moons::new("train", 128)), Arc::new(Moons::new("val", 64)));
    train(&config, &mut *network, data, held_out, folder.path(), &control)?;
    let stages = Checkpoint::read(&folder.path().join(CHECKPOINT))?.stages;
    let margins = stages.into_values().find_map(|mut state| state.remove("margins"));
    let radii = margins.map(|margins| margins.try_to_vec::<f32>()).transpose().map_err(|error| format!("{error:?}"))?;
    Ok((network, radii.unwrap_or_default()))
}

/// A recipe whose stage `margin`, its first, has other options.
fn with(recipe: &str, settings: serde_json::Value) -> Result<Recipe, Box<dyn Error>> {
    let mut recipe = Recipe::preset(recipe)?;
    recipe.stages[0].options.extend(settings.as_object().cloned().unwrap_or_default());
    Ok(recipe)
}

/// Accuracy on new points, without and with an ℓ2 attack of this radius.
fn accuracy(network: &dyn Network, epsilon: f32) -> Result<f64, Box<dyn Error>> {
    let data = Moons::new("evaluation", 1000);
    let samples = (0..data.len()).map(|i| data.get(i)).collect::<Result<Vec<_>, _>>()?;
    let clean = batch(&samples, &Device::flex())?;
    let victim = network.victim();
    let images = match epsilon > 0.0 {
        true => {
            let pgd = AttackConfig::new("pgd")?;
            let (step_size, steps, restarts) = (Some(epsilon / 5.0), 40, 3);
            let config = AttackConfig { norm: Norm::L2, epsilon, step_size, steps, restarts, ..pgd };
            fireproof_attacks::build(&config)?.run(&*victim, &clean, &Context::new(0))?.images
        }
        false => clean.images.clone(),
    };
    let right = clean.targets.accuracy(&victim.logits(images)?);
    Ok(right.iter().map(|right| f64::from(*right)).sum::<f64>() / right.len() as f64)
}

/// A panel shows x from 0 to 1 and y from 0.2 to 0.8.
const WIDTH: usize = 480;
const HEIGHT: usize = 288;
const SCALE: f32 = WIDTH as f32;

struct Panel(Vec<[f32; 3]>);

impl Panel {
    /// The predicted class as a tint, the boundary as a line.
    fn new(network: &dyn Network) -> Result<Self, Box<dyn Error>> {
        let row = |y: usize| (0..WIDTH).map(move |x| [(x as f32 + 0.5) / SCALE, 0.8 - (y as f32 + 0.5) / SCALE]);
        let points: Vec<[f32; 2]> = (0..HEIGHT).flat_map(row).collect();
        let n = points.len();
        let values = TensorData::new(points.concat(), [n, 2, 1, 1]);
        let logits = host::floats(network.victim().logits(Tensor::from_data(values, &Device::flex()))?);
        let upper: Vec<bool> = logits.chunks(2).map(|pair| pair[0] > pair[1]).collect();
        let tint = |at: usize| {
            let beside = |other: usize| other < n && upper[other] != upper[at];
            let inside = at % WIDTH > 0 && at % WIDTH < WIDTH - 1;
            let edge = [at.wrapping_sub(1), at + 1, at.wrapping_sub(WIDTH), at + WIDTH].into_iter().any(beside);
            match (inside && edge, upper[at]) {
                (true, _) => [0.1; 3],
                (false, true) => [0.86, 0.92, 0.98],
                (false, false) => [0.99, 0.92, 0.85],
            }
        };
        Ok(Self((0..n).map(tint).collect()))
    }

    /// Blends a colour in where the distance from a point lies in a range.
    fn ring(&mut self, [x, y]: [f32; 2], [inner, outer]: [f32; 2], color: [f32; 3]) {
        let (x, y) = (x * SCALE, (0.8 - y) * SCALE);
        let reach = outer + 1.0;
        let span = |middle: f32, size: usize| {
            let end = (middle + reach).max(0.0) as usize + 1;
            (middle - reach).max(0.0) as usize..end.min(size)
        };
        for row in span(y, HEIGHT) {
            for column in span(x, WIDTH) {
                let distance = (column as f32 + 0.5 - x).hypot(row as f32 + 0.5 - y);
                let cover = (outer + 0.5 - distance).clamp(0.0, 1.0) * (distance - inner + 0.5).clamp(0.0, 1.0);
                for (old, new) in self.0[row * WIDTH + column].iter_mut().zip(color) {
                    *old += (new - *old) * cover;
                }
            }
        }
    }

    fn draw(&mut self, data: &Moons, radii: &[f32]) {
        let color = |index: usize| if Moons::label(index) == 0 { [0.1, 0.35, 0.7] } else { [0.8, 0.35, 0.05] };
        // Both classes take turns, so pairs of samples are left out.
        for (index, radius) in radii.iter().enumerate().filter(|(index, _)| index % 4 < 2) {
            let pixels = radius * SCALE;
            self.ring(data.points[index], [pixels - 0.6, pixels + 0.6], color(index).map(|c| 0.45 * c + 0.55));
        }
        for (index, point) in data.points.iter().enumerate() {
            self.ring(*point, [-1.0, 3.0], color(index));
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).ok_or("expected the PNG to write")?;
    let fixed = serde_json::json!({ "steps": 10, "initial": FIXED, "cap": FIXED });
    let margins = serde_json::json!({ "steps": 10, "delta": 0.01, "cap": 0.3 });
    let ways = [
        ("standard", Recipe::preset("standard")?),
        ("fixed radius", with("sat-classification", fixed)?),
        ("IMA", with("ima-classification", margins)?),
    ];
    let data = Moons::new("train", 128);
    let mut panels = Vec::new();
    println!("{:14} {:>7} {:>9} {:>9}   radii", "accuracy", "clean", "l2 0.03", "l2 0.06");
    for (name, recipe) in ways {
        let (network, radii) = run(recipe)?;
        let [clean, near, far] = [0.0, 0.03, 0.06].map(|epsilon| accuracy(&*network, epsilon));
        let mut sorted = radii.clone();
        sorted.sort_by(f32::total_cmp);
        let range = match (sorted.first(), sorted.last()) {
            (Some(first), Some(last)) => format!("{first:.3} to {last:.3}, median {:.3}", sorted[sorted.len() / 2]),
            _ => "none".to_string(),
        };
        println!("{name:14} {:7.3} {:9.3} {:9.3}   {range}", clean?, near?, far?);
        let mut panel = Panel::new(&*network)?;
        panel.draw(&data, &radii);
        panels.push(panel);
    }
    let gap = 8;
    let width = panels.len() * (WIDTH + gap) - gap;
    let mut pixels = vec![255u8; 3 * width * HEIGHT];
    for (position, panel) in panels.iter().enumerate() {
        for (at, color) in panel.0.iter().enumerate() {
            let place = at / WIDTH * width + position * (WIDTH + gap) + at % WIDTH;
            pixels[3 * place..][..3].copy_from_slice(&color.map(|c| (c.clamp(0.0, 1.0) * 255.0).round() as u8));
        }
    }
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(&file)?), width as u32, HEIGHT as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&pixels)?;
    println!("{file}");
    Ok(())
}
