//! What the engine shows of a run's containers.

use testkit::process::docker;

/// A run id that no other test has.
pub(crate) fn run_id(name: &str) -> String {
    testkit::container::unique_name(name)
}

/// Containers of a run, in any state; `kind` is the end of their label's name.
pub(crate) fn containers_of(kind: &str, run: &str) -> Vec<String> {
    let label = format!("label=pgstow.{kind}={run}");
    let shown =
        docker(&["ps", "-aq", "--no-trunc", "--filter", &label]).expect("the engine answers");
    shown.lines().map(str::to_owned).collect()
}
