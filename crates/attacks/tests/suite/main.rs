//! One test binary, since each links Burn.

mod bounds;
mod broken;
mod golden;
mod independence;
mod losses;
mod memory;
mod naming;
mod objectives;
mod oracle;
mod parts;
mod running;
mod support;
mod targeted;
