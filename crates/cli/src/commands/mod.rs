//! The commands, one file each.

pub mod attack;
pub mod bench;
pub mod certify;
pub mod data;
pub mod doctor;
pub mod export;
pub mod new;
pub mod predict;
pub mod report;
pub mod speed;
pub mod test;
pub mod train;
