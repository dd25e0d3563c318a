//! What a forward pass is told, and what it hands back beside the logits.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::ParamId;
use burn::tensor::{Int, Tensor, TensorData};
use fireproof_tensor::random::Stream;
use serde::{Deserialize, Serialize};

/// How batch norm behaves in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNormMode {
    /// The batch's statistics; they are collected for [`Network::commit`](crate::Network::commit).
    Train,
    /// The batch's statistics, and nothing is collected: attacks in train mode.
    TrainWithoutUpdate,
    /// The running statistics.
    Eval,
}

/// Settings of one forward pass, and what it collects.
///
/// Named sites are places in a network where features can be read ([`record`](Taps::record)) or changed
/// ([`change`](Taps::change)), and where the gradient can be asked for ([`probe`](Taps::probe)): RLAT, manifold mixup,
/// feature-space attacks. No layer holds mutable state, so
/// a pass is a pure function of parameters, images and taps.
#[derive(Clone, Debug)]
pub struct Taps {
    mode: BatchNormMode,
    folded: bool,
    changes: BTreeMap<String, Vec<Change>>,
    probes: BTreeSet<String>,
    probed: BTreeMap<String, Tensor<4>>,
    record: BTreeSet<String>,
    recorded: BTreeMap<String, Tensor<4>>,
    reached: BTreeSet<String>,
    statistics: Vec<BatchStatistics>,
    dropout: Option<(Stream, u64)>,
}

/// What happens to the features at a site.
#[derive(Clone, Debug)]
pub enum Change {
    /// This `[N, C, H, W]` (or a shape that broadcasts to it) is added.
    Add(Tensor<4>),
    /// Sample `i` becomes `keep[i]` of itself and `1 − keep[i]` of sample `partners[i]`.
    Mix {
        /// Position in the batch of each sample's partner.
        partners: Vec<usize>,
        /// Share of each sample that stays, 0 to 1.
        keep: Vec<f32>,
    },
}

impl Change {
    fn apply(&self, features: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Add(delta) => features + delta.clone(),
            Self::Mix { partners, keep } => {
                let (n, device) = (keep.len(), features.device().inner());
                let order: Vec<i32> = partners.iter().map(|&p| p as i32).collect();
                let order = Tensor::<1, Int>::from_data(TensorData::new(order, [n]), &device);
                let keep = Tensor::<4>::from_data(TensorData::new(keep.clone(), [n, 1, 1, 1]), &device);
                let other = features.clone().select(0, order);
                features * keep.clone() + other * (keep * -1.0 + 1.0)
            }
        }
    }
}

/// Statistics of one batch-norm layer in one pass, plain tensors `[C]`.
#[derive(Clone, Debug)]
pub struct BatchStatistics {
    /// The layer's running mean.
    pub running_mean: ParamId,
    /// The layer's running variance.
    pub running_variance: ParamId,
    /// Mean over the batch.
    pub mean: Tensor<1>,
    /// Unbiased variance over the batch, as PyTorch's running variance takes it.
    pub variance: Tensor<1>,
}

impl Taps {
    /// Running statistics, no dropout.
    pub fn eval() -> Self {
        Self::new(BatchNormMode::Eval)
    }

    /// The batch's statistics, collected.
    pub fn train() -> Self {
        Self::new(BatchNormMode::Train)
    }

    /// The batch's statistics, not collected.
    pub fn train_without_update() -> Self {
        Self::new(BatchNormMode::TrainWithoutUpdate)
    }

    /// Running statistics that were folded into weights and biases.
    pub(crate) fn folded() -> Self {
        Self { folded: true, ..Self::eval() }
    }

    /// Batch norm in this mode, no dropout.
    pub fn new(mode: BatchNormMode) -> Self {
        Self {
            mode,
            folded: false,
            changes: BTreeMap::new(),
            probes: BTreeSet::new(),
            probed: BTreeMap::new(),
            record: BTreeSet::new(),
            recorded: BTreeMap::new(),
            reached: BTreeSet::new(),
            statistics: Vec::new(),
            dropout: None,
        }
    }

    /// Switches dropout on, with masks from this stream; without it dropout is off, in training too.
    #[must_use]
    pub fn with_dropout(mut self, stream: Stream) -> Self {
        self.dropout = Some((stream, 0));
        self
    }

    /// Adds `delta` `[N, C, H, W]` (or a shape that broadcasts to it) to the features at `site`.
    #[must_use]
    pub fn inject(self, site: &str, delta: Tensor<4>) -> Self {
        self.change(site, Change::Add(delta))
    }

    /// Changes the features at `site`, after earlier changes there.
    #[must_use]
    pub fn change(mut self, site: &str, change: Change) -> Self {
        self.changes.entry(site.to_string()).or_default().push(change);
        self
    }

    /// Adds a zero at `site` whose gradient [`probed`](Taps::probed) gives: that of the loss at the features there.
    #[must_use]
    pub fn probe(mut self, site: &str) -> Self {
        self.probes.insert(site.to_string());
        self
    }

    /// The leaf that the last pass added at `site`, `[N, C, H, W]`.
    pub fn probed(&self, site: &str) -> Option<&Tensor<4>> {
        self.probed.get(site)
    }

    /// Keeps the features at `site`, on the graph they were computed on, after an injection there.
    #[must_use]
    pub fn record(mut self, site: &str) -> Self {
        self.record.insert(site.to_string());
        self
    }

    /// The features kept at `site` by the last pass.
    pub fn recorded(&self, site: &str) -> Option<&Tensor<4>> {
        self.recorded.get(site)
    }

    /// The batch-norm mode of the pass.
    pub fn mode(&self) -> BatchNormMode {
        self.mode
    }

    /// True in the pass of a victim: batch norm's weight and bias already hold scale and shift.
    pub fn is_folded(&self) -> bool {
        self.folded
    }

    /// True when a training-only head should answer.
    pub fn is_training(&self) -> bool {
        self.mode != BatchNormMode::Eval
    }

    /// What batch norm collected.
    pub fn statistics(&self) -> &[BatchStatistics] {
        &self.statistics
    }

    /// Layers call this where features may be read or perturbed.
    pub fn site(&mut self, name: &str, features: Tensor<4>) -> Tensor<4> {
        if self.changes.is_empty() && self.record.is_empty() && self.probes.is_empty() {
            return features;
        }
        self.reached.insert(name.to_string());
        let changes = self.changes.get(name).into_iter().flatten();
        let mut features = changes.fold(features, |features, change| change.apply(features));
        if self.probes.contains(name) {
            let leaf = Tensor::<4>::zeros(features.dims(), &features.device().inner()).autodiff().require_grad();
            self.probed.insert(name.to_string(), leaf.clone());
            features = features + leaf;
        }
        if self.record.contains(name) {
            self.recorded.insert(name.to_string(), features.clone());
        }
        features
    }

    /// Batch norm calls this in [`BatchNormMode::Train`].
    pub fn collect(&mut self, statistics: BatchStatistics) {
        self.statistics.push(statistics);
    }

    /// The stream of the next dropout layer of the pass, if dropout is on.
    pub fn next_dropout(&mut self) -> Option<Stream> {
        let (stream, layer) = self.dropout.as_mut()?;
        *layer += 1;
        Some(Stream::new(&[stream.bits(0), *layer]))
    }

    /// A site that was named and is not in the network.
    pub(crate) fn unreached(&self) -> Option<&str> {
        self.changes
            .keys()
            .chain(&self.record)
            .chain(&self.probes)
            .find(|s| !self.reached.contains(*s))
            .map(String::as_str)
    }
}
