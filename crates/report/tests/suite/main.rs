//! One binary for all tests of the crate.

mod fixtures;
mod launcher;
mod merge;
mod output;
mod pictures;
mod records;
mod sanity;
mod schema;
mod scores;
mod seeds;
mod shard;
mod tables;
