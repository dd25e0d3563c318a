//! The models of an evaluation, as weights files name them.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fireproof_datasets::Dataset;
use fireproof_models::{
    Network,
    inference::{Ensemble, Inference},
};
use fireproof_tensor::{Precision, Unit, Victim};
use sha2::{Digest, Sha256};

use crate::{Error, Result, plan::hex};

/// A weights file, and what the user says about it.
#[derive(Clone, Debug)]
pub struct Weights {
    /// The file.
    pub path: PathBuf,
    /// What a file without metadata cannot say itself.
    pub overrides: fireproof_models::Overrides,
    /// How the model looks at an image.
    pub inference: Inference,
    /// Files of further models whose probabilities are averaged with this one's: together they are one model.
    pub joined: Vec<PathBuf>,
}

impl Weights {
    /// All files, this one first.
    fn files(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.path.as_path()).chain(self.joined.iter().map(PathBuf::as_path))
    }

    /// Hash of the file, or of the hashes of all.
    fn digest(&self) -> Result<String> {
        let digests: Vec<String> = self.files().map(digest).collect::<Result<_>>()?;
        Ok(match &digests[..] {
            [only] => only.clone(),
            all => hex(&Sha256::digest(all.concat())),
        })
    }
}

/// A model under evaluation.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The network's name, e.g. `unet`, and how it looks at an image where that is not plainly once.
    pub model: String,
    /// How it was trained, as its file says, e.g. `segpgd3-at`; else the file's stem.
    pub training: String,
    /// The file's name; with as many folders as tell it from the others.
    pub weights: String,
    /// Hash of the file.
    pub sha256: String,
    /// Of a file without metadata, the tensors that nothing was read from.
    pub unused: Vec<String>,
    /// The unit in which it takes its images.
    pub unit: Unit,
    source: Weights,
}

impl Subject {
    /// Reads every file once, and refuses those that do not fit the data.
    pub(crate) fn open_all(files: &[Weights], dataset: &dyn Dataset) -> Result<Vec<Self>> {
        let names = short_names(&files.iter().map(|file| file.path.as_path()).collect::<Vec<_>>())?;
        let open = |(file, weights): (&Weights, String)| {
            let sha256 = file.digest()?;
            let loaded = fireproof_models::load(&file.path, &file.overrides, &Device::flex())?;
            let architecture = loaded.network.architecture();
            let misfit = |found: String, expected: String| Error::Misfit {
                path: file.path.clone(),
                dataset: dataset.name().to_owned(),
                found,
                expected,
            };
            if architecture.input_channels != dataset.channels() {
                let channels = |count: usize| format!("{count} image channels");
                return Err(misfit(channels(architecture.input_channels), channels(dataset.channels())));
            }
            if architecture.classes.len() < dataset.classes().len() {
                let classes = |count: usize| format!("{count} classes");
                return Err(misfit(classes(architecture.classes.len()), classes(dataset.classes().len())));
            }
            if architecture.normalisation.unit == Unit::Normalised && dataset.slice(0).is_none() {
                let expected =
                    "images that are slices of volumes, normalised by mean and standard deviation".to_owned();
                return Err(misfit(expected, "images that belong to no volume".into()));
            }
            let recipe = ["recipe", "fireproof.recipe"].into_iter().find_map(|key| loaded.report.extra.get(key));
            let stem = || file.path.file_stem().map_or(weights.clone(), |stem| stem.to_string_lossy().into_owned());
            Ok(Self {
                model: match file.inference.to_string().as_str() {
                    "" => architecture.name.clone(),
                    looks => format!("{} ({looks})", architecture.name),
                },
                training: match file.joined.len() {
                    0 => recipe.cloned().unwrap_or_else(stem),
                    more => format!("ensemble of {}", more + 1),
                },
                weights,
                sha256,
                unit: architecture.normalisation.unit,
                unused: if loaded.report.described { Vec::new() } else { loaded.report.unused },
                source: file.clone(),
            })
        };
        files.iter().zip(names).map(open).collect()
    }

    /// The network, on a device.
    ///
    /// # Errors
    /// If the file has changed since the plan was made, or those of [`fireproof_models::load`].
    pub fn load(&self, device: &Device) -> Result<Box<dyn Network>> {
        if self.source.digest()? != self.sha256 {
            return Err(Error::file(&self.source.path, "the file has changed since the run began"));
        }
        Ok(fireproof_models::load(&self.source.path, &self.source.overrides, device)?.network)
    }

    /// The frozen model that is attacked: the network, whatever it is joined with, and whatever both are looked through.
    ///
    /// # Errors
    /// Those of [`fireproof_models::load`] for a joined file, one of other classes, and a precision that the device does not have.
    pub fn victim(&self, network: &dyn Network, precision: Precision) -> Result<Box<dyn Victim + Send + Sync>> {
        let mut models = vec![network.victim_in(precision)?];
        for file in &self.source.joined {
            let other = fireproof_models::load(file, &self.source.overrides, &network.device())?.network;
            let of = |network: &dyn Network| {
                let architecture = network.architecture();
                format!("{} classes and {} channels", architecture.classes.len(), architecture.input_channels)
            };
            let (found, expected) = (of(&*other), of(network));
            if found != expected {
                return Err(Error::file(
                    file,
                    format!("found {found}, expected {expected} as the ensemble's first model"),
                ));
            }
            models.push(other.victim_in(precision)?);
        }
        let model = if models.len() == 1 { models.remove(0) } else { Box::new(Ensemble::new(models)?) };
        Ok(self.source.inference.around(model))
    }

    /// The weights file.
    pub fn path(&self) -> &Path {
        &self.source.path
    }
}

/// SHA-256 of a file, in lower-case hexadecimal.
///
/// # Errors
/// If the file cannot be read.
pub fn digest(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = std::fs::File::open(path)
        .map_err(|error| Error::file(path, format!("found {error}, expected a weights file")))?;
    std::io::copy(&mut file, &mut hash).map_err(|error| Error::file(path, error))?;
    Ok(hex(&hash.finalize()))
}

/// File names, each preceded by as many of its folders as make it unique.
fn short_names(paths: &[&Path]) -> Result<Vec<String>> {
    let tail = |path: &Path, parts: usize| {
        let all: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        all[all.len().saturating_sub(parts)..].join("/")
    };
    let deepest = paths.iter().map(|path| path.components().count()).max().unwrap_or(1);
    let unique = |name: &str, parts: usize| paths.iter().filter(|other| tail(other, parts) == name).count() == 1;
    let short = |path: &&Path| {
        let parts = (1..=deepest).find(|&parts| unique(&tail(path, parts), parts));
        let parts =
            parts.ok_or_else(|| Error::setting("--weights", format!("{} twice", path.display()), "each once"))?;
        Ok(tail(path, parts))
    };
    paths.iter().map(short).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_a_folder_only_where_they_need_it() {
        let paths = ["runs/a/best.safetensors", "runs/b/best.safetensors", "other.pth"].map(Path::new);
        assert_eq!(short_names(&paths).unwrap(), ["a/best.safetensors", "b/best.safetensors", "other.pth"]);
    }

    #[test]
    fn the_same_file_twice_is_refused() {
        let error = short_names(&["a.pth", "a.pth"].map(Path::new)).unwrap_err().to_string();
        assert_eq!(error, "--weights: found a.pth twice, expected each once");
    }
}
