//! The margins of a data set's samples, by id.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use burn::tensor::TensorData;
use fireproof_datasets::Dataset;
use serde::Serialize;

use super::{Expand, Refine, Visit};
use crate::{Checkpoint, Error, Result};

/// The margin of each training sample, with what the current epoch has shown about it.
///
/// Margins are found by a sample's id, whatever batch or order it comes in. They are finite, from 0 to `cap`, and grow by at
/// most `delta` an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    ids: Vec<u64>,
    places: HashMap<u64, usize>,
    margins: Vec<f32>,
    /// `E_new`: the margin that a fooled sample gets at the end of the epoch.
    refined: Vec<f32>,
    /// By how much a sample that stood expands at the end of the epoch.
    growth: Vec<f32>,
    /// Bits of what the epoch has shown: [`RIGHT`], [`FOOLED`].
    seen: Vec<u8>,
    delta: f32,
    cap: Option<f32>,
    history: Vec<Snapshot>,
}

/// Visited while the network got the clean sample right.
const RIGHT: u8 = 1;
/// Fooled at a visit.
const FOOLED: u8 = 2;

/// The margins after an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    /// Their mean.
    pub mean: f32,
    /// Smallest, 10 %, 25 %, median, 75 %, 90 %, largest.
    pub quantiles: [f32; 7],
    /// Samples that expanded in the epoch.
    pub expanded: usize,
    /// Samples that were fooled and refined.
    pub refined: usize,
    /// Samples that the network got wrong without an attack.
    pub wrong: usize,
}

/// Numbers of a [`Snapshot`] in a checkpoint.
const ROW: usize = 11;

impl Snapshot {
    /// The margins after each epoch of a run, from its checkpoint; none where no stage has margins.
    ///
    /// # Errors
    /// [`Error::Margins`] naming `path`, which the checkpoint was read from, for numbers that are none.
    pub fn history(checkpoint: &Checkpoint, path: &Path) -> Result<Vec<Self>> {
        let Some(data) = checkpoint.stages.values().find_map(|state| state.get("history")) else {
            return Ok(Vec::new());
        };
        Self::rows(data).map_err(|reason| Error::Margins { path: path.into(), reason })
    }

    fn rows(data: &TensorData) -> Result<Vec<Self>, String> {
        let values = data.clone().try_to_vec::<f32>().map_err(|error| format!("'history': {error:?}"))?;
        Ok(values.chunks_exact(ROW).map(Self::from_row).collect())
    }
}

impl Store {
    /// Gives each sample of the data the margin `initial`, cut to `cap`.
    ///
    /// # Errors
    /// [`Error::Setting`] naming two samples with the same id.
    pub fn new(data: &dyn Dataset, initial: f32, delta: f32, cap: Option<f32>) -> Result<Self> {
        let ids: Vec<u64> = (0..data.len()).map(|index| data.id(index)).collect();
        let mut places = HashMap::with_capacity(ids.len());
        for (place, &id) in ids.iter().enumerate() {
            if let Some(other) = places.insert(id, place) {
                let (first, second) = (data.sample_name(other), data.sample_name(place));
                return Err(Error::Setting {
                    what: "training data",
                    found: format!("the id {id} twice, for '{first}' and '{second}' of {}", data.name()),
                    expected: "an id for each sample: margins are kept by it".into(),
                });
            }
        }
        let margin = cap.map_or(initial, |cap| initial.min(cap));
        let n = ids.len();
        Ok(Self {
            ids,
            places,
            margins: vec![margin; n],
            refined: vec![margin; n],
            growth: vec![0.0; n],
            seen: vec![0; n],
            delta,
            cap,
            history: Vec::new(),
        })
    }

    /// Takes the margins of another run on the same data over, from its checkpoint.
    ///
    /// # Errors
    /// [`Error::Margins`] naming the file: another data set or split, no margins, ids that differ, a margin that is not a
    /// number or negative.
    pub fn take_over(&mut self, path: &Path, data: &dyn Dataset) -> Result<()> {
        let wrong = |reason: String| Error::Margins { path: path.into(), reason };
        let checkpoint = Checkpoint::read(path)?;
        let train = &checkpoint.identity.train;
        if (train.name.as_str(), train.split.as_str()) != (data.name(), data.split()) {
            return Err(wrong(format!(
                "margins of {} split '{}', expected those of {} split '{}'",
                train.name,
                train.split,
                data.name(),
                data.split()
            )));
        }
        let kept = checkpoint.stages.into_values().find(|state| state.contains_key("margins"));
        let mut state =
            kept.ok_or_else(|| wrong("a run without margins, expected one with a stage 'margin'".into()))?;
        let _ = self.read_margins(&mut state).map_err(wrong)?;
        self.refined.clone_from(&self.margins);
        Ok(())
    }

