//! Every pixel may change, within a ball around the clean image and within the valid range.

use burn::tensor::{Tensor, TensorData};
use fireproof_tensor::{
    Batch, Norm, Unit,
    norm::{per_sample, radii},
    ops::attack_step,
};

use super::{Space, Threat};
use crate::{Context, Error, Result, Scene, Start, Variables, host::floats, start::Seeds};

/// The ball `‖x' − x‖ ≤ ε` intersected with the valid range.
///
/// The variable is the perturbed image itself, so a step is one fused [`attack_step`] and becoming an image costs
/// nothing. Of a batch in normalised units ball and step are in these units too, and the range is each case's own. A mask in the [`Context`] says where the perturbation may live; void pixels may be perturbed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelBall {
    /// The norm of the ball.
    pub norm: Norm,
    /// Its radius, in the units of the images; `f32::INFINITY` leaves only the range.
    pub epsilon: f32,
    /// Lowest and highest valid value of a pixel, in pixels.
    pub range: [f32; 2],
}

impl Threat for PixelBall {
    fn bind<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn Space + 'a>> {
        let clean = &scene.batch.images;
        let radius = Context::per_sample("epsilon", scene.context.epsilon, self.epsilon, scene.batch.len())?;
        self.accept(scene.batch)?;
        let mask = scene.context.mask.map(|mask| fit(mask, clean)).transpose()?;
        if let Some(start) = scene.context.start
            && start.dims() != clean.dims()
        {
            let expected = format!("{:?} like the images", clean.dims());
            return Err(Error::Argument { what: "start", found: format!("{:?}", start.dims()), expected });
        }
        let epsilon = radii(&radius, clean);
        let limits = match scene.batch.unit {
            Unit::Pixel => None,
            unit => {
                let all = |value: f32| scene.batch.convert(clean.full_like(value), Unit::Pixel, unit);
                Some([all(self.range[0])?, all(self.range[1])?])
            }
        };
        Ok(Box::new(Bound { ball: *self, scene: *scene, epsilon, radius, mask, limits }))
    }
}

impl PixelBall {
    /// Clean images must be finite and in the valid range; normalised images given as pixels are caught here.
    fn accept(&self, batch: &Batch) -> Result<()> {
        let [n, c, h, w] = batch.dims();
        let ids = &batch.ids;
        let flat = batch.in_unit(Unit::Pixel)?.images.reshape([n, c * h * w]);
        let extremes = Tensor::cat(vec![flat.clone().min_dim(1), flat.clone().max_dim(1), flat.sum_dim(1)], 1);
        let extremes = floats(extremes);
        let [low, high] = self.range;
        // Values that went through 8 bits and a division may miss the bound by a rounding.
        // Those that went through another unit may by more.
        let slack = if batch.unit == Unit::Pixel { 1e-6 } else { 1e-5 } * (high - low);
        for (row, id) in extremes.chunks(3).zip(ids) {
            if !(row[0] >= low - slack && row[1] <= high + slack && row[2].is_finite()) {
                return Err(Error::Argument {
                    what: "images",
                    found: format!("values from {} to {} (sum {}) in sample {id}", row[0], row[1], row[2]),
                    expected: format!("pixels in {low}..={high}, not normalised (or set the valid range)"),
                });
            }
        }
        Ok(())
    }
}

/// A mask `[N, C, H, W]` from one that may have a single channel.
fn fit(mask: &Tensor<4>, clean: &Tensor<4>) -> Result<Tensor<4>> {
    let [n, c, h, w] = clean.dims();
    match mask.dims() {
        dims if dims == [n, c, h, w] => Ok(mask.clone()),
        dims if dims == [n, 1, h, w] => Ok(mask.clone().repeat_dim(1, c)),
        dims => Err(Error::Argument {
            what: "mask",
            found: format!("{dims:?}"),
            expected: format!("{:?} or {:?}", [n, c, h, w], [n, 1, h, w]),
        }),
    }
}

