//! RP-PGD: pixels count by their history, not by how they stand.
//!
//! *RP-PGD*, AAAI 2025: region and prototype based attack. Here is its region part.
//!
//! Three regions, with `i = 1 … N` counting the steps: `T`, pixels correct at every iterate so far, weigh
//! `μ₁ = (2N − i) / 2N`; `B`, pixels correct on the clean image and wrong at some iterate since, weigh `μ₂ = (i − 1) / 2N`;
//! `F`, pixels wrong on the clean image, weigh `μ₃ = 1 / 2N`. A pixel that was fooled once stays in `B` even if it comes
//! back: SegPGD would send it back among the correct. Divided by nothing, since a positive scale changes no direction.
//!
//! The paper adds a cosine term between class prototypes pooled from the model's features. A [`Victim`] shows logits, not
//! features, so it is left out. In the paper's ablation (PSPNet on VOC, 100 steps) the regions alone leave 0.61 mIoU, both
//! together 0.48, the prototypes alone 8.74.
//!
//! One forward pass more than PGD, for the clean prediction.
//!
//! [`Victim`]: fireproof_tensor::Victim

use burn::tensor::Tensor;

use crate::{
    GradientAttack, Registration, Result, Scene, Step,
    gradient_attack::fits,
    objective::{NamedObjective, Objective, ObjectiveRun, weighted_by},
};

/// The region part of RP-PGD.
#[derive(Clone, Copy, Debug, Default)]
pub struct RpPgd;

/// The weights of `T`, `B` and `F` at a step.
pub fn mu(step: Step) -> [f32; 3] {
    let (done, twice) = (step.index as f32, 2.0 * step.total as f32);
    [(twice - done - 1.0) / twice, done / twice, 1.0 / twice]
}

impl Objective for RpPgd {
    fn begin<'a>(&'a self, scene: &Scene<'a>) -> Result<Box<dyn ObjectiveRun + 'a>> {
        let goal = scene.goal;
        let clean = scene.victim.logits(scene.batch.images.clone())?;
        fits(&clean, scene.batch)?;
        let open_at_first = goal.open(&clean);
        let mut always_open = open_at_first.clone();
        Ok(weighted_by(goal, move |step: Step, logits: &Tensor<4>| {
            always_open = always_open.clone() * goal.open(logits);
            let [held, lost, never] = mu(step);
            // never + (lost − never) on clean-correct pixels + (held − lost) on those that never left.
            Some(always_open.clone() * (held - lost) + open_at_first.clone() * (lost - never) + never)
        }))
    }
}

inventory::submit! {
    NamedObjective { name: "rp-pgd", options: &[], build: |_| Ok(Box::new(RpPgd)) }
}

inventory::submit! {
    Registration {
        name: "rp-pgd",
        about: "PGD that weighs pixels by whether they were ever fooled",
        paper: "RP-PGD, AAAI 2025",
        options: &[],
        defaults: |_| {},
        build: |config| Ok(Box::new(GradientAttack::new(config, RpPgd)?)),
    }
}
