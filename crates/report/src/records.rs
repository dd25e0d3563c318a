//! `records.jsonl`: one line per row and image, appended as it is made.
//!
//! The first line is a [`Header`] that says which run the records belong to; each other line is a [`Record`]. A line goes out
//! in one write, so whatever kills the process costs at most the line it was writing: a last line without its line break
//! is dropped on reading. Rows of `results.json` are sums over these lines, whichever process wrote them, in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fireproof_metrics::{Calibration, ClassCounts, SizeCounts, bootstrap, per_image, worst_case};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::layout::{same_model, same_threat};
use crate::{DiceScores, Minimal, Part, ReportError, Row, RowKey, Smallest, WorstCase, files};

/// The records file's name in a run's folder.
pub const RECORDS_FILE: &str = "records.jsonl";

/// Which run the records belong to. Records are added to a file only by a run whose header is equal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// fireproof's version: another one may compute another number.
    pub version: String,
    /// Every setting that a number depends on, by the name of its option.
    pub plan: BTreeMap<String, String>,
    /// SHA-256 of every weights file, by the name that the rows use.
    pub weights: BTreeMap<String, String>,
    /// The number of classes.
    pub classes: usize,
    /// The rows of the plan; records point into this list.
    pub rows: Vec<RowKey>,
    /// Which images are recorded here, where it is not all of them. The rest of the header is that of the whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

/// One image in one row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Index into [`Header::rows`].
    pub row: usize,
    /// The image's id in its data set.
    pub image: u64,
    /// The image's name.
    pub name: String,
    /// The volume that it is a slice of, by its position in the data set's split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<u64>,
    /// Its pixels, counted.
    pub counts: ClassCounts,
    /// Its pixels by the size of their objects, where that was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<SizeCounts>,
    /// Its pixels by the confidence of their prediction, where that was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// What each run of an ensemble did to it: for mIoU another run may be the worst than for the accuracy, by which the
    /// ensemble chose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
    /// The smallest perturbation that was found, by an attack that looks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimal: Option<Smallest>,
    /// How often it went forward through the model for this row.
    pub forward_passes: u64,
    /// How often its gradient was taken for this row.
    pub backward_passes: u64,
    /// Wall-clock time spent on it.
    pub seconds: f64,
    /// What happened on the way, when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
}

/// One run of an ensemble on one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// What the run maximised, for example `js`.
    pub name: String,
    /// The image's pixels, counted.
    pub counts: ClassCounts,
}

/// An attack's course on one image, one value per step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The objective at each iterate.
    pub loss: Vec<f32>,
    /// The share of valid pixels that is correct at each iterate, 0..=1.
    pub accuracy: Vec<f32>,
}

/// A header and its records, sorted by row and image.
#[derive(Debug, Clone, PartialEq)]
pub struct Records {
    /// The run they belong to.
    pub header: Header,
    records: BTreeMap<(usize, u64), Record>,
}

impl Records {
    /// No records yet.
    pub fn new(header: Header) -> Self {
        Self { header, records: BTreeMap::new() }
    }

