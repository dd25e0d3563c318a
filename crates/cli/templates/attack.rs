//! TYPE: ascend the cross-entropy of those pixels only that are still classified correctly.
//!
//! Put here: authors, title, year, a link, and what is new in the method. The loop, the projection, random starts, restarts
//! and scoring are GradientAttack's; this file says what a pixel weighs.

use burn::tensor::Tensor;
use fireproof_attacks::{
    Goal, GradientAttack, Registration, Step, inventory,
    objective::{PixelWeight, Weighted},
};

/// The weight map of the attack.
#[derive(Clone, Copy, Debug, Default)]
pub struct TYPE;

impl PixelWeight for TYPE {
    /// Logits `[N, K, H, W]` → weights `[N, H, W]`, recomputed at every step and constant for the gradient. The loop masks
    /// void pixels.
    fn weights(&self, _step: Step, logits: &Tensor<4>, goal: &Goal) -> Option<Tensor<3>> {
        Some(goal.open(logits))
    }

    /// The weights do not depend on the number of steps, so that one long run serves shorter ones too.
    fn depends_on_total(&self) -> bool {
        false
    }
}

inventory::submit! {
    Registration {
        name: "NAME",
        about: "cross-entropy of the pixels that are still right",
        paper: "https://example.org/put-the-paper-here",
        options: &[],
        defaults: |config| config.steps = 10,
        build: |config| Ok(Box::new(GradientAttack::new(config, Weighted(TYPE))?)),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};
    use fireproof_attacks::{AttackConfig, Context, build};
    use fireproof_tensor::{Batch, Victim, victim};

    #[test]
    fn the_attack_is_known_by_name_and_flips_pixels_within_its_radius() {
        // Class 1 where a pixel is brighter than grey.
        let model = victim(|x: Tensor<4>| Tensor::cat(vec![x.clone() * -1.0 + 0.5, x - 0.5], 1) * 20.0);
        let pixels = vec![0.49, 0.2, 0.51, 0.9];
        let batch = Batch::from_host(pixels, &[0, 0, 1, 1], [1, 1, 2, 2], vec![0], &Device::flex()).unwrap();
        let attack = build(&AttackConfig::new("NAME").unwrap()).unwrap();
        let attacked = attack.run(&model, &batch, &Context::new(0)).unwrap().images;
        let largest: f32 = (attacked.clone() - batch.images.clone()).abs().max().into_scalar();
        assert!(largest <= 8.0 / 255.0 + 1e-6, "{largest}");
        let accuracy = batch.targets.accuracy(&model.logits(attacked).unwrap());
        assert_eq!(accuracy, [0.5], "the two pixels near grey are within reach");
    }
}
