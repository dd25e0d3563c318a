//! Batches larger than a device binds at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor};

use crate::{Error, Result, Victim, device, ops};

/// Bytes of the largest tensor that an image makes in a network, by its extents. Victims of one network share them, so that a network
/// whose weights change at every step is measured once.
#[derive(Debug, Default)]
pub struct Sizes(Mutex<HashMap<[usize; 3], u64>>);

/// A victim that passes as many images at a time as the device can.
///
/// GPUs bind tensors up to a size, 128 MiB on the smallest. The largest tensor of a pass is measured once for each size of image, on a
/// crop of it; a batch is then split so that none is larger. No number depends on it, and no image passes twice.
pub struct Split<V> {
    inner: V,
    limit: Option<u64>,
    measured: Arc<Sizes>,
}

impl<V: Victim> Split<V> {
    /// With the limit of the device, where it has one.
    pub fn new(inner: V, device: &Device) -> Self {
        Self { inner, limit: device::largest_tensor(device), measured: Arc::default() }
    }

    /// With a limit of one's own, in bytes.
    pub fn with_limit(inner: V, limit: u64) -> Self {
        Self { inner, limit: Some(limit), measured: Arc::default() }
    }

    /// With what victims of the same network have measured already.
    pub fn sharing(self, measured: Arc<Sizes>) -> Self {
        Self { measured, ..self }
    }

    /// The batch in parts that the device can take.
    fn parts(&self, images: &Tensor<4>) -> Result<Vec<Tensor<4>>> {
        let n = images.dims()[0];
        let Some(limit) = self.limit else { return Ok(vec![images.clone()]) };
        let bytes = self.largest(images)?;
        let most = (limit / bytes.max(1)) as usize;
        if most == 0 {
            let [_, c, height, width] = images.dims();
            return Err(Error::TooLarge { what: format!("an image of {c}x{height}x{width}"), bytes, limit });
        }
        Ok((0..n).step_by(most).map(|first| images.clone().narrow(0, first, most.min(n - first))).collect())
    }

    /// Bytes of the largest tensor that one image makes. Every map of a network grows as the image does.
    fn largest(&self, images: &Tensor<4>) -> Result<u64> {
        /// Large enough for what pools and strides round.
        const SIDE: usize = 64;
        let [_, c, height, width] = images.dims();
        let known = || self.measured.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&bytes) = known().get(&[c, height, width]) {
            return Ok(bytes);
        }
        let (h, w) = (height.min(SIDE), width.min(SIDE));
        let crop = images.clone().slice([0..1, 0..c, 0..h, 0..w]);
        let (logits, account) = ops::account(|| self.inner.logits(crop));
        let largest = account.largest.max(logits?.dims().iter().product());
        let values = (largest * height * width).div_ceil(h * w);
        let bytes = 4 * values.max(c * height * width) as u64;
        known().insert([c, height, width], bytes);
        Ok(bytes)
    }
}

impl<V: Victim> Victim for Split<V> {
    fn is_positional(&self) -> bool {
        self.inner.is_positional()
    }

    fn logits(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        let parts = self.parts(&images)?;
        let logits = parts.into_iter().map(|part| self.inner.logits(part)).collect::<Result<Vec<_>>>()?;
        Ok(joined(logits))
    }