    /// Reads a records file; an unfinished last line is dropped.
    ///
    /// # Errors
    /// When the file cannot be read, has no complete header, or a complete line is no record of its header.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let bytes = std::fs::read(path).map_err(ReportError::io(path, "read"))?;
        let missing = || ReportError::Invalid { path: path.to_owned(), message: "it has no complete header".into() };
        Ok(parse(path, &bytes)?.ok_or_else(missing)?.0)
    }

    /// What is recorded: `(row, image)`, for a run that continues.
    pub fn done(&self) -> BTreeSet<(usize, u64)> {
        self.records.keys().copied().collect()
    }

    /// The records of one row, by image id.
    pub fn of_row(&self, row: usize) -> impl Iterator<Item = &Record> {
        self.records.range((row, 0)..=(row, u64::MAX)).map(|(_, record)| record)
    }

    /// All records, by row and image.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// Adds one record; `path` is what an error names.
    ///
    /// # Errors
    /// When the record's row or class count is not the header's, or the image is there already.
    pub fn insert(&mut self, path: &Path, record: Record) -> Result<(), ReportError> {
        let invalid = |message| ReportError::Invalid { path: path.to_owned(), message };
        let rows = self.header.rows.len();
        let Some(key) = self.header.rows.get(record.row) else {
            return Err(invalid(format!("a record of row {}, expected a row below {rows}", record.row)));
        };
        if record.counts.classes() != self.header.classes {
            let (found, expected) = (record.counts.classes(), self.header.classes);
            return Err(invalid(format!("image {} has {found} classes, expected {expected}", record.image)));
        }
        if let Some(one) = record.candidates.iter().find(|one| one.counts.classes() != self.header.classes) {
            let (found, expected) = (one.counts.classes(), self.header.classes);
            return Err(invalid(format!(
                "image {} has {found} classes in run {}, expected {expected}",
                record.image, one.name
            )));
        }
        if let Some(found) =
            record.sizes.as_ref().map(SizeCounts::classes).filter(|&found| found != self.header.classes)
        {
            let expected = self.header.classes;
            return Err(invalid(format!("image {} has sizes of {found} classes, expected {expected}", record.image)));
        }
        let (row, image) = (record.row, record.image);
        if let Some(part) = self.header.part.as_ref().filter(|part| part.images.binary_search(&image).is_err()) {
            return Err(invalid(format!("image {image} does not belong to shard {}", part.shard)));
        }
        if self.records.contains_key(&(row, image)) {
            return Err(ReportError::Doubled { path: path.to_owned(), row, image, attack: key.attack.clone() });
        }
        self.records.insert((row, image), record);
        Ok(())
    }

    /// Adds the records of another part of the same run, read from `path`.
    ///
    /// # Errors
    /// [`ReportError::Mismatch`] when it is another run, [`ReportError::Doubled`] when an image is in both parts.
    pub fn merge(&mut self, path: &Path, other: Self) -> Result<(), ReportError> {
        refuse_other_run(path, &other.header, &self.header)?;
        other.records.into_values().try_for_each(|record| self.insert(path, record))
    }

    /// The rows of `results.json`, in the header's order: integer counts pooled over the images recorded so far. A row
    /// without any image is left out.
    ///
    /// Intervals are those of 95 % over 1000 bootstrap draws of as many images, seeded by the row's seed; a single image has
    /// none. Sizes and calibration are there when every image of the row has them.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = (0..self.header.rows.len()).filter_map(|row| self.row(row)).collect();
        let clean: Vec<Row> = rows.iter().filter(|row| row.is_clean()).cloned().collect();
        for row in rows.iter_mut().filter(|row| !row.is_clean()) {
            let clean = clean.iter().find(|clean| same_model(clean, row) && clean.images == row.images);
            row.iou_ratio = clean.and_then(|clean| per_image::ratio(row.miou, clean.miou));
        }
        rows
    }

    fn row(&self, row: usize) -> Option<Row> {
        let key = &self.header.rows[row];
        let images: Vec<ClassCounts> = self.of_row(row).map(|record| record.counts.clone()).collect();
        let mut counts = images.first()?.clone();
        for image in &images[1..] {
            counts.merge(image).expect("records have the header's class count");
        }
        let forward = self.of_row(row).map(|record| record.forward_passes).sum();
        let backward = self.of_row(row).map(|record| record.backward_passes).sum();
        let seconds = self.of_row(row).map(|record| record.seconds).sum();
        let sizes = pooled(self.of_row(row).map(|record| record.sizes.as_ref()), SizeCounts::merge);
        let calibration = pooled(self.of_row(row).map(|record| record.calibration.as_ref()), Calibration::merge);
        let smallest: Option<Vec<Smallest>> = self.of_row(row).map(|record| record.minimal).collect();
        let (several, seed) = (images.len() > 1, key.seed);
        let interval = |score: fn(&ClassCounts) -> Option<f64>| {
            several.then(|| bootstrap::interval(&images, score, RESAMPLES, CONFIDENCE, seed)).flatten()
        };
        Some(Row {
            image_accuracy: per_image::mean(&images, ClassCounts::pixel_accuracy),
            image_miou: per_image::mean(&images, ClassCounts::miou),
            pixel_accuracy_interval: interval(ClassCounts::pixel_accuracy),
            miou_interval: interval(ClassCounts::miou),
            size_miou: sizes.map(|sizes| sizes.miou()),
            dice: DiceScores::of(self.of_row(row).map(|record| (record.volume, &record.counts))),
            minimal: smallest.and_then(|smallest| Minimal::new(&smallest)),
            calibration_error: calibration.and_then(|bins| bins.expected_error()),
            ..Row::new(key, images.len() as u64, &counts, (forward, backward), seconds)
        })
    }

    /// The worst case over the attacks of each model and threat, `rows` being [`Self::rows`]: over the images that all of them
    /// have, where there are at least two of them or an ensemble of several runs. Attacks without a radius (images made
    /// elsewhere) stay out.
    pub fn worst_cases(&self, rows: &[Row]) -> Vec<WorstCase> {
        // Rows without images are missing in `rows`; the others keep their order.
        let recorded: Vec<usize> =
            (0..self.header.rows.len()).filter(|&row| self.of_row(row).next().is_some()).collect();
        let mut worst = Vec::new();
        let mut open: Vec<usize> =
            (0..rows.len()).filter(|&row| !rows[row].is_clean() && rows[row].epsilon.is_some()).collect();
        while let Some(&first) = open.first() {
            let joins = |row: &usize| {
                let (a, b) = (&rows[first], &rows[*row]);
                same_model(a, b) && same_threat(a, b) && a.seed == b.seed
            };
            let (group, rest): (Vec<usize>, Vec<usize>) = open.iter().partition(|row| joins(row));
            open = rest;
            let sources: Vec<usize> = group.iter().map(|&row| recorded[row]).collect();
            if group.len() > 1 || self.runs(sources[0]) > 0 {
                worst.extend(self.worst_case(&sources, group, rows));
            }
        }
        worst
    }

    /// How many runs each image of an ensemble's row has, at least; 0 for any other row.
    fn runs(&self, row: usize) -> usize {
        self.of_row(row).map(|record| record.candidates.len()).min().unwrap_or(0)
    }

    /// `sources` are indices into the header's rows, `group` the same rows as indices into `rows`.
    fn worst_case(&self, sources: &[usize], group: Vec<usize>, rows: &[Row]) -> Option<WorstCase> {
        let ids = |row: usize| self.of_row(row).map(|record| record.image).collect::<BTreeSet<u64>>();
        let common = sources.iter().map(|&row| ids(row)).reduce(|a, b| a.intersection(&b).copied().collect())?;
        let record = |row: usize, image: &u64| &self.records[&(row, *image)];
        // What an ensemble chose comes first, so that of equals it is named; its runs follow.
        let mut attacks: Vec<Vec<&ClassCounts>> = Vec::new();
        let mut owners = Vec::new();
        for (owner, &row) in sources.iter().enumerate() {
            attacks.push(common.iter().map(|image| &record(row, image).counts).collect());
            owners.push(owner);
            let runs = common.iter().map(|image| record(row, image).candidates.len()).min().unwrap_or(0);
            for run in 0..runs {
                attacks.push(common.iter().map(|image| &record(row, image).candidates[run].counts).collect());
                owners.push(owner);
            }
        }
        let seed = rows[group[0]].seed;
        // Labels that differ between two rows are another data set under the same name: no worst case is better than a wrong one.
        let pixels = worst_case::pixel_accuracy(&attacks).ok().flatten();
        let miou = worst_case::miou(&attacks, seed).ok().flatten()?;
        let chosen: Vec<ClassCounts> =
            miou.chosen.iter().enumerate().map(|(image, &attack)| attacks[attack][image].clone()).collect();
        let clean = rows
            .iter()
            .find(|row| row.is_clean() && same_model(row, &rows[group[0]]) && row.images == common.len() as u64);
        let worst_on = |attack: usize| {
            let images = pixels.iter().flat_map(|worst| &worst.chosen);
            images.filter(|&&chosen| owners[chosen] == attack).count() as u64
        };
        let several = chosen.len() > 1;
        let accuracies: Vec<f64> = pixels
            .iter()
            .flat_map(|worst| worst.chosen.iter().enumerate())
            .filter_map(|(image, &attack)| attacks[attack][image].pixel_accuracy())
            .collect();
        Some(WorstCase {
            images: common.len() as u64,
            image_accuracy: pixels.as_ref().map(|worst| worst.score),
            image_accuracy_interval: several
                .then(|| bootstrap::mean_interval(&accuracies, RESAMPLES, CONFIDENCE, seed))
                .flatten(),
            worst_on: (0..group.len()).map(worst_on).collect(),
            miou: Some(miou.score),
            miou_interval: several
                .then(|| bootstrap::interval(&chosen, ClassCounts::miou, RESAMPLES, CONFIDENCE, seed))
                .flatten(),
            iou_ratio: clean.and_then(|clean| per_image::ratio(Some(miou.score), clean.miou)),
            rows: group,
        })
    }
}

