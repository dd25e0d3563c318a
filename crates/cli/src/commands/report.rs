//! `report`: tables of a finished run.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use fireproof_report::{Format, Results, Table, corruptions, merge, minimal, seeds};

/// Make tables and the report of a finished run anew, merge the shards of one, or compare runs that differ in their seed.
///
/// Several folders with --out are the shards of a run (`bench --shard`); --out gets what one run over all images would have
/// left. Without --out they are runs of different seeds (`bench --seed`), and the table is the spread over them.
/// Markdown and LaTeX tables go to standard output; html writes report.html, results.csv and the curves into the folder.
#[derive(Debug, Args)]
pub struct Report {
    /// The folder of a run, with results.json; or those of all its shards, or of runs with different seeds
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
            (dirs, None) => return self.seeds(dirs),
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
        let further: Vec<Table> = minimal::table(&results).into_iter().chain(corruptions::tables(&results)).collect();
        for table in Table::miou(&results, true)
            .iter()
            .chain(&Table::dice(&results))
            .chain(&further)
            .chain(&per_class)
            .chain(&scores)
            .chain(&seeds)
        {
            writeln!(out, "{}", table.render(self.format))?;
        }
        Ok(())
    }

    /// The spread over the seeds of several runs.
    fn seeds(&self, dirs: &[PathBuf]) -> Result<()> {
        ensure!(self.format != Format::Html, "--format: found html, expected markdown, latex or csv for several runs");
        let runs = dirs.iter().map(|dir| Results::read(&dir.join(Results::FILE)));
        let runs = runs.collect::<std::result::Result<Vec<_>, _>>()?;
        let spread = seeds::table(&seeds::spread(runs.iter().flat_map(|run| &run.rows)));
        let table = spread.context(
            "found no attack with two seeds in these folders, expected runs that differ in --seed alone (or --out DIR, to \
             merge the shards of one run)",
        )?;
        Ok(writeln!(std::io::stdout(), "{}", table.render(self.format))?)
    }
}
