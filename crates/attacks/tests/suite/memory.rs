//! A thousand steps take no more memory than a hundred.

use std::{cell::RefCell, process::Command};

use fireproof_attacks::{AttackConfig, Context, Iterate, View, build};

use crate::support::{Network, batch, config};

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
#[ignore = "runs in a process of its own, started by the test below"]
fn measured_alone() {
    let model = Network::random(51, 3, 5).victim();
    let batch = batch(52, &model, 5, [2, 3, 64, 64]);
    let marks: RefCell<Vec<u64>> = RefCell::default();
    let observer = |view: &View<'_>| {
        if view.step % 100 == 0 {
            marks.borrow_mut().push(resident());
        }
    };
    let settings = AttackConfig { steps: 1000, iterate: Iterate::BestAccuracy, ..config("segpgd") };
    let context = Context { observer: Some(&observer), ..Context::new(0) };
    build(&settings).unwrap().run(&model, &batch, &context).unwrap();
    let marks = marks.into_inner();
    let megabytes: Vec<u64> = marks.iter().map(|m| m >> 20).collect();
    println!("resident MiB every 100 steps: {megabytes:?}");
    // One step's graph is about 8 MiB: a single leaked tensor a step would add hundreds.
    let grown = marks[10].saturating_sub(marks[1]);
    assert!(grown < 16 << 20, "grew by {} KiB from step 100 to step 1000: {megabytes:?} MiB", grown >> 10);
}

#[test]
fn memory_is_flat_over_a_thousand_steps() {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: resident memory is read from /proc");
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory::measured_alone", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    println!("{text}");
    assert!(child.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&child.stderr));
}
