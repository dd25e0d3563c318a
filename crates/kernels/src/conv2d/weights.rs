use super::register_tile::BLOCK;
use super::{Conv2dShape, Winograd};
use crate::parallel;
use crate::scratch::Scratch;
use crate::simd::Isa;
use crate::vectorized::vectorized;
use crate::winograd::{self, Filters, Tile, TransformedWeights};
use std::sync::OnceLock;

/// Blocks of output channels that are filled at once where their weights are neighbours.
const BLOCKS: usize = 16;

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
    once: bool,
    forward: OnceLock<Scratch>,
    gradient: OnceLock<Scratch>,
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
            once: false,
            forward: OnceLock::new(),
            gradient: OnceLock::new(),
            frequencies: Default::default(),
        }
    }

    /// The same weights with another limit on Winograd tiles than [`Winograd::current`].
    pub fn with_winograd(self, limit: Winograd) -> Self {
        PackedWeights { winograd: limit, ..self }
    }

    /// The same weights for one pass, after which they change, as in training. What would be transformed for all passes at
    /// once, and needs several times the memory of the weights, is then transformed in parts while the pass needs them.
    pub fn used_once(self) -> Self {
        PackedWeights { once: true, ..self }
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

    /// `[group][output channel / BLOCK][tap][input channel][BLOCK]`, zeros behind the last output channel, and `BLOCK` rows
    /// more that mean nothing.
    pub(super) fn forward(&self) -> &[f32] {
        self.forward.get_or_init(|| {
            let (outputs, inputs) = (self.out_channels / self.groups, self.in_channels / self.groups);
            let taps = self.kernel[0] * self.kernel[1];
            self.pack([outputs, inputs], [inputs * taps, taps], 1)
        })
    }

    /// The same with the roles of input and output channels exchanged.
    pub(super) fn gradient(&self) -> &[f32] {
        self.gradient.get_or_init(|| {
            let (outputs, inputs) = (self.out_channels / self.groups, self.in_channels / self.groups);
            let taps = self.kernel[0] * self.kernel[1];
            // Several blocks at once read whole cache lines.
            self.pack([inputs, outputs], [taps, inputs * taps], BLOCKS.div_ceil(taps))
        })
    }

    /// For Winograd.
    pub(super) fn filters(&self, tile: Tile) -> winograd::Weights<'_> {
        let filters = Filters::new(tile, self.as_slice(), self.out_channels, self.in_channels);
        if self.once {
            return winograd::Weights::Plain(filters);
        }
        winograd::Weights::Transformed(self.frequencies[tile as usize].get_or_init(|| filters.transform_all()))
    }

    /// For `[outputs, inputs]` channels of the packed form, whose weights lie `strides` numbers apart: `together` blocks of
    /// outputs are filled at once, input after input.
    fn pack(&self, [outputs, inputs]: [usize; 2], strides: [usize; 2], together: usize) -> Scratch {
        let taps = self.kernel[0] * self.kernel[1];
        let (isa, weights) = (Isa::current(), self.as_slice());
        let (group, chunk) = (outputs.div_ceil(BLOCK) * inputs * taps * BLOCK, inputs * taps * BLOCK);
        // Readers of blocks of inputs read behind the last ones.
        let len = self.groups * group + BLOCK * BLOCK;
        let mut packed = if self.once { Scratch::new(len) } else { Scratch::lasting(len) };
        for (weights, packed) in weights.chunks_exact(outputs * inputs * taps).zip(packed.chunks_exact_mut(group)) {
            parallel::for_each_chunk(packed, together * chunk, |index, target| {
                let first = index * together * BLOCK;
                let outputs = outputs - first;
                fill(isa, &weights[first * strides[0]..], outputs, inputs, taps, strides, target);
            });
        }
        packed
    }
}

vectorized! {
    /// Fills whole blocks of output channels, of which the last may be short of some.
    fn fill<'a>(
        weights: &'a [f32],
        outputs: usize,
        inputs: usize,
        taps: usize,
        strides: [usize; 2],
        blocks: &'a mut [f32],
    ) {
        for input in 0..inputs {
            for (block, target) in blocks.chunks_exact_mut(inputs * taps * BLOCK).enumerate() {
                let count = BLOCK.min(outputs - block * BLOCK);
                let first = block * BLOCK * strides[0] + input * strides[1];
                for tap in 0..taps {
                    let source = &weights[first + tap..][..(count - 1) * strides[0] + 1];
                    let target = &mut target[(tap * inputs + input) * BLOCK..][..BLOCK];
                    if count < BLOCK {
                        target.fill(0.0);
                    }
                    for (target, weight) in target.iter_mut().zip(source.iter().step_by(strides[0])) {
                        *target = *weight;
                    }
                }
            }
        }
    }
}
