//! What a user of this crate can get wrong, and how training can fail.

use std::path::{Path, PathBuf};

/// Errors of recipes, training runs and checkpoints. Every message names what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A recipe name that is no preset.
    #[error("unknown recipe '{name}': expected {expected}")]
    UnknownRecipe {
        /// The name as given.
        name: String,
        /// The forms that are known.
        expected: String,
    },
    /// A stage name that no linked crate registers.
    #[error("recipe '{recipe}', stage {position}: unknown stage '{name}', expected one of {expected}")]
    UnknownStage {
        /// The recipe.
        recipe: String,
        /// Position in the recipe, from 1.
        position: usize,
        /// The name as given.
        name: String,
        /// The registered names.
        expected: String,
    },
    /// Options that a stage does not have or cannot take.
    #[error("recipe '{recipe}', stage {position} '{name}': {reason}")]
    StageOptions {
        /// The recipe.
        recipe: String,
        /// Position in the recipe, from 1.
        position: usize,
        /// The stage.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Stages that contradict each other.
    #[error("recipe '{recipe}' contradicts itself: {reason}")]
    Contradiction {
        /// The recipe.
        recipe: String,
        /// Why these stages do not go together.
        reason: String,
    },
    /// A text that is not a recipe.
    #[error("cannot read the recipe {what}: {reason}")]
    Parse {
        /// The file or the text's kind.
        what: String,
        /// What the parser says.
        reason: String,
    },
    /// A setting outside its range, or settings that do not fit the data or the network.
    #[error("{what}: found {found}, expected {expected}")]
    Setting {
        /// The setting at fault.
        what: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// A loss or weights that are no longer numbers, or a loss that exploded.
    #[error("training diverged at step {step} (epoch {epoch}) in stage '{stage}': {what}; {}", last_good(.checkpoint.as_deref()))]
    Diverged {
        /// Optimizer steps made before this one.
        step: u64,
        /// Epoch, from 1.
        epoch: usize,
        /// The stage that showed it.
        stage: String,
        /// The value.
        what: String,
        /// The last file with good weights.
        checkpoint: Option<PathBuf>,
    },
    /// A stage failed.
    #[error("step {step}, stage '{stage}': {reason}")]
    Stage {
        /// Optimizer steps made before this one.
        step: u64,
        /// The stage.
        stage: String,
        /// Why.
        reason: String,
    },
    /// The output folder holds a run already.
    #[error("{} holds a run already (epoch {epoch}, step {step}): resume it, or choose another folder", .path.display())]
    Occupied {
        /// The run's checkpoint.
        path: PathBuf,
        /// Its finished epochs.
        epoch: usize,
        /// Its optimizer steps.
        step: u64,
    },
    /// A checkpoint that belongs to another run.
    #[error("{}: cannot resume, its {field} is {found}, but this run has {expected}", .path.display())]
    Mismatch {
        /// The checkpoint.
        path: PathBuf,
        /// The field that differs.
        field: String,
        /// The file's value.
        found: String,
        /// This run's value.
        expected: String,
    },
    /// A file that is not a checkpoint, or a broken one.
    #[error("{}: not a training checkpoint: {reason}", .path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Margins that cannot be taken over.
    #[error("{}: {reason}", .path.display())]
    Margins {
        /// The checkpoint that they were to come from.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// An attack's error.
    #[error(transparent)]
    Attack(#[from] fireproof_attacks::Error),
    /// A data set's error.
    #[error(transparent)]
    Data(#[from] fireproof_datasets::Error),
    /// A network's error.
    #[error(transparent)]
    Model(#[from] fireproof_models::Error),
    /// A tensor's or device's error.
    #[error(transparent)]
    Tensor(#[from] fireproof_tensor::Error),
    /// A score's error.
    #[error(transparent)]
    Metric(#[from] fireproof_metrics::MetricError),
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

fn last_good(checkpoint: Option<&Path>) -> String {
    match checkpoint {
        Some(path) => format!("the last good checkpoint is {}", path.display()),
        None => "no checkpoint was written yet".into(),
    }
}

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;
