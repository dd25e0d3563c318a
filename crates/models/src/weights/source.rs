//! A weight file, opened: names and shapes are known, values are read on demand.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};

use super::recognise::Shapes;
use super::{pytorch::Pytorch, safetensors::Safetensors};
use crate::{Architecture, Error, Result};

/// Larger files are refused: no network here comes near.
const MAX_FILE: u64 = 16 << 30;

/// A container of named tensors.
pub(super) trait TensorFile {
    /// Shape of every tensor, by its name in the file.
    fn shapes(&self) -> BTreeMap<String, Vec<usize>>;

    /// A tensor's bytes (little endian, row major) and type.
    ///
    /// # Errors
    /// What is wrong, for a tensor that the file does not really hold.
    fn bytes(&self, name: &str) -> std::result::Result<(Vec<u8>, DType), String>;

    /// What the file says about itself.
    fn architecture(&self) -> Option<Architecture> {
        None
    }

    /// What its writer added.
    fn extra(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

/// A container with the wrappers around the names taken off.
pub(super) struct Source {
    path: PathBuf,
    file: Box<dyn TensorFile>,
    /// What all names that count begin with, e.g. `state_dict.module.`.
    prefix: String,
    all: BTreeMap<String, Vec<usize>>,
}

/// Keys under which training scripts put the state dict.
const WRAPPERS: [&str; 4] = ["state_dict.", "model_state_dict.", "model_state.", "model."];

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let attributes = std::fs::metadata(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => {
                Error::format(path, "no such file", "weights as safetensors or a PyTorch state dict")
            }
            _ => Error::io(path)(source),
        })?;
        if !attributes.is_file() {
            return Err(Error::format(path, "not a file", "a weight file"));
        }
        if attributes.len() > MAX_FILE {
            return Err(Error::format(path, format!("{} bytes", attributes.len()), format!("at most {MAX_FILE}")));
        }
        let file: Box<dyn TensorFile> = if looks_like_safetensors(path)? {
            Box::new(Safetensors::open(path)?)
        } else {
            Box::new(Pytorch::open(path, attributes.len())?)
        };
        let all = file.shapes();
        if all.is_empty() {
            return Err(Error::format(path, "no tensors", "the weights of a network"));
        }
        let mut prefix = String::new();
        for wrapper in WRAPPERS {
            if all.keys().any(|name| name.starts_with(wrapper)) {
                prefix = wrapper.to_string();
                break;
            }
        }
        // Left by PyTorch's DataParallel.
        let parallel = format!("{prefix}module.");
        if all.keys().filter(|name| name.starts_with(&prefix)).all(|name| name.starts_with(&parallel)) {
            prefix = parallel;
        }
        Ok(Self { path: path.to_path_buf(), file, prefix, all })
    }

    /// Names without wrappers, and their shapes.
    pub(super) fn shapes(&self) -> Shapes {
        let inside = self
            .all
            .iter()
            .filter_map(|(name, shape)| Some((name.strip_prefix(&self.prefix)?.to_string(), shape.clone())));
        Shapes::new(inside.collect())
    }

    /// Names outside the wrapper, e.g. an optimizer's state.
    pub(super) fn ignored(&self) -> impl Iterator<Item = String> {
        self.all.keys().filter(|name| !name.starts_with(&self.prefix)).cloned()
    }

    pub(super) fn architecture(&self) -> Option<Architecture> {
        self.file.architecture()
    }

    pub(super) fn extra(&self) -> BTreeMap<String, String> {
        self.file.extra()
    }

    /// A tensor's values as single-precision numbers.
    pub(super) fn values(&self, name: &str) -> Result<Vec<f32>> {
        let refused = |found: String, expected: &str| Error::format(&self.path, found, expected);
        let full = format!("{}{name}", self.prefix);
        let (bytes, dtype) = self.file.bytes(&full).map_err(|found| refused(found, "a complete weight file"))?;
        if !matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16) {
            return Err(refused(format!("'{name}' holds {dtype:?}"), "floating-point weights"));
        }
        let shape = self.all[&full].clone();
        let data = TensorData::try_from_bytes(burn::tensor::Bytes::from_bytes_vec(bytes), shape, dtype)
            .map_err(|e| refused(format!("'{name}': {e}"), "as many bytes as the shape says"))?;
        let values: Vec<f32> =
            data.convert::<f32>().try_to_vec().map_err(|e| refused(format!("'{name}': {e}"), "numbers"))?;
        match values.iter().filter(|v| !v.is_finite()).count() {
            0 => Ok(values),
            bad => {
                Err(refused(format!("'{name}' has {bad} of {} values that are not finite", values.len()), "numbers"))
            }
        }
    }
}

/// A safetensors file is a length and a JSON object.
fn looks_like_safetensors(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    std::fs::File::open(path).and_then(|f| f.take(9).read_to_end(&mut start)).map_err(Error::io(path))?;
    Ok(start.get(8) == Some(&b'{') && !start.starts_with(b"PK"))
}
