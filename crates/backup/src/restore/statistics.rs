//! Room for statistics: from major 15 on a server keeps those of every table and index in shared
//! memory. Where that is `/dev/shm`, a container has 64 MB of it unless somebody asked for more, and
//! a server that finds no room there while it adds to them does not refuse a statement: it was seen
//! to crash, with the sessions of every database.

use archive::Toc;
use dbexec::PgExecutor;

use super::needs::bytes;
use super::preflight::{Inputs, Refusals};
use super::target::Target;

/// Where a server with `dynamic_shared_memory_type = posix` has its shared memory.
const DIRECTORY: &str = "/dev/shm";
/// First version that keeps statistics there.
const FROM: u32 = 150_000;
/// Bytes of shared memory for each table, index or sequence. Measured with 17: 166 to 240, because the
/// server takes more in steps that double.
const EACH: u64 = 240;
/// What is expected to be there always, so that nobody is asked for less.
const ALWAYS: u64 = 1 << 20;

/// Bytes that the statistics of what an archive makes may take. Whether a table has columns that are
/// stored out of line is not known, so each is counted with the table and the index for them.
fn needed(toc: &Toc) -> u64 {
    let of_kind = |kind: &str| match kind {
        "TABLE" | "MATERIALIZED VIEW" => 3,
        "INDEX" | "CONSTRAINT" | "SEQUENCE" => 1,
        _ => 0,
    };
    let relations: u64 = toc.entries.iter().map(|entry| of_kind(entry.kind)).sum();
    relations.saturating_mul(EACH)
}

/// Asks the target for its free shared memory where the restore may need all of it.
pub(super) async fn ask(executor: &dyn PgExecutor, toc: Option<&Toc>, target: &mut Target) {
    let asked = toc.is_some_and(|toc| needed(toc) > ALWAYS)
        && target.version_num >= FROM
        && target.dynamic_shared_memory == "posix";
    if !asked {
        return;
    }
    match executor.free_bytes(DIRECTORY).await {
        Ok(Some(bytes)) => {
            target.free.insert(DIRECTORY.to_owned(), bytes);
        }
        // What cannot be told is not held against the restore.
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "free shared memory is not known"),
    }
}

/// Refuses where the server could not hold the statistics.
pub(super) fn room(inputs: &Inputs<'_>, refusals: &mut Refusals) {
    let (Some(toc), Some(free)) = (&inputs.checked.toc, inputs.target.free.get(DIRECTORY)) else {
        return;
    };
    let needed = needed(toc);
    if needed <= *free {
        return;
    }
    refusals.add(
        format!(
            "the server keeps statistics of every table and index in shared memory, those of the \
             restore may take {}, and {} are free in its {DIRECTORY}: without room PostgreSQL \
             crashes, with every session on it",
            bytes(needed),
            bytes(*free)
        ),
        format!(
            "give the server's container more shared memory (docker run --shm-size={}m, shm_size in \
             a compose file; it has to be made anew on the same volume), or restore to another server",
            (2 * needed.div_ceil(1_000_000) + 64).next_multiple_of(64)
        ),
    );
}
