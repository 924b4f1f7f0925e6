//! Running a program to its end, with its words in the error.

use std::io::Write;
use std::process::{Command, Stdio};

/// Runs a program and returns its standard output.
///
/// # Errors
/// The command, how it ended and the end of its standard error.
pub fn run(program: &str, args: &[&str]) -> Result<String, String> {
    run_with_input(program, args, None)
}

/// As [`run`], with standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(program: &str, args: &[&str], input: Option<&str>) -> Result<String, String> {
    run_with_env(program, args, &[], input)
}

/// As [`run_with_input`], with variables for the program alone: secrets do not belong into an
/// argument vector, which every process of the machine can read.
///
/// # Errors
/// As [`run`].
pub fn run_with_env(
    program: &str,
    args: &[&str],
    env: &[(&str, &str)],
    input: Option<&str>,
) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(args)
        .envs(env.iter().copied())
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    // From a thread of its own: a program that writes before it has read all would block both.
    let writer = child
        .stdin
        .take()
        .zip(input.map(str::to_owned))
        .map(|(mut stdin, text)| {
            std::thread::spawn(move || {
                // A program that ends early says why itself; the broken pipe adds nothing.
                let _ = stdin.write_all(text.as_bytes());
            })
        });
    let output = child
        .wait_with_output()
        .map_err(|error| format!("{program}: {error}"))?;
    if let Some(writer) = writer {
        let _ = writer.join();
    }
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<&str> = stderr.lines().rev().take(15).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(format!(
        "{program} {} ended with {}:\n{}",
        args.join(" "),
        output.status,
        tail.join("\n")
    ))
}

/// Runs the docker client.
///
/// # Errors
/// As [`run`].
pub fn docker(args: &[&str]) -> Result<String, String> {
    run("docker", args)
}
