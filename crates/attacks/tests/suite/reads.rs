//! An attack keeps its data on the device.

use std::{cell::RefCell, fs, path::Path};

use burn::tensor::Tensor;
use fireproof_attacks::{AttackConfig, Context, Iterate, build};
use fireproof_tensor::{Batch, Result, Victim, host::reads, victim};

use crate::support::{Network, batch};

/// Notes how many reads there have been at every pass.
struct Noting<'a> {
    network: &'a Network,
    reads: RefCell<Vec<u64>>,
}

impl Victim for Noting<'_> {
    fn logits(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        self.reads.borrow_mut().push(reads());
        Ok(self.network.forward(images))
    }
}

/// Reads of a whole run, and those between its first pass and the pass after each step.
fn run(settings: AttackConfig, batch: &Batch, network: &Network) -> (u64, Vec<u64>) {
    let model = Noting { network, reads: RefCell::default() };
    let before = reads();
    build(&settings).unwrap().run(&model, batch, &Context::new(0)).unwrap();
    let total = reads() - before;
    let noted = model.reads.into_inner();
    (total, noted.iter().map(|reads| reads - noted[0]).collect())
}

fn scene() -> (Batch, Network) {
    let network = Network::random(2, 3, 4);
    let batch = batch(1, &victim(|x| network.forward(x)), 4, [2, 3, 16, 16]);
    (batch, network)
}

#[test]
fn no_step_reads_from_the_device() {
    let (batch, network) = scene();
    let names = ["fgsm", "segfgsm", "bim", "pgd", "segpgd", "cospgd", "mi-fgsm", "padam", "js", "tsallis"];
    for name in names.into_iter().chain(["masked-ce", "cosine", "dice", "dlr", "margin", "spherical"]) {
        for norm in ["linf", "l2"] {
            let Ok(settings) = AttackConfig::new(name) else { panic!("no attack '{name}'") };
            let steps = if name.ends_with("fgsm") && name != "mi-fgsm" { 1 } else { 9 };
            let settings = AttackConfig { steps, norm: norm.parse().unwrap(), ..settings };
            let (total, steps) = run(settings, &batch, &network);
            assert!(steps.iter().all(|reads| *reads == 0), "{name} {norm}: {steps:?}");
            // Whether the clean images are valid, and whether all losses and gradients are numbers.
            assert_eq!(total, 2, "{name} {norm}");
        }
    }
}

#[test]
fn a_long_run_reads_rarely_and_a_tracker_every_ten_steps() {
    let (batch, network) = scene();
    let reads = |steps: usize, iterate: Iterate| {
        // A radius too small to fool everything, so that no run ends early.
        let pgd = AttackConfig { steps, iterate, epsilon: 1e-6, ..AttackConfig::new("pgd").unwrap() };
        run(pgd, &batch, &network).0
    };
    // The clean images; losses and gradients after 10, 20, 40, 80, 160 and 200 steps.
    assert_eq!(reads(200, Iterate::Last), 7);
    let ten = reads(20, Iterate::BestAccuracy);
    assert_eq!(reads(120, Iterate::BestAccuracy) - reads(100, Iterate::BestAccuracy), 2);
    assert!(ten <= 8, "{ten}");
}

#[test]
fn libraries_read_tensors_through_the_counted_functions_alone() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files: Vec<_> = ["tensor", "attacks", "models", "eval"].map(|name| crates.join(name).join("src")).into();
    let mut found = Vec::new();
    let mut seen = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        if path.ends_with("tensor/src/host.rs") || path.extension().is_none_or(|e| e != "rs") {
            continue;
        }
        seen += 1;
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (number, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            if [".into_data()", ".to_data()", ".into_scalar()", ".try_into_vec"].iter().any(|call| line.contains(call))
            {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(seen > 100, "{seen} files");
    assert!(found.is_empty(), "use fireproof_tensor::host:\n{}", found.join("\n"));
}
