//! One binary for all tests of the crate.

mod fixtures;
mod output;
mod pictures;
mod records;
mod schema;
mod tables;
