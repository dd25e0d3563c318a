//! What a forward pass is told, and what it hands back beside the logits.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::ParamId;
use burn::tensor::Tensor;
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
/// Named sites are places in a network where features can be read ([`record`](Taps::record)) or a perturbation is
/// added ([`inject`](Taps::inject)): RLAT, manifold mixup, feature-space attacks. No layer holds mutable state, so
/// a pass is a pure function of parameters, images and taps.
#[derive(Clone, Debug)]
pub struct Taps {
    mode: BatchNormMode,
    folded: bool,
    injected: BTreeMap<String, Tensor<4>>,
    record: BTreeSet<String>,
    recorded: BTreeMap<String, Tensor<4>>,
    reached: BTreeSet<String>,
    statistics: Vec<BatchStatistics>,
    dropout: Option<(Stream, u64)>,
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
            injected: BTreeMap::new(),
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
    pub fn inject(mut self, site: &str, delta: Tensor<4>) -> Self {
        self.injected.insert(site.to_string(), delta);
        self
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
        if self.injected.is_empty() && self.record.is_empty() {
            return features;
        }
        self.reached.insert(name.to_string());
        let features = match self.injected.get(name) {
            Some(delta) => features + delta.clone(),
            None => features,
        };
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
        self.injected.keys().chain(&self.record).find(|s| !self.reached.contains(*s)).map(String::as_str)
    }
}
