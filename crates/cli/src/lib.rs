//! The commands of fireproof as a library: a binary with attacks, models or data sets of its own gets all of them with one
//! line.
//!
//! ```no_run
//! // use my_attack as _;   // the linker drops a crate that nothing names
//!
//! fn main() -> std::process::ExitCode {
//!     fireproof_cli::main()
//! }
//! ```
//!
//! Every command has a `--help`; [`Command`] lists them.

mod commands;
mod options;
mod picture;
mod processes;
mod progress;
mod rebuilt;
mod values;
mod workspace;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Harden, attack and score image segmentation models.
///
/// Without a trained model at hand, `bench` alone shows what it is about: it attacks two small models that come with the
/// repository and writes a report.
#[derive(Debug, Parser)]
#[command(name = "fireproof", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Attack models and write a table, curves, pictures and a report.
    Bench(commands::bench::Bench),
    /// Train a model by a recipe: standard, pgd3-at, segpgd3-at, …
    Train(commands::train::Train),
    /// Segment one image.
    Predict(commands::predict::Predict),
    /// Attack one image.
    Attack(commands::attack::Attack),
    /// Certify predictions pixel by pixel with randomized smoothing.
    Certify(commands::certify::Certify),
    /// List the data sets, or check one that lies on disk.
    #[command(subcommand)]
    Data(commands::data::Data),
    /// Say what this machine and this binary offer, and why a backend is missing.
    Doctor(commands::doctor::Doctor),
    /// Run the tests of the workspace.
    Test(commands::test::Test),
    /// Write weights under PyTorch's names.
    Export(commands::export::Export),
    /// Make tables and the report of a finished run anew.
    Report(commands::report::Report),
    /// Time a forward pass, a gradient, an attack step and a training step: one JSON line.
    Speed(commands::speed::Speed),
    /// Start an attack, a defense, a model or a data set of one's own: a crate that compiles, with a passing test.
    #[command(subcommand)]
    New(commands::new::New),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever keeps it from its work, in a sentence that names the file or argument.
    pub fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Bench(command) => command.run(),
            Self::Train(command) => command.run(),
            Self::Predict(command) => command.run(),
            Self::Attack(command) => command.run(),
            Self::Certify(command) => command.run(),
            Self::Data(command) => command.run(),
            Self::Doctor(command) => command.run(),
            Self::Test(command) => command.run(),
            Self::Export(command) => command.run(),
            Self::Report(command) => command.run(),
            Self::Speed(command) => command.run(),
            Self::New(command) => command.run(),
        }
    }
}

/// The whole program: reads the command line, runs the command, prints an error as one line.
///
/// Status 0 is success, 1 an error, 2 a command line that is none.
pub fn main() -> ExitCode {
    fireproof_tensor::memory::keep_freed_memory();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return say(&error),
    };
    if let Some(status) = rebuilt::with_backends() {
        return status;
    }
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output through `head` has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", in_words(&error));
            ExitCode::FAILURE
        }
    }
}

/// Prints help, or what is wrong with the command line: without clap's last line, which would hide the message above it.
fn say(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A reader that has gone has seen enough.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let styled = std::io::stderr().is_terminal();
    let text = if styled { error.render().ansi().to_string() } else { error.render().to_string() };
    eprintln!("{}", text.split("\n\nFor more information").next().unwrap_or(&text).trim_end());
    ExitCode::from(2)
}

/// The error and its causes; a cause that an error above it has already told is not told again.
fn in_words(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        _ if told.contains(&cause) => told,
        _ => format!("{told}: {cause}"),
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind =
        |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    error.chain().any(|cause| kind(cause) == Some(std::io::ErrorKind::BrokenPipe))
}
