//! Concatenation of channels.

use burn::backend::Flex;
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use fireproof_kernels::parallel;

use super::{
    DeviceOp, flex,
    footprint::{self, count},
};

/// `[N, Cᵢ, H, W]` one behind the other: `[N, Σ Cᵢ, H, W]`.
///
/// # Panics
/// If there is no tensor, or their other extents differ.
pub fn concat(mut parts: Vec<Tensor<4>>) -> Tensor<4> {
    let [n, _, height, width] = parts.first().expect("at least one tensor to concatenate").dims();
    for part in &parts {
        let [m, _, h, w] = part.dims();
        assert_eq!([m, h, w], [n, height, width], "batch, height and width of tensors to concatenate");
    }
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let read = parts.iter().map(count).sum();
    footprint::note("concatenation", [1, 1], 0, [read, 0], joined(parts))
}

fn joined(mut parts: Vec<Tensor<4>>) -> Tensor<4> {
    if !parts.iter().all(flex::on_flex) {
        return Tensor::cat(parts, 1);
    }
    if parts.len() > flex::MOST_INPUTS {
        let rest = parts.split_off(flex::MOST_INPUTS);
        parts = vec![concat(parts), concat(rest)];
    }
    flex::apply_all(parts.into_iter().map(Tensor::into_dispatch).collect(), Concat)
}

#[derive(Debug)]
struct Concat;

/// Where each part lies in an image of the result: its first number and how many there are.
fn places(parts: &[FlexTensor]) -> Vec<(usize, usize)> {
    let mut first = 0;
    let place = |part: &FlexTensor| {
        let [_, channels, height, width] = flex::dims(part);
        first += channels * height * width;
        (first - channels * height * width, channels * height * width)
    };
    parts.iter().map(place).collect()
}

impl DeviceOp<Flex> for Concat {
    fn forward(&self, inputs: &[FlexTensor], tracked: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [n, _, height, width] = flex::dims(&inputs[0]);
        let channels = inputs.iter().map(|part| flex::dims::<4>(part)[1]).sum();
        let places = places(inputs);
        let parts: Vec<_> = inputs.iter().map(flex::contiguous).collect();
        let output = flex::written([n, channels, height, width], |out| {
            // One job per image and part, each a stretch of the result.
            let mut jobs = Vec::new();
            let mut rest = out;
            for index in 0..n * parts.len() {
                let (job, behind) = rest.split_at_mut(places[index % parts.len()].1);
                jobs.push(job);
                rest = behind;
            }
            parallel::for_each_chunk(&mut jobs, 1, |index, job| {
                let (image, part) = (index / parts.len(), index % parts.len());
                let len = places[part].1;
                job[0].copy_from_slice(&flex::numbers(&parts[part])[image * len..][..len]);
            });
        });
        let kept = if tracked.contains(&true) { inputs.iter().map(flex::shape_of).collect() } else { Vec::new() };
        (output, kept)
    }

    fn backward(&self, grad: FlexTensor, kept: &[FlexTensor], needed: &[bool]) -> Vec<Option<FlexTensor>> {
        let grad = flex::contiguous(&grad);
        let [n, ..]: [usize; 4] = flex::dims(&grad);
        let numbers = flex::numbers(&grad);
        let image = numbers.len() / n.max(1);
        let part = |part: &FlexTensor, (first, len): (usize, usize)| {
            flex::written(flex::dims::<4>(part), |out| {
                parallel::for_each_chunk(out, len.max(1), |i, out| {
                    out.copy_from_slice(&numbers[i * image + first..][..len]);
                });
            })
        };
        let parts = kept.iter().zip(places(kept)).zip(needed);
        parts.map(|((shape, place), &needed)| needed.then(|| part(shape, place))).collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn values_and_gradients_are_those_of_burn() {
        let random = |channels| {
            Tensor::<4>::random([2, channels, 3, 4], Distribution::Normal(0.0, 1.0), &Device::flex()).autodiff()
        };
        // More than one operation takes, one of them without a gradient, one not contiguous.
        let parts: Vec<_> = [1, 3, 2, 5, 1, 4, 2].into_iter().map(|c| random(c).require_grad()).collect();
        let run = |ours: bool| {
            let mut all = parts.clone();
            all[2] = all[2].clone().inner().autodiff();
            all[1] = parts[0].clone().expand([2, 3, 3, 4]);
            let y = if ours { concat(all) } else { Tensor::cat(all, 1) };
            let mut gradients = (y.clone() * y.clone() * y.clone()).sum().backward();
            let mut found = vec![y.inner().into_data()];
            found.extend([0, 3, 6].map(|i: usize| parts[i].grad_remove(&mut gradients).unwrap().into_data()));
            found
        };
        assert_eq!(run(true), run(false));
    }
}
