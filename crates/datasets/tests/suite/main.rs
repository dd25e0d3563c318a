//! The crate from outside: bad input and its messages, readers, loader, generator, real data.

mod bad_input;
mod generator;
mod loading;
mod readers;
mod real_data;
mod support;
