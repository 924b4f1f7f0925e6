//! Room for the statistics of what a restore makes.

use archive::Toc;
use dbexec::PgExecutor;

use super::preflight::{Inputs, Refusals};
use super::target::Target;
use crate::statistics::{DIRECTORY, FROM, free, needed, too_little};

/// Bytes that the statistics of what an archive makes may take, where that is worth asking for.
/// Whether a table has columns that are stored out of line is not known, so each is counted with
/// the table and the index for them.
fn of_archive(toc: &Toc) -> Option<u64> {
    let of_kind = |kind: &str| match kind {
        "TABLE" | "MATERIALIZED VIEW" => 3,
        "INDEX" | "CONSTRAINT" | "SEQUENCE" => 1,
        _ => 0,
    };
    needed(toc.entries.iter().map(|entry| of_kind(entry.kind)).sum())
}

/// Asks the target for its free shared memory where the restore may need all of it.
pub(super) async fn ask(executor: &dyn PgExecutor, toc: Option<&Toc>, target: &mut Target) {
    let asked = toc.and_then(of_archive).is_some()
        && target.version_num >= FROM
        && target.dynamic_shared_memory == "posix";
    if asked && let Some(bytes) = free(executor).await {
        target.free.insert(DIRECTORY.to_owned(), bytes);
    }
}

/// Refuses where the server could not hold the statistics.
pub(super) fn room(inputs: &Inputs<'_>, refusals: &mut Refusals) {
    let needed = inputs.checked.toc.as_ref().and_then(of_archive);
    let (Some(needed), Some(free)) = (needed, inputs.target.free.get(DIRECTORY)) else {
        return;
    };
    if needed <= *free {
        return;
    }
    let (problem, remedy) = too_little("the restore", needed, *free);
    refusals.add(problem, format!("{remedy}, or restore to another server"));
}
