//! What a user of this crate can get wrong.

use std::path::{Path, PathBuf};

/// Errors of architectures and weight files. Every message names what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An architecture name that no linked crate defines.
    #[error("unknown model '{name}': expected one of {expected}")]
    UnknownArchitecture {
        /// The name as given.
        name: String,
        /// The names that are defined.
        expected: String,
    },
    /// An option, a class list or a normalisation that does not fit the architecture.
    #[error("model '{architecture}': {what} is {found}, expected {expected}")]
    Architecture {
        /// Name of the architecture.
        architecture: String,
        /// The setting at fault.
        what: String,
        /// Its value.
        found: String,
        /// The allowed values.
        expected: String,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A file that is not a weight file of a known format, or that is damaged.
    #[error("{}: {found}; expected {expected}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// Parameters that do not match the network. Nothing was changed.
    #[error("{origin} does not fit model '{architecture}': {}", list(problems))]
    Mismatch {
        /// The file, or "parameters" for values from memory.
        origin: String,
        /// Name of the architecture.
        architecture: String,
        /// One line for every missing, unknown or misshapen parameter.
        problems: Vec<String>,
    },
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_path_buf(), source }
    }

    pub(crate) fn format(path: &Path, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Format { path: path.to_path_buf(), found: found.into(), expected: expected.into() }
    }
}

/// One problem stays on the line, several get a line each.
fn list(problems: &[String]) -> String {
    match problems {
        [one] => one.clone(),
        many => format!("{} problems{}", many.len(), many.iter().map(|p| format!("\n  {p}")).collect::<String>()),
    }
}

/// The result of everything here that can fail on user input.
pub type Result<T, E = Error> = std::result::Result<T, E>;
