//! `export`: weights for other tools.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use burn::tensor::Device;
use clap::Args;

use crate::options::{ModelOptions, tell_unused};

/// Write weights under PyTorch's names.
///
/// Reads any weights file that bench reads, and writes a safetensors file whose names and shapes are those of the network's
/// PyTorch state dict; architecture, classes and normalisation are in its metadata. In Python:
/// `model.load_state_dict(safetensors.torch.load_file("OUT"), strict=False)`.
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    model: ModelOptions,
    /// The weights file (.safetensors, .pth)
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
}

impl Export {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        let extension = self.out.extension().and_then(|extension| extension.to_str());
        ensure!(extension == Some("safetensors"), "--out: found {}, expected a .safetensors file", self.out.display());
        let loaded = fireproof_models::load(&self.weights, &self.model.overrides(), &Device::flex())?;
        if !loaded.report.described {
            tell_unused(&self.weights, &loaded.report.unused);
        }
        fireproof_models::save(&*loaded.network, &self.out, &loaded.report.extra)?;
        let parameters = loaded.network.layout();
        let values: usize = parameters.iter().map(|p| p.shape.iter().product::<usize>()).sum();
        writeln!(std::io::stdout(), "{}: {} tensors, {values} values", self.out.display(), parameters.len())?;
        Ok(())
    }
}
