//! `cargo xtask bench-read`: how fast our own reader checks archives that pg_dump wrote, with and
//! without fingerprints, on one core; and how fast rows are encoded.

use std::fs;
use std::io::Cursor;
use std::process::Command;

use archive::{ArchiveSummary, CheckOptions, Fingerprints, ItemHash, check_custom};

use testkit::sets::{Set, Sizes};

use super::rig::{DATABASE, Rig};

const USAGE: &str = "cargo xtask bench-read [--size-mb N]";
/// The newest major whose pg_dump knows every compression.
const MAJOR: u32 = 17;
/// Runs of each; the fastest counts, because a busy machine only ever adds time.
const ROUNDS: usize = 5;

/// Measures and prints a table.
///
/// # Errors
/// Wrong arguments, or what failed.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let megabytes = match args {
        [] => 256,
        [flag, value] if flag == "--size-mb" => {
            value.parse().map_err(|_| format!("usage: {USAGE}"))?
        }
        _ => return Err(format!("usage: {USAGE}")),
    };
    if cfg!(debug_assertions) {
        // The numbers of a build without optimisation would say nothing.
        let status = Command::new("cargo")
            .args(["run", "--quiet", "--release", "--package", "xtask", "--"])
            .arg("bench-read")
            .args(args)
            .status()
            .map_err(|error| format!("cargo: {error}"))?;
        return if status.success() {
            Ok(())
        } else {
            Err(format!("the optimised build ended with {status}"))
        };
    }
    let rig = Rig::start(MAJOR)?;
    let sizes = Sizes {
        megabytes,
        tables: 0,
        objects: 0,
        empty_tables: 0,
    };
    rig.fill(Set::Big, &sizes)?;
    println!(
        "\n### Reading archives (major {MAJOR}, `check_custom`, CPU time of one core)\n\n\
         | pg_dump | stored MB | decoded MB | rows | stored MB/s | decoded MB/s | stored MB/s with \
         fingerprints | decoded MB/s with fingerprints |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    for compression in ["0", "gzip:6", "lz4:1", "zstd:3"] {
        let archive = rig.archive(compression)?;
        let plain = fastest(&archive, &CheckOptions::default())?;
        let fingerprinted = fastest(
            &archive,
            &CheckOptions {
                fingerprints: Fingerprints::All,
                hash: ItemHash::Xxh3,
                catalogue: archive::CatalogueDetail::Objects,
            },
        )?;
        let stored = archive.len() as f64 / 1e6;
        let decoded = plain.1.tables.iter().map(|table| table.bytes).sum::<u64>() as f64 / 1e6;
        println!(
            "| -Fc -Z {compression} | {stored:.0} | {decoded:.0} | {} | {:.0} | {:.0} | {:.0} | {:.0} |",
            plain.1.rows(),
            stored / plain.0,
            decoded / plain.0,
            stored / fingerprinted.0,
            decoded / fingerprinted.0,
        );
    }
    super::writing::run(&rig.archive("0")?)
}

/// CPU seconds of the fastest run, and what was found.
fn fastest(archive: &[u8], options: &CheckOptions<'_>) -> Result<(f64, ArchiveSummary), String> {
    let mut best = None;
    for _ in 0..ROUNDS {
        let begin = cpu_seconds()?;
        let summary =
            check_custom(Cursor::new(archive), options).map_err(|error| error.to_string())?;
        let took = cpu_seconds()? - begin;
        if best.as_ref().is_none_or(|(seconds, _)| took < *seconds) {
            best = Some((took, summary));
        }
    }
    best.ok_or_else(|| "no rounds".to_owned())
}

/// CPU time of this thread.
pub(crate) fn cpu_seconds() -> Result<f64, String> {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let nanoseconds: u64 = text
        .split_whitespace()
        .next()
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| format!("{path}: {text:?}"))?;
    Ok(nanoseconds as f64 / 1e9)
}

impl Rig {
    /// A custom archive of the database.
    fn archive(&self, compression: &str) -> Result<Vec<u8>, String> {
        let output = Command::new("docker")
            .args(["exec", &self.name, "pg_dump", "-U", "postgres", "-Fc", "-Z"])
            .args([compression, "-d", DATABASE])
            .output()
            .map_err(|error| format!("docker: {error}"))?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}
