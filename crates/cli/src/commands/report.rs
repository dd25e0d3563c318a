//! `report`: tables of a finished run.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use fireproof_report::{Format, Results, Table, merge, seeds};

/// Make tables and the report of a finished run anew, or merge the shards of one.
///
/// Several folders are the shards of a run (`bench --shard`); --out gets what one run over all images would have left.
/// Markdown and LaTeX tables go to standard output; html writes report.html, results.csv and the curves into the folder.
#[derive(Debug, Args)]
pub struct Report {
    /// The folder of a run, with results.json; or those of all its shards
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Where the merged run goes
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// markdown, latex, csv or html
    #[arg(long, default_value = "markdown")]
    format: Format,
    /// Also a table of all scores: intervals over images, scores per image and per size of objects, and the worst case
    #[arg(long)]
    scores: bool,
    /// Also a table of the IoU of each class
    #[arg(long)]
    per_class: bool,
}

impl Report {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        let mut out = std::io::stdout();
        let dir = match (&self.dirs[..], &self.out) {
            ([dir], None) => dir,
            (dirs, Some(merged)) => {
                for file in merge::merge_into(dirs, merged)? {
                    eprintln!("{}", file.display());
                }
                merged
            }
            (dirs, None) => bail!("--out: found none, expected a folder for the run merged of {} shards", dirs.len()),
        };
        if self.format == Format::Html {
            for file in fireproof_report::rewrite(dir)? {
                writeln!(out, "{}", file.display())?;
            }
            return Ok(());
        }
        let results = Results::read(&dir.join(Results::FILE))?;
        let per_class = if self.per_class { Table::per_class(&results) } else { Vec::new() };
        let scores =
            if self.scores { [Table::scores(&results), Table::worst_cases(&results)].concat() } else { Vec::new() };
        let seeds = seeds::table(&seeds::spread(&results.rows));
        for table in Table::miou(&results, true).iter().chain(&per_class).chain(&scores).chain(&seeds) {
            writeln!(out, "{}", table.render(self.format))?;
        }
        Ok(())
    }
}
