//! What is restored: a backup of the repository, or a file or directory of pg_dump's.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use storage::Store;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{
    BackupError, DumpFormat, Manifest, Repository, RestoreSource,
    attest::Attestation,
    manifest::{DatabaseRecord, StoredFile},
    manifest_file,
};

/// A reader of stored bytes.
pub(crate) type Bytes = Pin<Box<dyn AsyncRead + Send>>;

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceFormat {
    /// One file of pg_dump's custom format.
    Custom,
    /// A directory with `toc.dat`.
    Directory,
    /// A script, perhaps compressed.
    Plain,
}

impl SourceFormat {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Custom => "custom archive",
            Self::Directory => "directory archive",
            Self::Plain => "plain dump",
        }
    }
}

/// Where the bytes are.
#[derive(Debug, Clone)]
pub(crate) enum SourcePlace {
    /// In the store, as a manifest lists them.
    Stored {
        /// The store.
        store: Arc<dyn Store>,
        /// Directory of the backup in the store.
        dir: String,
        /// The archive's files.
        files: Vec<StoredFile>,
    },
    /// A file or directory of this host.
    Path(PathBuf),
}

/// A source that was found.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// For people.
    pub(crate) label: String,
    /// Format.
    pub(crate) format: SourceFormat,
    /// Place.
    pub(crate) place: SourcePlace,
    /// For a backup: the manifest without its databases, and the record of the chosen one without
    /// what it attests, which is much of 100,000 tables; [`Source::attestation`] reads it.
    pub(crate) backup: Option<Arc<(Manifest, DatabaseRecord)>>,
    /// Whether the backup says what its database held.
    pub(crate) attested: bool,
}

impl Source {
    /// Where it is a backup that says what its database held: the store, its manifest and the record
    /// of the database.
    pub(super) fn attesting(&self) -> Option<(&dyn Store, &Manifest, &DatabaseRecord)> {
        match (&self.backup, &self.place) {
            (Some(backup), SourcePlace::Stored { store, .. }) if self.attested => {
                Some((store.as_ref(), &backup.0, &backup.1))
            }
            _ => None,
        }
    }

    /// What the backup says its database held, from its manifest.
    ///
    /// # Errors
    /// [`BackupError::RestoreRefused`] when the manifest cannot be read any more, or is of another
    /// archive than the one that was planned with.
    pub(crate) async fn attestation(&self) -> Result<Option<Attestation>, BackupError> {
        let Some((store, manifest, record)) = self.attesting() else {
            return Ok(None);
        };
        let refuse = |problem: String| {
            refused(
                format!("{} cannot be compared: {problem}", self.label),
                "run pgstow verify, and restore once more".to_owned(),
            )
        };
        let stored = manifest_file::read(store, &manifest.id).await;
        let again = stored.and_then(|stored| stored.manifest).map_err(refuse)?;
        let mut databases = again.databases.into_iter();
        databases
            .find(|again| again.name == record.name && again.archive == record.archive)
            .map(|again| again.attestation)
            .ok_or_else(|| refuse("its manifest was replaced meanwhile".to_owned()))
    }
}

impl SourcePlace {
    /// Opens a file: of a directory archive by its name, else with an empty name.
    pub(crate) async fn open(&self, name: &str) -> io::Result<Bytes> {
        match self {
            Self::Stored { store, dir, .. } => {
                let file = self
                    .stored(name)
                    .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                let opened = store.open(&format!("{dir}/{}", file.name)).await;
                opened.map_err(|error| match error {
                    storage::StoreError::NotFound { .. } => {
                        io::Error::new(io::ErrorKind::NotFound, error)
                    }
                    error => io::Error::other(error),
                })
            }
            Self::Path(path) => {
                let path = if name.is_empty() {
                    path.clone()
                } else {
                    path.join(name)
                };
                let file = tokio::fs::File::open(&path).await?;
                if !file.metadata().await?.is_file() {
                    return Err(io::Error::other(format!(
                        "{} is no regular file",
                        path.display()
                    )));
                }
                Ok(Box::pin(file))
            }
        }
    }

    /// The manifest's record of a file.
    pub(crate) fn stored(&self, name: &str) -> Option<&StoredFile> {
        match self {
            Self::Stored { files, .. } if name.is_empty() => files.first(),
            Self::Stored { files, .. } => files
                .iter()
                .find(|file| file.name.rsplit('/').next() == Some(name)),
            Self::Path(_) => None,
        }
    }

    /// Names of a directory archive's files.
    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::Stored { files, .. } => files
                .iter()
                .filter_map(|file| file.name.rsplit('/').next())
                .map(str::to_owned)
                .collect(),
            Self::Path(_) => Vec::new(),
        }
    }

    /// The file or directory on this host, where there is one.
    pub(crate) fn local_path(&self) -> Option<PathBuf> {
        match self {
            Self::Stored { store, dir, files } => {
                let first = files.first()?;
                let path = store.local_path(&format!("{dir}/{}", first.name))?;
                if files.len() > 1 || first.name.ends_with("/toc.dat") {
                    path.parent().map(Path::to_owned)
                } else {
                    Some(path)
                }
            }
            Self::Path(path) => Some(path.clone()),
        }
    }
}

