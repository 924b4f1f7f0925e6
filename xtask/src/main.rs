//! Chores of the project; `cargo xtask` alone lists them.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "chores talk to the terminal"
)]

mod bench;
mod chores;
mod fuzz;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask test [NEXTEST ARGUMENTS]   set up what the tests need, then run all of them
cargo xtask lint                       formatting, clippy, documentation, dependency policy
cargo xtask images                     container engine and PostgreSQL images for the tests
cargo xtask tamper [N]                 N (10,000) random flips and cuts of stored archives, all found
cargo xtask fuzz [--seconds N|--runs N] every fuzz target of the archive reader, 10 s each
cargo xtask bench [OPTIONS]            pgstow beside the stock tools, outputs compared
cargo xtask bench-read [OPTIONS]       how fast archives are read and fingerprinted";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (verb, rest) = match args.split_first() {
        Some((verb, rest)) => (verb.as_str(), rest),
        None => ("", &[][..]),
    };
    let result = match verb {
        "test" => chores::test(rest),
        "lint" => chores::lint(),
        "images" => chores::set_up(),
        "tamper" => chores::tamper(rest),
        "bench" => chores::set_up().and_then(|()| bench::run(rest)),
        "fuzz" => fuzz::run(rest),
        "bench-read" => chores::set_up().and_then(|()| bench::run_reading(rest)),
        _ => Err(format!("usage:\n{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
