//! Room for statistics: from major 15 on a server keeps those of every table and index that was used
//! in shared memory. Where that is `/dev/shm`, a container has 64 MB of it unless somebody asked for
//! more, and a server that finds no room there while it adds to them does not only refuse a
//! statement: it was seen to crash, with the sessions of every database.

use dbexec::PgExecutor;

use crate::units::bytes;

/// Where a server with `dynamic_shared_memory_type = posix` has its shared memory.
pub(crate) const DIRECTORY: &str = "/dev/shm";
/// First version that keeps statistics there.
pub(crate) const FROM: u32 = 150_000;
/// So many relations have room in what a server takes when it starts.
const ALWAYS: u64 = 1000;
/// Bytes that a server takes at once at least.
const AT_ONCE: u64 = 1 << 20;
/// Bytes of shared memory for each table, index or sequence. Measured with 17: 166 to 240, because the
/// server takes more in steps that double.
const EACH: u64 = 240;

/// What so many relations may take, in bytes, where that is worth asking for free memory.
pub(crate) fn needed(relations: u64) -> Option<u64> {
    (relations > ALWAYS).then(|| relations.saturating_mul(EACH).max(AT_ONCE))
}

/// Bytes that are free; `None` where that cannot be told, which is not held against anybody.
pub(crate) async fn free(executor: &dyn PgExecutor) -> Option<u64> {
    executor
        .free_bytes(DIRECTORY)
        .await
        .unwrap_or_else(|error| {
            tracing::debug!(%error, "free shared memory is not known");
            None
        })
}

/// `whose` statistics do not fit: the problem and what to do.
pub(crate) fn too_little(whose: &str, needed: u64, free: u64) -> (String, String) {
    (
        format!(
            "the server keeps statistics of every table and index in shared memory, those of \
             {whose} may take {}, and {} are free in its {DIRECTORY}: without room PostgreSQL \
             crashes, with every session on it",
            bytes(needed),
            bytes(free)
        ),
        format!(
            "remove what fills it, or give the server's container more shared memory (docker run \
             --shm-size={}m, shm_size in a compose file; it has to be made anew on the same volume)",
            (2 * needed.div_ceil(1_000_000) + 64).next_multiple_of(64)
        ),
    )
}
