//! The attacks, one file each: the paper, what is new in it, its defaults.

pub mod bim;
pub mod cospgd;
pub mod fgsm;
pub mod pgd;
pub mod segfgsm;
pub mod segpgd;
