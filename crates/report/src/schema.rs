//! `results.json`: what a run found, for programs.

use std::collections::BTreeMap;
use std::path::Path;

use fireproof_metrics::{ClassCounts, Interval};
use serde::{Deserialize, Serialize};

use crate::{DiceScores, Minimal, Records, ReportError, files};

/// The whole file. Between two equal runs only the rows' `seconds` differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`Results::SCHEMA`].
    pub schema: u32,
    /// What was run, on what.
    pub run: Run,
    /// One row per model and attack, in the order of the plan.
    pub rows: Vec<Row>,
    /// What is left of each model under each threat when the attacker picks the attack per image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub worst_cases: Vec<WorstCase>,
}

/// The worst case over the attacks of one model and threat. Scores are fractions in 0..=1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorstCase {
    /// The attacks, as indices into [`Results::rows`]. Of an ensemble, every run of its own counts.
    pub rows: Vec<usize>,
    /// How many images all of them were run on.
    pub images: u64,
    /// Mean over images of the smallest pixel accuracy that any of the attacks reached on the image.
    pub image_accuracy: Option<f64>,
    /// Its 95 % bootstrap interval over images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_accuracy_interval: Option<Interval>,
    /// On how many images each of [`Self::rows`] was the one that reached it; of equals the first.
    pub worst_on: Vec<u64>,
    /// Pooled mIoU of the greedy assignment of attacks to images.
    pub miou: Option<f64>,
    /// Its 95 % bootstrap interval over images, the assignment held fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub miou_interval: Option<Interval>,
    /// `miou` over that of the clean images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iou_ratio: Option<f64>,
}

/// Facts that hold for all rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// fireproof's version.
    pub version: String,
    /// The commit it was built from, or `unknown`.
    pub commit: String,
    /// The command line.
    pub command: String,
    /// The device, or several joined by commas.
    pub device: String,
    /// Processor, cores, memory.
    pub machine: String,
    /// The seed that all randomness derives from.
    pub seed: u64,
    /// What ε counts: `pixel` or `normalised`.
    pub unit: String,
    /// Smallest and largest valid value, in pixels; adversarial images stay within. In normalised units each case has a
    /// range of its own: these two less the case's mean, over its standard deviation.
    pub range: [f64; 2],
    /// SHA-256 of every weights file, by the name that the rows use.
    pub weights: BTreeMap<String, String>,
    /// The data's classes, in the order of `per_class_iou`.
    pub classes: Vec<Class>,
    /// The sanity checks of the protocol, one verdict each.
    #[serde(default)]
    pub sanity: Vec<Check>,
    /// What the checks with runs of their own found, model by model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<Measured>,
    /// What a complete evaluation would hold and this one does not, one sentence each.
    #[serde(default)]
    pub not_run: Vec<String>,
}

/// A class of the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Its colour in pictures, RGB.
    pub color: [u8; 3],
}

/// One sanity check: would the numbers betray a broken attack or a model that masks its gradients?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked, in a few words.
    pub name: String,
    /// How it went.
    pub status: Status,
    /// The numbers behind it, or why it was not run.
    pub detail: String,
}

/// The checks of one model on one device that took runs of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// See [`RowKey::model`].
    pub model: String,
    /// See [`RowKey::training`].
    pub training: String,
    /// See [`RowKey::weights`].
    pub weights: String,
    /// See [`RowKey::device`].
    pub device: String,
    /// See [`RowKey::precision`].
    #[serde(default = "single")]
    pub precision: String,
    /// What was found.
    pub checks: Vec<Check>,
}

fn single() -> String {
    "f32".into()
}

/// The outcome of a [`Check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As expected.
    Passed,
    /// Not as expected: do not trust the numbers.
    Failed,
    /// Not looked at.
    #[serde(rename = "not run")]
    NotRun,
}

impl Status {
    /// As in the file: `passed`, `failed`, `not run`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::NotRun => "not run",
        }
    }
}

