//! The attacks, one file each: the paper, what is new in it, its defaults.

pub mod alma_prox;
pub mod apgd;
pub mod balanced;
pub mod bim;
pub mod cosine;
pub mod cospgd;
pub mod dag;
pub mod dice;
pub mod dlr;
pub mod eroseg;
pub mod fgsm;
pub mod js;
pub mod margin;
pub mod masked_ce;
pub mod mi_fgsm;
pub mod noise;
pub mod padam;
pub mod pgd;
pub mod rp_pgd;
pub mod sea;
pub mod segfgsm;
pub mod segpgd;
pub mod spherical;
pub mod square;
pub mod tsallis;
pub mod uncertainty;
