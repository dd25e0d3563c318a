//! `test`: the tests of the workspace, as the README says.

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::workspace;

/// Run the tests of the workspace.
///
/// `cargo test --release` over all crates; dependencies are built once for building and testing. With a GPU's --device the tests
/// that take a device run there: every operation, network, attack and recipe, and a bench. Where the device is missing they say so.
/// Property tests draw the same cases in every run, unless PROPTEST_RNG_SEED names another seed.
#[derive(Debug, Args)]
pub struct Test {
    /// Also the slow ones, and new random cases for the property tests
    #[arg(long)]
    full: bool,
    /// Only this crate; repeat it for several
    #[arg(long, short, value_name = "CRATE")]
    package: Vec<String>,
    /// Run the tests that take a device on this one; a GPU backend is compiled in
    #[arg(long, default_value = "flex", value_name = "NAME")]
    device: String,
    /// Passed to the test binaries: a filter, --nocapture, …
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// The crates with a test target `device`.
const WITH_DEVICE_TESTS: [&str; 5] =
    ["fireproof-tensor", "fireproof-models", "fireproof-attacks", "fireproof-defenses", "xtask"];

/// Where proptest looks for its seed.
const SEED: &str = "PROPTEST_RNG_SEED";

impl Test {
    /// Runs the command.
    pub fn run(&self) -> Result<()> {
        let backend = self.device.split(':').next().unwrap_or_default();
        let known = fireproof_tensor::device::backends();
        if !known.iter().any(|known| known.name == backend) {
            let names: Vec<&str> = known.iter().map(|known| known.name).collect();
            bail!("--device: found '{}', expected one of {}", self.device, names.join(", "));
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(workspace::root()?).args(["test", "--release"]).env("FIREPROOF_TEST_DEVICE", &self.device);
        if !self.full && std::env::var_os(SEED).is_none() {
            // What fails here is then due to the change at hand; `.ci/properties` looks further.
            command.env(SEED, "1");
        }
        let on_gpu = backend != "flex";
        let packages: Vec<&str> = match &self.package[..] {
            [] if on_gpu => WITH_DEVICE_TESTS.to_vec(),
            given => given.iter().map(String::as_str).collect(),
        };
        if packages.is_empty() {
            command.arg("--workspace");
        }
        for package in packages {
            command.args(["--package", package]);
        }
        if on_gpu {
            // The kernels as CUDA C++ too: whatever compiles for one GPU should compile for all.
            command.args(["--features", &format!("{backend},fireproof-tensor/cuda-source"), "--test", "device"]);
        }
        command.arg("--");
        if self.full {
            command.arg("--include-ignored");
        }
        let status = command.args(&self.arguments).status().context("cannot start cargo")?;
        if status.success() { Ok(()) } else { bail!("the tests failed") }
    }
}