/// All that tells one row from another: the victim, the data, the attack and how it was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowKey {
    /// The network, for example `unet`.
    pub model: String,
    /// How it was trained, for example `segpgd3-at`.
    pub training: String,
    /// The weights file's name.
    pub weights: String,
    /// The data set.
    pub dataset: String,
    /// Its split.
    pub split: String,
    /// The device.
    pub device: String,
    /// The floating-point type, for example `f32`.
    pub precision: String,
    /// The attack's name on the command line; `none` for clean images.
    pub attack: String,
    /// `linf` or `l2`; absent when not attacked.
    pub norm: Option<String>,
    /// The ball's radius in [`Run::unit`]; absent when not attacked.
    pub epsilon: Option<f64>,
    /// The step size; absent when the attack has none.
    pub alpha: Option<f64>,
    /// Iterations after which the row is read; 0 when not attacked.
    pub steps: u32,
    /// Independent starts; 0 when not attacked.
    pub restarts: u32,
    /// Which iterate is scored, `last`, `best-accuracy` or `best-loss`; absent when not attacked.
    pub iterate: Option<String>,
    /// Where the attack starts, `zero` or `random`; absent when not attacked.
    pub start: Option<String>,
    /// Whether the attack aims at given labels.
    pub targeted: bool,
    /// The seed of this row.
    pub seed: u64,
    /// What only this attack has, by name, where it is not the attack's default: `objective`, `radii`, ….
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// One line of the results. Scores are fractions in 0..=1, `null` where nothing was there to score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// See [`RowKey::model`].
    pub model: String,
    /// See [`RowKey::training`].
    pub training: String,
    /// See [`RowKey::weights`].
    pub weights: String,
    /// See [`RowKey::dataset`].
    pub dataset: String,
    /// See [`RowKey::split`].
    pub split: String,
    /// How many images were scored.
    pub images: u64,
    /// See [`RowKey::device`].
    pub device: String,
    /// See [`RowKey::precision`].
    pub precision: String,
    /// See [`RowKey::attack`].
    pub attack: String,
    /// See [`RowKey::norm`].
    pub norm: Option<String>,
    /// See [`RowKey::epsilon`].
    pub epsilon: Option<f64>,
    /// See [`RowKey::alpha`].
    pub alpha: Option<f64>,
    /// See [`RowKey::steps`].
    pub steps: u32,
    /// See [`RowKey::restarts`].
    pub restarts: u32,
    /// See [`RowKey::iterate`].
    pub iterate: Option<String>,
    /// See [`RowKey::start`].
    pub start: Option<String>,
    /// See [`RowKey::targeted`].
    pub targeted: bool,
    /// See [`RowKey::seed`].
    pub seed: u64,
    /// See [`RowKey::options`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Mean IoU of the pooled counts, over the classes that occur.
    pub miou: Option<f64>,
    /// Mean class accuracy of the pooled counts.
    pub mean_accuracy: Option<f64>,
    /// Share of all valid pixels that is correct.
    pub pixel_accuracy: Option<f64>,
    /// One value per class of [`Run::classes`].
    pub per_class_iou: Vec<Option<f64>>,
    /// Mean over images of their pixel accuracy: every image counts the same, however large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_accuracy: Option<f64>,
    /// Mean over images of their mIoU over the classes that occur in the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_miou: Option<f64>,
    /// `miou` over that of the same model on the same clean images; absent for clean rows. Above 1 where the attack helped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iou_ratio: Option<f64>,
    /// 95 % bootstrap interval of `pixel_accuracy` over images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_accuracy_interval: Option<Interval>,
    /// 95 % bootstrap interval of `miou` over images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub miou_interval: Option<Interval>,
    /// Mean IoU of small, medium and large objects, see [`fireproof_metrics::sizes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_miou: Option<[Option<f64>; 3]>,
    /// Dice per slice, per volume and pooled, where the images are slices of volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dice: Option<DiceScores>,
    /// Expected calibration error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_error: Option<f64>,
    /// The smallest perturbations, of an attack that looks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimal: Option<Minimal>,
    /// Images sent forward through the model, over the whole row: a batch of 8 counts 8.
    pub forward_passes: u64,
    /// Images whose gradient was taken, over the whole row.
    pub backward_passes: u64,
    /// Wall-clock time; the only value that differs between equal runs.
    pub seconds: f64,
}

