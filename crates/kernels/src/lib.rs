//! Convolution and element-wise CPU kernels of fireproof, without a deep-learning framework.
//!
//! Everything works on plain `f32` slices in NCHW order, on rayon's current thread pool, with the instruction set found
//! when the program runs ([`simd`]). Results depend on the shape of one image and on the instruction set alone: never on
//! the batch that the image is in, the number of threads, or on timing.

mod epilogue;
pub mod parallel;
pub mod scratch;
pub mod simd;

pub use epilogue::{Activation, Epilogue};
