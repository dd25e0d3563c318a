//! BIM (I-FGSM): PGD from the clean image.
//!
//! Kurakin, Goodfellow, Bengio. *Adversarial examples in the physical world*, ICLR 2017 workshop.
//! <https://arxiv.org/abs/1607.02533>
//!
//! DDC-AT trains on it with 3 steps of ε/3.

use super::pgd::Pgd;
use crate::{GradientAttack, Registration, Start, objective::Weighted};

inventory::submit! {
    Registration {
        name: "bim",
        about: "PGD from the clean image",
        paper: "https://arxiv.org/abs/1607.02533",
        options: &[],
        defaults: |config| config.start = Start::Zero,
        build: |config| Ok(Box::new(GradientAttack::new(config, Weighted(Pgd))?)),
    }
}
