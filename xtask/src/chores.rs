//! Setting up, testing and linting.

use std::process::Command;
use std::time::Instant;

use testkit::{engine, images};

/// Makes sure that a container engine answers and that the images are there.
pub(crate) fn set_up() -> Result<(), String> {
    let started = Instant::now();
    let say = |text: &str| println!("set-up: {text}");
    engine::ensure(&say)?;
    images::ensure_all(&say)?;
    println!("set-up: done in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Sets up, then runs every test.
pub(crate) fn test(args: &[String]) -> Result<(), String> {
    set_up()?;
    ensure_tool("cargo-nextest")?;
    let mut nextest = vec!["nextest", "run", "--workspace", "--all-features"];
    if std::env::var_os("CI").is_some() {
        nextest.extend(["--profile", "ci"]);
    }
    nextest.extend(args.iter().map(String::as_str));
    cargo(&nextest)
}

/// Changes stored archives of each format at random, many more times than an ordinary test run.
pub(crate) fn tamper(args: &[String]) -> Result<(), String> {
    let count = match args {
        [] => 10_000,
        [count] => count
            .parse::<u32>()
            .map_err(|_| format!("{count:?} is no number of changes"))?,
        _ => return Err("one number of changes".to_owned()),
    };
    set_up()?;
    let started = Instant::now();
    run(Command::new("cargo")
        .args([
            "test",
            "--release",
            "--package",
            "backup",
            "--test",
            "tamper",
            "--",
        ])
        .arg("--nocapture")
        .env("PGSTOW_TEST_TAMPER", count.to_string()))?;
    println!(
        "tamper: {count} random flips and {count} random cuts of the archives of each format were \
         found in {:.0} s",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Everything that is checked without running the program.
pub(crate) fn lint() -> Result<(), String> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ])?;
    ensure_tool("cargo-deny")?;
    cargo(&[
        "deny",
        "--all-features",
        "check",
        "licenses",
        "bans",
        "sources",
    ])?;
    let docs = [
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
        "--quiet",
    ];
    run(Command::new("cargo")
        .args(docs)
        .env("RUSTDOCFLAGS", "-D warnings"))
}

/// Installs a tool of cargo unless it is there.
pub(crate) fn ensure_tool(name: &str) -> Result<(), String> {
    if engine::has_program(name) {
        return Ok(());
    }
    println!("set-up: installing {name}");
    cargo(&["install", "--locked", name])
}

fn cargo(args: &[&str]) -> Result<(), String> {
    run(Command::new("cargo").args(args))
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status = command
        .status()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?} ended with {status}"))
    }
}
