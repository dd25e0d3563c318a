//! Convolution and element-wise CPU kernels of fireproof, without a deep-learning framework.
//!
//! Everything works on plain `f32` slices in NCHW order, on rayon's current thread pool, with the instruction set found
//! when the program runs ([`simd`]). Results depend on the shape of one image and on the instruction set alone: never on
//! the batch that the image is in, the number of threads, or on timing.

// Pixel loops index several arrays at once, and kernels take the numbers that describe a layout one by one.
#![allow(clippy::needless_range_loop, clippy::too_many_arguments)]

pub mod activation;
pub mod adaptive_pool;
pub mod add;
pub mod attack_step;
pub mod batch_norm;
pub mod conv2d;
pub mod cross_entropy;
mod epilogue;
mod error;
mod panel;
pub mod parallel;
pub mod pool;
pub mod reduce;
pub mod resize;
pub mod scratch;
pub mod simd;
#[cfg(test)]
mod testing;
mod vectorized;
pub mod winograd;

pub use epilogue::{Activation, Epilogue};
pub use error::Error;
