//! `cargo xtask fuzz`: every fuzz target of the archive reader for a short time.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::chores;

const USAGE: &str = "cargo xtask fuzz [--seconds N | --runs N] [TARGET]…";
/// Seconds for each target unless told otherwise.
const SECONDS: u32 = 10;
/// Memory at which a target counts as failed, MiB: readers promise constant memory.
const MEMORY_MIB: u32 = 1024;
/// Seconds for one input at which a target counts as failed.
const HANG_SECONDS: u32 = 20;

/// Runs the targets one after the other, from the seeds and what earlier runs found.
///
/// # Errors
/// Wrong arguments, or the first target that fails; its input is kept below `fuzz/artifacts`.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("xtask lies in no workspace")?;
    let mut limit = format!("-max_total_time={SECONDS}");
    let mut seed = None;
    let mut chosen = Vec::new();
    let known = targets(root)?;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--seconds" || arg == "--runs" {
            let number: u32 = args
                .next()
                .and_then(|value| value.parse().ok())
                .ok_or_else(|| format!("usage: {USAGE}"))?;
            if arg == "--runs" {
                // The same inputs each time: a check of the sources, not a search.
                limit = format!("-runs={number}");
                seed = Some("-seed=1");
            } else {
                limit = format!("-max_total_time={number}");
            }
        } else if known.contains(arg) {
            chosen.push(arg.clone());
        } else {
            return Err(format!("usage: {USAGE}; targets: {}", known.join(", ")));
        }
    }
    if chosen.is_empty() {
        chosen = known;
    }
    chores::ensure_tool("cargo-fuzz")?;
    // Coverage needs no nightly compiler. A sanitizer would need one, and could find nothing that
    // safe code does.
    let fuzz = |verb: &str| {
        let mut command = Command::new("cargo");
        command
            .current_dir(root)
            .args(["fuzz", verb, "--sanitizer", "none"])
            .env("RUSTC_BOOTSTRAP", "1");
        command
    };
    chores::run(&mut fuzz("build"))?;
    for target in &chosen {
        println!("fuzz: {target} ({limit})");
        let corpus = format!("fuzz/corpus/{target}");
        fs::create_dir_all(root.join(&corpus)).map_err(|error| format!("{corpus}: {error}"))?;
        chores::run(
            fuzz("run")
                .args([target, &corpus, &format!("fuzz/seeds/{target}"), "--"])
                .arg(&limit)
                .args(seed)
                .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
                .arg(format!("-timeout={HANG_SECONDS}"))
                .args(["-max_len=16384", "-verbosity=0", "-print_final_stats=1"]),
        )?;
    }
    Ok(())
}

/// Names of the targets, which are files.
fn targets(root: &Path) -> Result<Vec<String>, String> {
    let dir = root.join("fuzz/fuzz_targets");
    let files = fs::read_dir(&dir).map_err(|error| format!("{dir:?}: {error}"))?;
    let mut names: Vec<String> = files
        .flatten()
        .filter_map(|file| Some(file.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}
