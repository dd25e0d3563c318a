//! Options that several commands share.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use fireproof_datasets::Split;
use fireproof_eval::{DataSettings, Selection, Weights};
use fireproof_models::Overrides;

use crate::values::{Assignment, Size};

/// Which images.
#[derive(Clone, Debug, Args)]
pub struct DataOptions {
    /// A data set by name (see `data list`), or the path of a manifest of your own
    #[arg(long, default_value = "scenes", value_name = "NAME")]
    pub data: String,
    /// The data set's folder
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Resize images and masks
    #[arg(long, value_name = "WxH")]
    pub size: Option<Size>,
}

impl DataOptions {
    /// The images of a split.
    pub fn settings(&self, split: Split, selection: Selection) -> DataSettings {
        let size = self.size.map(|size| (size.height, size.width));
        DataSettings { name: self.data.clone(), root: self.root.clone(), split, size, selection }
    }
}

/// What a weights file without metadata cannot say itself.
#[derive(Clone, Debug, Default, Args)]
pub struct ModelOptions {
    /// The network: unet, pspnet-resnet18, … Files that fireproof wrote name theirs
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// A setting of the network, for instance base=16
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<Assignment<usize>>,
    /// Mean of each channel, instead of the file's or the network's own
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    pub mean: Option<Vec<f32>>,
    /// Standard deviation of each channel, likewise
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    pub std: Option<Vec<f32>>,
}

impl ModelOptions {
    /// The file with what was said about it.
    pub fn weights(&self, path: &Path) -> Weights {
        Weights { path: path.to_path_buf(), overrides: self.overrides() }
    }

    /// What was said.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            name: self.model.clone(),
            options: self.set.iter().map(|option| (option.name.clone(), option.value)).collect(),
            classes: None,
            mean: self.mean.clone(),
            std: self.std.clone(),
        }
    }
}

/// Creates a folder that may be there already.
pub fn folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("{}: cannot create the folder", path.display()))
}

/// Writes a file under a temporary name, then renames it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().with_context(|| format!("{}: found no file name", path.display()))?;
    let temporary = path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("{}: cannot write", path.display()))
}
