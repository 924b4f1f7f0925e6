//! Running one command to its end and measuring it from outside: wall-clock time, processor time
//! and peak memory.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{cpu::Reading, rig::Rig};

/// What one run cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Wall-clock seconds.
    pub(crate) wall: f64,
    /// Seconds of processor time.
    pub(crate) cpu: Reading,
    /// Peak resident set of the tool in bytes: of the largest of its processes on this host
    /// (`VmHWM`, read every few milliseconds).
    pub(crate) peak: u64,
}

/// Runs a command with its output in a file (or thrown away) and measures it.
///
/// # Errors
/// When it cannot be started, or ends with anything but 0; the text holds the end of its standard
/// error.
pub(crate) fn run(rig: &Rig, command: &mut Command, output: Option<&Path>) -> Result<Cost, String> {
    let before = Reading::take(rig)?;
    let (wall, peak) = watch(command, output)?;
    Ok(Cost {
        wall,
        cpu: Reading::take(rig)?.since(before),
        peak,
    })
}

/// Wall-clock seconds and peak memory of one command.
fn watch(command: &mut Command, output: Option<&Path>) -> Result<(f64, u64), String> {
    let shown = format!("{command:?}");
    let stdout = match output {
        Some(path) => Stdio::from(File::create(path).map_err(|e| format!("{path:?}: {e}"))?),
        None => Stdio::null(),
    };
    let errors = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
    let stderr = errors.reopen().map_err(|e| e.to_string())?;
    let started = Instant::now();
    let mut child = command
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!("not to be had here: no {:?}", command.get_program())
            }
            _ => format!("cannot start {shown}: {error}"),
        })?;
    let mut peak = 0;
    let status = loop {
        peak = peak_of(child.id()).max(peak);
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let wall = started.elapsed().as_secs_f64();
    // pgstow's 3 is "done, with warnings": the output is there, and compared like any other.
    let is_pgstow = Path::new(command.get_program()).ends_with("pgstow");
    if status.success() || is_pgstow && status.code() == Some(3) {
        return Ok((wall, peak));
    }
    let said = fs::read_to_string(errors.path()).unwrap_or_default();
    let tail: Vec<&str> = said.lines().rev().take(8).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(format!("{shown} ended with {status}:\n{}", tail.join("\n")))
}

/// Peak resident set of a live process or of a child of it, whichever is larger.
fn peak_of(process: u32) -> u64 {
    let proc = Path::new("/proc").join(process.to_string());
    let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
    let own = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024);
    let children = proc.join(format!("task/{process}/children"));
    fs::read_to_string(children)
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .map(peak_of)
        .fold(own, u64::max)
}

/// Median of a list; 0 for an empty one.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Quantile by linear interpolation; 0 for an empty list.
pub(crate) fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let place = at * last as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (place - place.floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_quartiles() {
        let values = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!(median(&values), 3.0);
        assert_eq!(quantile(&values, 0.25), 2.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn the_peak_of_a_pipeline_is_that_of_its_largest_program() {
        let large = "head -c 40000000 /dev/zero | { sleep 0.1; sort -S 64M -z; } | wc -c";
        let (wall, peak) = watch(Command::new("sh").args(["-c", large]), None).unwrap();
        assert!(wall > 0.0);
        assert!(peak > 16 << 20, "{peak}");
    }

    #[test]
    fn a_failing_command_is_an_error_with_its_words() {
        let error = watch(
            Command::new("sh").args(["-c", "echo words >&2; exit 3"]),
            None,
        );
        let error = error.expect_err("a failing command must not be measured");
        assert!(error.contains("words"), "{error}");
    }
}
