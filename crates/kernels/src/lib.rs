//! Convolution and element-wise CPU kernels of fireproof, without a deep-learning framework.
