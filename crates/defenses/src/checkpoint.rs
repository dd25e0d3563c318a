//! A training run in one file.
//!
//! `checkpoint.safetensors` holds the network's parameters and running statistics under PyTorch's names, so that it can
//! be used as a weight file, and everything else that the next step depends on: the optimizer's state, the stages' state
//! and, as JSON in the metadata, settings, position and scores. [`fireproof_models::load`] reads its weights. It is written under another name and renamed, so a file
//! of that name is always whole.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use burn::tensor::{Bytes, DType, TensorData};
use fireproof_datasets::Position;
use fireproof_models::{Architecture, Network, Parameter};
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{DataSummary, EpochRecord, Error, Meter, Result, TrainConfig};

/// Version of the file's layout. A file of a newer one is refused.
pub const VERSION: u32 = 1;

/// The metadata's one entry, as in every weight file of `fireproof-models`, and the version of its layout.
const ENTRY: &str = "fireproof";
const ENTRY_VERSION: u32 = 1;
/// What this crate adds to the entry.
const RUN: &str = "run";
/// Names of tensors that are not the network's.
const OPTIMIZER: &str = "training.optimizer";
const STAGE: &str = "training.stage.";

/// What must not change between the parts of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The network.
    pub architecture: Architecture,
    /// The training data.
    pub train: DataSummary,
    /// The held-out data.
    pub validation: DataSummary,
    /// The settings, with the recipe's defaults filled in.
    pub config: TrainConfig,
}

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps made.
    pub step: u64,
    /// The next batch. An epoch whose batches are all done, but which is not scored yet, is still the current one.
    pub position: Position,
    /// Sum of the losses of the current epoch.
    pub loss_sum: f64,
    /// The scores of the weights that the run began with, where the recipe compares with them; its epoch is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<EpochRecord>,
    /// The finished epochs.
    pub epochs: Vec<EpochRecord>,
    /// Passes through the network so far.
    pub meter: Meter,
    /// Seconds of training and validation so far.
    pub seconds: f64,
}

/// A training run as a file holds it.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Version of the library that wrote it.
    pub written_by: String,
    /// What must not change.
    pub identity: Identity,
    /// Where the run stands.
    pub state: State,
    /// Parameters and running statistics by name.
    pub parameters: BTreeMap<String, TensorData>,
    /// burn-optim's record of the optimizer's state.
    pub optimizer: Vec<u8>,
    /// State of the stages, by position and name in the recipe.
    pub stages: BTreeMap<String, BTreeMap<String, TensorData>>,
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    version: u32,
    written_by: String,
    identity: Identity,
    state: State,
}

/// The part of a weight file's metadata that is read here.
#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    extra: BTreeMap<String, String>,
}

/// Read before the rest, whose fields a newer version may have changed.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Checkpoint {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Checkpoint`] for another kind of file or a damaged one, [`Error::Mismatch`] for one of a
    /// newer version.
    pub fn read(path: &Path) -> Result<Self> {
        let broken = |reason: String| Error::Checkpoint { path: path.into(), reason };
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| broken(error.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| broken(error.to_string()))?;
        let entry = header.metadata().as_ref().and_then(|metadata| metadata.get(ENTRY));
        let entry: Entry = entry.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let json = entry.extra.get(RUN).ok_or_else(|| broken("weights alone are no training run".into()))?;
        let Version { version } = serde_json::from_str(json).map_err(|error| broken(error.to_string()))?;
        if version > VERSION {
            return Err(Error::Mismatch {
                path: path.into(),
                field: "version".into(),
                found: version.to_string(),
                expected: format!("{VERSION} or older; update fireproof"),
            });
        }
        let Metadata { written_by, identity, state, .. } =
            serde_json::from_str(json).map_err(|error| broken(error.to_string()))?;
        let mut parameters = BTreeMap::new();
        let mut optimizer = None;
        let mut stages = BTreeMap::<String, BTreeMap<_, _>>::new();
        for (name, view) in file.iter() {
            let data = || {
                from_view(view.dtype(), view.shape(), view.data())
                    .map_err(|found| broken(format!("'{name}' is {found}")))
            };
            match name.strip_prefix(STAGE).and_then(|rest| rest.split_once('/')) {
                Some((stage, tensor)) => drop(stages.entry(stage.into()).or_default().insert(tensor.into(), data()?)),
                None if name == OPTIMIZER => optimizer = Some(view.data().to_vec()),
                None => drop(parameters.insert(name.to_string(), data()?)),
            }
        }
        let optimizer = optimizer.ok_or_else(|| broken(format!("it has no '{OPTIMIZER}'")))?;
        Ok(Self { written_by, identity, state, parameters, optimizer, stages })
    }

    /// Writes the file under another name and renames it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let run = Metadata {
            version: VERSION,
            written_by: self.written_by.clone(),
            identity: self.identity.clone(),
            state: self.state.clone(),
        };
        let run = serde_json::to_string(&run).expect("settings and scores are plain data");
        let mut tensors: Vec<(String, Saved<'_>)> = Vec::new();
        tensors.extend(self.parameters.iter().map(|(name, data)| (name.clone(), Saved::of(data))));
        for (stage, state) in &self.stages {
            tensors.extend(state.iter().map(|(name, data)| (format!("{STAGE}{stage}/{name}"), Saved::of(data))));
        }
        let bytes = Saved { dtype: Dtype::U8, shape: vec![self.optimizer.len()], bytes: &self.optimizer };
        tensors.push((OPTIMIZER.into(), bytes));
        write_tensors(path, &self.identity.architecture, tensors, [(RUN.to_string(), run)].into())
    }

    /// Refuses a run with another identity, naming the first field that differs.
    ///
    /// # Errors
    /// [`Error::Mismatch`].
    pub fn check(&self, path: &Path, expected: &Identity) -> Result<()> {
        let value = |identity: &Identity| serde_json::to_value(identity).expect("an identity is plain data");
        match first_difference(&value(&self.identity), &value(expected), String::new()) {
            Some((field, found, expected)) => Err(Error::Mismatch { path: path.into(), field, found, expected }),
            None => Ok(()),
        }
    }

    /// The parameters in the network's layout.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a tensor that is missing or not of 32-bit floats.
    pub fn parameters(&self, path: &Path, network: &dyn Network) -> Result<Vec<Parameter>> {
        let broken = |reason: String| Error::Checkpoint { path: path.into(), reason };
        let parameter = |info: &fireproof_models::ParameterInfo| {
            let data = self.parameters.get(&info.name).ok_or_else(|| broken(format!("it has no '{}'", info.name)))?;
            let values = data
                .try_to_vec::<f32>()
                .map_err(|_| broken(format!("'{}' is {:?}, expected F32", info.name, data.dtype())))?;
            let shape = data.shape().to_vec();
            Ok(Parameter { name: info.name.clone(), kind: info.kind, group: info.group, shape, values })
        };
        network.layout().iter().map(parameter).collect()
    }
}