/// Draws of the bootstrap: enough for a 95 % interval whose ends move by a few hundredths of its width between seeds.
const RESAMPLES: usize = 1000;

/// What the intervals promise.
const CONFIDENCE: f64 = 0.95;

/// The sum, when every part is there and fits the others.
fn pooled<'a, T: Clone + 'a, E>(
    parts: impl Iterator<Item = Option<&'a T>>,
    merge: impl Fn(&mut T, &T) -> Result<(), E>,
) -> Option<T> {
    let mut sum: Option<T> = None;
    for part in parts {
        match (&mut sum, part?) {
            (Some(sum), part) => merge(sum, part).ok()?,
            (None, part) => sum = Some(part.clone()),
        }
    }
    sum
}

/// Appends records to a file that no other process may write to.
///
/// ```
/// use fireproof_metrics::ClassCounts;
/// use fireproof_report::{Header, RECORDS_FILE, Record, RecordWriter};
///
/// # fn example(header: Header, predict: impl Fn(&str) -> (Vec<u8>, Vec<u8>)) -> Result<(), Box<dyn std::error::Error>> {
/// let (mut writer, mut records) = RecordWriter::resume(&std::path::Path::new("out").join(RECORDS_FILE), &header)?;
/// for (image, name) in [(0, "a.png"), (1, "b.png")] {
///     if records.done().contains(&(0, image)) {
///         continue;
///     }
///     let (labels, prediction) = predict(name);
///     let counts = ClassCounts::count(header.classes, &labels, &prediction)?;
///     let name = name.to_owned();
///     let (volume, sizes, calibration, trace, candidates, minimal) = (None, None, None, None, Vec::new(), None);
///     let (forward_passes, backward_passes, seconds) = (1, 0, 0.1);
///     let record = Record {
///         row: 0, image, name, volume, counts, sizes, calibration, candidates, minimal, forward_passes, backward_passes, seconds,
///         trace,
///     };
///     writer.append(&record)?;
///     records.insert("records".as_ref(), record)?;
/// }
/// let rows = records.rows();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RecordWriter {
    path: PathBuf,
    file: File,
}

