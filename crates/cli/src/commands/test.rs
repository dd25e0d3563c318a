//! `test`: the tests of the workspace, as the README says.

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::workspace;

/// Run the tests of the workspace.
///
/// `cargo test --release` over all crates; dependencies are built once for building and testing.
#[derive(Debug, Args)]
pub struct Test {
    /// Also the slow ones
    #[arg(long)]
    full: bool,
    /// Only this crate; repeat it for several
    #[arg(long, short, value_name = "CRATE")]
    package: Vec<String>,
    /// The device of the tests that take one; a GPU backend is compiled in
    #[arg(long, default_value = "flex", value_name = "NAME")]
    device: String,
    /// Passed to the test binaries: a filter, --nocapture, …
    #[arg(last = true)]
    arguments: Vec<String>,
}

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
        if self.package.is_empty() {
            command.arg("--workspace");
        }
        for package in &self.package {
            command.args(["--package", package]);
        }
        if backend != "flex" {
            command.args(["--features", &format!("fireproof-tensor/{backend}")]);
        }
        command.arg("--");
        if self.full {
            command.arg("--include-ignored");
        }
        let status = command.args(&self.arguments).status().context("cannot start cargo")?;
        if status.success() { Ok(()) } else { bail!("the tests failed") }
    }
}
