//! Fused operations: a reference composition of Burn primitives for every backend, a hand-written kernel where it pays.
//!
//! One file an operation. On Flex the kernels of `fireproof-kernels` are used, on GPUs the `#[cube]` kernels in `cube/` where
//! there is one; otherwise the composition runs. All of them are differentiable once.

mod activation;
mod agreement;
pub(crate) mod attack_step;
mod backward;
mod batch_norm;
mod concat;
pub(crate) mod confusion;
mod conv2d;
pub(crate) mod cross_entropy;
#[cfg(feature = "cube")]
pub(crate) mod cube;
mod device_op;
mod flex;
mod footprint;
mod pool;
pub(crate) mod resize;
mod sums;

pub use activation::{add_relu, leaky_relu, prelu, relu};
pub use agreement::{correct, cosine};
pub use attack_step::attack_step;
pub use backward::backward;
pub use batch_norm::{batch_norm_train, batch_norm_train_fused, scale_shift};
pub use concat::concat;
pub use confusion::confusion;
pub use conv2d::{Activation, Conv2dOptions, WeightCache, conv_transpose2d, conv2d, conv2d_fused, conv2d_residual};
pub use cross_entropy::{WeightedCrossEntropy, cross_entropy, weighted_cross_entropy};
#[cfg(all(feature = "cube", feature = "cuda-source"))]
pub use cube::cuda_source;
pub use footprint::{Account, Cost, Machine, Work, account};
pub use pool::{adaptive_avg_pool2d, avg_pool2d, max_pool2d};
pub use resize::resize_bilinear;
pub use sums::image_sums;

use device_op::DeviceOp;
