//! Victims that compute in half precision, under attacks that do not.

use burn::tensor::{DType, Device, FloatDType, Tensor};

use crate::{Error, Result, Victim};

/// The type of a victim's numbers. Images, perturbations, losses and gradients are always `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// IEEE half precision: 11 bits of significand, from 6·10⁻⁸ to 65504.
    F16,
    /// 8 bits of significand, the range of `f32`.
    Bf16,
    /// 11 bits of significand in the products of tensor cores, the range of `f32`.
    Tf32,
}

impl Precision {
    /// The type of the victim's tensors.
    ///
    /// # Errors
    /// [`Error::Precision`] if the device has no such numbers, or Burn no way to ask for them.
    pub fn dtype(self, device: &Device) -> Result<FloatDType> {
        let refused = |reason: &str| {
            let device = crate::device::identity(device);
            Err(Error::Precision { precision: self.to_string(), device, reason: reason.into() })
        };
        let (dtype, wanted) = match self {
            Self::F32 => return Ok(FloatDType::F32),
            Self::F16 => (FloatDType::F16, DType::F16),
            Self::Bf16 => (FloatDType::BF16, DType::BF16),
            Self::Tf32 => return refused("Burn 0.22.1 has no tensors of it and no switch for its products"),
        };
        if device.supports_dtype(wanted) { Ok(dtype) } else { refused("the device does not compute with it") }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Tf32 => "tf32",
        })
    }
}

impl std::str::FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::F32, Self::F16, Self::Bf16, Self::Tf32];
        let found = all.into_iter().find(|precision| precision.to_string() == text);
        let (what, expected) = ("a precision", "'f32', 'f16', 'bf16' or 'tf32'");
        found.ok_or_else(|| Error::Parse { what, found: text.into(), expected })
    }
}

/// A victim whose parameters are of another type than `f32`, seen as one of `f32`.
///
/// Images go in and logits come out as `f32`. The gradient at the logits is scaled before it becomes half precision and the
/// gradient at the images scaled back after: gradients of a loss reach the images many orders of magnitude smaller than they
/// began, and in `f16` whatever falls below 6·10⁻⁸ is zero, which looks like a masked gradient and is none. The factor is a power of two
/// and each image's own, so it neither rounds nor makes an image depend on its neighbours.
pub struct HalfPrecision<V> {
    inner: V,
    dtype: FloatDType,
}

impl<V: Victim> HalfPrecision<V> {
    /// `inner` takes and gives tensors of type `dtype`.
    pub fn new(inner: V, dtype: FloatDType) -> Self {
        Self { inner, dtype }
    }
}

/// The largest gradient at the logits, after scaling. Undefended networks make it thousands of times larger on its way to the image, and
/// 65504 is the largest `f16`; 256 overflows in the U-Net that comes with the project.
const LARGEST: f32 = 1.0;

impl<V: Victim> Victim for HalfPrecision<V> {
    fn is_positional(&self) -> bool {
        self.inner.is_positional()
    }

    fn logits(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        Ok(self.inner.logits(images.cast(self.dtype))?.cast(FloatDType::F32))
    }

    fn pull_back(
        &self,
        images: Tensor<4>,
        cotangent: &mut dyn FnMut(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<(Tensor<4>, Tensor<4>)> {
        let mut scale = None;
        let (logits, gradient) = self.inner.pull_back(images.cast(self.dtype), &mut |logits| {
            let given = cotangent(logits.cast(FloatDType::F32))?;
            let factor = factor(&given);
            let scaled = given * factor.clone();
            scale = Some(factor);
            Ok(scaled.cast(self.dtype))
        })?;
        let scale = scale.expect("a victim's pull_back asks for the gradient at its logits");
        Ok((logits.cast(FloatDType::F32), gradient.cast(FloatDType::F32) / scale))
    }
}

/// The power of two that brings each image's largest number just below [`LARGEST`], `[N, 1, 1, 1]`; one where all are zero.
fn factor(given: &Tensor<4>) -> Tensor<4> {
    let [n, k, height, width] = given.dims();
    let largest = given.clone().abs().reshape([n, k * height * width]).max_dim(1).reshape([n, 1, 1, 1]);
    let none = largest.clone().equal_elem(0.0);
    let exponent = (largest.clamp_min(1e-30).recip() * LARGEST).log() * std::f32::consts::LOG2_E;
    // Exact powers: 2^k by the exponential is not one everywhere, so large steps are taken by squaring.
    power_of_two(exponent.floor()).mask_fill(none, 1.0)
}

/// 2 to a whole number between −127 and 127, exactly.
fn power_of_two(exponent: Tensor<4>) -> Tensor<4> {
    let exponent = exponent.clamp(-126.0, 126.0);
    let mut rest = exponent.clone().abs();
    let mut power = rest.ones_like();
    for (bit, factor) in [
        (64.0, 1.844_674_4e19),
        (32.0, 4.294_967_3e9),
        (16.0, 65536.0),
        (8.0, 256.0),
        (4.0, 16.0),
        (2.0, 4.0),
        (1.0, 2.0f32),
    ] {
        let set = rest.clone().greater_equal_elem(bit);
        power = power.clone().mask_where(set.clone(), power * factor);
        rest = rest.clone().mask_where(set, rest - bit);
    }
    let negative = exponent.lower_elem(0.0);
    power.clone().mask_where(negative, power.recip())
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::victim;

    fn image(values: &[f32]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len(), 1, 1, 1]), &Device::flex())
    }

    #[test]
    fn a_gradient_that_half_precision_cannot_hold_comes_back() {
        // 1e-5 · 1e-4 = 1e-9 is zero in f16.
        let small = victim(|x: Tensor<4>| x * 1e-4);
        let unscaled = |x: Tensor<4>| x.cast(FloatDType::F16).cast(FloatDType::F32);
        assert_eq!(unscaled(image(&[1e-9])).into_data().try_to_vec::<f32>().unwrap(), [0.0]);
        let half = HalfPrecision::new(small, FloatDType::F16);
        let given = [1e-5f32, 3.0, 0.0];
        let (_, gradient) = half.pull_back(image(&[0.5; 3]), &mut |_| Ok(image(&given))).unwrap();
        let gradient: Vec<f32> = gradient.into_data().try_to_vec().unwrap();
        for (found, given) in gradient.iter().zip(given) {
            assert!((found - given * 1e-4).abs() <= 2e-3 * given * 1e-4, "{gradient:?}");
        }
    }

    #[test]
    fn factors_are_exact_powers_of_two_of_each_image_alone() {
        let values = [1e-9f32, 0.3, 255.0, 1e5, 0.0];
        let all: Vec<f32> = factor(&image(&values)).into_data().try_to_vec().unwrap();
        for (value, factor) in values.into_iter().zip(all) {
            let alone: Vec<f32> = super::factor(&image(&[value])).into_data().try_to_vec().unwrap();
            assert_eq!(alone, [factor]);
            assert_eq!(factor.to_bits() & 0x7f_ffff, 0, "{factor} is no power of two");
            assert!(
                value == 0.0 || (LARGEST / 2.1..=LARGEST * 1.01).contains(&(value * factor)),
                "{value} by {factor}"
            );
        }
    }

    #[test]
    fn a_precision_that_is_not_there_is_refused_by_name() {
        let error = Precision::Tf32.dtype(&Device::flex()).unwrap_err().to_string();
        assert!(error.contains("'tf32'") && error.contains("the CPU"), "{error}");
        assert!("f8".parse::<Precision>().unwrap_err().to_string().contains("'bf16'"));
    }
}
