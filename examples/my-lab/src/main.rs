//! A lab with an attack of its own: `cargo run --release -- bench --attacks boundary-pgd --steps 3,10` scores it beside all
//! others.

mod boundary_pgd;

fn main() -> std::process::ExitCode {
    fireproof::cli::main()
}
