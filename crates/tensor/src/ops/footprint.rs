//! What a pass costs, counted from the shapes that go through our operations: nothing is measured.

use std::cell::RefCell;
use std::ops::AddAssign;

use burn::tensor::Tensor;

/// Operations of one kind, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Kernels that a GPU launches.
    pub kernels: u64,
    /// Multiplications and additions of the direct sum.
    pub operations: f64,
    /// Bytes read and written, each tensor once.
    pub bytes: f64,
    /// Seconds below which no machine with the given rates can be: of each operation, the larger of the two times.
    pub floor: f64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.kernels += other.kernels;
        self.operations += other.operations;
        self.bytes += other.bytes;
        self.floor += other.floor;
    }
}

/// Rates of a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Multiplications and additions a second.
    pub operations: f64,
    /// Bytes a second.
    pub bytes: f64,
}

/// What a pass did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// Numbers in the largest tensor.
    pub largest: usize,
    /// The operations of the forward pass, in their order.
    pub forward: Vec<(&'static str, Work)>,
}

/// One operation of a pass: a forward call, and what its gradient at the input takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Kernels of the forward pass on a GPU, and of the gradient at the input.
    pub kernels: [u64; 2],
    /// Multiplications and additions; the gradient at the input takes as many.
    pub operations: f64,
    /// Numbers of the input, the parameters and the result.
    pub numbers: f64,
}

impl Account {
    /// The cost of the forward pass and of the gradient at the images, in `f32`.
    pub fn forward_and_input_gradient(&self, machine: Machine) -> Cost {
        let mut sum = Cost::default();
        for (_, work) in &self.forward {
            let bytes = 4.0 * work.numbers;
            for kernels in work.kernels {
                let floor = (work.operations / machine.operations).max(bytes / machine.bytes);
                sum += Cost { kernels, operations: work.operations, bytes, floor };
            }
        }
        sum
    }

    /// What a step of a sign attack on the cross-entropy adds to [`Self::forward_and_input_gradient`], for `images` and `logits` that
    /// many numbers large and `pixels` labels: the loss with its gradient, sums of both, and the step itself.
    pub fn attack_step(images: usize, logits: usize, pixels: usize, machine: Machine) -> Cost {
        let work = [
            // Logits, labels, weights in; losses and gradient out.
            (1, 10 * logits, 2 * logits + 3 * pixels),
            // The losses of an image summed, weighted and not; its gradient too, to see that it is finite.
            (4, 4 * pixels + images, 5 * pixels + images),
            // Iterate, gradient and clean image in; the next iterate out.
            (1, 8 * images, 4 * images),
        ];
        let mut sum = Cost::default();
        for (kernels, operations, numbers) in work {
            let (operations, bytes) = (operations as f64, 4.0 * numbers as f64);
            let floor = (operations / machine.operations).max(bytes / machine.bytes);
            sum += Cost { kernels, operations, bytes, floor };
        }
        sum
    }
}

thread_local! {
    static OPEN: RefCell<Option<Account>> = const { RefCell::new(None) };
}

/// Runs `pass`, and tells what went through our operations meanwhile, on this thread.
///
/// Whatever a network does with Burn's own operations is not counted.
pub fn account<T>(pass: impl FnOnce() -> T) -> (T, Account) {
    let outer = OPEN.replace(Some(Account::default()));
    let result = pass();
    let account = OPEN.replace(outer).unwrap_or_default();
    (result, account)
}

/// Takes note of a forward call that made `result` of `x` and `parameters` numbers more; gives the result back.
pub(super) fn note(
    name: &'static str,
    kernels: [u64; 2],
    operations: usize,
    [x, parameters]: [usize; 2],
    result: Tensor<4>,
) -> Tensor<4> {
    OPEN.with_borrow_mut(|open| {
        if let Some(account) = open {
            let made: usize = result.dims().iter().product();
            account.largest = account.largest.max(made).max(x);
            let numbers = (x + parameters + made) as f64;
            account.forward.push((name, Work { kernels, operations: operations as f64, numbers }));
        }
    });
    result
}

/// Numbers in a tensor.
pub(super) fn count<const D: usize>(x: &Tensor<D>) -> usize {
    x.dims().iter().product()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::ops::{Activation, Conv2dOptions, WeightCache, conv2d_fused, resize_bilinear};

    #[test]
    fn a_convolution_costs_two_operations_a_product_and_each_tensor_once() {
        let device = Device::flex();
        let (x, weight) = (Tensor::<4>::zeros([2, 3, 8, 8], &device), Tensor::<4>::zeros([4, 3, 3, 3], &device));
        let options = Conv2dOptions { padding: 1, ..Conv2dOptions::default() };
        let (_, account) = account(|| {
            let cache = WeightCache::default();
            let y = conv2d_fused(x.clone(), weight, None, options, Activation::Relu, &cache);
            resize_bilinear(y, [16, 16], false)
        });
        let names: Vec<&str> = account.forward.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["convolution", "ReLU", "bilinear resize"]);
        let convolution = account.forward[0].1;
        assert_eq!(convolution.operations, f64::from(2 * 27 * 2 * 4 * 64));
        assert_eq!(convolution.numbers, f64::from(2 * 3 * 64 + 4 * 27 + 2 * 4 * 64));
        assert_eq!(account.largest, 2 * 4 * 256);
        let machine = Machine { operations: 1e9, bytes: 1e30 };
        let cost = account.forward_and_input_gradient(machine);
        assert_eq!(cost.kernels, 6);
        assert!((cost.floor - cost.operations / 1e9).abs() < 1e-12, "limited by arithmetic alone");
        let (_, nothing) = super::account(|| ());
        assert_eq!(nothing, Account::default(), "an account holds what happened while it was open");
    }
}
