//! Operations that compute on a backend's own tensors, and the one rule that puts them on the tape.

use std::{fmt::Debug, sync::Arc};

use burn::backend::{
    Autodiff, Backend,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, NodeGuard, Ops, OpsKind},
    },
    tensor::FloatTensor,
};

/// A differentiable operation on the tensors of backend `B`: [`Flex`](burn::backend::Flex), or all GPUs at once.
pub trait DeviceOp<B: Backend>: Debug + Send + Sync + 'static {
    /// The result, and what [`backward`](DeviceOp::backward) will read. `tracked` says which inputs may get a gradient; where
    /// none does, nothing need be kept.
    fn forward(&self, inputs: &[FloatTensor<B>], tracked: &[bool]) -> (FloatTensor<B>, Vec<FloatTensor<B>>);

    /// The gradient at each input with `needed`, for a gradient `grad` at the result.
    fn backward(&self, grad: FloatTensor<B>, kept: &[FloatTensor<B>], needed: &[bool]) -> Vec<Option<FloatTensor<B>>>;
}

/// What the backward pass of an operation on the tape reads.
#[derive(Clone, Debug)]
struct Kept<B: Backend> {
    op: Arc<dyn DeviceOp<B>>,
    tensors: Vec<FloatTensor<B>>,
}

#[derive(Debug)]
struct Rule;

impl<B: Backend, const N: usize> Backward<B, N> for Rule {
    type State = Kept<B>;

    fn backward(self, ops: Ops<Kept<B>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let needed = ops.parents.each_ref().map(Option::is_some);
        let gradients = ops.state.op.backward(grad, &ops.state.tensors, &needed);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(node), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

/// Runs an operation on tensors of the autodiff device, and notes it where one of them is tracked.
pub(super) fn on_tape<B: Backend, C: CheckpointStrategy, const N: usize>(
    inputs: [FloatTensor<Autodiff<B, C>>; N],
    op: Arc<dyn DeviceOp<B>>,
) -> FloatTensor<Autodiff<B, C>> {
    let tracked = inputs.each_ref().map(|input| input.is_tracked());
    let nodes: [NodeGuard; N] = inputs.each_ref().map(|input| input.node());
    let inputs = inputs.map(|input| input.into_primitive());
    let (output, tensors) = op.forward(&inputs, &tracked);
    match Backward::<B, N>::prepare::<C>(Rule, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(Kept { op, tensors }, output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    }
}
