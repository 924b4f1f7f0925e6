//! Reads a whole archive before anything is touched: hashes against the manifest, structure
//! against the format. What was seen is kept, so that the second reading has to be the same.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use archive::{ArchiveSummary, CheckOptions, Fingerprints, PlainSummary, TableData, Toc};
use sha2::{Digest, Sha256};
use tokio_util::io::SyncIoBridge;

use super::partial::Part;
use super::source::{Source, SourceFormat, SourcePlace, refused};
use crate::BackupError;

/// Size and hash of a file as it was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub(crate) bytes: u64,
    pub(crate) sha256: [u8; 32],
}

/// An archive that is whole.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    /// Table of contents; `None` for a plain dump.
    pub(crate) toc: Option<Toc>,
    /// What a plain dump says of itself.
    pub(crate) plain: Option<PlainSummary>,
    /// Rows of each table.
    pub(crate) tables: Vec<TableData>,
    /// Number of large objects; `None` for a plain dump.
    pub(crate) large_objects: Option<u64>,
    /// Of a restore of a part: entries, tables and large objects are those that were chosen.
    pub(crate) part: Option<Part>,
    /// What else an archive says of itself, its catalogue among it; the tables are above.
    pub(crate) rest: Option<ArchiveSummary>,
    /// Each file by its name (empty for a single file).
    pub(crate) files: BTreeMap<String, Fingerprint>,
}

impl Checked {
    /// Stored bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }
}

/// Checks a source.
///
/// # Errors
/// [`BackupError::RestoreRefused`] with what is wrong and where.
pub(crate) async fn check(source: &Source) -> Result<Checked, BackupError> {
    let place = source.place.clone();
    let format = source.format;
    let options = CheckOptions {
        // What was attested has fingerprints of the source itself.
        fingerprints: match &source.backup {
            Some(backup) if backup.1.attestation.is_some() => Fingerprints::None,
            _ => Fingerprints::All,
        },
        catalogue: archive::CatalogueDetail::Objects,
    };
    let handle = tokio::runtime::Handle::current();
    let result = tokio::task::spawn_blocking(move || {
        Files {
            place,
            handle,
            seen: Seen::default(),
        }
        .check(format, &options)
    })
    .await;
    let remedy = || match source.backup {
        Some(_) => "verify the other backups (pgstow verify --all) and restore one that is whole",
        None => "get an undamaged copy of the file, or another dump",
    };
    match result {
        Ok(Ok(checked)) => Ok(checked),
        Ok(Err(problem)) => Err(refused(
            format!("{} cannot be trusted: {problem}", source.label),
            remedy().to_owned(),
        )),
        Err(panic) => Err(refused(
            format!("{} could not be checked: {panic}", source.label),
            remedy().to_owned(),
        )),
    }
}

type Seen = Arc<Mutex<BTreeMap<String, Fingerprint>>>;

/// Opens files, hashes what is read and remembers it.
struct Files {
    place: SourcePlace,
    handle: tokio::runtime::Handle,
    seen: Seen,
}

impl Files {
    fn open(&self, name: &str) -> io::Result<HashingRead> {
        let reader = self.handle.block_on(self.place.open(name))?;
        Ok(HashingRead {
            inner: SyncIoBridge::new_with_handle(reader, self.handle.clone()),
            name: name.to_owned(),
            hash: Sha256::new(),
            bytes: 0,
            seen: Arc::clone(&self.seen),
        })
    }

    fn check(&self, format: SourceFormat, options: &CheckOptions<'_>) -> Result<Checked, String> {
        let result = self.structure(format, options);
        // A wrong hash explains more than what is wrong with the structure.
        self.compare()?;
        let mut checked = result?;
        checked.files =
            std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(checked)
    }

