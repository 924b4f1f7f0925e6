//! The bench itself: a server for each major, a database for each set, the tables.

use std::process::Command;

use testkit::sets::Set;

use super::contenders::Bench;
use super::options::{Options, Part};
use super::rig::{DATABASE, Rig};

/// Runs the bench and prints its tables.
///
/// # Errors
/// What could not be built, started, measured or compared.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let options = Options::parse(args)?;
    if options.build {
        let built = Command::new("cargo")
            .args(["build", "--release", "--quiet", "-p", "pgstow"])
            .status()
            .map_err(|e| format!("cargo: {e}"))?;
        if !built.success() {
            return Err("the release build failed".to_owned());
        }
    }
    for major in &options.majors {
        let rig = Rig::start(*major)?;
        for set in &options.sets {
            bench_set(&rig, *set, &options)?;
        }
    }
    Ok(())
}

fn bench_set(rig: &Rig, set: Set, options: &Options) -> Result<(), String> {
    eprintln!(
        "filling PostgreSQL {}: {}",
        rig.major,
        set.title(&options.sizes)
    );
    let bytes = rig.fill(set, &options.sizes)?;
    let work = tempfile::tempdir().map_err(|e| e.to_string())?;
    let bench = Bench {
        rig,
        work: work.path(),
    };
    let expected = rig.fingerprint(DATABASE)?;
    println!(
        "\n## PostgreSQL {}, {}, database of {} MB",
        rig.major,
        set.title(&options.sizes),
        bytes / 1_000_000
    );
    let rounds = options.rounds_of(set);
    for part in &options.parts {
        match part {
            Part::Dump => print!("{}", bench.dumps(set, options, &expected)?),
            Part::Restore => print!("{}", bench.restores(set, options, &expected)?),
            Part::Extras => {
                print!("{}", bench.reads(rounds)?);
                print!("{}", bench.latency(rounds.max(5))?);
            }
        }
    }
    Ok(())
}
