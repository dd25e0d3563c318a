//! Several shards, one run.
//!
//! Records hold integers per image, so the merged rows are exactly those of one run over all images; only the seconds are
//! sums of other measurements. What does not fit is refused and named: shards of different runs, a shard that is missing, there
//! twice or not finished, an image in two of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::panels::CAPTION;
use crate::plots::Figure;
use crate::records::{difference, to_lines};
use crate::{
    CHECKS_FILE, Check, Part, RECORDS_FILE, Records, ReportError, Results, Run, Status, files, measured, output, sanity,
};

/// A run put together from its shards.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// The records of all images; the header is that of a run without shards.
    pub records: Records,
    /// What such a run would have found.
    pub results: Results,
    /// The shards' sheets of panels.
    pub panels: Vec<Figure>,
}

/// Reads the folders of all shards of one run, in any order.
///
/// A run's facts are the same in all shards, but for device, machine and command, which are joined. A sanity check counts as
/// failed if any shard failed it, as passed if all passed it; those that follow from the rows, and those that one shard measured
/// for all, are made again from the merged rows and measurements.
///
/// # Errors
/// [`ReportError::NotAShard`], [`ReportError::OtherRun`], [`ReportError::DoubledShard`], [`ReportError::MissingShards`],
/// [`ReportError::Unfinished`], [`ReportError::Doubled`], and when a file cannot be read.
pub fn merge(folders: &[PathBuf]) -> Result<Merged, ReportError> {
    let mut shards = Vec::new();
    for folder in folders {
        shards.push(Source::open(folder)?);
    }
    // By shard, so that the result does not depend on the order in which the folders were named.
    shards.sort_by_key(|source| (source.part.shard, source.path.clone()));
    let Some(first) = shards.first() else {
        return Err(ReportError::Shard { found: "no folder".into(), expected: "the folders of all shards".into() });
    };
    for other in &shards[1..] {
        same_run(other, first)?;
    }
    for pair in shards.windows(2) {
        if pair[0].part.shard == pair[1].part.shard {
            let [first, second] = [&pair[0], &pair[1]].map(|source| source.path.clone());
            return Err(ReportError::DoubledShard { shard: pair[0].part.shard, first, second });
        }
    }
    let of = first.part.shard.of();
    let there: BTreeSet<u32> = shards.iter().map(|source| source.part.shard.index()).collect();
    let missing: Vec<u32> = (1..=of).filter(|index| !there.contains(index)).collect();
    if !missing.is_empty() {
        return Err(ReportError::MissingShards { missing, of });
    }
    shards.iter().try_for_each(finished)?;
    let ids: Vec<u64> = shards.iter().flat_map(|source| source.part.images.iter().copied()).collect();
    let mut header = first.records.header.clone();
    header.part = None;
    let mut records = Records::new(header);
    for source in &shards {
        if Part::new(source.part.shard, &ids) != source.part {
            let message = format!("its images are not those of shard {} of the run", source.part.shard);
            return Err(ReportError::Invalid { path: source.path.clone(), message });
        }
        source.records.iter().try_for_each(|record| records.insert(&source.path, record.clone()))?;
    }
    let mut runs = Vec::new();
    let mut panels = Vec::new();
    for (source, folder) in shards.iter().map(|source| (source, &source.folder)) {
        let run = Results::read(&folder.join(Results::FILE))?.run;
        runs.push((source.path.with_file_name(Results::FILE), run));
        panels.extend(output::panels_in(folder)?);
    }
    let count = panels.len();
    for (index, panel) in panels.iter_mut().enumerate() {
        panel.file = output::sheet_name(index, count);
        panel.caption = CAPTION.to_owned();
    }
    let mut results = Results::from_records(joined(&runs)?, &records);
    let measured = |check: &Check| {
        let mut all = results.run.measured.iter().flat_map(|one| &one.checks);
        all.any(|one| one.name == check.name)
    };
    let again: Vec<Check> = sanity::judge(&results.rows, &results.run.measured)
        .into_iter()
        .filter(|check| sanity::follows_from_rows(check) || measured(check))
        .collect();
    for check in again {
        if let Some(known) = results.run.sanity.iter_mut().find(|known| known.name == check.name) {
            *known = check;
        }
    }
    Ok(Merged { records, results, panels })
}

/// Merges `folders` into `out`: records, results, tables, curves and the report. Gives the files written.
///
/// # Errors
/// As [`merge`]; [`ReportError::Exists`] when `out` holds records already.
pub fn merge_into(folders: &[PathBuf], out: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let path = out.join(RECORDS_FILE);
    if path.exists() {
        return Err(ReportError::Exists { path });
    }
    let merged = merge(folders)?;
    let mut written = output::write_figures(out, &merged.results, merged.panels)?;
    if !merged.results.run.measured.is_empty() {
        let checks = out.join(CHECKS_FILE);
        files::replace(&checks, &merged.results.run.measured.iter().flat_map(measured::line).collect::<Vec<u8>>())?;
        written.push(checks);
    }
    // Last: with records in it the folder counts as a finished run.
    files::replace(&path, &to_lines(&merged.records))?;
    written.push(path);
    Ok(written)
}

