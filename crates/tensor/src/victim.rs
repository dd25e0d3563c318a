//! A model under attack.

use std::cell::Cell;

use burn::tensor::Tensor;

use crate::{Batch, Result, Unit, ops::backward};

/// A frozen model: logits for images, and the gradient at the images for a gradient given at the logits.
///
/// An implementation must not change while it is attacked (batch-norm statistics frozen, no dropout), and an
/// image's logits must not depend on its neighbours in the batch. Test-time defenses, ensembles, smoothing and
/// sliding windows are victims that wrap victims.
pub trait Victim {
    /// `[N, C, H, W]` → logits `[N, K, H, W]`.
    ///
    /// Plain images give plain logits. Images on the autodiff device give logits on the same graph, unless
    /// [`pull_back`](Victim::pull_back) is overridden, in which case this is only called with plain images.
    ///
    /// # Errors
    /// Whatever keeps the model from answering, e.g. [`Error::Victim`](crate::Error::Victim).
    fn logits(&self, images: Tensor<4>) -> Result<Tensor<4>>;

    /// Logits at `images`, and the gradient at `images` of `⟨logits, cotangent(logits)⟩` with the cotangent held constant.
    ///
    /// `images` and everything `cotangent` sees and returns are plain tensors. The default goes through autodiff.
    ///
    /// # Errors
    /// Those of [`logits`](Victim::logits) and of `cotangent`.
    fn pull_back(
        &self,
        images: Tensor<4>,
        cotangent: &mut dyn FnMut(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<(Tensor<4>, Tensor<4>)> {
        let leaf = images.clone().autodiff().require_grad();
        let logits = self.logits(leaf.clone())?;
        let plain = logits.clone().inner();
        let given = cotangent(plain.clone())?;
        if !logits.is_tracked() {
            return Ok((plain, images.zeros_like()));
        }
        let mut gradients = backward(logits, given);
        // A model that does not look at its input has a zero gradient, not a missing one.
        let gradient = leaf.grad_remove(&mut gradients).unwrap_or_else(|| images.zeros_like());
        Ok((plain, gradient))
    }

    /// True if the images of every call must be those of one batch, all of them and in its order, since the victim knows
    /// something of each (see [`InUnit`]). Else a caller may leave some out.
    fn is_positional(&self) -> bool {
        false
    }
}

/// Wraps a closure from images `[N, C, H, W]` to logits `[N, K, H, W]` as a [`Victim`].
///
/// ```
/// # use burn::tensor::{Device, Tensor};
/// # use fireproof_tensor::{Victim, victim};
/// let twice = victim(|x: Tensor<4>| x * 2.0);
/// let x = Tensor::ones([1, 2, 1, 1], &Device::flex());
/// let (logits, gradient) = twice.pull_back(x, &mut |z| Ok(z.ones_like()))?;
/// assert_eq!(gradient.into_data().try_to_vec::<f32>().unwrap(), [2.0, 2.0]);
/// # Ok::<(), fireproof_tensor::Error>(())
/// ```
pub fn victim<F: Fn(Tensor<4>) -> Tensor<4>>(forward: F) -> impl Victim {
    struct Closure<F>(F);
    impl<F: Fn(Tensor<4>) -> Tensor<4>> Victim for Closure<F> {
        fn logits(&self, images: Tensor<4>) -> Result<Tensor<4>> {
            Ok((self.0)(images))
        }
    }
    Closure(forward)
}

impl<V: Victim + ?Sized> Victim for &V {
    fn logits(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        (**self).logits(images)
    }

    fn pull_back(
        &self,
        images: Tensor<4>,
        cotangent: &mut dyn FnMut(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<(Tensor<4>, Tensor<4>)> {
        (**self).pull_back(images, cotangent)
    }

    fn is_positional(&self) -> bool {
        (**self).is_positional()
    }
}

impl<V: Victim + ?Sized> Victim for Box<V> {
    fn logits(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        (**self).logits(images)
    }

    fn pull_back(
        &self,
        images: Tensor<4>,
        cotangent: &mut dyn FnMut(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<(Tensor<4>, Tensor<4>)> {
        (**self).pull_back(images, cotangent)
    }
}

/// A victim that takes the images of one batch in another unit than the victim it wraps.
///
/// Mean and standard deviation of the cases are constants: the gradient is that of the wrapped victim, times one number a
/// channel.
pub struct InUnit<'a> {
    inner: &'a dyn Victim,
    batch: &'a Batch,
    given: Unit,
    wanted: Unit,
}

impl<'a> InUnit<'a> {
    /// Takes images of `batch`'s samples in the unit `given`; `inner` gets them in the unit `wanted`.
    ///
    /// # Errors
    /// If the units differ and the batch does not know its cases' statistics.
    pub fn new(inner: &'a dyn Victim, batch: &'a Batch, given: Unit, wanted: Unit) -> Result<Self> {
        batch.convert(batch.images.clone(), given, wanted)?;
        Ok(Self { inner, batch, given, wanted })
    }
}

impl Victim for InUnit<'_> {
    fn logits(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        self.inner.logits(self.batch.convert(images, self.given, self.wanted)?)
    }

    fn pull_back(
        &self,
        images: Tensor<4>,
        cotangent: &mut dyn FnMut(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<(Tensor<4>, Tensor<4>)> {
        let images = self.batch.convert(images, self.given, self.wanted)?;
        let (logits, gradient) = self.inner.pull_back(images, cotangent)?;
        let gradient = match &self.batch.affine {
            Some(affine) => affine.pull_back(gradient, self.given, self.wanted),
            None => gradient,
        };
        Ok((logits, gradient))
    }

    fn is_positional(&self) -> bool {
        self.given != self.wanted || self.inner.is_positional()
    }
}

/// Passes through a model, counted per image: one forward of a batch of 8 counts 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passes {
    /// Forward passes.
    pub forward: u64,
    /// Backward passes to the input.
    pub backward: u64,
}

impl std::ops::Add for Passes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { forward: self.forward + other.forward, backward: self.backward + other.backward }
    }
}

/// Counts the passes through another victim.
pub struct Counted<'a> {
    inner: &'a dyn Victim,
    passes: Cell<Passes>,
}

impl<'a> Counted<'a> {
    /// Starts at zero.
    pub fn new(inner: &'a dyn Victim) -> Self {
        Self { inner, passes: Cell::default() }
    }

    /// Passes since the start.
    pub fn passes(&self) -> Passes {
        self.passes.get()
    }
}

impl Victim for Counted<'_> {
    fn logits(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        self.passes.set(self.passes.get() + Passes { forward: images.dims()[0] as u64, backward: 0 });
        self.inner.logits(images)
    }

    fn pull_back(
        &self,
        images: Tensor<4>,
        cotangent: &mut dyn FnMut(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<(Tensor<4>, Tensor<4>)> {
        let n = images.dims()[0] as u64;
        self.passes.set(self.passes.get() + Passes { forward: n, backward: n });
        self.inner.pull_back(images, cotangent)
    }

    fn is_positional(&self) -> bool {
        self.inner.is_positional()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[test]
    fn pull_back_is_the_gradient_of_the_inner_product_with_a_constant_cotangent() {
        let x = Tensor::<4>::from_data(TensorData::new(vec![3.0f32, -2.0], [1, 2, 1, 1]), &Device::flex());
        // The cotangent depends on the logits; its own derivative must not appear.
        let square = victim(|x: Tensor<4>| x.clone() * x);
        let (logits, gradient) = square.pull_back(x, &mut |z| Ok(z)).unwrap();
        assert_eq!(logits.into_data().try_to_vec::<f32>().unwrap(), [9.0, 4.0]);
        assert_eq!(gradient.into_data().try_to_vec::<f32>().unwrap(), [9.0 * 6.0, 4.0 * -4.0]);
    }

    #[test]
    fn a_model_that_does_not_look_at_its_input_has_a_zero_gradient() {
        let x = Tensor::<4>::ones([1, 2, 1, 1], &Device::flex());
        let constant = victim(|x: Tensor<4>| x.zeros_like());
        let (_, gradient) = constant.pull_back(x, &mut |z| Ok(z + 1.0)).unwrap();
        assert_eq!(gradient.into_data().try_to_vec::<f32>().unwrap(), [0.0, 0.0]);
    }

    #[test]
    fn passes_are_counted_per_image() {
        let model = victim(|x: Tensor<4>| x);
        let counted = Counted::new(&model);
        let x = Tensor::<4>::zeros([3, 1, 2, 2], &Device::flex());
        counted.logits(x.clone()).unwrap();
        counted.pull_back(x, &mut |z| Ok(z)).unwrap();
        assert_eq!(counted.passes(), Passes { forward: 6, backward: 3 });
    }
}
