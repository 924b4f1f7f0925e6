//! Reads a whole archive before anything is touched: hashes against the manifest, structure
//! against the format. What was seen is kept, so that the second reading has to be the same.
//!
//! Of a backup of ours whose manifest attests every table the data need not be decoded for that:
//! its bytes are those that were stored, and the reading that fills a new database decodes, counts
//! and compares them before the database gets its name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use archive::{
    ArchiveKind, ArchiveSummary, Catalogue, CatalogueDetail, CheckOptions, Entry, Fingerprints,
    ItemHash, LastName, Name, PlainSummary, TableData, Toc,
};
use sha2::{Digest, Sha256};
use tokio_util::io::SyncIoBridge;

use super::partial::Part;
use super::source::{Source, SourceFormat, SourcePlace, refused};
use crate::{
    BackupError,
    attest::{Attestation, TableScope},
};

/// Bytes that are read at once where nothing looks at them.
const DRAIN: usize = 1 << 20;

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
    /// What else an archive says of itself, without its catalogue; the tables are above.
    pub(crate) rest: Option<ArchiveSummary>,
    /// Each file by its name (empty for a single file).
    pub(crate) files: BTreeMap<String, Fingerprint>,
    /// Whether the data was decoded and counted; else the numbers are the manifest's.
    pub(crate) decoded: bool,
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
    let format = source.format;
    let options = CheckOptions {
        // What was attested has fingerprints of the source itself.
        fingerprints: match source.attested {
            true => Fingerprints::None,
            false => Fingerprints::All,
        },
        hash: ItemHash::default(),
        // Read when it is compared: of 100,000 tables it is much.
        catalogue: CatalogueDetail::None,
    };
    read(source, move |files| files.check(format, &options)).await
}

/// The catalogue of a source that was checked; `None` for a plain dump.
///
/// # Errors
/// As [`check`].
pub(crate) async fn catalogue(source: &Source) -> Result<Option<Catalogue>, BackupError> {
    let name = match source.format {
        SourceFormat::Custom => "",
        SourceFormat::Directory => "toc.dat",
        SourceFormat::Plain => return Ok(None),
    };
    let work = move |files: &Files| {
        let opened = files.open(name).map_err(|error| in_words(&error))?;
        archive::read_catalogue(opened).map_err(|error| in_words(&error))
    };
    read(source, work).await.map(Some)
}

