//! What a run's containers could leave behind.

use std::time::{Duration, Instant};

use testkit::process::docker;

use crate::engine_support::containers_of;

/// Anonymous volumes that a container has.
pub(crate) fn volumes(container: &str) -> Vec<String> {
    let format = "{{range .Mounts}}{{.Name}} {{end}}";
    let shown = docker(&["inspect", "--format", format, container]).expect("it can be inspected");
    shown.split_whitespace().map(str::to_owned).collect()
}

pub(crate) fn volume_exists(name: &str) -> bool {
    docker(&["volume", "inspect", name]).is_ok()
}

/// Waits until no container of a run and none of these volumes are left.
pub(crate) async fn become_gone(kind: &str, run: &str, volumes: &[String]) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !containers_of(kind, run).is_empty() || volumes.iter().any(|name| volume_exists(name)) {
        assert!(
            Instant::now() < deadline,
            "container or volume of {run} is left"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
