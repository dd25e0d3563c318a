//! Victims, batches and readers that several tests need.

use std::{collections::HashMap, path::PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData, module::conv2d, ops::ConvOptions};
use fireproof_attacks::{AttackConfig, Context, Goal, Scene};
use fireproof_tensor::{Batch, Norm, Targets, Victim, ops::resize_bilinear, random::Stream, victim};
use safetensors::{Dtype, SafeTensors};

pub fn device() -> Device {
    Device::flex()
}

pub fn floats<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor.clone().try_into_vec_as().unwrap()
}

pub fn tensor<const D: usize>(values: Vec<f32>, dims: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, dims), &device())
}

/// Largest difference over the largest value.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let difference = found.iter().zip(expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    difference / largest
}

/// The golden vectors of a file, or `None` with a line that says so.
pub struct Golden(HashMap<String, (Vec<usize>, Vec<f32>)>);

impl Golden {
    pub fn open(file: &str) -> Option<Self> {
        let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        let shared = std::env::var_os("FIREPROOF_SHARED").map_or(workspace.join("../shared"), PathBuf::from);
        let path = shared.join("golden").join(file);
        let Ok(bytes) = std::fs::read(&path) else {
            eprintln!("skipped: no data at {} (set FIREPROOF_SHARED)", path.display());
            return None;
        };
        Some(Self::read(&bytes))
    }

    /// What a script in `tests/reference` wrote.
    pub fn reference(file: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(file);
        Self::read(&std::fs::read(path).unwrap())
    }

    fn read(bytes: &[u8]) -> Self {
        let file = SafeTensors::deserialize(bytes).unwrap();
        let read = |name: &str| {
            let view = file.tensor(name).unwrap();
            let values = match view.dtype() {
                Dtype::F32 => view.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
                Dtype::I64 => view.data().chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
                other => panic!("{name}: {other:?}"),
            };
            (name.to_string(), (view.shape().to_vec(), values))
        };
        Self(file.names().into_iter().map(read).collect())
    }

    pub fn values(&self, name: &str) -> &[f32] {
        &self.0.get(name).unwrap_or_else(|| panic!("no golden tensor '{name}'")).1
    }

    pub fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let (dims, values) = &self.0[name];
        tensor(values.clone(), dims.clone().try_into().unwrap())
    }

    pub fn labels(&self, name: &str) -> Targets {
        let (dims, values) = &self.0[name];
        let values: Vec<i32> = values.iter().map(|v| *v as i32).collect();
        Targets::hard(Tensor::<3, Int>::from_data(TensorData::new(values, [dims[0], dims[1], dims[2]]), &device()))
    }
}

/// A strided conv, a dilated conv, a 1×1 conv and a bilinear ×2, as in `make_golden.py`.
pub struct Network {
    weights: [Tensor<4>; 3],
    biases: [Tensor<1>; 3],
}

impl Network {
    pub fn golden(golden: &Golden) -> Self {
        Self {
            weights: [1, 2, 3].map(|i| golden.tensor(&format!("conv{i}.weight"))),
            biases: [1, 2, 3].map(|i| golden.tensor(&format!("conv{i}.bias"))),
        }
    }

    pub fn random(seed: u64, channels: usize, classes: usize) -> Self {
        let stream = Stream::new(&[seed]);
        let draw = |name: &str, dims: [usize; 4], scale: f32| {
            let count = dims.iter().product::<usize>() as u64;
            tensor((0..count).map(|i| stream.child(name).normal(i) * scale).collect(), dims)
        };
        let bias = |name: &str, n: usize| draw(name, [n, 1, 1, 1], 0.1).reshape([n]);
        Self {
            weights: [
                draw("w1", [8, channels, 3, 3], 0.6),
                draw("w2", [8, 8, 3, 3], 0.35),
                draw("w3", [classes, 8, 1, 1], 1.0),
            ],
            biases: [bias("b1", 8), bias("b2", 8), bias("b3", classes)],
        }
    }

    /// The first random network that predicts every class on at least a twentieth of random images' pixels: in a dead
    /// class no target could be reached.
    pub fn diverse(channels: usize, classes: usize) -> Self {
        let stream = Stream::new(&[77]);
        let count = 2 * channels * 256;
        let images = tensor((0..count as u64).map(|i| stream.uniform(i)).collect(), [2, channels, 16, 16]);
        let sees_all = |network: &Self| {
            let seen: Vec<i32> = network.forward(images.clone()).argmax(1).try_into_vec_as().unwrap();
            (0..classes).all(|class| 20 * seen.iter().filter(|s| **s == class as i32).count() >= seen.len())
        };
        (0..1000).map(|seed| Self::random(seed, channels, classes)).find(sees_all).expect("one in a thousand")
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = x.dims();
        let conv = |x, i: usize, stride: usize, padding: usize, dilation: usize| {
            let options = ConvOptions::new([stride; 2], [padding; 2], [dilation; 2], 1);
            conv2d(x, self.weights[i].clone(), Some(self.biases[i].clone()), options)
        };
        let h = burn::tensor::activation::relu(conv(x, 0, 2, 1, 1));
        let h = burn::tensor::activation::relu(conv(h, 1, 1, 2, 2));
        resize_bilinear(conv(h, 2, 1, 0, 1), [height, width], false)
    }