struct Bound<'a> {
    ball: PixelBall,
    scene: Scene<'a>,
    epsilon: Tensor<1>,
    radius: Vec<f32>,
    mask: Option<Tensor<4>>,
    /// Lowest and highest valid value of each pixel, where they are not the same for all.
    limits: Option<[Tensor<4>; 2]>,
}

impl Bound<'_> {
    fn clean(&self) -> &Tensor<4> {
        &self.scene.batch.images
    }

    fn valid(&self, images: Tensor<4>) -> Tensor<4> {
        match &self.limits {
            Some([low, high]) => images.max_pair(low.clone()).min_pair(high.clone()),
            None => images.clamp(self.ball.range[0], self.ball.range[1]),
        }
    }

    fn masked(&self, x: Tensor<4>) -> Tensor<4> {
        match &self.mask {
            Some(mask) => x * mask.clone(),
            None => x,
        }
    }

    /// `U(−ε, ε)` for ℓ∞; for ℓ2 `U(−1, 1)` brought to length ε. Counter `i` of a sample's stream is its value `i`.
    fn noise(&self, seeds: &Seeds) -> Tensor<4> {
        let dims = self.clean().dims();
        let values = dims[1] * dims[2] * dims[3];
        let mut noise = Vec::with_capacity(dims[0] * values);
        for (id, radius) in self.scene.batch.ids.iter().zip(&self.radius) {
            let stream = seeds.stream(*id);
            let scale = if self.ball.norm == Norm::Linf { *radius } else { 1.0 };
            noise.extend((0..values as u64).map(|i| stream.symmetric(i) * scale));
        }
        let noise = self.masked(Tensor::from_data(TensorData::new(noise, dims), &self.clean().device()));
        match self.ball.norm {
            Norm::Linf => noise,
            Norm::L2 => {
                let length = Norm::L2.of(noise.clone()).clamp_min(1e-12);
                noise * per_sample(&(self.epsilon.clone() / length))
            }
        }
    }
}

impl Space for Bound<'_> {
    fn start(&self, start: Start, seeds: &Seeds) -> Result<Variables> {
        let images = match (self.scene.context.start, start) {
            (Some(images), _) => return Ok(self.project(vec![images.clone()])),
            (None, Start::Zero) => self.clean().clone(),
            (None, Start::Random) => self.valid(self.clean().clone() + self.noise(seeds)),
        };
        Ok(vec![images])
    }

    fn apply(&self, variables: &[Tensor<4>]) -> Tensor<4> {
        variables[0].clone()
    }

    fn pull_back(&self, _variables: &[Tensor<4>], gradient: Tensor<4>) -> Variables {
        vec![gradient]
    }

    fn ascend(&self, mut variables: Variables, mut gradients: Variables, step_size: &Tensor<1>) -> Variables {
        let gradient = self.masked(gradients.remove(0));
        // For ℓ∞ `attack_step` reads the sign itself, in the same pass.
        let direction = if self.ball.norm == Norm::Linf { gradient } else { self.ball.norm.steepest(gradient) };
        let (current, ball) = (variables.remove(0), &self.ball);
        // Limits of its own follow in a second pass.
        let range = if self.limits.is_some() { [f32::MIN, f32::MAX] } else { ball.range };
        let images = attack_step(current, direction, self.clean(), ball.norm, step_size, &self.epsilon, range);
        vec![if self.limits.is_some() { self.valid(images) } else { images }]
    }

    fn restrict(&self, gradients: Variables) -> Variables {
        gradients.into_iter().map(|gradient| self.masked(gradient)).collect()
    }

    fn project(&self, mut variables: Variables) -> Variables {
        let delta = self.masked(variables.remove(0) - self.clean().clone());
        vec![self.valid(self.clean().clone() + self.ball.norm.project(delta, &self.epsilon))]
    }

    fn epsilon(&self) -> &Tensor<1> {
        &self.epsilon
    }
}
