//! Running one command to its end and measuring it from outside: wall-clock time, CPU time and
//! peak memory of the process itself.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What one run cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Wall-clock seconds.
    pub(crate) wall: f64,
    /// User and system seconds of the process (not of the server or the engine).
    pub(crate) cpu: f64,
    /// Peak resident set of the process in bytes (`VmHWM`, read every few milliseconds).
    pub(crate) peak: u64,
}

/// Runs a command with its output in a file (or thrown away) and measures it.
///
/// # Errors
/// When it cannot be started, or ends with anything but 0; the text holds the end of its standard
/// error.
pub(crate) fn run(command: &mut Command, output: Option<&Path>) -> Result<Cost, String> {
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
        .map_err(|e| format!("cannot start {shown}: {e}"))?;
    let mut cost = Cost::default();
    let status = loop {
        cost = sample(&child).unwrap_or(cost).max(cost);
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    cost.wall = started.elapsed().as_secs_f64();
    if status.success() {
        return Ok(cost);
    }
    let said = fs::read_to_string(errors.path()).unwrap_or_default();
    let tail: Vec<&str> = said.lines().rev().take(8).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(format!("{shown} ended with {status}:\n{}", tail.join("\n")))
}

impl Cost {
    fn max(self, other: Self) -> Self {
        Self {
            wall: 0.0,
            cpu: self.cpu.max(other.cpu),
            peak: self.peak.max(other.peak),
        }
    }
}

/// Reads what the kernel knows of a live process.
fn sample(child: &Child) -> io::Result<Cost> {
    let proc = Path::new("/proc").join(child.id().to_string());
    let status = fs::read_to_string(proc.join("status"))?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024);
    let stat = fs::read_to_string(proc.join("stat"))?;
    // Fields after the command name, which may hold spaces; utime and stime are the 12th and 13th.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|t| t.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok(Cost {
        wall: 0.0,
        cpu: (ticks(11) + ticks(12)) as f64 / 100.0,
        peak,
    })
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
    fn a_failing_command_is_an_error_with_its_words() {
        let error = run(
            Command::new("sh").args(["-c", "echo words >&2; exit 3"]),
            None,
        );
        let error = error.expect_err("a failing command must not be measured");
        assert!(error.contains("words"), "{error}");
    }
}
