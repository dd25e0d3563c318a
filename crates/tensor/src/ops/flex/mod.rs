//! Operations with a kernel of their own on Flex.
//!
//! An operation says how to compute its result and its gradients from Flex's tensors ([`DeviceOp`]); the way through Burn's
//! dispatch is written once, here.

mod buffer;

use std::sync::Arc;

use burn::backend::{
    Autodiff, Backend, Dispatch, DispatchTensor, Flex, autodiff::checkpoint::strategy::CheckpointStrategy,
    backend_extension, tensor::FloatTensor,
};
use burn::tensor::{BackendPrimitive, DType, Device, Shape, Tensor, kind::Basic};
use burn_flex::{FlexTensor, Layout};

use super::device_op::{DeviceOp, on_tape};
use crate::Targets;

/// Runs `op` on one to three tensors of any rank that are on Flex, with or without autodiff.
pub(super) fn apply<const D: usize>(
    first: DispatchTensor,
    second: Option<DispatchTensor>,
    third: Option<DispatchTensor>,
    op: impl DeviceOp<Flex>,
) -> Tensor<D> {
    apply_all([Some(first), second, third].into_iter().flatten().collect(), op)
}

/// The most tensors that [`apply_all`] takes.
pub(super) const MOST_INPUTS: usize = 5;

/// [`apply`] of one to [`MOST_INPUTS`] tensors.
///
/// # Panics
/// With no tensor or more of them.
pub(super) fn apply_all<const D: usize>(inputs: Vec<DispatchTensor>, op: impl DeviceOp<Flex>) -> Tensor<D> {
    let op: Arc<dyn DeviceOp<Flex>> = Arc::new(op);
    let count = inputs.len();
    let mut inputs = inputs.into_iter();
    let mut next = || inputs.next().expect("as many tensors as were counted");
    Tensor::from_dispatch(match count {
        1 => Dispatch::flex_op_1(next(), op),
        2 => Dispatch::flex_op_2(next(), next(), op),
        3 => Dispatch::flex_op_3(next(), next(), next(), op),
        4 => Dispatch::flex_op_4(next(), next(), next(), next(), op),
        5 => Dispatch::flex_op_5(next(), next(), next(), next(), next(), op),
        _ => panic!("an operation of {count} tensors, expected 1 to {MOST_INPUTS}"),
    })
}

/// Whether [`apply`] can take this tensor. Equality of devices ignores autodiff.
pub(super) fn on_flex<const D: usize>(x: &Tensor<D>) -> bool {
    x.device() == Device::flex() && x.dtype() == DType::F32
}

/// The dispatched forms of [`apply`]: dispatch routes single tensors, not lists of them.
#[backend_extension(Flex, Autodiff)]
pub trait FlexOps: Backend {
    /// An operation of one tensor.
    fn flex_op_1(a: FloatTensor<Self>, op: Arc<dyn DeviceOp<Flex>>) -> FloatTensor<Self>;
    /// An operation of two tensors.
    fn flex_op_2(a: FloatTensor<Self>, b: FloatTensor<Self>, op: Arc<dyn DeviceOp<Flex>>) -> FloatTensor<Self>;
    /// An operation of three tensors.
    fn flex_op_3(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        op: Arc<dyn DeviceOp<Flex>>,
    ) -> FloatTensor<Self>;
    /// An operation of four tensors.
    fn flex_op_4(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        d: FloatTensor<Self>,
        op: Arc<dyn DeviceOp<Flex>>,
    ) -> FloatTensor<Self>;
    /// An operation of five tensors.
    fn flex_op_5(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        d: FloatTensor<Self>,
        e: FloatTensor<Self>,
        op: Arc<dyn DeviceOp<Flex>>,
    ) -> FloatTensor<Self>;
}

impl FlexOps for Flex {
    fn flex_op_1(a: FlexTensor, op: Arc<dyn DeviceOp<Flex>>) -> FlexTensor {
        op.forward(&[a], &[false]).0
    }

    fn flex_op_2(a: FlexTensor, b: FlexTensor, op: Arc<dyn DeviceOp<Flex>>) -> FlexTensor {
        op.forward(&[a, b], &[false; 2]).0
    }

    fn flex_op_3(a: FlexTensor, b: FlexTensor, c: FlexTensor, op: Arc<dyn DeviceOp<Flex>>) -> FlexTensor {
        op.forward(&[a, b, c], &[false; 3]).0
    }

    fn flex_op_4(
        a: FlexTensor,
        b: FlexTensor,
        c: FlexTensor,
        d: FlexTensor,
        op: Arc<dyn DeviceOp<Flex>>,
    ) -> FlexTensor {
        op.forward(&[a, b, c, d], &[false; 4]).0
    }