    /// The margin of a sample.
    ///
    /// # Errors
    /// [`Error::Setting`] for an id that the data does not have.
    pub fn margin(&self, id: u64) -> Result<f32> {
        Ok(self.margins[self.place(id)?])
    }

    /// Sets a margin at once, cut to 0 and `cap`.
    ///
    /// # Errors
    /// As [`margin`](Self::margin), and for a value that is not a number.
    pub fn set(&mut self, id: u64, margin: f32) -> Result<()> {
        let place = self.place(id)?;
        if margin.is_nan() {
            return Err(Error::Setting {
                what: "margin",
                found: format!("NaN for sample {id}"),
                expected: "a number".into(),
            });
        }
        self.margins[place] = self.bounded(margin);
        self.refined[place] = self.margins[place];
        Ok(())
    }

    /// Notes a visit to a sample; its margin changes at the end of the epoch.
    ///
    /// # Errors
    /// As [`margin`](Self::margin).
    pub fn note(&mut self, id: u64, visit: Visit, expand: Expand, refine: Refine) -> Result<()> {
        let place = self.place(id)?;
        if !visit.right {
            return Ok(());
        }
        self.seen[place] |= RIGHT;
        if visit.fooled {
            self.seen[place] |= FOOLED;
            self.refined[place] = refine.apply(self.refined[place], visit.distance);
        } else {
            self.growth[place] = expand.by(self.delta, self.margins[place], visit.slope);
        }
        Ok(())
    }

    /// Ends an epoch: samples that stood every attack expand, fooled ones are refined, all others stay; nothing changes if
    /// `frozen`. One attack that fooled a sample is enough to refine it.
    pub fn end_epoch(&mut self, frozen: bool) -> Snapshot {
        let (mut expanded, mut refined, mut wrong) = (0, 0, 0);
        for place in 0..self.ids.len() {
            let margin = self.margins[place];
            let next = match self.seen[place] {
                RIGHT => {
                    expanded += 1;
                    margin + self.growth[place]
                }
                seen if seen & FOOLED != 0 => {
                    refined += 1;
                    self.refined[place]
                }
                _ => {
                    wrong += 1;
                    margin
                }
            };
            if !frozen {
                self.margins[place] = self.bounded(next);
            }
        }
        self.refined.clone_from(&self.margins);
        self.growth.fill(0.0);
        self.seen.fill(0);
        let snapshot = self.snapshot(expanded, refined, wrong);
        self.history.push(snapshot);
        snapshot
    }

    /// Share of samples whose margin is at least `epsilon`: with the right ones among them, the robust accuracy on the
    /// training data that comes without an attack.
    pub fn share_above(&self, epsilon: f32) -> f64 {
        let above = self.margins.iter().filter(|margin| **margin >= epsilon).count();
        above as f64 / self.margins.len().max(1) as f64
    }