/// A shard's records and where they come from.
struct Source {
    folder: PathBuf,
    path: PathBuf,
    part: Part,
    records: Records,
}

impl Source {
    fn open(folder: &Path) -> Result<Self, ReportError> {
        let path = folder.join(RECORDS_FILE);
        let records = Records::read(&path)?;
        match records.header.part.clone() {
            Some(part) => Ok(Self { folder: folder.to_owned(), path, part, records }),
            None => Err(ReportError::NotAShard { path }),
        }
    }
}

/// Refuses headers that differ in more than the shard's number and images.
fn same_run(other: &Source, first: &Source) -> Result<(), ReportError> {
    let different = |(field, found, expected)| {
        Err(ReportError::OtherRun { path: other.path.clone(), field, found, first: first.path.clone(), expected })
    };
    let (found, expected) = (other.part.shard.of(), first.part.shard.of());
    if found != expected {
        return different(("the number of shards".into(), found.to_string(), expected.to_string()));
    }
    let whole = |source: &Source| {
        let mut header = source.records.header.clone();
        header.part = None;
        header
    };
    difference(&whole(other), &whole(first)).map_or(Ok(()), different)
}

/// Refuses a shard that lacks an image in some row.
fn finished(source: &Source) -> Result<(), ReportError> {
    let done = source.records.done();
    let rows = &source.records.header.rows;
    let all = (0..rows.len()).flat_map(|row| source.part.images.iter().map(move |&image| (row, image)));
    let missing: Vec<(usize, u64)> = all.filter(|key| !done.contains(key)).collect();
    let Some(&(row, image)) = missing.first() else { return Ok(()) };
    Err(ReportError::Unfinished {
        path: source.path.clone(),
        shard: source.part.shard,
        missing: missing.len(),
        image,
        row,
        attack: rows[row].attack.clone(),
    })
}

/// The facts of the whole run.
fn joined(runs: &[(PathBuf, Run)]) -> Result<Run, ReportError> {
    let (first_path, first) = &runs[0];
    let facts = |run: &Run| Run {
        command: String::new(),
        device: String::new(),
        machine: String::new(),
        sanity: Vec::new(),
        measured: Vec::new(),
        not_run: Vec::new(),
        ..run.clone()
    };
    for (path, run) in &runs[1..] {
        if let Some((field, found, expected)) = difference(&facts(run), &facts(first)) {
            let (path, first, field) = (path.clone(), first_path.clone(), format!("run.{field}"));
            return Err(ReportError::OtherRun { path, field, found, first, expected });
        }
    }
    let distinct = |text: &dyn Fn(&Run) -> String, separator: &str| {
        let mut all: Vec<String> = Vec::new();
        for text in runs.iter().map(|(_, run)| text(run)) {
            if !all.contains(&text) {
                all.push(text);
            }
        }
        all.join(separator)
    };
    let mut not_run: Vec<String> = Vec::new();
    for sentence in runs.iter().flat_map(|(_, run)| &run.not_run) {
        if !not_run.contains(sentence) {
            not_run.push(sentence.clone());
        }
    }
    Ok(Run {
        command: distinct(&|run| without_shard(&run.command), "; "),
        device: distinct(&|run| run.device.clone(), ", "),
        machine: distinct(&|run| run.machine.clone(), "; "),
        sanity: joined_checks(runs),
        measured: runs.iter().flat_map(|(_, run)| run.measured.iter().cloned()).collect(),
        not_run,
        ..first.clone()
    })
}

/// A command line without `--shard` and `--of`: what would have made the whole run.
fn without_shard(command: &str) -> String {
    let mut words = command.split(' ');
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if ["--shard", "--of"].contains(&word) {
            words.next();
        } else if !["--shard=", "--of="].iter().any(|option| word.starts_with(option)) {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// Failed if any failed, passed if all passed; in the order of their first appearance.
fn joined_checks(runs: &[(PathBuf, Run)]) -> Vec<Check> {
    let mut order: Vec<&str> = Vec::new();
    let mut found: BTreeMap<&str, Vec<&Check>> = BTreeMap::new();
    for check in runs.iter().flat_map(|(_, run)| &run.sanity) {
        let checks = found.entry(check.name.as_str()).or_default();
        if checks.is_empty() {
            order.push(&check.name);
        }
        checks.push(check);
    }
    let worst = |checks: &[&Check]| {
        [Status::Failed, Status::NotRun]
            .into_iter()
            .find(|status| checks.iter().any(|check| check.status == *status))
            .unwrap_or(if checks.len() == runs.len() { Status::Passed } else { Status::NotRun })
    };
    let join = |name: &str| {
        let checks = &found[name];
        let status = worst(checks);
        let mut details: Vec<&str> = Vec::new();
        for check in checks.iter().filter(|check| check.status == status) {
            if !details.contains(&check.detail.as_str()) {
                details.push(&check.detail);
            }
        }
        Check { name: name.to_owned(), status, detail: details.join(" ") }
    };
    order.into_iter().map(join).collect()
}
