//! Reading tensors on the host, and making small ones.
//!
//! Every read makes the host wait for the device, so a loop should have few of them. All reads of this workspace's
//! libraries go through here, and are counted.

use std::cell::Cell;

use burn::tensor::{Int, Tensor, TensorData, Transaction};

thread_local! {
    static READS: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has waited for a device so far.
///
/// ```
/// # use burn::tensor::{Device, Tensor};
/// use fireproof_tensor::host;
/// let before = host::reads();
/// assert_eq!(host::floats(Tensor::<1>::from_floats([1.0, 2.0], &Device::flex())), [1.0, 2.0]);
/// assert_eq!(host::reads() - before, 1);
/// ```
pub fn reads() -> u64 {
    READS.get()
}

/// The values of a float tensor, row major. Waits for the device.
pub fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    READS.set(READS.get() + 1);
    tensor.try_into_vec_as::<f32>().expect("a float tensor can be read as f32")
}

/// The values of an integer tensor, row major. Waits for the device.
pub fn integers<const D: usize>(tensor: Tensor<D, Int>) -> Vec<i32> {
    READS.set(READS.get() + 1);
    tensor.try_into_vec_as::<i32>().expect("an integer tensor can be read as i32")
}

/// Values as a tensor of one dimension on the device of `like`.
pub fn upload<const D: usize>(values: &[f32], like: &Tensor<D>) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &like.device())
}

/// The values of several float tensors. Waits for the device once.
pub fn several<const D: usize>(tensors: impl IntoIterator<Item = Tensor<D>>) -> Vec<Vec<f32>> {
    READS.set(READS.get() + 1);
    let transaction = tensors.into_iter().fold(Transaction::default(), Transaction::register);
    let data = transaction.execute().into_iter();
    data.map(|data| data.convert::<f32>().try_to_vec().expect("a float tensor converts to f32")).collect()
}
