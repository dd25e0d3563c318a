//! Adversarial training of segmentation models as composed stages.