impl Row {
    /// A row from pooled counts; what needs single images ([`Row::image_accuracy`] and the fields after it) is left out.
    pub fn new(
        key: &RowKey,
        images: u64,
        counts: &ClassCounts,
        (forward_passes, backward_passes): (u64, u64),
        seconds: f64,
    ) -> Self {
        let key = key.clone();
        Self {
            model: key.model,
            training: key.training,
            weights: key.weights,
            dataset: key.dataset,
            split: key.split,
            images,
            device: key.device,
            precision: key.precision,
            attack: key.attack,
            norm: key.norm,
            epsilon: key.epsilon,
            alpha: key.alpha,
            steps: key.steps,
            restarts: key.restarts,
            iterate: key.iterate,
            start: key.start,
            targeted: key.targeted,
            seed: key.seed,
            options: key.options,
            miou: counts.miou(),
            mean_accuracy: counts.mean_accuracy(),
            pixel_accuracy: counts.pixel_accuracy(),
            per_class_iou: counts.iou(),
            image_accuracy: None,
            image_miou: None,
            iou_ratio: None,
            pixel_accuracy_interval: None,
            miou_interval: None,
            size_miou: None,
            dice: None,
            calibration_error: None,
            minimal: None,
            forward_passes,
            backward_passes,
            seconds,
        }
    }

    /// Whether the row is about clean images.
    pub fn is_clean(&self) -> bool {
        self.attack == "none"
    }
}

impl Results {
    /// The schema's version, which changes when a reader would have to.
    pub const SCHEMA: u32 = 1;

    /// The file's name in a run's folder.
    pub const FILE: &'static str = "results.json";

    /// Results of this version.
    pub fn new(run: Run, rows: Vec<Row>) -> Self {
        Self { schema: Self::SCHEMA, run, rows, worst_cases: Vec::new() }
    }

    /// What a run's records amount to.
    pub fn from_records(run: Run, records: &Records) -> Self {
        let rows = records.rows();
        let worst_cases = records.worst_cases(&rows);
        Self { worst_cases, ..Self::new(run, rows) }
    }

    /// Reads a `results.json`.
    ///
    /// # Errors
    /// When it cannot be read, is no JSON of this schema, or a score is outside 0..=1 or belongs to no class.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let text = std::fs::read_to_string(path).map_err(ReportError::io(path, "read"))?;
        let results: Self = serde_json::from_str(&text).map_err(|error| ReportError::Parse {
            path: path.to_owned(),
            line: error.line(),
            message: error.to_string(),
        })?;
        match results.complaint() {
            Some(message) => Err(ReportError::Invalid { path: path.to_owned(), message }),
            None => Ok(results),
        }
    }

    /// Writes a `results.json`, readable by people too.
    ///
    /// # Errors
    /// When the file cannot be written; a former one is then untouched.
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        files::replace(path, (self.to_json() + "\n").as_bytes())
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data has a JSON form")
    }

    fn complaint(&self) -> Option<String> {
        if self.schema != Self::SCHEMA {
            return Some(format!("schema {}, expected {}", self.schema, Self::SCHEMA));
        }
        let classes = self.run.classes.len();
        let rows = self.rows.iter().enumerate().find_map(|(index, row)| {
            if row.per_class_iou.len() != classes {
                let found = row.per_class_iou.len();
                return Some(format!("rows[{index}].per_class_iou has {found} values for {classes} classes"));
            }
            let scores = [row.miou, row.mean_accuracy, row.pixel_accuracy].into_iter().chain(row.per_class_iou.clone());
            let further = [row.image_accuracy, row.image_miou, row.calibration_error].into_iter();
            let ends = [row.pixel_accuracy_interval, row.miou_interval].into_iter().flatten();
            let ends = ends.flat_map(|interval| [Some(interval.low), Some(interval.high)]);
            let scores = scores.chain(further).chain(ends).chain(row.size_miou.into_iter().flatten());
            let wrong = scores.flatten().find(|score| !(0.0..=1.0).contains(score))?;
            Some(format!("rows[{index}] has the score {wrong}, expected a fraction in 0..=1"))
        });
        let worst = || {
            self.worst_cases.iter().enumerate().find_map(|(index, worst)| {
                if let Some(row) = worst.rows.iter().find(|&&row| row >= self.rows.len()) {
                    let rows = self.rows.len();
                    return Some(format!("worst_cases[{index}] names row {row}, expected one below {rows}"));
                }
                let wrong = [worst.image_accuracy, worst.miou]
                    .into_iter()
                    .flatten()
                    .find(|score| !(0.0..=1.0).contains(score))?;
                Some(format!("worst_cases[{index}] has the score {wrong}, expected a fraction in 0..=1"))
            })
        };
        rows.or_else(worst)
    }
}
