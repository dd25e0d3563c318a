//! `report`: tables of a finished run.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use fireproof_report::{Format, Results, Table};

/// Make tables and the report of a finished run anew.
///
/// Markdown and LaTeX tables go to standard output; html writes report.html, results.csv and the curves into the folder.
#[derive(Debug, Args)]
pub struct Report {
    /// The folder of a run, with results.json
    dir: PathBuf,
    /// markdown, latex, csv or html
    #[arg(long, default_value = "markdown")]
    format: Format,
    /// Also a table of the IoU of each class
    #[arg(long)]
    per_class: bool,
}

impl Report {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        let mut out = std::io::stdout();
        if self.format == Format::Html {
            for file in fireproof_report::rewrite(&self.dir)? {
                writeln!(out, "{}", file.display())?;
            }
            return Ok(());
        }
        let results = Results::read(&self.dir.join(Results::FILE))?;
        let per_class = if self.per_class { Table::per_class(&results) } else { Vec::new() };
        for table in Table::miou(&results, true).iter().chain(&per_class) {
            writeln!(out, "{}", table.render(self.format))?;
        }
        Ok(())
    }
}
