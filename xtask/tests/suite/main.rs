//! The commands, end to end through the binary, on tiny scenes.

mod attacks;
mod bench;
mod book;
mod devices;
mod lab;
mod medical;
mod mistakes;
mod new;
mod precision;
mod results;
mod shipped;
mod single;
mod svg;
