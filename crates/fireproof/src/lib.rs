//! Attack and harden image segmentation models, on the Burn deep-learning framework.