    pub fn victim(self) -> impl Victim {
        victim(move |x| self.forward(x))
    }
}

/// A victim that shows logits only.
pub struct Blind<V>(pub V);

impl<V: Victim> Victim for Blind<V> {
    fn logits(&self, images: Tensor<4>) -> fireproof_tensor::Result<Tensor<4>> {
        self.0.logits(images)
    }

    fn pull_back(
        &self,
        _images: Tensor<4>,
        _cotangent: &mut dyn FnMut(Tensor<4>) -> fireproof_tensor::Result<Tensor<4>>,
    ) -> fireproof_tensor::Result<(Tensor<4>, Tensor<4>)> {
        panic!("a black-box attack asked for a gradient")
    }
}

/// Random images, labelled as the victim sees them but for a fifth of the pixels and a tenth that is void.
pub fn batch(seed: u64, victim: &dyn Victim, classes: u64, dims: [usize; 4]) -> Batch {
    let stream = Stream::new(&[seed]);
    let count = dims.iter().product::<usize>() as u64;
    let images = tensor((0..count).map(|i| stream.uniform(i)).collect(), dims);
    let seen: Vec<i32> = victim.logits(images.clone()).unwrap().argmax(1).try_into_vec_as().unwrap();
    let pick = stream.child("labels");
    let labels: Vec<u8> = seen
        .iter()
        .enumerate()
        .map(|(i, &seen)| match pick.below(2 * i as u64, 10) {
            0 => fireproof_tensor::VOID,
            1 | 2 => pick.below(2 * i as u64 + 1, classes) as u8,
            _ => seen as u8,
        })
        .collect();
    let targets = Targets::from_labels(&labels, [dims[0], dims[2], dims[3]], &device()).unwrap();
    Batch::new(images, targets, (0..dims[0] as u64).map(|i| 100 + i).collect()).unwrap()
}

pub fn config(name: &str) -> AttackConfig {
    AttackConfig::new(name).unwrap()
}

/// Attacks that look for the smallest perturbation: they have no random start, restarts or choice of iterate.
pub const MINIMAL: [&str; 6] = ["alma-prox", "cw", "dag", "deepfool", "fmn", "pdpgd"];

/// Every registered attack that may take several steps inside a ball; ASMA's follow from its own constants, and are too short
/// to be seen on small images.
pub fn several_steps() -> Vec<&'static str> {
    let names = fireproof_attacks::list().into_iter().map(|r| r.name);
    names.filter(|name| config(name).steps > 1 && !MINIMAL.contains(name) && *name != "asma").collect()
}

/// Whether an attack knows the norm.
pub fn knows(name: &str, norm: Norm) -> bool {
    !["dla", "patch", "square"].contains(&name) || norm == Norm::Linf
}

/// The settings with this attack's own choice of iterate, start and restarts where it has no other.
pub fn suited(settings: AttackConfig) -> AttackConfig {
    let own = config(&settings.name);
    match settings.name.as_str() {
        // An ensemble compares its runs by accuracy, a view of an image has no score of its own.
        "sea" | "sea+" => AttackConfig { iterate: own.iterate, ..settings },
        "di-fgsm" | "ds-fgsm" => AttackConfig { iterate: own.iterate, ..settings },
        "universal" => AttackConfig { iterate: own.iterate, start: own.start, restarts: 1, ..settings },
        "patch" => AttackConfig { iterate: own.iterate, restarts: 1, ..settings },
        "dla" => AttackConfig { iterate: own.iterate, start: own.start, restarts: 1, ..settings },
        _ => settings,
    }
}

/// Runs `f` with a scene around `targets`, for objectives taken by themselves.
pub fn with_scene<R>(targets: Targets, targeted: bool, steps: usize, f: impl FnOnce(&Scene) -> R) -> R {
    let [n, height, width] = targets.dims();
    let images = Tensor::zeros([n, 1, height, width], &device());
    let batch = Batch::new(images, targets.clone(), (0..n as u64).collect()).unwrap();
    let goal = Goal { targets, targeted };
    let nobody = victim(|_| unreachable!("the objective under test needs no model"));
    f(&Scene { victim: &nobody, batch: &batch, goal: &goal, steps, context: &Context::new(0) })
}
