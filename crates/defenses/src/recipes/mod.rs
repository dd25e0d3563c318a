//! The recipes of this crate, one a file. Each is what `--recipe FILE.toml` reads.

use crate::recipe::RecipeEntry;

inventory::submit! {
    RecipeEntry { about: "adversarial training at radii drawn by their held-out loss (Kinfu, Vidal)", text: include_str!("adaptive-at.toml") }
}
inventory::submit! {
    RecipeEntry { about: "adversarial logit pairing (Kannan et al.)", text: include_str!("alp.toml") }
}
inventory::submit! {
    RecipeEntry { about: "AugMix with its consistency of three views (Hendrycks et al.)", text: include_str!("augmix-jsd.toml") }
}
inventory::submit! {
    RecipeEntry { about: "mixes of clean, augmented and adversarial images, losses summed (Liu et al.)", text: include_str!("augrmix-at.toml") }
}
inventory::submit! {
    RecipeEntry { about: "adversarial training with adversarial weight perturbation (Wu et al.)", text: include_str!("awp-at.toml") }
}
inventory::submit! {
    RecipeEntry { about: "TRADES with adversarial weight perturbation (Wu et al.)", text: include_str!("awp-trades.toml") }
}
inventory::submit! {
    RecipeEntry { about: "adversarial training at a radius that grows over the epochs (Kinfu, Vidal)", text: include_str!("curriculum-at.toml") }
}
inventory::submit! {
    RecipeEntry { about: "CutMix, moving average and TRADES with Adam as the attack (Rebuffi et al.)", text: include_str!("cutmix-ema.toml") }
}
inventory::submit! {
    RecipeEntry { about: "adversarial training, stopped where robust validation is best (Rice et al.)", text: include_str!("early-stopping.toml") }
}
inventory::submit! {
    RecipeEntry { about: "free adversarial training: eight steps on each batch, each a step of the attack (Shafahi et al.)", text: include_str!("free-at.toml") }
}
inventory::submit! {
    RecipeEntry { about: "Gaussian noise on all images (Kireev et al.)", text: include_str!("gauss-full.toml") }
}
inventory::submit! {
    RecipeEntry { about: "Gaussian noise on half of the images (Kireev et al.)", text: include_str!("gauss-half.toml") }
}
inventory::submit! {
    RecipeEntry { about: "interpolated adversarial training: mixup of clean and of adversarial pairs (Lamb et al.)", text: include_str!("iat.toml") }
}
inventory::submit! {
    RecipeEntry { about: "interpolated adversarial training with manifold mixup (Lamb et al.)", text: include_str!("iat-manifold.toml") }
}
inventory::submit! {
    RecipeEntry { about: "one small l2 step, the baseline of RLAT (Kireev et al.)", text: include_str!("l2-small.toml") }
}
inventory::submit! {
    RecipeEntry { about: "one small linf step, the baseline of RLAT (Kireev et al.)", text: include_str!("linf-small.toml") }
}
inventory::submit! {
    RecipeEntry { about: "boosted cross-entropy, wrong predictions count more (Wang et al.)", text: include_str!("mart.toml") }
}
inventory::submit! {
    RecipeEntry { about: "ordinary training with nnU-Net's loss, Dice and cross-entropy (Isensee et al.)", text: include_str!("nnunet.toml") }
}
inventory::submit! {
    RecipeEntry { about: "adversarial training with images of no class (Lee et al.)", text: include_str!("oat.toml") }
}
inventory::submit! {
    RecipeEntry { about: "ordinary training with images of no class (Lee et al.)", text: include_str!("oat-standard.toml") }
}
inventory::submit! {
    RecipeEntry { about: "one-step perturbations of features, against common corruptions (Kireev et al.)", text: include_str!("rlat.toml") }
}
inventory::submit! {
    RecipeEntry { about: "RLAT after AugMix (Kireev et al.)", text: include_str!("rlat-augmix.toml") }
}
inventory::submit! {
    RecipeEntry { about: "free adversarial fine-tuning with nnU-Net's loss, as for ROG (Daza et al.)", text: include_str!("rog-free-at.toml") }
}
inventory::submit! {
    RecipeEntry { about: "ordinary training with cross-entropy", text: include_str!("standard.toml") }
}
inventory::submit! {
    RecipeEntry { about: "cross-entropy and divergence of adversarial predictions (Zhang et al.)", text: include_str!("trades.toml") }
}
