//! `data`: which data sets there are, and whether one that lies on disk is whole.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use fireproof_datasets::{Manifest, Options, Split, check, open_manifest, verify};
use serde_json::json;

/// List the data sets, or check one that lies on disk.
#[derive(Debug, Subcommand)]
pub enum Data {
    /// The data sets that have a manifest in this binary
    List(List),
    /// Read every sample and report all that is wrong
    Check(Check),
}

/// The data sets that have a manifest in this binary, with origin and licence.
#[derive(Debug, Args)]
pub struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Read every sample of a data set: files that are missing, cut off or of the wrong kind, images and masks of different
/// size, labels outside the class list. Prints sizes, class shares and everything that is wrong.
#[derive(Debug, Args)]
pub struct Check {
    /// A data set by name, or the path of a manifest of your own
    name: String,
    /// Its folder
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Only this split; repeat it for several [default: all]
    #[arg(long)]
    split: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Data {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        match self {
            Self::List(command) => command.run(),
            Self::Check(command) => command.run(),
        }
    }
}

impl List {
    fn run(&self) -> Result<()> {
        let mut out = std::io::stdout();
        for manifest in fireproof_datasets::list() {
            let splits: Vec<&String> = manifest.splits.keys().collect();
            if self.json {
                let line = json!({
                    "name": manifest.name, "title": manifest.title, "origin": manifest.origin, "licence": manifest.licence,
                    "channels": manifest.channels, "splits": splits,
                    "classes": manifest.classes.iter().map(|class| &class.name).collect::<Vec<_>>(),
                });
                writeln!(out, "{line}")?;
            } else {
                let splits: Vec<&str> = splits.into_iter().map(String::as_str).collect();
                writeln!(out, "{}: {}", manifest.name, manifest.title)?;
                writeln!(out, "    {} classes; splits {}", manifest.classes.len(), splits.join(", "))?;
                writeln!(out, "    {}; {}", manifest.licence, manifest.origin)?;
            }
        }
        Ok(())
    }
}

impl Check {
    fn run(&self) -> Result<()> {
        let manifest = Manifest::find(&self.name)?;
        let own = Manifest::folder_beside(&self.name);
        let root = self.root.as_deref().or(own.as_deref());
        let splits: Vec<String> =
            if self.split.is_empty() { manifest.splits.keys().cloned().collect() } else { self.split.clone() };
        let mut out = std::io::stdout();
        let mut problems = 0;
        for split in splits {
            let Ok(split) = split.parse::<Split>();
            let dataset = match open_manifest(&manifest, root, split.clone(), Options::default()) {
                Ok(dataset) => dataset,
                // Without the folder there is nothing to check; a split that cannot be opened leaves the others.
                Err(error) if root.is_none_or(|root| !root.is_dir()) => return Err(error.into()),
                Err(error) => {
                    problems += 1;
                    if self.json {
                        writeln!(out, "{}", json!({ "split": split.to_string(), "error": error.to_string() }))?;
                    } else {
                        writeln!(out, "{split}: {error}")?;
                    }
                    continue;
                }
            };
            let report = check(dataset.as_ref());
            problems += report.problems.len();
            if self.json {
                writeln!(out, "{}", serde_json::to_string(&report)?)?;
            } else {
                write!(out, "{report}")?;
            }
        }
        if let Some(root) = root {
            for error in verify(&manifest, root)? {
                problems += 1;
                if self.json {
                    writeln!(out, "{}", json!({ "checksum": error.to_string() }))?;
                } else {
                    writeln!(out, "{error}")?;
                }
            }
        }
        match problems {
            0 => Ok(()),
            1 => bail!("data set {}: 1 problem, listed above", manifest.name),
            count => bail!("data set {}: {count} problems, listed above", manifest.name),
        }
    }
}
