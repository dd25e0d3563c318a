//! `cargo xtask`: the commands of [`fireproof_cli`], with the plugins of this workspace.

mod plugins;

fn main() -> std::process::ExitCode {
    fireproof_cli::main()
}