impl RecordWriter {
    /// Starts a new file.
    ///
    /// # Errors
    /// [`ReportError::Exists`] when a run's records are there already.
    pub fn create(path: &Path, header: &Header) -> Result<Self, ReportError> {
        if path.exists() {
            return Err(ReportError::Exists { path: path.to_owned() });
        }
        files::replace(path, &line(header))?;
        let mut file = open(path)?;
        file.seek(SeekFrom::End(0)).map_err(ReportError::io(path, "append to"))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Continues a file, or starts it where there is none. Gives what is recorded; an unfinished last line is cut off.
    ///
    /// # Errors
    /// [`ReportError::Mismatch`], naming the first differing field, when the file belongs to another run.
    pub fn resume(path: &Path, header: &Header) -> Result<(Self, Records), ReportError> {
        if !path.exists() {
            return Ok((Self::create(path, header)?, Records::new(header.clone())));
        }
        let mut file = open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(ReportError::io(path, "read"))?;
        let (records, end) = match parse(path, &bytes)? {
            Some((records, end)) => (records, end),
            None => {
                // The header never goes out in parts, but a full disk may have left an empty file.
                file.set_len(0).and_then(|()| file.rewind()).map_err(ReportError::io(path, "shorten"))?;
                file.write_all(&line(header)).map_err(ReportError::io(path, "append to"))?;
                return Ok((Self { path: path.to_owned(), file }, Records::new(header.clone())));
            }
        };
        refuse_other_run(path, &records.header, header)?;
        file.set_len(end as u64)
            .and_then(|()| file.seek(SeekFrom::Start(end as u64)))
            .map_err(ReportError::io(path, "shorten"))?;
        Ok((Self { path: path.to_owned(), file }, records))
    }

    /// Appends one line and hands it to the operating system before returning.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&mut self, record: &Record) -> Result<(), ReportError> {
        self.file.write_all(&line(record)).map_err(ReportError::io(&self.path, "append to"))
    }
}

