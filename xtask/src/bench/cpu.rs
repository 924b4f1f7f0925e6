//! Processor time, read from outside: of the container, of the container engine, of our own
//! children, of the whole machine.

use std::fs;

use super::rig::Rig;

/// Clock ticks in a second, as /proc counts them on every Linux.
const TICKS: f64 = 100.0;
/// Processes of the container engine, as far as they can be seen from here.
const ENGINE: &[&str] = &["dockerd", "containerd", "containerd-shim", "docker-proxy"];

/// Seconds of processor time so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reading {
    /// Children of this process that have ended, with theirs.
    pub(crate) tool: f64,
    /// All processes of the server's container: the server, and programs that run inside.
    pub(crate) server: f64,
    /// The container engine.
    pub(crate) engine: f64,
    /// Everything, also what has nothing to do with the bench.
    pub(crate) machine: f64,
}

impl Reading {
    /// # Errors
    /// When the container's control group cannot be read.
    pub(crate) fn take(rig: &Rig) -> Result<Self, String> {
        Ok(Self {
            tool: children(),
            server: rig.cpu_seconds()?,
            engine: engine(),
            machine: machine(),
        })
    }

    /// What passed since another one.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            tool: self.tool - before.tool,
            server: self.server - before.server,
            engine: self.engine - before.engine,
            machine: self.machine - before.machine,
        }
    }
}

fn children() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    ticks(&stat, &[13, 14]) / TICKS
}

fn engine() -> f64 {
    let Ok(processes) = fs::read_dir("/proc") else {
        return 0.0;
    };
    let mut sum = 0.0;
    for process in processes.flatten() {
        let Ok(stat) = fs::read_to_string(process.path().join("stat")) else {
            continue;
        };
        let name = stat
            .split_once('(')
            .and_then(|(_, rest)| rest.rsplit_once(')'))
            .map_or("", |(name, _)| name);
        // The kernel cuts names at 15 bytes.
        let cut = |known: &&str| known.get(..15).unwrap_or(known) == name;
        if ENGINE.iter().any(cut) {
            sum += ticks(&stat, &[11, 12]);
        }
    }
    sum / TICKS
}

fn machine() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let fields: Vec<f64> = first
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq
    [0, 1, 2, 5, 6]
        .iter()
        .filter_map(|at| fields.get(*at))
        .sum::<f64>()
        / TICKS
}

/// Sum of fields of a `stat` file, counted from 0 after the command name, which may hold spaces.
fn ticks(stat: &str, fields: &[usize]) -> f64 {
    let rest: Vec<&str> = stat
        .rsplit_once(')')
        .map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    fields
        .iter()
        .filter_map(|at| rest.get(*at)?.parse::<f64>().ok())
        .sum()
}

/// Seconds of a control group, from its `cpu.stat` (version 2) or `cpuacct.usage` (version 1).
pub(crate) fn of_control_group(text: &str) -> Option<f64> {
    let text = text.trim();
    if let Ok(nanoseconds) = text.parse::<f64>() {
        return Some(nanoseconds / 1e9);
    }
    let usage = text
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "))?;
    usage.trim().parse::<f64>().ok().map(|us| us / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_after_a_name_with_spaces() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 200 50 3 4 20";
        assert_eq!(ticks(stat, &[11, 12]), 250.0);
        assert_eq!(ticks(stat, &[13, 14]), 7.0);
    }

    #[test]
    fn both_versions_of_control_groups() {
        assert_eq!(of_control_group("2500000000\n"), Some(2.5));
        assert_eq!(
            of_control_group("usage_usec 1500000\nuser_usec 1"),
            Some(1.5)
        );
        assert_eq!(of_control_group("nothing"), None);
    }
}
