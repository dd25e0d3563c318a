//! Operations with a kernel of their own on GPUs: one `#[cube]` source for WGSL, SPIR-V, CUDA and HIP.
//!
//! No kernel assumes the size of a subgroup, uses shared memory or binds more than its tensors. Results never depend on the
//! order in which units run: what is summed is summed by one unit in a fixed order, or consists of integers.

pub(super) mod attack_step;
pub(super) mod confusion;
pub(super) mod cross_entropy;
#[cfg(feature = "cuda-source")]
pub mod cuda_source;
pub(super) mod resize;

use std::sync::Arc;

use burn::backend::{
    Autodiff, Backend, Dispatch, DispatchDevice, DispatchTensor, autodiff::checkpoint::strategy::CheckpointStrategy,
    backend_extension, tensor::FloatTensor,
};
use burn::tensor::{DType, Device, Int, Shape, Tensor};
use burn_cubecl::cubecl::{CubeCount, CubeDim, calculate_cube_count_elemwise};
use burn_cubecl::{CubeBackend as Cube, ops::numeric, tensor::CubeTensor};

use super::device_op::{DeviceOp, on_tape};

/// Runs `op` on a tensor that is on a GPU, with or without autodiff.
pub(super) fn apply<const D: usize>(x: DispatchTensor, op: impl DeviceOp<Cube>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::cube_op_1(x, Arc::new(op)))
}

/// Whether our kernels can take this tensor.
pub(super) fn on_cube<const D: usize>(x: &Tensor<D>) -> bool {
    is_cube(&x.device()) && x.dtype() == DType::F32
}

/// Whether a device is a GPU (or a driver that plays one).
pub(crate) fn is_cube(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Cube(_))
}

/// Bytes that one binding of the device may hold, where it is a GPU.
pub(crate) fn largest_binding(device: &Device) -> Option<u64> {
    match device.clone().inner().as_dispatch() {
        DispatchDevice::Cube(device) => Some(device.client().properties().memory.max_page_size),
        _ => None,
    }
}

/// The dispatched forms of [`apply`].
#[backend_extension(Cube, Autodiff)]
pub trait CubeOps: Backend {
    /// An operation of one tensor.
    fn cube_op_1(a: FloatTensor<Self>, op: Arc<dyn DeviceOp<Cube>>) -> FloatTensor<Self>;
}

impl CubeOps for Cube {
    fn cube_op_1(a: CubeTensor, op: Arc<dyn DeviceOp<Cube>>) -> CubeTensor {
        op.forward(&[a], &[false]).0
    }
}

impl<C: CheckpointStrategy> CubeOps for Autodiff<Cube, C> {
    fn cube_op_1(a: FloatTensor<Self>, op: Arc<dyn DeviceOp<Cube>>) -> FloatTensor<Self> {
        on_tape::<Cube, C, 1>([a], op)
    }
}

/// The GPU's own form of a plain tensor, for operations that are not differentiated.
pub(super) fn primitive<const D: usize>(x: &Tensor<D>) -> CubeTensor {
    x.clone().try_into_primitive::<Cube>().expect("a plain tensor on a GPU")
}

/// A plain tensor of the GPU's.
pub(super) fn tensor<const D: usize>(x: CubeTensor) -> Tensor<D> {
    Tensor::from_primitive::<Cube>(x)
}

/// The same as [`primitive`] for integers, as 32 bits.
pub(super) fn integers<const D: usize>(x: &Tensor<D, Int>) -> CubeTensor {
    let x = if x.dtype() == DType::I32 { x.clone() } else { x.clone().cast(burn::tensor::IntDType::I32) };
    x.try_into_primitive::<Cube>().expect("an integer tensor on a GPU")
}

/// A new tensor beside `like`, row major, of arbitrary values.
pub(super) fn empty<const D: usize>(like: &CubeTensor, shape: [usize; D]) -> CubeTensor {
    numeric::empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), Shape::from(shape), DType::F32)
}

/// Extents of a tensor of rank `D`.
pub(super) fn dims<const D: usize>(x: &CubeTensor) -> [usize; D] {
    x.meta.shape().dims()
}

/// How many units a kernel is launched with: one for each of `count` results.
pub(super) fn units(x: &CubeTensor, count: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new(&x.client, count);
    (calculate_cube_count_elemwise(&x.client, count, dim), dim)
}