fn open(path: &Path) -> Result<File, ReportError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(ReportError::io(path, "open"))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(ReportError::Busy { path: path.to_owned() }),
        // Some network file systems have no locks; one writer is then the user's care.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("plain data has a JSON form");
    line.push(b'\n');
    line
}

/// The records, and the length of the complete lines; `None` when not even the header is complete.
fn parse(path: &Path, bytes: &[u8]) -> Result<Option<(Records, usize)>, ReportError> {
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    let mut lines = bytes[..end].split_inclusive(|&byte| byte == b'\n').enumerate();
    let Some((_, first)) = lines.next() else { return Ok(None) };
    let failed = |index: usize| {
        move |error: serde_json::Error| ReportError::Parse {
            path: path.to_owned(),
            line: index + 1,
            message: error.to_string(),
        }
    };
    let mut records = Records::new(serde_json::from_slice(first).map_err(failed(0))?);
    for (index, line) in lines {
        records.insert(path, serde_json::from_slice(line).map_err(failed(index))?)?;
    }
    Ok(Some((records, end)))
}

/// The file's text: what a run that wrote its records in order would have left.
pub(crate) fn to_lines(records: &Records) -> Vec<u8> {
    let lines = records.iter().map(line);
    std::iter::once(line(&records.header)).chain(lines).flatten().collect()
}

fn refuse_other_run(path: &Path, found: &Header, expected: &Header) -> Result<(), ReportError> {
    let shard = |header: &Header| header.part.as_ref().map_or("all images".to_owned(), |part| part.shard.to_string());
    let shards = (shard(found), shard(expected));
    // Before anything else: the lists of images differ too, and say less.
    let difference = match shards.0 != shards.1 {
        true => Some(("shard".to_owned(), shards.0, shards.1)),
        false => difference(found, expected),
    };
    match difference {
        None => Ok(()),
        Some((field, found, expected)) => Err(ReportError::Mismatch { path: path.to_owned(), field, found, expected }),
    }
}

/// The first field in which two values differ, and what stands there.
pub(crate) fn difference<T: Serialize>(found: &T, expected: &T) -> Option<(String, String, String)> {
    let value = |plain| serde_json::to_value(plain).expect("plain data has a JSON form");
    first_difference(String::new(), &value(found), &value(expected))
}

/// The first place where two values differ, and what stands there.
fn first_difference(place: String, found: &Value, expected: &Value) -> Option<(String, String, String)> {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            let names: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
            let separator = if place.is_empty() { "" } else { "." };
            names.into_iter().find_map(|name| {
                let place = format!("{place}{separator}{name}");
                match (found.get(name), expected.get(name)) {
                    (Some(found), Some(expected)) => first_difference(place, found, expected),
                    (found, expected) => {
                        let show = |value: Option<&Value>| value.map_or("missing".to_owned(), Value::to_string);
                        Some((place, show(found), show(expected)))
                    }
                }
            })
        }
        (Value::Array(found), Value::Array(expected)) => {
            let pairs = found.iter().zip(expected).enumerate();
            let inside = pairs
                .into_iter()
                .find_map(|(index, (found, expected))| first_difference(format!("{place}[{index}]"), found, expected));
            let lengths = (found.len() != expected.len())
                .then(|| (format!("the length of {place}"), found.len().to_string(), expected.len().to_string()));
            inside.or(lengths)
        }
        _ => (found != expected).then(|| (place, found.to_string(), expected.to_string())),
    }
}
