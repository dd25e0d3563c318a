//! One test binary, since each links Burn.

mod apgd;
mod black_box;
mod bounds;
mod broken;
mod compacting;
mod corruption;
mod distinct;
mod ensembles;
mod golden;
mod independence;
mod learned;
mod losses;
mod memory;
mod minimal;
mod naming;
mod objectives;
mod oracle;
mod parts;
mod reads;
mod reference;
mod running;
mod support;
mod targeted;
mod units;
