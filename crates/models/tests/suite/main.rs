//! Tests of networks and weight files. One binary, since each links Burn.

mod common;
mod espnet;
mod inference;
mod networks;
mod nnunet;
mod torchvision;
mod training;
mod unet;
mod untrusted;
mod weights;
