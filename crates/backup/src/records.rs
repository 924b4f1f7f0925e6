//! Records of runs in the state directory, and the sequence numbers that order them without
//! trust in clocks.

use sha2::{Digest, Sha256};

use crate::{
    BackupError, RunRecord, RunState, id::BackupId, lock::lock_repository, state::StateDir,
};

/// Format version of a record that this program writes.
pub(crate) const RECORD_VERSION: u32 = 1;
/// Records that are kept; a manifest does not need its record.
const KEPT: usize = 500;

/// Key of a target's lock: the server's own identifier, or, where the role may not read it, a
/// digest of the target's name.
pub(crate) fn lock_key(system_identifier: Option<&str>, target: &str) -> String {
    match system_identifier {
        Some(id) if !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) => id.to_owned(),
        _ => format!(
            "name-{}",
            &hex::encode(Sha256::digest(target.as_bytes()))[..16]
        ),
    }
}

fn file_name(id: &BackupId) -> String {
    format!("runs/{id}.json")
}

/// Writes a record, durably.
pub(crate) fn write(state: &StateDir, record: &RunRecord) -> Result<(), BackupError> {
    state.subdir("runs")?;
    let bytes = serde_json::to_vec_pretty(record).unwrap_or_default();
    state.write(&file_name(&record.id), &bytes)
}

/// Removes a record.
pub(crate) fn remove(state: &StateDir, id: &BackupId) -> Result<(), BackupError> {
    state.remove(&file_name(id))
}

/// Every record that can be read, oldest first by sequence.
pub(crate) fn read_all(state: &StateDir) -> Result<Vec<RunRecord>, BackupError> {
    let mut records = Vec::new();
    for name in state.list("runs")? {
        if !name.ends_with(".json") || name.starts_with('.') {
            continue;
        }
        let Some(bytes) = state.read(&format!("runs/{name}"))? else {
            continue;
        };
        match serde_json::from_slice::<RunRecord>(&bytes) {
            Ok(record) => records.push(record),
            Err(error) => tracing::warn!(name, %error, "a run record cannot be read"),
        }
    }
    records.sort_by(|a: &RunRecord, b: &RunRecord| (a.sequence, &a.id).cmp(&(b.sequence, &b.id)));
    Ok(records)
}

/// Takes the next sequence number: above the stored one, every record and `newest_manifest`.
pub(crate) fn next_sequence(state: &StateDir, newest_manifest: u64) -> Result<u64, BackupError> {
    let _repository = lock_repository(state)?;
    let stored = state
        .read("sequence")?
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| text.trim().parse::<u64>().ok());
    let records = read_all(state)?;
    let recorded = records.last().map_or(0, |record| record.sequence);
    let next = stored.unwrap_or(0).max(recorded).max(newest_manifest) + 1;
    state.write("sequence", format!("{next}\n").as_bytes())?;
    let old = records.len().saturating_sub(KEPT);
    for record in records.iter().take(old) {
        if record.state != RunState::Running {
            remove(state, &record.id)?;
        }
    }
    Ok(next)
}
