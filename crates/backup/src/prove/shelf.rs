//! Proofs in the store, beside the manifest that they are of.

use storage::{Entry, Store};

use super::record::{self, Proof, ProofSummary};
use crate::catalog::read_text;
use crate::{BackupError, BackupId, Repository, manifest, manifest_file};

/// Whether a file in a backup's directory (without the directory) is a proof by its name.
pub(crate) fn is_proof_name(name: &str) -> bool {
    record::parse_file_name(name).is_some()
}

/// Writes a proof durably; returns the name of its file.
pub(crate) async fn put(store: &dyn Store, proof: &Proof) -> Result<String, BackupError> {
    let mut bytes = serde_json::to_vec_pretty(proof).map_err(|error| BackupError::Manifest {
        id: proof.backup.to_string(),
        problem: error.to_string(),
    })?;
    bytes.push(b'\n');
    let file = Proof::file_name(proof.finished_at, &bytes);
    let stored = |source| BackupError::Store {
        operation: format!("writing {file}"),
        source,
    };
    // A backup that was pruned meanwhile must not come back as a directory with a proof alone.
    let of = format!("{}/{}", proof.backup, manifest::FILE_NAME);
    store.open(&of).await.map_err(stored)?;
    let mut writer = store
        .create(&format!("{}/{file}", proof.backup))
        .await
        .map_err(stored)?;
    if let Err(error) = writer.write(&bytes).await {
        if let Err(left) = writer.abort().await {
            tracing::warn!(%left, "a partial file could not be removed");
        }
        return Err(stored(error));
    }
    writer.commit().await.map_err(stored)?;
    Ok(file)
}

/// Reads one proof; `manifest_sha256` is the hash of the manifest's bytes.
async fn read(
    store: &dyn Store,
    id: &BackupId,
    file: &str,
    manifest_sha256: &str,
) -> Result<Proof, String> {
    let bytes = read_text(store, &format!("{id}/{file}")).await?;
    let proof = record::parse(id, file, &bytes)?;
    if proof.manifest_sha256 != manifest_sha256 {
        return Err("it is a proof of another manifest than the one that is there".to_owned());
    }
    Ok(proof)
}

/// What is wrong with a proof, in words, if anything.
pub(crate) async fn check_proof(
    store: &dyn Store,
    id: &BackupId,
    file: &str,
    manifest_sha256: &str,
) -> Option<String> {
    read(store, id, file, manifest_sha256).await.err()
}

impl Repository {
    /// The newest proof of a backup with the name of its file; `None` where there is none that can
    /// be used.
    ///
    /// # Errors
    /// When the store cannot be listed, or the manifest cannot be read.
    pub async fn proof(&self, id: &BackupId) -> Result<Option<(String, Proof)>, BackupError> {
        let entries =
            self.store
                .list(&format!("{id}/"))
                .await
                .map_err(|source| BackupError::Store {
                    operation: format!("listing backup {id}"),
                    source,
                })?;
        let stored = manifest_file::read(self.store.as_ref(), id)
            .await
            .map_err(|problem| BackupError::Manifest {
                id: id.to_string(),
                problem,
            })?;
        Ok(newest(self.store.as_ref(), id, &entries, &stored.sha256).await)
    }
}

/// The newest proof of a backup that can be read; those that cannot are told by `verify`.
async fn newest(
    store: &dyn Store,
    id: &BackupId,
    entries: &[Entry],
    manifest_sha256: &str,
) -> Option<(String, Proof)> {
    let dir = format!("{id}/");
    let mut files: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry.name.strip_prefix(&dir))
        .filter(|name| is_proof_name(name))
        .collect();
    // The time is the beginning of the name.
    files.sort_unstable();
    for file in files.into_iter().rev() {
        match read(store, id, file, manifest_sha256).await {
            Ok(proof) => return Some((file.to_owned(), proof)),
            Err(problem) => tracing::warn!(%id, file, problem, "a proof cannot be used"),
        }
    }
    None
}

/// The same for a listing.
pub(crate) async fn newest_summary(
    store: &dyn Store,
    id: &BackupId,
    entries: &[Entry],
    manifest_sha256: &str,
) -> Option<ProofSummary> {
    let (file, proof) = newest(store, id, entries, manifest_sha256).await?;
    Some(proof.summary(file))
}
