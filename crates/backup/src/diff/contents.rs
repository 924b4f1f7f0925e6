//! What one archive of a backup holds: from its table of contents and its attestation, and from
//! the whole archive where it has none.

use archive::{ArchiveError, Catalogue, ItemHash, Toc};
use tokio_util::io::SyncIoBridge;
use tokio_util::sync::CancellationToken;

use crate::attest::{Attested, AttestedTable, Wanted, settle};
use crate::manifest::{DatabaseRecord, StoredFile};
use crate::verify::VerifyWork;
use crate::{BackupError, DumpFormat, EventSink, Manifest, Repository, VerifyLevel};

/// What an archive holds.
#[derive(Debug, Clone)]
pub struct ArchiveContents {
    /// Table of contents; `None` for a plain script.
    pub toc: Option<Toc>,
    /// Every object with the hash of its definition; `None` for a plain script.
    pub catalogue: Option<Catalogue>,
    /// Tables with rows of their own, in the order of schema and name.
    pub tables: Vec<AttestedTable>,
    /// The hash of their rows.
    pub row_hash: ItemHash,
    /// Whether the rows are those of an attestation; otherwise the archive was read whole.
    pub attested: bool,
    /// Major version of the server that was dumped.
    pub server_major: u32,
}

/// Tells what the archive of one database of a backup holds. Reads the table of contents, and the
/// whole archive only where its manifest has no attestation.
///
/// # Errors
/// The store's failure; [`BackupError::VerifyFailed`] for an archive that cannot be read.
pub async fn contents(
    repo: &Repository,
    manifest: &Manifest,
    database: &DatabaseRecord,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<ArchiveContents, BackupError> {
    let (toc, catalogue) = match contents_file(database) {
        Some(file) => (
            Some(read(repo, manifest, file, archive::read_toc).await?),
            Some(read(repo, manifest, file, archive::read_catalogue).await?),
        ),
        None => (None, None),
    };
    let (tables, row_hash) = match &database.attestation {
        Some(attestation) => (attestation.tables.clone(), attestation.row_hash),
        // Without fingerprints.
        None => (
            count(repo, manifest, database, sink, cancel).await?,
            ItemHash::default(),
        ),
    };
    Ok(ArchiveContents {
        toc,
        catalogue,
        tables,
        row_hash,
        attested: database.attestation.is_some(),
        server_major: manifest.target.server.major(),
    })
}

/// The file with the table of contents.
fn contents_file(database: &DatabaseRecord) -> Option<&StoredFile> {
    let files = &database.archive.files;
    match database.archive.format {
        DumpFormat::Plain => None,
        DumpFormat::Custom => files.first(),
        DumpFormat::Directory => files.iter().find(|file| file.name.ends_with("/toc.dat")),
    }
}

type Bridge = std::io::BufReader<SyncIoBridge<std::pin::Pin<Box<dyn tokio::io::AsyncRead + Send>>>>;

async fn read<T: Send + 'static>(
    repo: &Repository,
    manifest: &Manifest,
    file: &StoredFile,
    read: fn(Bridge) -> Result<T, ArchiveError>,
) -> Result<T, BackupError> {
    let reader = repo
        .store
        .open(&Repository::stored_name(&manifest.id, file))
        .await
        .map_err(|source| BackupError::Store {
            operation: format!("reading {}", file.name),
            source,
        })?;
    let runtime = tokio::runtime::Handle::current();
    let found = tokio::task::spawn_blocking(move || {
        let bridge = SyncIoBridge::new_with_handle(reader, runtime);
        read(std::io::BufReader::new(bridge))
    })
    .await;
    let problem = match found {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(error)) => crate::run::chain(&error),
        Err(panic) => panic.to_string(),
    };
    Err(BackupError::VerifyFailed {
        id: manifest.id.to_string(),
        problems: vec![crate::requests::VerifyProblem {
            object: file.name.clone(),
            problem,
        }],
    })
}

/// Counts the rows of an archive that nobody attested.
async fn count(
    repo: &Repository,
    manifest: &Manifest,
    database: &DatabaseRecord,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<Vec<AttestedTable>, BackupError> {
    let mut work = VerifyWork::new(repo, &manifest.id, VerifyLevel::Read, cancel);
    let wanted = Wanted::default();
    let found = work
        .database(&database.name, &database.archive, wanted.clone(), sink)
        .await?;
    let problems = work.checked.problems;
    match found {
        Some(found) if problems.is_empty() => {
            // Without a server there is nothing to contradict.
            let settled = settle(Attested::default(), found, &wanted);
            Ok(settled.map(|settled| settled.tables).unwrap_or_default())
        }
        _ => Err(BackupError::VerifyFailed {
            id: manifest.id.to_string(),
            problems,
        }),
    }
}
