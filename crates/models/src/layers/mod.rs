//! The parts that networks are made of. None holds mutable state; all parameters come from a [`Builder`].

mod batch_norm;
mod builder;
mod conv;
mod conv_transpose;
mod dropout;
mod instance_norm;
mod pool;
mod prelu;

pub use batch_norm::BatchNorm;
pub use builder::{Blueprint, Builder, Init};
pub use conv::{Activation, Conv2d, ConvNorm, ConvSpec};
pub use conv_transpose::ConvTranspose2d;
pub use dropout::{dropout, dropout_channels};
pub use instance_norm::InstanceNorm;
pub use pool::{adaptive_average_pool, average_pool, max_pool, pad_to_multiple};
pub use prelu::PRelu;
