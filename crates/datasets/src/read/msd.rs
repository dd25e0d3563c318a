//! `dataset.json`, the table of contents of the Medical Segmentation Decathlon's layout.
//!
//! Antonelli et al. *The Medical Segmentation Decathlon*, Nature Communications 13 (2022).

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use serde::Deserialize;

use super::{Limits, check_relative, text};
use crate::{Error, Result};

const EXPECTED: &str = "a dataset.json with `name`, `modality`, `labels` and `training`";

/// What a `dataset.json` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The task's name.
    pub name: String,
    /// The channels of a volume, in order.
    pub modalities: Vec<String>,
    /// What the values in label volumes mean.
    pub labels: BTreeMap<u16, String>,
    /// The volumes that have labels, in the file's order.
    pub training: Vec<Pair>,
    /// The licence, if the file says one.
    pub licence: Option<String>,
}

/// A volume and its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The image's file name without its ending; unique.
    pub name: String,
    /// Path of the image, relative and inside the root.
    pub image: String,
    /// Path of the labels, relative and inside the root.
    pub label: String,
}

#[derive(Deserialize)]
struct Raw {
    name: String,
    modality: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    training: Vec<RawPair>,
    licence: Option<String>,
}

#[derive(Deserialize)]
struct RawPair {
    image: String,
    label: String,
}

/// Reads a `dataset.json`, see [`parse`].
///
/// # Errors
/// If it cannot be read, and as [`parse`].
pub fn read(file: &Path, limits: &Limits) -> Result<Contents> {
    parse(file, &text(file, limits, EXPECTED)?)
}

/// Parses a `dataset.json`; `file` is only named in errors. Keys that are not needed may hold anything.
///
/// ```
/// use fireproof_datasets::read::msd::parse;
///
/// let contents = parse("dataset.json".as_ref(), r#"{
///     "name": "Hippocampus", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "Anterior"},
///     "training": [{"image": "./imagesTr/h_001.nii.gz", "label": "./labelsTr/h_001.nii.gz"}]
/// }"#)?;
/// assert_eq!((contents.training[0].name.as_str(), contents.labels[&1].as_str()), ("h_001", "Anterior"));
/// # Ok::<(), fireproof_datasets::Error>(())
/// ```
///
/// # Errors
/// If the text is no such file; everything that is wrong with a well-formed one is listed: modalities that are not numbered
/// from 0, label values that are no numbers, paths that leave the root, a volume twice.
pub fn parse(file: &Path, text: &str) -> Result<Contents> {
    let raw: Raw = serde_json::from_str(text)
        .map_err(|error| Error::file(file, format!("text that is no dataset.json ({error})"), EXPECTED))?;
    let mut problems = Vec::new();
    let count = raw.modality.len();
    let modalities: Option<Vec<String>> =
        (0..count).map(|number| raw.modality.get(&number.to_string()).cloned()).collect();
    if !(1..=255).contains(&count) || modalities.is_none() {
        let found: Vec<&String> = raw.modality.keys().take(8).collect();
        problems.push(format!("`modality` has the keys {found:?}, expected \"0\", \"1\", …, at least one"));
    }
    let mut labels = BTreeMap::new();
    for (value, name) in raw.labels {
        // The spelling is checked too: "01" and "1" would be one value.
        match value.parse::<u16>().ok().filter(|number| number.to_string() == value) {
            Some(number) => drop(labels.insert(number, name)),
            None => problems.push(format!("`labels` has the key {value:?}, expected a number from 0 to 65535")),
        }
    }
    if labels.is_empty() {
        problems.push("`labels` names no value, expected at least one".into());
    }
    let mut training = Vec::new();
    let mut names = HashSet::new();
    for (position, pair) in raw.training.into_iter().enumerate() {
        for path in [&pair.image, &pair.label] {
            if let Err(problem) = check_relative(path) {
                problems.push(format!("`training` {position}: {problem}, expected a path inside the root folder"));
            }
        }
        let name = case_name(&pair.image).to_owned();
        if name.is_empty() || !names.insert(name.clone()) {
            let found = format!("`training` {position}: the volume `{}` twice or without a name", name.escape_debug());
            problems.push(format!("{found}, expected each once"));
        }
        training.push(Pair { name, image: pair.image, label: pair.label });
    }
    if problems.is_empty() {
        let modalities = modalities.unwrap_or_default();
        Ok(Contents { name: raw.name, modalities, labels, training, licence: raw.licence })
    } else {
        Err(Error::Problems { file: file.to_path_buf(), problems })
    }
}

/// The file name of a volume without its ending.
pub(crate) fn case_name(path: &str) -> &str {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let name = name.strip_suffix(".gz").unwrap_or(name);
    name.strip_suffix(".nii").unwrap_or(name)
}
