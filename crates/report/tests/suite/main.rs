//! One binary for all tests of the crate.

mod fixtures;
mod records;
mod schema;
