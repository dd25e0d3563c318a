//! What attacks have in common that look for the smallest perturbation instead of the worst one in a ball.

use burn::tensor::Tensor;
use fireproof_tensor::Unit;

use crate::{Adversarial, AttackConfig, Iterate, Minimal, Result, Scene, Start, threat::PixelBall, threat::Threat};

/// Share of valid pixels that must be fooled for an image to count as fooled.
pub(crate) const FOOLED: f32 = 0.99;

/// Refuses settings that such an attack does not have.
pub(crate) fn check(config: &AttackConfig) -> Result<()> {
    config.check()?;
    if config.unit != Unit::Pixel {
        return Err(config.setting("unit", config.unit, "pixel, since the valid range is a part of the search"));
    }
    if config.start != Start::Zero {
        return Err(config.setting("start", config.start, "zero, since the smallest perturbation is sought"));
    }
    if config.iterate != Iterate::BestAccuracy {
        return Err(config.setting("iterate", config.iterate, "best-accuracy, of equals the smallest"));
    }
    Ok(())
}

/// Brings what was found into the ball; `passes` and trace are the caller's to fill in.
pub(crate) fn clipped(ball: PixelBall, scene: &Scene, found: Minimal) -> Result<Adversarial> {
    let images: Tensor<4> = ball.bind(scene)?.project(vec![found.images.clone()]).remove(0);
    let passes = fireproof_tensor::Passes::default();
    Ok(Adversarial { images, candidates: Vec::new(), minimal: Some(found), trace: None, passes })
}
