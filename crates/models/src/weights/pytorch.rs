//! PyTorch's files, read with `pytorch-reader`: it interprets the few pickle instructions that make a state dict and
//! never runs what a pickle asks for.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::DType;
use pytorch_reader::PytorchReader;

use super::source::TensorFile;
use crate::{Error, Result};

pub(super) struct Pytorch {
    reader: PytorchReader,
    length: u64,
}

impl Pytorch {
    pub(super) fn open(path: &Path, length: u64) -> Result<Self> {
        let reader = PytorchReader::new(path).map_err(|e| {
            Error::format(
                path,
                format!("not a readable weight file ({e})"),
                "a safetensors file or a PyTorch state dict",
            )
        })?;
        Ok(Self { reader, length })
    }
}

impl TensorFile for Pytorch {
    fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.reader.tensors().iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect()
    }

    fn bytes(&self, name: &str) -> std::result::Result<(Vec<u8>, DType), String> {
        let tensor = self.reader.get(name).ok_or_else(|| format!("'{name}' is missing"))?;
        // A view may repeat a few bytes many times, and a zip entry may unpack to more than the file: `torch.save`
        // writes neither for a weight.
        if tensor.byte_len() as u64 > self.length {
            return Err(format!("'{name}' claims {} bytes in a file of {}", tensor.byte_len(), self.length));
        }
        let dtype = match tensor.dtype() {
            pytorch_reader::DType::F64 => DType::F64,
            pytorch_reader::DType::F32 => DType::F32,
            pytorch_reader::DType::F16 => DType::F16,
            pytorch_reader::DType::BF16 => DType::BF16,
            other => return Err(format!("'{name}' holds {other:?}")),
        };
        Ok((tensor.read().map_err(|e| e.to_string())?, dtype))
    }
}
