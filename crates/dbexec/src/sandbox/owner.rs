//! Whose a container of pgstow's own is, and the end of those whose owner is gone.

use std::collections::BTreeMap;

use crate::discover::ENABLE_LABEL;
use crate::runtime::{ContainerRuntime, RuntimeError};

/// Label of every throw-away server; its value is the id of the run.
pub(crate) const SANDBOX_LABEL: &str = "pgstow.sandbox";
const HOST_LABEL: &str = "pgstow.owner.host";
const BOOT_LABEL: &str = "pgstow.owner.boot";
const SPACE_LABEL: &str = "pgstow.owner.pidns";
const PID_LABEL: &str = "pgstow.owner.pid";
const START_LABEL: &str = "pgstow.owner.start";

/// A process, told apart from every other one of the host, also over reboots.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    host: String,
    boot: String,
    /// Process ids mean something in one name space alone.
    space: String,
    pid: u32,
    /// When it began, in ticks since the boot: process ids come again.
    start: String,
}

impl Owner {
    fn this() -> Self {
        let pid = std::process::id();
        let read = |path: &str| {
            std::fs::read_to_string(path).map_or_else(|_| String::new(), |t| t.trim().to_owned())
        };
        Self {
            host: read("/proc/sys/kernel/hostname"),
            boot: read("/proc/sys/kernel/random/boot_id"),
            space: std::fs::read_link("/proc/self/ns/pid")
                .map_or_else(|_| String::new(), |link| link.display().to_string()),
            pid,
            start: start_of(pid).unwrap_or_default(),
        }
    }

    fn read(labels: &BTreeMap<String, String>) -> Option<Self> {
        let text = |name: &str| labels.get(name).cloned();
        Some(Self {
            host: text(HOST_LABEL)?,
            boot: text(BOOT_LABEL)?,
            space: text(SPACE_LABEL)?,
            pid: text(PID_LABEL)?.parse().ok()?,
            start: text(START_LABEL)?,
        })
    }
}

/// When a process began; `None` when there is none (or this is no Linux).
fn start_of(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the 22nd field of all is the 20th after it.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}

/// Labels of a container of this process; `label` says what it is for.
pub(crate) fn labels(label: &'static str, run_id: &str) -> BTreeMap<String, String> {
    let owner = Owner::this();
    [
        (label, run_id.to_owned()),
        // Discovery never offers it.
        (ENABLE_LABEL, "false".to_owned()),
        (HOST_LABEL, owner.host),
        (BOOT_LABEL, owner.boot),
        (SPACE_LABEL, owner.space),
        (PID_LABEL, owner.pid.to_string()),
        (START_LABEL, owner.start),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Whether the owner is known to be gone. A running container of another boot, host or name space
/// of processes may have a living owner, and ends by itself when it has none.
fn is_orphan(
    labels: &BTreeMap<String, String>,
    running: bool,
    this: &Owner,
    start_of: &dyn Fn(u32) -> Option<String>,
) -> bool {
    let Some(owner) = Owner::read(labels) else {
        return false;
    };
    if owner.host != this.host || owner.host.is_empty() || owner.boot.is_empty() {
        return false;
    }
    if owner.boot != this.boot {
        return !running;
    }
    !owner.space.is_empty()
        && owner.space == this.space
        && start_of(owner.pid).is_none_or(|start| start != owner.start)
}

/// Removes throw-away servers in containers whose owner was killed before it could start or end
/// them; those that run end by themselves. Returns how many there were.
///
/// # Errors
/// When the engine cannot be asked. One that cannot be removed is left for the next time.
pub async fn reap_sandboxes(runtime: &dyn ContainerRuntime) -> Result<u32, RuntimeError> {
    reap(runtime, SANDBOX_LABEL).await
}

/// Removes containers with a label of ours whose owner is gone, and returns how many there were.
pub(crate) async fn reap(runtime: &dyn ContainerRuntime, label: &str) -> Result<u32, RuntimeError> {
    let this = Owner::this();
    let mut count = 0;
    for container in runtime.labelled(label).await? {
        if !is_orphan(&container.labels, container.running, &this, &start_of) {
            continue;
        }
        match runtime.remove(&container.id).await {
            Ok(()) => count += 1,
            Err(error) => {
                tracing::warn!(container = %container.id, %error, "a leftover was not removed");
            }
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_an_orphan() {
        let this = Owner::this();
        assert!(!this.boot.is_empty() && !this.space.is_empty() && !this.start.is_empty());
        let mine = labels(SANDBOX_LABEL, "run-1");
        assert_eq!(Owner::read(&mine).as_ref(), Some(&this));
        assert_eq!(mine.get("pgstow.enable").map(String::as_str), Some("false"));
        assert!(!is_orphan(&mine, true, &this, &start_of), "its owner lives");
        let gone = |_: u32| None;
        let other = |_: u32| Some("1".to_owned());
        assert!(is_orphan(&mine, true, &this, &gone));
        assert!(
            is_orphan(&mine, true, &this, &other),
            "the number came again"
        );
        let with = |name: &str, value: &str| {
            let mut labels = mine.clone();
            labels.insert(name.to_owned(), value.to_owned());
            labels
        };
        let elsewhere = with(SPACE_LABEL, "pid:[1]");
        assert!(!is_orphan(&elsewhere, false, &this, &gone));
        let host = with(HOST_LABEL, "another-host");
        assert!(!is_orphan(&host, false, &this, &gone));
        let boot = with(BOOT_LABEL, "earlier");
        assert!(is_orphan(&boot, false, &this, &gone));
        assert!(!is_orphan(&boot, true, &this, &gone));
        assert!(!is_orphan(&BTreeMap::new(), false, &this, &gone));
    }
}
