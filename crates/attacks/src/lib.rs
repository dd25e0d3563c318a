//! Adversarial attacks on segmentation models, one file each.