    fn pull_back(
        &self,
        images: Tensor<4>,
        cotangent: &mut dyn FnMut(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<(Tensor<4>, Tensor<4>)> {
        let parts = self.parts(&images)?;
        if parts.len() == 1 {
            return self.inner.pull_back(images, cotangent);
        }
        let mut passed = Passed { logits: Vec::new(), given: None, gradients: Vec::new() };
        nested(&self.inner, &parts, cotangent, &mut passed)?;
        // The last part's pass ends first.
        passed.gradients.reverse();
        Ok((joined(passed.logits), joined(passed.gradients)))
    }
}

struct Passed {
    logits: Vec<Tensor<4>>,
    /// The gradient at all logits, once the last part is forward.
    given: Option<Tensor<4>>,
    gradients: Vec<Tensor<4>>,
}

/// Passes the first part, and within its pass the others: `cotangent` sees the logits of all of them at once, and every part
/// makes one forward and one backward pass.
fn nested(
    victim: &dyn Victim,
    parts: &[Tensor<4>],
    cotangent: &mut dyn FnMut(Tensor<4>) -> Result<Tensor<4>>,
    passed: &mut Passed,
) -> Result<()> {
    let [first, rest @ ..] = parts else {
        passed.given = Some(cotangent(joined(passed.logits.clone()))?);
        return Ok(());
    };
    let begin = passed.logits.iter().map(|part| part.dims()[0]).sum();
    let (_, gradient) = victim.pull_back(first.clone(), &mut |logits| {
        passed.logits.push(logits);
        nested(victim, rest, cotangent, passed)?;
        let given = passed.given.clone().expect("the last part asked for it");
        Ok(given.narrow(0, begin, first.dims()[0]))
    })?;
    passed.gradients.push(gradient);
    Ok(())
}

fn joined(mut parts: Vec<Tensor<4>>) -> Tensor<4> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::{
        Counted, Passes,
        ops::{Conv2dOptions, conv2d, resize_bilinear},
        victim,
    };

    /// Eight channels at the images' size are its largest tensor: 8 · 12 · 10 · 4 bytes an image.
    fn model() -> impl Victim {
        let weight = Tensor::<4>::random([8, 3, 3, 3], Distribution::Normal(0.0, 1.0), &Device::flex());
        victim(move |x: Tensor<4>| {
            let options = Conv2dOptions { padding: 1, ..Conv2dOptions::default() };
            let [_, _, h, w] = x.dims();
            let x = conv2d(x, weight.clone(), None, options);
            resize_bilinear(x.narrow(1, 0, 4), [h / 2, w / 2], false)
        })
    }

    #[test]
    fn parts_give_what_the_whole_batch_gives_in_as_many_passes() {
        let images = Tensor::<4>::random([5, 3, 12, 10], Distribution::Uniform(0.0, 1.0), &Device::flex());
        let model = model();
        let image = 8 * 12 * 10 * 4;
        // The cotangent must see all images at once: here it depends on their mean.
        let mut cotangent = |z: Tensor<4>| Ok(z.clone() - z.mean().reshape([1, 1, 1, 1]));
        let (logits, gradient) = model.pull_back(images.clone(), &mut cotangent).unwrap();
        for limit in [image, 2 * image, 2 * image + 5, 100 * image] {
            let counted = Counted::new(&model);
            let split = Split::with_limit(Unmeasured(&counted), limit);
            split.measured.0.lock().unwrap().insert([3, 12, 10], image);
            let (z, g) = split.pull_back(images.clone(), &mut cotangent).unwrap();
            assert_eq!(counted.passes(), Passes { forward: 5, backward: 5 });
            z.into_data().assert_eq(&logits.to_data(), true);
            g.into_data().assert_eq(&gradient.to_data(), true);
            let z = split.logits(images.clone()).unwrap();
            z.into_data().assert_eq(&logits.to_data(), true);
        }
    }

    struct Unmeasured<'a>(&'a Counted<'a>);

    impl Victim for Unmeasured<'_> {
        fn logits(&self, images: Tensor<4>) -> Result<Tensor<4>> {
            self.0.logits(images)
        }
        fn pull_back(
            &self,
            images: Tensor<4>,
            cotangent: &mut dyn FnMut(Tensor<4>) -> Result<Tensor<4>>,
        ) -> Result<(Tensor<4>, Tensor<4>)> {
            self.0.pull_back(images, cotangent)
        }
    }

    #[test]
    fn the_largest_tensor_is_measured_and_an_image_beyond_the_limit_is_refused_with_both_sizes() {
        let images = Tensor::<4>::zeros([2, 3, 12, 10], &Device::flex());
        let split = Split::with_limit(model(), 3000);
        let error = split.logits(images.clone()).unwrap_err().to_string();
        assert!(error.contains("3x12x10") && error.contains("3840") && error.contains("3000"), "{error}");
        assert_eq!(Split::with_limit(model(), 3840).logits(images).unwrap().dims(), [2, 4, 6, 5]);
        // Four times the area of what is measured.
        let large = Tensor::<4>::zeros([1, 3, 128, 128], &Device::flex());
        let split = Split::with_limit(model(), 1 << 20);
        split.logits(large).unwrap();
        assert_eq!(split.measured.0.lock().unwrap()[&[3, 128, 128]], 8 * 128 * 128 * 4);
    }

    #[test]
    fn victims_that_share_their_sizes_are_measured_once() {
        let images = Tensor::<4>::zeros([2, 3, 12, 10], &Device::flex());
        let (model, sizes) = (model(), Arc::new(Sizes::default()));
        let counted = Counted::new(&model);
        let pass = || Split::with_limit(Unmeasured(&counted), 3840).sharing(sizes.clone()).logits(images.clone());
        pass().unwrap();
        assert_eq!(counted.passes().forward, 3, "two images, and one crop that is measured");
        pass().unwrap();
        assert_eq!(counted.passes().forward, 5);
    }
}
