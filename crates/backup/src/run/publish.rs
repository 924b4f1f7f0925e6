//! The last steps of a run: the list of hashes, then the manifest, which makes the backup exist.

use std::sync::Arc;

use storage::Store;

use crate::{BackupError, Manifest, manifest, manifest_file};

/// Text of `SHA256SUMS`: every stored file and the manifest itself.
fn sums(manifest: &Manifest, manifest_sha256: &str) -> String {
    let mut text = String::new();
    for file in manifest.files() {
        text.push_str(&format!("{}  {}\n", file.sha256, file.name));
    }
    text.push_str(&format!("{manifest_sha256}  {}\n", manifest::FILE_NAME));
    text
}

/// Writes `SHA256SUMS`, then the manifest.
pub(crate) async fn publish(
    store: &dyn Store,
    manifest: &Arc<Manifest>,
) -> Result<(), BackupError> {
    let hash = manifest_file::hash(manifest).await?;
    let name = format!("{}/{}", manifest.id, manifest::SUMS_NAME);
    let sums = sums(manifest, &hash);
    manifest_file::put_text(store, &name, sums.as_bytes())
        .await
        .map_err(|source| BackupError::Store {
            operation: format!("writing {}", manifest::SUMS_NAME),
            source,
        })?;
    manifest_file::put(store, manifest, &hash).await
}