/// The parameters of a network as tensors by name.
pub(crate) fn tensors(parameters: Vec<Parameter>) -> BTreeMap<String, TensorData> {
    parameters.into_iter().map(|p| (p.name, TensorData::new(p.values, p.shape))).collect()
}

/// Writes a network's parameters as a weight file.
///
/// [`fireproof_models::save`] does the same under a temporary name of the process, which would stay behind for each
/// process that is killed while it writes.
pub(crate) fn write_weights(path: &Path, network: &dyn Network, extra: BTreeMap<String, String>) -> Result<()> {
    let parameters = tensors(network.parameters());
    let saved = parameters.iter().map(|(name, data)| (name.clone(), Saved::of(data))).collect();
    write_tensors(path, network.architecture(), saved, extra)
}

fn write_tensors(
    path: &Path,
    architecture: &Architecture,
    tensors: Vec<(String, Saved<'_>)>,
    extra: BTreeMap<String, String>,
) -> Result<()> {
    let entry = serde_json::json!({ "version": ENTRY_VERSION, "architecture": architecture, "extra": extra });
    let metadata = HashMap::from([(ENTRY.to_string(), entry.to_string())]);
    let bytes = safetensors::serialize(tensors, Some(metadata))
        .map_err(|error| Error::Checkpoint { path: path.into(), reason: error.to_string() })?;
    replace(path, &bytes)
}

/// Path, value found and value expected of the first leaf that differs.
fn first_difference(found: &Value, expected: &Value, path: String) -> Option<(String, String, String)> {
    let below = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
    match (found, expected) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            let value =
                |map: &serde_json::Map<String, Value>, name: &String| map.get(name).cloned().unwrap_or(Value::Null);
            names.into_iter().find_map(|name| first_difference(&value(a, name), &value(b, name), below(name)))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.into_iter().find_map(|(i, (a, b))| first_difference(a, b, below(&i.to_string())))
        }
        (a, b) => (a != b).then(|| (path, a.to_string(), b.to_string())),
    }
}

/// A tensor on its way into a file.
struct Saved<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: &'a [u8],
}

impl<'a> Saved<'a> {
    fn of(data: &'a TensorData) -> Self {
        let dtype = DTYPES.iter().find(|(burn, _)| *burn == data.dtype()).map(|(_, file)| *file);
        let dtype =
            dtype.unwrap_or_else(|| panic!("a stage's state is of {:?}, which a checkpoint cannot hold", data.dtype()));
        Self { dtype, shape: data.shape().to_vec(), bytes: data.as_bytes() }
    }
}

impl View for Saved<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// The element types of weights and of stages' states.
const DTYPES: [(DType, Dtype); 5] = [
    (DType::F32, Dtype::F32),
    (DType::F64, Dtype::F64),
    (DType::I64, Dtype::I64),
    (DType::U64, Dtype::U64),
    (DType::U8, Dtype::U8),
];

fn from_view(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Result<TensorData, String> {
    let known = DTYPES.iter().find(|(_, file)| *file == dtype).ok_or_else(|| format!("of type {dtype:?}"))?;
    Ok(TensorData::from_bytes(Bytes::from_bytes_vec(bytes.to_vec()), shape.to_vec(), known.0))
}

/// Replaces a file as a whole: written beside it, on the disk before the rename.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = partial(path);
    let mut file = File::create(&partial).map_err(Error::io("write", &partial))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io("write", &partial))?;
    drop(file);
    fs::rename(&partial, path).map_err(Error::io("rename the finished file to", path))?;
    // Without this the rename itself may be lost when the machine goes down. Not every file system lets folders be synced.
    if let Some(Ok(folder)) = path.parent().map(File::open) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// The name of an unfinished file: one a run, so that a killed one leaves at most one behind and the next reuses it.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    path.with_file_name(name)
}
