//! What a user can get wrong.

use std::path::{Path, PathBuf};

/// The result of everything that reads data.
pub type Result<T> = std::result::Result<T, Error>;

/// An error about a data set; the message names the file or argument, what was found and what was expected.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No data set of that name is embedded and no such file exists.
    #[error("data set `{name}`: found no manifest of that name, expected one of {} or the path of a .toml file", known.join(", "))]
    UnknownDataset {
        /// The name that was asked for.
        name: String,
        /// The embedded names.
        known: Vec<String>,
    },
    /// The data set needs a folder and was given none.
    #[error("data set `{name}`: found no root folder, expected `--root DIR` with {layout}")]
    RootMissing {
        /// The data set.
        name: String,
        /// What the folder must hold.
        layout: String,
    },
    /// The manifest has no such split.
    #[error("data set `{name}`: found no split `{split}`, expected one of {}", known.join(", "))]
    UnknownSplit {
        /// The data set.
        name: String,
        /// The split that was asked for.
        split: String,
        /// The splits that there are.
        known: Vec<String>,
    },
    /// The split is there and has no samples.
    #[error("data set `{name}`, split `{split}`: found no samples in {source_of_names}, expected at least one")]
    EmptySplit {
        /// The data set.
        name: String,
        /// The split.
        split: String,
        /// The list file or folder that was read.
        source_of_names: String,
    },
    /// An argument is out of its range.
    #[error("{argument}: found {found}, expected {expected}")]
    Argument {
        /// The argument.
        argument: String,
        /// What it was.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// A file's content, shape or place is not what it must be.
    #[error("{}: found {found}, expected {expected}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// Several things are wrong with one file; all are listed.
    #[error("{}: {} problems\n  {}", file.display(), problems.len(), problems.join("\n  "))]
    Problems {
        /// The file.
        file: PathBuf,
        /// One line each.
        problems: Vec<String>,
    },
    /// A loader's worker panicked on a sample; the panic is a bug, not bad input.
    #[error("sample {id} (`{name}`): a worker panicked: {message}")]
    Panicked {
        /// The sample's id.
        id: u64,
        /// The sample's name.
        name: String,
        /// The panic's message.
        message: String,
    },
}

impl Error {
    /// A [`Error::File`] about `file`.
    pub fn file(file: impl AsRef<Path>, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::File { file: file.as_ref().to_path_buf(), found: found.into(), expected: expected.into() }
    }

    /// A [`Error::Argument`] about `argument`.
    pub fn argument(argument: impl Into<String>, found: impl ToString, expected: impl Into<String>) -> Self {
        Self::Argument { argument: argument.into(), found: found.to_string(), expected: expected.into() }
    }
}
