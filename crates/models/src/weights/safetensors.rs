//! safetensors: <https://github.com/huggingface/safetensors>.
//!
//! Our metadata is one entry, `fireproof`, a JSON object with the format's version, the architecture (with classes
//! and normalisation) and what the writer added. One entry, because the format's library writes several in an order
//! that changes from run to run.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use burn::tensor::DType;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::source::TensorFile;
use crate::network::Parameter;
use crate::{Architecture, Error, Result};

const KEY: &str = "fireproof";
const VERSION: u32 = 1;

/// Just enough to see whether the rest can be understood.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Description {
    version: u32,
    architecture: Architecture,
    #[serde(default)]
    extra: BTreeMap<String, String>,
}

pub(super) struct Safetensors {
    bytes: Vec<u8>,
    description: Option<Description>,
}

impl Safetensors {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let damaged = |e: safetensors::SafeTensorError| {
            Error::format(path, format!("damaged safetensors file: {e}"), "a header that fits the file's length")
        };
        // The reader compares every length in the header with the file's before anything is allocated.
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        let entry = metadata.metadata().as_ref().and_then(|m| m.get(KEY));
        let description = entry.map(|text| describe(path, text)).transpose()?;
        Ok(Self { bytes, description })
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect("the header was checked when the file was opened")
    }
}

fn describe(path: &Path, text: &str) -> Result<Description> {
    let unreadable =
        |e: serde_json::Error| Error::format(path, format!("metadata '{KEY}': {e}"), "what `export` writes");
    let Version { version } = serde_json::from_str(text).map_err(unreadable)?;
    if version > VERSION {
        let found = format!("weights of format version {version}, written by a newer fireproof");
        return Err(Error::format(path, found, format!("version {VERSION} or older")));
    }
    serde_json::from_str(text).map_err(unreadable)
}

impl TensorFile for Safetensors {
    fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.tensors().iter().map(|(name, view)| (name.to_string(), view.shape().to_vec())).collect()
    }

    fn bytes(&self, name: &str) -> std::result::Result<(Vec<u8>, DType), String> {
        let tensors = self.tensors();
        let view = tensors.tensor(name).map_err(|e| e.to_string())?;
        let dtype = match view.dtype() {
            Dtype::F64 => DType::F64,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => return Err(format!("'{name}' holds {other:?}")),
        };
        Ok((view.data().to_vec(), dtype))
    }

    fn architecture(&self) -> Option<Architecture> {
        self.description.as_ref().map(|d| d.architecture.clone())
    }

    fn extra(&self) -> BTreeMap<String, String> {
        self.description.as_ref().map(|d| d.extra.clone()).unwrap_or_default()
    }
}

/// Writes parameters and description to a temporary name, then renames.
pub(super) fn write(
    path: &Path,
    architecture: &Architecture,
    parameters: &[Parameter],
    extra: &BTreeMap<String, String>,
) -> Result<()> {
    let description = Description { version: VERSION, architecture: architecture.clone(), extra: extra.clone() };
    let text = serde_json::to_string(&description).expect("a description is made of strings and numbers");
    let bytes: Vec<Vec<u8>> =
        parameters.iter().map(|p| p.values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = parameters.iter().zip(&bytes).map(|(p, bytes)| {
        let view = TensorView::new(Dtype::F32, p.shape.clone(), bytes);
        (p.name.as_str(), view.expect("a parameter has as many values as its shape says"))
    });
    let metadata = HashMap::from([(KEY.to_string(), text)]);
    let file = safetensors::serialize(views, Some(metadata)).expect("names are distinct and the header is small");

    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = std::fs::File::create(&temporary).and_then(|mut f| {
        f.write_all(&file)?;
        f.sync_all()
    });
    written.and_then(|()| std::fs::rename(&temporary, path)).map_err(|source| {
        // The first error is the one to tell; the leftover is a courtesy.
        let _ = std::fs::remove_file(&temporary);
        Error::Io { path: path.to_path_buf(), source }
    })
}