    fn structure(
        &self,
        format: SourceFormat,
        options: &CheckOptions<'_>,
    ) -> Result<Checked, String> {
        let open = |name: &str| self.open(name).map_err(|error| in_words(&error));
        let checked = |toc, plain, mut summary: Option<ArchiveSummary>| Checked {
            toc,
            plain,
            large_objects: summary.as_ref().map(|summary| summary.large_objects),
            part: None,
            tables: summary
                .as_mut()
                .map(|summary| std::mem::take(&mut summary.tables))
                .unwrap_or_default(),
            rest: summary,
            files: BTreeMap::new(),
        };
        match format {
            SourceFormat::Custom => {
                let mut first = open("")?;
                let toc = archive::read_toc(&mut first).map_err(|error| in_words(&error));
                // On an error too, the rest is read so that the hash can speak.
                let toc = toc.or_else(|error| drain(first).and(Err(error)))?;
                let mut reader = open("")?;
                let summary = archive::check_custom(&mut reader, options);
                drain(reader)?;
                let summary = summary.map_err(|error| in_words(&error))?;
                Ok(checked(Some(toc), None, Some(summary)))
            }
            SourceFormat::Directory => {
                let mut first = open("toc.dat")?;
                let toc = archive::read_toc(&mut first).map_err(|error| in_words(&error));
                let toc = toc.or_else(|error| drain(first).and(Err(error)))?;
                let mut reader = open("toc.dat")?;
                let summary = archive::check_directory(
                    &mut reader,
                    |name| Ok(Box::new(self.open(name)?)),
                    options,
                );
                drain(reader)?;
                let summary = summary.map_err(|error| in_words(&error))?;
                Ok(checked(Some(toc), None, Some(summary)))
            }
            SourceFormat::Plain => {
                let mut reader = open("")?;
                let summary = archive::open_plain(&mut reader)
                    .map_err(|error| in_words(&error))
                    .and_then(|plain| {
                        archive::check_plain(plain).map_err(|error| in_words(&error))
                    });
                drain(reader)?;
                let summary = summary?;
                let mut result = checked(None, None, None);
                result.tables.clone_from(&summary.tables);
                result.plain = Some(summary);
                Ok(result)
            }
        }
    }

    /// Compares what was read with what the manifest says.
    fn compare(&self) -> Result<(), String> {
        let SourcePlace::Stored { files, .. } = &self.place else {
            return Ok(());
        };
        let single = files.len() == 1;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, found) in seen.iter() {
            let Some(stored) = self.place.stored(name) else {
                return Err(format!("{name} is not listed in the manifest"));
            };
            if found.bytes != stored.bytes {
                return Err(format!(
                    "{} has {} bytes, and the manifest says {}",
                    stored.name, found.bytes, stored.bytes
                ));
            }
            if hex::encode(found.sha256) != stored.sha256 {
                return Err(format!(
                    "the hash of {} is not the one in the manifest",
                    stored.name
                ));
            }
        }
        if !single {
            for stored in files {
                let name = stored.name.rsplit('/').next().unwrap_or_default();
                if !seen.contains_key(name) && self.open(name).is_err() {
                    return Err(format!("{} is missing", stored.name));
                }
            }
        }
        Ok(())
    }
}

/// Reads what is left, so that the whole file is hashed.
fn drain(mut reader: HashingRead) -> Result<(), String> {
    io::copy(&mut reader, &mut io::sink())
        .map(|_| ())
        .map_err(|error| in_words(&error))
}

/// Hashes while it reads; at the end of the file it leaves the fingerprint.
struct HashingRead {
    inner: SyncIoBridge<super::source::Bytes>,
    name: String,
    hash: Sha256,
    bytes: u64,
    seen: Seen,
}

impl Read for HashingRead {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        if read == 0 && !buf.is_empty() {
            let fingerprint = Fingerprint {
                bytes: self.bytes,
                sha256: self.hash.clone().finalize().into(),
            };
            self.seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(self.name.clone(), fingerprint);
        }
        self.hash.update(&buf[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// An error with its causes.
pub(crate) fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let more = source.to_string();
        // io::Error repeats the text of what it wraps.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = source.source();
    }
    text
}
