use std::path::{Path, PathBuf};

use crate::Shard;

/// What can be wrong with the files of a run, or with the pictures handed in.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file that is not what its name says.
    #[error("{}, line {line}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What was found there.
        message: String,
    },
    /// A file that parses but contradicts itself.
    #[error("{}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        message: String,
    },
    /// A folder made by another run.
    #[error("{}: made by another run: {field} is {found} there, but {expected} now", path.display())]
    Mismatch {
        /// The records file.
        path: PathBuf,
        /// The first field that differs, for example `plan.steps` or `rows[3].epsilon`.
        field: String,
        /// Its value in the file.
        found: String,
        /// Its value in this run.
        expected: String,
    },
    /// The folder holds a run already.
    #[error("{}: holds the records of a run; continue it with --resume or choose another folder", path.display())]
    Exists {
        /// The records file.
        path: PathBuf,
    },
    /// Two processes write the same records.
    #[error("{}: another process is writing to it", path.display())]
    Busy {
        /// The records file.
        path: PathBuf,
    },
    /// The same image counted twice in one row.
    #[error("{}: image {image} is recorded twice for row {row} ({attack})", path.display())]
    Doubled {
        /// The records file.
        path: PathBuf,
        /// Index into the header's rows.
        row: usize,
        /// The image's id.
        image: u64,
        /// The row's attack.
        attack: String,
    },
    /// A shard that cannot be, or that nobody can tell.
    #[error("--shard: found {found}, expected {expected}")]
    Shard {
        /// What was given or found in the environment.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// A folder to merge that holds a whole run.
    #[error("{}: holds a whole run, expected a shard of one (bench --shard i/n)", path.display())]
    NotAShard {
        /// The records file.
        path: PathBuf,
    },
    /// Shards that were cut from different runs.
    #[error("{}: a shard of another run: {field} is {found} there, but {expected} in {}", path.display(), first.display())]
    OtherRun {
        /// The file that differs.
        path: PathBuf,
        /// The first field that differs, for example `plan.steps`.
        field: String,
        /// Its value there.
        found: String,
        /// The file that it is compared with.
        first: PathBuf,
        /// The value there.
        expected: String,
    },
    /// The same shard in two folders.
    #[error("shard {shard} is there twice: {} and {}", first.display(), second.display())]
    DoubledShard {
        /// Which one.
        shard: Shard,
        /// One records file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Shards that no folder holds.
    #[error("missing: {}", missing.iter().map(|index| format!("shard {index}/{of}")).collect::<Vec<_>>().join(", "))]
    MissingShards {
        /// Their numbers, from 1.
        missing: Vec<u32>,
        /// How many there should be.
        of: u32,
    },
    /// A shard whose run did not come to its end.
    #[error(
        "{}: shard {shard} is not finished: {missing} records are missing, the first that of image {image} in row {row} \
         ({attack}); go on with bench --resume",
        path.display()
    )]
    Unfinished {
        /// The records file.
        path: PathBuf,
        /// Which shard.
        shard: Shard,
        /// How many records are missing.
        missing: usize,
        /// The first missing image's id.
        image: u64,
        /// Its row, an index into the header's rows.
        row: usize,
        /// That row's attack.
        attack: String,
    },
    /// A picture whose size does not fit its companions.
    #[error("panel {panel}: {what} has {found} values, expected {expected}")]
    Picture {
        /// The panel's caption.
        panel: String,
        /// Which picture.
        what: &'static str,
        /// Its length.
        found: usize,
        /// What height, width and channels ask for.
        expected: usize,
    },
    /// Drawing or encoding failed.
    #[error("cannot draw {what}: {message}")]
    Draw {
        /// The figure.
        what: String,
        /// The reason.
        message: String,
    },
}

impl ReportError {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), action, source }
    }
}
