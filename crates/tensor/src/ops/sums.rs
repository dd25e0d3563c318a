//! Sums over everything but the batch.

use burn::tensor::Tensor;
use fireproof_kernels::reduce;

use super::flex;

/// The sum of each image's numbers, `[N, …]` → `[N]`. The order of a sum depends on the shape of one image alone.
pub fn image_sums<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let dims = x.dims();
    let (n, rest) = (dims[0], dims[1..].iter().product::<usize>());
    if flex::on_flex(&x) && !x.is_autodiff() && rest > 0 {
        let x = flex::contiguous(&flex::plain(x));
        let images = flex::numbers(&x).chunks_exact(rest);
        return flex::tensor(flex::written([n], |sums| {
            images.zip(sums).for_each(|(image, sum)| *sum = reduce::sum(image) as f32);
        }));
    }
    x.reshape([n, rest]).sum_dim(1).reshape([n])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int};

    use super::*;

    #[test]
    fn every_image_has_its_own_sum_on_the_graph_or_off_it() {
        let x = Tensor::<1, Int>::arange(0..24, &Device::flex()).float().reshape([2, 3, 2, 2]);
        let sums = |x: Tensor<4>| image_sums(x).into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(sums(x.clone()), [66.0, 210.0]);
        assert_eq!(sums(x.clone().autodiff().require_grad().inner()), [66.0, 210.0]);
        // A view that is not contiguous.
        assert_eq!(sums(x.swap_dims(0, 2).narrow(1, 0, 2)), [68.0, 84.0]);
    }
}
