//! Inference that looks at an image more than once, or at a changed one: victims around a victim.
//!
//! An attack on such a victim is one perturbation of the whole image, through everything that happens to it; never one a crop
//! or one a scale.
//!
//! | victim | looks at |
//! |---|---|
//! | [`SlidingWindow`] | overlapping windows, whose logits are stitched |
//! | [`MultiScale`] | the image at several sizes, and mirrored |
//! | [`Smoothed`] | the image under Gaussian noise |
//! | [`Preprocessed`] | what a preprocessor leaves of the image |
//! | [`Ensemble`] | the image, with several models |
//!
//! All but the ensemble are [`Views`]: how an image is shown, and how what the model said comes back. [`Through`] makes a victim of
//! that. It sums up the logits of all views first and then takes the gradient view by view, so that the memory is that of a single
//! view, however many there are: two forward passes and one backward pass a view.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use fireproof_models::inference::{SlidingWindow, Views, Weights};
//! use fireproof_tensor::{Victim, victim};
//!
//! let model = victim(|images: Tensor<4>| images.mean_dim(1).repeat_dim(1, 2));
//! let whole = SlidingWindow { window: [32, 48], stride: [16, 24], weights: Weights::Gaussian }.around(model);
//! assert_eq!(whole.logits(Tensor::zeros([1, 3, 64, 96], &Device::flex()))?.dims(), [1, 2, 64, 96]);
//! # Ok::<(), fireproof_tensor::Error>(())
//! ```

mod ensemble;
mod multi_scale;
mod preprocessed;
mod sliding_window;
mod smoothed;

use burn::tensor::Tensor;
use fireproof_tensor::{Result, Victim, ops::backward};

pub use ensemble::Ensemble;
pub use multi_scale::MultiScale;
pub use preprocessed::{Preprocessed, Preprocessor};
pub use sliding_window::{SlidingWindow, Weights};
pub use smoothed::Smoothed;

/// How a model is shown an image, several times over.
pub trait Views: Send + Sync {
    /// How many views there are of images of this size.
    ///
    /// # Errors
    /// If there can be none.
    fn count(&self, size: [usize; 2]) -> Result<usize>;

    /// What the model is shown, `[N, C, H, W]` → `[N, C, h, w]`; differentiable.
    fn show(&self, view: usize, images: Tensor<4>) -> Tensor<4>;

    /// What the model said, `[N, K, h, w]` → this view's part of the logits of the whole image, `[N, K, H, W]`: the parts of all
    /// views add up to them. Differentiable.
    fn part(&self, view: usize, logits: Tensor<4>, size: [usize; 2]) -> Tensor<4>;

    /// The gradient at the images for one at what was shown; by default autodiff of [`show`](Views::show).
    fn unshow(&self, view: usize, images: Tensor<4>, gradient: Tensor<4>) -> Tensor<4> {
        adjoint(images, gradient, |x| self.show(view, x))
    }

    /// The victim that shows its images to another one like this.
    fn around<V: Victim>(self, model: V) -> Through<Self, V>
    where
        Self: Sized,
    {
        Through { views: self, model }
    }
}

/// A model that sees images through [`Views`].
#[derive(Clone, Copy, Debug)]
pub struct Through<W, V> {
    views: W,
    model: V,
}

impl<W: Views, V: Victim> Through<W, V> {
    fn sum(&self, images: &Tensor<4>) -> Result<Tensor<4>> {
        let size = size(images);
        let mut sum: Option<Tensor<4>> = None;
        for view in 0..self.views.count(size)? {
            let logits = self.model.logits(self.views.show(view, images.clone()))?;
            let part = self.views.part(view, logits, size);
            sum = Some(match sum {
                Some(sum) => sum + part,
                None => part,
            });
        }
        Ok(sum.expect("there is a view"))
    }
}

impl<W: Views, V: Victim> Victim for Through<W, V> {
    fn logits(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        self.sum(&images)
    }

