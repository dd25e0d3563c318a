//! Small networks, files and comparisons.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use fireproof_models::{Architecture, Network, build};
use fireproof_tensor::random::Stream;
use safetensors::{Dtype, SafeTensors};

pub fn device() -> Device {
    Device::flex()
}

/// A file beside the tests.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A file of the shared data, or `None` with a word on the terminal.
pub fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("FIREPROOF_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: no data at {}", path.display());
    None
}

/// The f32 tensors of a safetensors file.
pub struct Answers(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Answers {
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let values = |data: &[u8]| data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let f32s = tensors.iter().filter(|(_, view)| view.dtype() == Dtype::F32);
        Self(f32s.map(|(name, v)| (name.to_string(), (v.shape().to_vec(), values(v.data())))).collect())
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn values(&self, name: &str) -> &[f32] {
        &self.0.get(name).unwrap_or_else(|| panic!("no '{name}'")).1
    }

    pub fn tensor(&self, name: &str) -> Tensor<4> {
        let (shape, values) = &self.0[name];
        Tensor::from_data(TensorData::new(values.clone(), shape.clone()), &device())
    }
}

pub fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.inner().into_data().convert::<f32>().try_to_vec().unwrap()
}

/// max|a − b| / max|b|.
pub fn relative(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let difference = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(a.iter().all(|v| v.is_finite()), "not finite");
    difference / b.iter().map(|b| b.abs()).fold(0.0, f32::max)
}

/// Images in `[0, 1)`, another one for each number.
pub fn images(dims: [usize; 4], seed: u64) -> Tensor<4> {
    let stream = Stream::new(&[seed]);
    let values: Vec<f32> = (0..dims.iter().product::<usize>() as u64).map(|i| stream.uniform(i)).collect();
    Tensor::from_data(TensorData::new(values, dims), &device())
}

/// Every kind of network, as small as its options allow.
pub fn architectures() -> Vec<Architecture> {
    of([
        ("unet", &[("base", 4), ("levels", 3)]),
        ("espnet", &[("p", 1), ("q", 2)]),
        ("pspnet-resnet18", &[("hidden", 16)]),
        ("pspnet-resnet18", &[("deep_stem", 1), ("dilate_first", 0), ("hidden", 16), ("auxiliary", 0)]),
        ("deeplabv3-resnet18", &[]),
        ("nnunet", &[("base", 4), ("stages", 3), ("widest", 12)]),
    ])
}

/// Those with bottlenecks, which take seconds each.
pub fn large_architectures() -> Vec<Architecture> {
    of([("pspnet-resnet50", &[("hidden", 16)]), ("deeplabv3-resnet50", &[("auxiliary", 0)]), ("fcn-resnet50", &[])])
}

fn of<const N: usize>(options: [(&str, &[(&str, usize)]); N]) -> Vec<Architecture> {
    let architecture = |(name, options): (&str, &[(&str, usize)])| {
        let mut architecture = Architecture::new(name, &["a", "b", "c", "d", "e"]).unwrap();
        architecture.options.extend(options.iter().map(|(k, v)| (k.to_string(), *v)));
        architecture
    };
    options.into_iter().map(architecture).collect()
}

pub fn small_unet() -> Architecture {
    architectures().swap_remove(0)
}

/// A network whose batch norms are not near the identity.
pub fn lively(architecture: &Architecture) -> Box<dyn Network> {
    let mut network = build(architecture, 1, &device()).unwrap();
    let mut values = network.parameters();
    for parameter in &mut values {
        let stream = Stream::new(&[2]).child(&parameter.name);
        let moved = |i: usize, v: f32| match parameter.name.rsplit('.').next().unwrap() {
            "running_var" => 0.5 + 1.5 * stream.uniform(i as u64),
            "running_mean" => 0.2 * stream.symmetric(i as u64),
            _ if parameter.shape.len() == 1 => v + 0.3 * stream.symmetric(i as u64),
            _ => v,
        };
        parameter.values = parameter.values.iter().enumerate().map(|(i, &v)| moved(i, v)).collect();
    }
    network.set_parameters(&values).unwrap();
    network
}
