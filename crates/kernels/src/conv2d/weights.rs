use super::register_tile::BLOCK;
use super::{Conv2dShape, Winograd};
use crate::parallel;
use crate::winograd::{Tile, TransformedWeights};
use std::sync::OnceLock;

/// Weights of one convolution, rearranged for the kernels. Make them once and keep them while the weights are constant,
/// as a victim's are during an attack.
///
/// They serve the forward pass and the input gradient, every batch and every image size; each form is made when it is
/// first needed.
pub struct PackedWeights {
    weights: Box<dyn AsRef<[f32]> + Send + Sync>,
    in_channels: usize,
    out_channels: usize,
    groups: usize,
    kernel: [usize; 2],
    winograd: Winograd,
    forward: OnceLock<Vec<f32>>,
    gradient: OnceLock<Vec<f32>>,
    /// For F(2×2) and F(4×4).
    frequencies: [OnceLock<TransformedWeights>; 2],
}

impl PackedWeights {
    /// Takes weights `[out_channels, in_channels / groups, kernel[0], kernel[1]]`; of the shape, only these four
    /// numbers matter.
    ///
    /// # Panics
    /// If the number of weights is not the shape's.
    pub fn new(shape: &Conv2dShape, weights: &[f32]) -> Self {
        Self::sharing(shape, weights.to_vec())
    }

    /// As [`new`](PackedWeights::new), without a copy of the weights, whose numbers must stay as they are.
    ///
    /// # Panics
    /// As [`new`](PackedWeights::new).
    pub fn sharing(shape: &Conv2dShape, weights: impl AsRef<[f32]> + Send + Sync + 'static) -> Self {
        assert_eq!(weights.as_ref().len(), shape.weights_len(), "weights of {shape:?}");
        PackedWeights {
            weights: Box::new(weights),
            in_channels: shape.in_channels,
            out_channels: shape.out_channels,
            groups: shape.groups,
            kernel: shape.kernel,
            winograd: Winograd::current(),
            forward: OnceLock::new(),
            gradient: OnceLock::new(),
            frequencies: Default::default(),
        }
    }

    /// The same weights with another limit on Winograd tiles than [`Winograd::current`].
    pub fn with_winograd(self, limit: Winograd) -> Self {
        PackedWeights { winograd: limit, ..self }
    }

    /// The largest Winograd tile that these weights may be used with.
    pub fn winograd(&self) -> Winograd {
        self.winograd
    }

    /// The weights as they were given.
    pub fn as_slice(&self) -> &[f32] {
        (*self.weights).as_ref()
    }

    /// # Panics
    /// If these are not weights for `shape`.
    pub(super) fn check(&self, shape: &Conv2dShape) {
        let (ours, theirs) = (
            (self.in_channels, self.out_channels, self.groups, self.kernel),
            (shape.in_channels, shape.out_channels, shape.groups, shape.kernel),
        );
        assert_eq!(ours, theirs, "weights packed for (input channels, output channels, groups, kernel)");
    }

    /// `[group][output channel / BLOCK][tap][input channel][BLOCK]`, zeros behind the last output channel.
    pub(super) fn forward(&self) -> &[f32] {
        self.forward.get_or_init(|| {
            let inputs = self.in_channels / self.groups;
            let taps = self.kernel[0] * self.kernel[1];
            self.pack(self.out_channels / self.groups, inputs, |group, output, input, tap| {
                ((group * (self.out_channels / self.groups) + output) * inputs + input) * taps + tap
            })
        })
    }

    /// The same with the roles of input and output channels exchanged.
    pub(super) fn gradient(&self) -> &[f32] {
        self.gradient.get_or_init(|| {
            let inputs = self.in_channels / self.groups;
            let taps = self.kernel[0] * self.kernel[1];
            self.pack(inputs, self.out_channels / self.groups, |group, output, input, tap| {
                ((group * (self.out_channels / self.groups) + input) * inputs + output) * taps + tap
            })
        })
    }

    /// Transformed for Winograd.
    pub(super) fn frequencies(&self, tile: Tile) -> &TransformedWeights {
        self.frequencies[tile as usize]
            .get_or_init(|| TransformedWeights::new(tile, self.as_slice(), self.out_channels, self.in_channels))
    }

    fn pack(
        &self,
        outputs: usize,
        inputs: usize,
        at: impl Fn(usize, usize, usize, usize) -> usize + Sync + Send,
    ) -> Vec<f32> {
        let taps = self.kernel[0] * self.kernel[1];
        let blocks = outputs.div_ceil(BLOCK);
        let weights = self.as_slice();
        let mut packed = vec![0.0; self.groups * blocks * inputs * taps * BLOCK];
        let chunk = inputs * taps * BLOCK;
        parallel::for_each_plane(&mut packed, chunk, chunk, |index, target| {
            let (group, block) = (index / blocks, index % blocks);
            for (row, target) in target.chunks_exact_mut(BLOCK).enumerate() {
                let (tap, input) = (row / inputs, row % inputs);
                for (m, target) in target.iter_mut().enumerate().take(outputs - block * BLOCK) {
                    *target = weights[at(group, block * BLOCK + m, input, tap)];
                }
            }
        });
        packed
    }
}