    fn pull_back(
        &self,
        images: Tensor<4>,
        cotangent: &mut dyn FnMut(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<(Tensor<4>, Tensor<4>)> {
        let size = size(&images);
        let views = self.views.count(size)?;
        let shown = |view| self.views.show(view, images.clone());
        let back =
            |view, logits: Tensor<4>, given: Tensor<4>| adjoint(logits, given, |z| self.views.part(view, z, size));
        if views == 1 {
            // A single view needs no sum before its gradient.
            let mut whole = None;
            let (_, gradient) = self.model.pull_back(shown(0), &mut |logits| {
                let part = self.views.part(0, logits.clone(), size);
                whole = Some(part.clone());
                Ok(back(0, logits, cotangent(part)?))
            })?;
            let whole = whole.expect("a victim's pull_back asks for the gradient at its logits");
            return Ok((whole, self.views.unshow(0, images.clone(), gradient)));
        }
        let whole = self.sum(&images)?;
        let given = cotangent(whole.clone())?;
        let mut sum = images.zeros_like();
        for view in 0..views {
            let (_, gradient) =
                self.model.pull_back(shown(view), &mut |logits| Ok(back(view, logits, given.clone())))?;
            sum = sum + self.views.unshow(view, images.clone(), gradient);
        }
        Ok((whole, sum))
    }
}

/// Any of the views at once, from the outermost: preprocessor, noise, scales, windows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inference {
    /// Overlapping windows.
    pub window: Option<SlidingWindow>,
    /// Several sizes, and mirrored.
    pub scales: Option<MultiScale>,
    /// Noise.
    pub smoothed: Option<Smoothed>,
    /// A preprocessor.
    pub preprocessed: Option<Preprocessed>,
}

impl Inference {
    /// The model behind all of it.
    pub fn around(&self, model: Box<dyn Victim + Send + Sync>) -> Box<dyn Victim + Send + Sync> {
        let mut model = model;
        if let Some(window) = self.window {
            model = Box::new(window.around(model));
        }
        if let Some(scales) = self.scales.clone() {
            model = Box::new(scales.around(model));
        }
        if let Some(smoothed) = self.smoothed {
            model = Box::new(smoothed.around(model));
        }
        if let Some(preprocessed) = self.preprocessed {
            model = Box::new(preprocessed.around(model));
        }
        model
    }
}

/// In words for tables, `window 64x48/32x24 gaussian, scales 0.75 1 mirrored`; nothing for a plain look.
impl std::fmt::Display for Inference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut words = Vec::new();
        if let Some(Preprocessed { preprocessor, straight_through }) = self.preprocessed {
            let what = match preprocessor {
                Preprocessor::Blur(sigma) => format!("blur {sigma}"),
                Preprocessor::Bits(bits) => format!("{bits} bits"),
            };
            words.push(what + if straight_through { " straight through" } else { "" });
        }
        if let Some(Smoothed { sigma, draws, seed }) = self.smoothed {
            words.push(format!("noise {sigma} x {draws} seed {seed}"));
        }
        if let Some(MultiScale { scales, mirrored }) = &self.scales {
            let scales = scales.iter().map(f32::to_string).collect::<Vec<_>>().join(" ");
            words.push(format!("scales {scales}{}", if *mirrored { " mirrored" } else { "" }));
        }
        if let Some(SlidingWindow { window: [h, w], stride: [down, across], weights }) = self.window {
            let weights = if weights == Weights::Gaussian { " gaussian" } else { "" };
            words.push(format!("window {w}x{h}/{across}x{down}{weights}"));
        }
        formatter.write_str(&words.join(", "))
    }
}

fn size(images: &Tensor<4>) -> [usize; 2] {
    let [_, _, height, width] = images.dims();
    [height, width]
}

/// The gradient at `x` of `⟨f(x), cotangent⟩`, all plain tensors.
fn adjoint(x: Tensor<4>, cotangent: Tensor<4>, f: impl FnOnce(Tensor<4>) -> Tensor<4>) -> Tensor<4> {
    let leaf = x.clone().autodiff().require_grad();
    let mut gradients = backward(f(leaf.clone()), cotangent);
    leaf.grad_remove(&mut gradients).unwrap_or_else(|| x.zeros_like())
}

/// A constant beside `x`: on its graph if it is on one.
fn beside(x: &Tensor<4>, constant: Tensor<4>) -> Tensor<4> {
    if x.is_autodiff() { Tensor::from_inner(constant) } else { constant }
}