/// Reads a source on a thread of its own.
async fn read<T: Send + 'static>(
    source: &Source,
    work: impl FnOnce(&Files) -> Result<T, String> + Send + 'static,
) -> Result<T, BackupError> {
    let place = source.place.clone();
    let handle = tokio::runtime::Handle::current();
    let result = tokio::task::spawn_blocking(move || {
        work(&Files {
            place,
            handle,
            seen: Seen::default(),
        })
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

/// Checks a source by its hashes and its table of contents alone, where its manifest says what else
/// it holds. `None`: it has to be decoded, see [`check`].
///
/// # Errors
/// As [`check`].
pub(crate) async fn check_stored(source: &Source) -> Result<Option<Checked>, BackupError> {
    if source.format == SourceFormat::Plain {
        return Ok(None);
    }
    let Some(attestation) = source.attestation().await? else {
        return Ok(None);
    };
    let format = source.format;
    read(source, move |files| files.stored(format, &attestation)).await
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

    /// Hashes every file and reads the table of contents; `None` where the attestation does not
    /// say everything that the restore has to know of the data.
    fn stored(
        &self,
        format: SourceFormat,
        attestation: &Attestation,
    ) -> Result<Option<Checked>, String> {
        let result = self.contents(format, attestation);
        let names = match format {
            SourceFormat::Directory => self.place.names(),
            SourceFormat::Custom | SourceFormat::Plain => vec![String::new()],
        };
        for name in names {
            let is_seen = |seen: &BTreeMap<_, _>| seen.contains_key(&name);
            if !is_seen(&self.seen.lock().unwrap_or_else(PoisonError::into_inner)) {
                let opened = self.open(&name);
                drain(opened.map_err(|error| match self.place.stored(&name) {
                    Some(file) if error.kind() == io::ErrorKind::NotFound => {
                        format!("{} is missing", file.name)
                    }
                    _ => in_words(&error),
                })?)?;
            }
        }
        self.compare()?;
        let checked = result?;
        Ok(checked.map(|mut checked| {
            checked.files =
                std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
            checked
        }))
    }

    fn contents(
        &self,
        format: SourceFormat,
        attestation: &Attestation,
    ) -> Result<Option<Checked>, String> {
        let (name, kind) = match format {
            SourceFormat::Directory => ("toc.dat", ArchiveKind::DirectoryOrTar),
            SourceFormat::Custom | SourceFormat::Plain => ("", ArchiveKind::Custom),
        };
        let open = || self.open(name).map_err(|error| in_words(&error));
        let summary = archive::summarize_contents(open()?, kind, &CheckOptions::default());
        let summary = summary.map_err(|error| in_words(&error))?;
        let toc = archive::read_toc(open()?).map_err(|error| in_words(&error))?;
        let Some((tables, large_objects)) = attested(&toc, attestation) else {
            return Ok(None);
        };
        Ok(Some(Checked {
            toc: Some(toc),
            plain: None,
            large_objects: Some(large_objects),
            part: None,
            tables,
            rest: Some(summary),
            files: BTreeMap::new(),
            decoded: false,
        }))
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
            decoded: true,
        };
        match format {
            SourceFormat::Custom | SourceFormat::Directory => {
                let custom = format == SourceFormat::Custom;
                let name = if custom { "" } else { "toc.dat" };
                let mut reader = open(name)?;
                let summary = match custom {
                    true => archive::check_custom(&mut reader, options),
                    false => archive::check_directory(
                        &mut reader,
                        |name| Ok(Box::new(self.open(name)?)),
                        options,
                    ),
                };
                // On an error too, the rest is read so that the hash can speak.
                drain(reader)?;
                let summary = summary.map_err(|error| in_words(&error))?;
                // Not before: what the check needs beside is gone by now.
                let toc = archive::read_toc(open(name)?).map_err(|error| in_words(&error))?;
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

/// The data of each entry and the number of large objects, as they were attested; `None` where
/// something is not known for certain.
fn attested(toc: &Toc, attestation: &Attestation) -> Option<(Vec<TableData>, u64)> {
    let known: HashMap<u32, _> = attestation.tables.iter().map(|t| (t.oid, t)).collect();
    let mut tables: Vec<TableData> = Vec::new();
    let mut large_objects = 0;
    let mut seen = HashSet::new();
    let mut schemas = LastName::default();
    for entry in toc.entries.iter().filter(|entry| entry.has_data) {
        if entry.kind == "BLOBS" {
            large_objects = attestation.large_objects.as_ref()?.count;
            continue;
        }
        let table = known.get(&entry.oid)?;
        let whole = table.scope == TableScope::All && entry.copy_statement.is_some();
        // One table has one entry, or what was attested is not the entry's.
        if entry.kind != "TABLE DATA" || !whole || entry.oid == 0 || !seen.insert(entry.oid) {
            return None;
        }
        tables.push(TableData {
            dump_id: entry.dump_id,
            oid: entry.oid,
            schema: schemas.share(entry.schema.unwrap_or_default()),
            name: Name::from(entry.name),
            bytes: table.bytes?,
            rows: Some(table.rows),
            fingerprint: None,
            lossy: entry.lossy || !(toc.utf8 || ascii(entry)),
        });
    }
    Some((tables, large_objects))
}

fn ascii(entry: Entry<'_>) -> bool {
    entry.name.is_ascii() && entry.schema.iter().all(|schema| schema.is_ascii())
}

/// Reads what is left, so that the whole file is hashed.
fn drain(mut reader: HashingRead) -> Result<(), String> {
    let mut piece = vec![0; DRAIN];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(in_words(&error)),
        }
    }
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
