//! One binary for all tests of the crate.

mod binomial;
mod counts;
mod medical;
mod over_images;
mod sizes;
mod worst_case;
