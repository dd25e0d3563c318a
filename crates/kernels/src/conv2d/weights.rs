use super::Conv2dShape;
use super::register_tile::BLOCK;
use std::sync::OnceLock;

/// Weights of one convolution, rearranged for the kernels. Make them once and keep them while the weights are constant,
/// as a victim's are during an attack.
///
/// They serve the forward pass and the input gradient, every batch and every image size; each form is made when it is
/// first needed.
#[derive(Debug)]
pub struct PackedWeights {
    weights: Vec<f32>,
    in_channels: usize,
    out_channels: usize,
    groups: usize,
    kernel: [usize; 2],
    forward: OnceLock<Vec<f32>>,
    gradient: OnceLock<Vec<f32>>,
}

impl PackedWeights {
    /// Takes weights `[out_channels, in_channels / groups, kernel[0], kernel[1]]`; of the shape, only these four
    /// numbers matter.
    ///
    /// # Panics
    /// If the number of weights is not the shape's.
    pub fn new(shape: &Conv2dShape, weights: &[f32]) -> Self {
        assert_eq!(weights.len(), shape.weights_len(), "weights of {shape:?}");
        PackedWeights {
            weights: weights.to_vec(),
            in_channels: shape.in_channels,
            out_channels: shape.out_channels,
            groups: shape.groups,
            kernel: shape.kernel,
            forward: OnceLock::new(),
            gradient: OnceLock::new(),
        }
    }

    /// The weights as they were given.
    pub fn as_slice(&self) -> &[f32] {
        &self.weights
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

    /// `[group][output channel / BLOCK][input channel][tap][BLOCK]`, zeros behind the last output channel.
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

    fn pack(&self, outputs: usize, inputs: usize, at: impl Fn(usize, usize, usize, usize) -> usize) -> Vec<f32> {
        let taps = self.kernel[0] * self.kernel[1];
        let blocks = outputs.div_ceil(BLOCK);
        let mut packed = vec![0.0; self.groups * blocks * inputs * taps * BLOCK];
        for (chunk, target) in packed.chunks_exact_mut(inputs * taps * BLOCK).enumerate() {
            let (group, block) = (chunk / blocks, chunk % blocks);
            for (row, target) in target.chunks_exact_mut(BLOCK).enumerate() {
                let (input, tap) = (row / taps, row % taps);
                for (m, target) in target.iter_mut().enumerate().take(outputs - block * BLOCK) {
                    *target = self.weights[at(group, block * BLOCK + m, input, tap)];
                }
            }
        }
        packed
    }
}
