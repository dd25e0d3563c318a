//! Certificates: what no perturbation in an ℓ2 ball can change, whatever attack makes it.
//!
//! | method | for | paper |
//! |---|---|---|
//! | [`SegCertify`] | segmentation: all certified pixels of an image hold at once | Fischer, Baader, Vechev, ICML 2021, <https://arxiv.org/abs/2107.00228> |
//! | [`Cohen`] | classification | Cohen, Rosenfeld, Kolter, ICML 2019, <https://arxiv.org/abs/1902.02918> |
//!
//! Both ask a model about many noisy copies of an image. The certificate is about the *smoothed* model, which answers with the
//! class that most copies get; it holds with probability `1 − alpha` over the noise, and abstains where the copies do not agree
//! enough. An attack gives an upper bound of robustness and a certificate a lower one; the truth is between them.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use fireproof_certify::SegCertify;
//! use fireproof_tensor::victim;
//!
//! // Class 1 where a pixel is above one half.
//! let model = victim(|x: Tensor<4>| Tensor::cat(vec![x.zeros_like() + 0.5, x], 1));
//! let image = Tensor::ones([1, 1, 2, 2], &Device::flex());
//! let certificate = SegCertify { n: 200, ..SegCertify::new(0.1, 0.75) }.certify(&model, &image, 0)?;
//! assert_eq!(certificate.classes(), [Some(1); 4]);
//! assert!((certificate.radius - 0.06745).abs() < 1e-5);
//! # Ok::<(), fireproof_certify::Error>(())
//! ```

mod cohen;
mod error;
mod sample;
mod segcertify;

pub use cohen::{Cohen, Verdict};
pub use error::{Error, Result};
pub use segcertify::{Certificate, Correction, SegCertify};
