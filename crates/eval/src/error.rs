use std::path::{Path, PathBuf};

/// What keeps an evaluation from being planned or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot be followed.
    #[error("{what}: found {found}, expected {expected}")]
    Setting {
        /// The setting, as the command line calls it.
        what: String,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// A file that cannot be read or written, or is not what it should be.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Weights that do not fit the data.
    #[error("{}: the model has {found}, but data set {dataset} has {expected}", path.display())]
    Misfit {
        /// The weights file.
        path: PathBuf,
        /// The data set.
        dataset: String,
        /// What the model is made for.
        found: String,
        /// What the data is.
        expected: String,
    },
    /// An attack that left its threat model. Such images are never scored.
    #[error("attack '{attack}' on image {image}: {what} is {found}, expected {expected}")]
    Outside {
        /// The attack.
        attack: String,
        /// The image's name.
        image: String,
        /// The perturbation's norm, or a pixel.
        what: &'static str,
        /// Its value.
        found: f32,
        /// The allowed values.
        expected: String,
    },
    /// A model whose logits are not numbers. They are never scored.
    #[error("{model} on {device}: the logits of image {image} are not finite{}", under(attack))]
    NotFinite {
        /// The weights file's name.
        model: String,
        /// The device.
        device: String,
        /// The image's name.
        image: String,
        /// The attack, `none` for clean images.
        attack: String,
    },
    /// A device's error.
    #[error(transparent)]
    Tensor(#[from] fireproof_tensor::Error),
    /// A data set's error.
    #[error(transparent)]
    Data(#[from] fireproof_datasets::Error),
    /// A model's error.
    #[error(transparent)]
    Model(#[from] fireproof_models::Error),
    /// An attack's error.
    #[error(transparent)]
    Attack(#[from] fireproof_attacks::Error),
    /// A record's or report's error.
    #[error(transparent)]
    Report(#[from] fireproof_report::ReportError),
    /// Counts that contradict each other.
    #[error(transparent)]
    Metric(#[from] fireproof_metrics::MetricError),
}

impl Error {
    /// A setting that cannot be followed.
    pub fn setting(what: impl Into<String>, found: impl ToString, expected: impl Into<String>) -> Self {
        Self::Setting { what: what.into(), found: found.to_string(), expected: expected.into() }
    }

    pub(crate) fn file(path: &Path, message: impl ToString) -> Self {
        Self::File { path: path.to_path_buf(), message: message.to_string() }
    }
}

fn under(attack: &str) -> String {
    if attack == "none" { String::new() } else { format!(" under {attack}") }
}

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;