    fn flex_op_5(
        a: FlexTensor,
        b: FlexTensor,
        c: FlexTensor,
        d: FlexTensor,
        e: FlexTensor,
        op: Arc<dyn DeviceOp<Flex>>,
    ) -> FlexTensor {
        op.forward(&[a, b, c, d, e], &[false; 5]).0
    }
}

impl<C: CheckpointStrategy> FlexOps for Autodiff<Flex, C> {
    fn flex_op_1(a: FloatTensor<Self>, op: Arc<dyn DeviceOp<Flex>>) -> FloatTensor<Self> {
        on_tape::<Flex, C, 1>([a], op)
    }

    fn flex_op_2(a: FloatTensor<Self>, b: FloatTensor<Self>, op: Arc<dyn DeviceOp<Flex>>) -> FloatTensor<Self> {
        on_tape::<Flex, C, 2>([a, b], op)
    }

    fn flex_op_3(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        op: Arc<dyn DeviceOp<Flex>>,
    ) -> FloatTensor<Self> {
        on_tape::<Flex, C, 3>([a, b, c], op)
    }

    fn flex_op_4(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        d: FloatTensor<Self>,
        op: Arc<dyn DeviceOp<Flex>>,
    ) -> FloatTensor<Self> {
        on_tape::<Flex, C, 4>([a, b, c, d], op)
    }

    fn flex_op_5(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        d: FloatTensor<Self>,
        e: FloatTensor<Self>,
        op: Arc<dyn DeviceOp<Flex>>,
    ) -> FloatTensor<Self> {
        on_tape::<Flex, C, 5>([a, b, c, d, e], op)
    }
}

/// A plain tensor that is on Flex, as Flex's own: for operations that nobody differentiates.
pub(super) fn plain<const D: usize, K>(x: Tensor<D, K>) -> FlexTensor
where
    K: Basic + BackendPrimitive<Flex, Primitive = FlexTensor>,
{
    x.try_into_primitive::<Flex>().expect("a plain tensor on Flex")
}

/// A plain tensor of Flex's.
pub(super) fn tensor<const D: usize>(x: FlexTensor) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(x)
}

/// The labels, contiguous: [`integers`] reads them.
pub(super) fn labels(targets: &Targets) -> FlexTensor {
    contiguous(&plain(targets.labels().clone()))
}

/// The numbers of a [`contiguous`] tensor of `i32`.
pub(super) fn integers(x: &FlexTensor) -> &[i32] {
    x.as_slice().expect("a contiguous i32 tensor")
}

/// The tensor with its numbers in row-major order, so that [`numbers`] can be read.
pub(super) fn contiguous(x: &FlexTensor) -> FlexTensor {
    if x.is_contiguous() { x.clone() } else { x.to_contiguous() }
}

/// The numbers of a [`contiguous`] tensor.
pub(super) fn numbers(x: &FlexTensor) -> &[f32] {
    x.as_slice().expect("a contiguous f32 tensor")
}

/// The shape of a tensor of rank `D`.
pub(super) fn dims<const D: usize>(x: &FlexTensor) -> [usize; D] {
    x.layout().shape().dims()
}

/// A new tensor whose numbers `write` sets. They start out arbitrary, so `write` must set every one.
pub(super) fn written<const D: usize>(shape: [usize; D], write: impl FnOnce(&mut [f32])) -> FlexTensor {
    let shape = Shape::from(shape);
    let mut buffer = buffer::Buffer::take(shape.num_elements());
    write(buffer.numbers_mut());
    FlexTensor::new(buffer.into_bytes(), Layout::contiguous(shape), DType::F32)
}

/// The tensor with `change` made to its numbers: in its own memory where nobody else reads it, else in a copy.
pub(super) fn changed(x: FlexTensor, change: impl FnOnce(&mut [f32])) -> FlexTensor {
    let mut x = if x.is_contiguous() { x } else { x.to_contiguous() };
    let whole = size_of_val(x.bytes()) == x.layout().shape().num_elements() * size_of::<f32>();
    if let Some(numbers) = whole.then(|| x.try_storage_mut::<f32>()).flatten() {
        change(numbers);
        return x;
    }
    let shape = x.layout().shape().clone();
    let mut buffer = buffer::Buffer::take(shape.num_elements());
    buffer.numbers_mut().copy_from_slice(numbers(&x));
    change(buffer.numbers_mut());
    FlexTensor::new(buffer.into_bytes(), Layout::contiguous(shape), DType::F32)
}

/// A tensor of the same shape that holds one number: keeps a shape for the backward pass without the memory.
pub(super) fn shape_of(x: &FlexTensor) -> FlexTensor {
    use burn::backend::ops::FloatTensorOps;
    let one = written([1; 4], |number| number.fill(0.0));
    Flex::float_expand(one, x.layout().shape().clone())
}
