//! The last steps of a run: the list of hashes, then the manifest, which makes the backup exist.

use sha2::{Digest, Sha256};
use storage::{Store, StoreError};

use crate::{BackupError, Manifest, manifest};

/// Text of `SHA256SUMS`: every stored file and the manifest's own bytes.
pub(crate) fn sums(manifest: &Manifest, manifest_bytes: &[u8]) -> String {
    let mut text = String::new();
    for file in manifest.files() {
        text.push_str(&format!("{}  {}\n", file.sha256, file.name));
    }
    let own = hex::encode(Sha256::digest(manifest_bytes));
    text.push_str(&format!("{own}  {}\n", manifest::FILE_NAME));
    text
}

/// Writes `SHA256SUMS`, then the manifest.
pub(crate) async fn publish(store: &dyn Store, manifest: &Manifest) -> Result<(), BackupError> {
    let mut bytes = serde_json::to_vec_pretty(manifest).map_err(|error| BackupError::Manifest {
        id: manifest.id.to_string(),
        problem: error.to_string(),
    })?;
    bytes.push(b'\n');
    let sums = sums(manifest, &bytes);
    for (name, bytes) in [
        (manifest::SUMS_NAME, sums.as_bytes()),
        (manifest::FILE_NAME, bytes.as_slice()),
    ] {
        put(store, &format!("{}/{name}", manifest.id), bytes)
            .await
            .map_err(|source| BackupError::Store {
                operation: format!("writing {name}"),
                source,
            })?;
    }
    Ok(())
}

async fn put(store: &dyn Store, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let mut writer = store.create(name).await?;
    if let Err(error) = writer.write(bytes).await {
        if let Err(left) = writer.abort().await {
            tracing::warn!(%left, "a partial file could not be removed");
        }
        return Err(error);
    }
    writer.commit().await.map(|_| ())
}