/// Finds what a request names, and the one database of it.
pub(crate) async fn resolve(
    repo: &Repository,
    wanted: &RestoreSource,
    database: Option<&str>,
) -> Result<Source, BackupError> {
    match wanted {
        RestoreSource::Backup(wanted) => {
            let manifest = repo.find_without_tables(wanted).await?;
            of_backup(repo, manifest, database)
        }
        RestoreSource::Path(path) => of_path(path).await,
    }
}

/// The database of a backup that is meant: the one that is named, or the only one that a user
/// made.
pub(crate) fn chosen<'a>(
    manifest: &'a Manifest,
    database: Option<&str>,
) -> Result<&'a DatabaseRecord, BackupError> {
    let names = || {
        manifest
            .databases
            .iter()
            .map(|record| format!("{:?}", record.name))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let record = match (database, manifest.databases.as_slice()) {
        (Some(name), records) => records.iter().find(|record| record.name == name),
        (None, records) => match own(records).as_slice() {
            [record] => Some(*record),
            _ => None,
        },
    };
    let record = match (database, record) {
        (None, None) if manifest.databases.len() > 1 => {
            return Err(refused(
                format!(
                    "backup {} holds {} databases: {}",
                    manifest.id,
                    manifest.databases.len(),
                    names()
                ),
                "name one with --database NAME".to_owned(),
            ));
        }
        (_, record) => record,
    };
    record.ok_or_else(|| {
        refused(
            format!(
                "backup {} holds no database {:?}; it holds {}",
                manifest.id,
                database.unwrap_or_default(),
                names()
            ),
            "name one of these with --database NAME".to_owned(),
        )
    })
}

/// The source for one database of a backup.
pub(crate) fn of_backup(
    repo: &Repository,
    mut manifest: Manifest,
    database: Option<&str>,
) -> Result<Source, BackupError> {
    let name = chosen(&manifest, database)?.name.clone();
    let mut records = std::mem::take(&mut manifest.databases).into_iter();
    let Some(mut record) = records.find(|record| record.name == name) else {
        return Err(refused(
            format!("backup {} holds no database {name:?}", manifest.id),
            "name another one with --database NAME".to_owned(),
        ));
    };
    Ok(Source {
        attested: record.attestation.take().is_some(),
        label: format!("database {:?} of backup {}", record.name, manifest.id),
        format: match record.archive.format {
            DumpFormat::Custom => SourceFormat::Custom,
            DumpFormat::Directory => SourceFormat::Directory,
            DumpFormat::Plain => SourceFormat::Plain,
        },
        place: SourcePlace::Stored {
            store: Arc::clone(&repo.store),
            dir: manifest.id.to_string(),
            files: record.archive.files.clone(),
        },
        backup: Some(Arc::new((manifest, record))),
    })
}

/// Name of the database of a backup that a restore takes: the one that is named, or the only one
/// that a user made.
///
/// # Errors
/// [`BackupError::RestoreRefused`] when there is no such database, or more than one.
pub fn database_to_restore(
    manifest: &Manifest,
    database: Option<&str>,
) -> Result<String, BackupError> {
    Ok(chosen(manifest, database)?.name.clone())
}

/// The databases that a user made: not the server's own `template1` and `postgres`, as long as
/// others are there.
fn own(records: &[DatabaseRecord]) -> Vec<&DatabaseRecord> {
    let mut left: Vec<_> = records.iter().collect();
    for server in ["template1", "postgres"] {
        if left.len() > 1 {
            left.retain(|record| record.name != server);
        }
    }
    left
}

async fn of_path(path: &Path) -> Result<Source, BackupError> {
    let unreadable = |source| BackupError::File {
        operation: "opening",
        path: path.to_owned(),
        source,
    };
    let metadata = tokio::fs::metadata(path).await.map_err(unreadable)?;
    let label = path.display().to_string();
    let source = |format| Source {
        label: label.clone(),
        format,
        place: SourcePlace::Path(path.to_owned()),
        backup: None,
        attested: false,
    };
    if metadata.is_dir() {
        if !path.join("toc.dat").is_file() {
            return Err(refused(
                format!("{label} is a directory without toc.dat, so it is no archive of pg_dump"),
                "name the directory that pg_dump -Fd wrote, or a file".to_owned(),
            ));
        }
        return Ok(source(SourceFormat::Directory));
    }
    if !metadata.is_file() {
        return Err(refused(
            format!("{label} is neither a file nor a directory"),
            "an archive is read twice (checked, then restored); copy it to a file first".to_owned(),
        ));
    }
    let mut start = Vec::new();
    tokio::fs::File::open(path)
        .await
        .map_err(unreadable)?
        .take(512)
        .read_to_end(&mut start)
        .await
        .map_err(unreadable)?;
    if start.starts_with(archive::MAGIC) {
        return Ok(source(SourceFormat::Custom));
    }
    if start.get(257..262) == Some(b"ustar") {
        return Err(refused(
            format!("{label} is a tar archive, which this program does not check"),
            "unpack it (tar -xf) into an empty directory and restore that directory, or restore \
             it with pg_restore -Ft"
                .to_owned(),
        ));
    }
    // Anything else has to prove itself as a plain dump.
    Ok(source(SourceFormat::Plain))
}

pub(crate) fn refused(problem: String, remedy: String) -> BackupError {
    BackupError::RestoreRefused { problem, remedy }
}