    /// Ids and margins, in the order of the data.
    pub fn iter(&self) -> impl Iterator<Item = (u64, f32)> + '_ {
        self.ids.iter().copied().zip(self.margins.iter().copied())
    }

    /// The margins after each epoch so far.
    pub fn history(&self) -> &[Snapshot] {
        &self.history
    }

    /// Everything, for a checkpoint.
    pub fn state(&self) -> Vec<(String, TensorData)> {
        let n = self.ids.len();
        let vector = |values: &Vec<f32>| TensorData::new(values.clone(), [n]);
        let history: Vec<f32> = self.history.iter().flat_map(Snapshot::row).collect();
        let mut state = vec![
            ("ids".to_string(), TensorData::new(self.ids.clone(), [n])),
            ("margins".to_string(), vector(&self.margins)),
            ("refined".to_string(), vector(&self.refined)),
            ("growth".to_string(), vector(&self.growth)),
            ("seen".to_string(), TensorData::new(self.seen.clone(), [n])),
        ];
        if !self.history.is_empty() {
            state.push(("history".to_string(), TensorData::new(history, [self.history.len(), ROW])));
        }
        state
    }

    /// Takes back what [`state`](Self::state) gave, out of `state`.
    ///
    /// # Errors
    /// What is missing, belongs to other data, or is not a margin, in words.
    pub fn restore(&mut self, state: &mut BTreeMap<String, TensorData>) -> Result<(), String> {
        if self.read_margins(state)? != self.ids {
            return Err("holds the samples in another order than the training data".into());
        }
        let n = self.ids.len();
        for (name, values) in [("refined", &mut self.refined), ("growth", &mut self.growth)] {
            *values = vector(state, name, n)?;
        }
        self.seen = vector(state, "seen", n)?;
        let history = state.remove("history").map(|data| Snapshot::rows(&data)).transpose()?;
        self.history = history.unwrap_or_default();
        Ok(())
    }

    fn read_margins(&mut self, state: &mut BTreeMap<String, TensorData>) -> Result<Vec<u64>, String> {
        let ids: Vec<u64> = {
            let data = state.remove("ids").ok_or("has no 'ids'")?;
            data.try_to_vec().map_err(|error| format!("'ids': {error:?}"))?
        };
        let mut found = HashMap::with_capacity(ids.len());
        if let Some(twice) = ids.iter().find(|id| found.insert(**id, ()).is_some()) {
            return Err(format!("holds the sample {twice} twice"));
        }
        if let Some(foreign) = ids.iter().find(|id| !self.places.contains_key(id)) {
            return Err(format!("holds a margin of the sample {foreign}, which the training data does not have"));
        }
        if ids.len() != self.ids.len() {
            return Err(format!(
                "holds margins of {} samples, but the training data has {}",
                ids.len(),
                self.ids.len()
            ));
        }
        let margins: Vec<f32> = vector(state, "margins", ids.len())?;
        if let Some((id, margin)) =
            ids.iter().zip(&margins).find(|(_, margin)| !(margin.is_finite() && **margin >= 0.0))
        {
            return Err(format!("holds the margin {margin} of sample {id}, expected a number of zero or more"));
        }
        for (id, margin) in ids.iter().zip(margins) {
            self.margins[self.places[id]] = self.bounded(margin);
        }
        Ok(ids)
    }

    fn bounded(&self, margin: f32) -> f32 {
        margin.max(0.0).min(self.cap.unwrap_or(f32::INFINITY))
    }

    fn place(&self, id: u64) -> Result<usize> {
        self.places.get(&id).copied().ok_or_else(|| Error::Setting {
            what: "sample",
            found: format!("the id {id}"),
            expected: format!("one of the {} that the run began with", self.ids.len()),
        })
    }

    fn snapshot(&self, expanded: usize, refined: usize, wrong: usize) -> Snapshot {
        let mut sorted = self.margins.clone();
        sorted.sort_by(f32::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let quantile = |share: f64| sorted.get((share * last as f64).round() as usize).copied().unwrap_or(0.0);
        let mean = sorted.iter().map(|&margin| f64::from(margin)).sum::<f64>() / sorted.len().max(1) as f64;
        let quantiles = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0].map(quantile);
        Snapshot { mean: mean as f32, quantiles, expanded, refined, wrong }
    }
}

impl Snapshot {
    fn row(&self) -> [f32; ROW] {
        let [a, b, c, d, e, f, g] = self.quantiles;
        // Counts of up to 16 million are exact in 32 bits.
        let counts = [self.expanded, self.refined, self.wrong].map(|count| count as f32);
        [self.mean, a, b, c, d, e, f, g, counts[0], counts[1], counts[2]]
    }

    fn from_row(row: &[f32]) -> Self {
        let mut quantiles = [0.0; 7];
        quantiles.copy_from_slice(&row[1..8]);
        let [expanded, refined, wrong] = [row[8], row[9], row[10]].map(|count| count as usize);
        Self { mean: row[0], quantiles, expanded, refined, wrong }
    }
}

/// The vector of `n` values called `name`.
fn vector<T: burn::tensor::Element>(
    state: &mut BTreeMap<String, TensorData>,
    name: &str,
    n: usize,
) -> Result<Vec<T>, String> {
    let data = state.remove(name).ok_or_else(|| format!("has no '{name}'"))?;
    let values = data.try_to_vec::<T>().map_err(|error| format!("'{name}': {error:?}"))?;
    match values.len() == n {
        true => Ok(values),
        false => Err(format!("holds {} values of '{name}', expected {n}", values.len())),
    }
}
