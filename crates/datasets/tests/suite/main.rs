//! The crate from outside: bad input and its messages, readers, loader, generator, medical volumes, real data.

mod bad_input;
mod generator;
mod loading;
mod medical;
mod readers;
mod real_data;
mod support;
