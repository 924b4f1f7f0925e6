//! Writes the data of the entries into the store, in the order of the archive.

use std::time::Duration;

use archive::{
    ArchiveKind, DumpData, EntryWriter, Fingerprint, LargeObjectsSummary, LargeObjectsWriter,
    TableData,
};
use bytes::Bytes;
use dbexec::PgExecutor;
use tokio_util::sync::CancellationToken;

use super::board::Part;
use super::mover::Shared;
use super::plan::What;
use super::watch::Watch;
use crate::BackupError;
use crate::attest::{Contents, Wanted};
use crate::manifest::StoredFile;
use crate::run::{Along, Progress, Structure, chain};
use crate::stream::{HashedWriter, PIECE};
use storage::{Store, StoreError};

/// How often progress is told while nothing is to be written.
const TELL: Duration = Duration::from_millis(250);

/// Why nothing more is written.
#[derive(Debug)]
pub(crate) enum Failure {
    /// pg_dump alone may do it, in another snapshot.
    Stock(String),
    /// Nobody can.
    Run(BackupError),
}

/// Where the archive goes, and how to stop.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) store: &'a dyn Store,
    /// Directory of the backup in the store.
    pub(crate) dir: &'a str,
    /// Name of the file, or of the archive's directory.
    pub(crate) name: &'a str,
    /// What is being done, for errors.
    pub(crate) operation: &'a str,
    pub(crate) cancel: &'a CancellationToken,
}

impl Target<'_> {
    pub(crate) fn interrupted(&self) -> Failure {
        Failure::Run(BackupError::Interrupted {
            operation: self.operation.to_owned(),
        })
    }

    fn stored(&self, source: StoreError) -> Failure {
        Failure::Run(BackupError::Store {
            operation: self.operation.to_owned(),
            source,
        })
    }

    /// Waits for the store, but not after a cancel.
    async fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(self.interrupted()),
            done = work => done.map_err(|source| self.stored(source)),
        }
    }
}

/// Files of an archive on their way into the store.
pub(crate) struct Files<'a> {
    pub(crate) target: Target<'a>,
    open: Option<HashedWriter>,
    /// Reads along what is stored in the one file.
    structure: Option<Structure>,
    /// Bytes for the open file that are too few for a piece.
    buffer: Vec<u8>,
    done: Vec<StoredFile>,
}

impl<'a> Files<'a> {
    /// `along`: what is to be found out of the archive, which is then one file, while it is stored.
    pub(crate) fn new(target: Target<'a>, along: Option<Wanted>) -> Self {
        let along = along.map(Along::Custom);
        Self {
            target,
            open: None,
            structure: along.map(Structure::start),
            buffer: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Begins a file; `None` for the archive that is one file.
    pub(crate) async fn begin(&mut self, name: Option<&str>) -> Result<(), Failure> {
        let target = &self.target;
        let name = match name {
            Some(name) => format!("{}/{name}", target.name),
            None => target.name.to_owned(),
        };
        let writer = target
            .wait(HashedWriter::create(target.store, target.dir, &name))
            .await?;
        self.open = Some(writer);
        Ok(())
    }

    /// What is filled by the archive's writers; [`Files::flush`] passes it on.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Appends bytes to the open file.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        if bytes.len() < PIECE / 4 {
            self.buffer.extend_from_slice(&bytes);
            return self.flush(false).await;
        }
        self.flush(true).await?;
        self.append(bytes).await
    }

    /// Passes on what was filled; `all` also when it is little.
    pub(crate) async fn flush(&mut self, all: bool) -> Result<(), Failure> {
        if self.buffer.is_empty() || (!all && self.buffer.len() < PIECE / 2) {
            return Ok(());
        }
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        self.append(bytes).await
    }

    async fn append(&mut self, bytes: Bytes) -> Result<(), Failure> {
        let Some(writer) = &mut self.open else {
            return Err(Failure::Stock("no file is open".to_owned()));
        };
        let structure = self.structure.as_ref();
        let writing = async {
            if let Some(structure) = structure {
                structure.push(bytes.clone()).await;
            }
            writer.write(bytes).await
        };
        self.target.wait(writing).await
    }

    /// What was read along, after the last byte; an archive that is not whole is none.
    pub(crate) async fn read_along(&mut self) -> Result<Option<Contents>, Failure> {
        self.flush(true).await?;
        let Some(structure) = self.structure.take() else {
            return Ok(None);
        };
        let read = structure.finish().await;
        read.map_err(|problem| {
            Failure::Stock(format!(
                "the archive that was made cannot be read: {problem}"
            ))
        })
    }

    /// Makes the open file durable.
    pub(crate) async fn commit(&mut self) -> Result<(), Failure> {
        self.flush(true).await?;
        if let Some(writer) = self.open.take() {
            let file = self.target.wait(writer.commit(self.target.store)).await?;
            self.done.push(file);
        }
        Ok(())
    }

    /// The files, in the order in which they were written.
    pub(crate) fn finish(self) -> Vec<StoredFile> {
        self.done
    }

    /// Removes everything that was written. Errors are told: something may stay behind.
    pub(crate) async fn remove(&mut self) -> Result<(), StoreError> {
        self.buffer.clear();
        let aborted = match self.open.take() {
            Some(writer) => writer.abort().await,
            None => Ok(()),
        };
        for file in self.done.drain(..) {
            let name = format!("{}/{}", self.target.dir, file.name);
            self.target.store.delete(&name).await?;
        }
        aborted
    }
}

/// What came of the rows of an entry. As little as can be: it is held for each of 100,000 tables
/// beside the plan, which knows the rest.
pub(crate) struct Moved {
    bytes: u64,
    rows: u64,
    fingerprint: Option<Fingerprint>,
}

impl Moved {
    /// The same with what the plan knows of the entry.
    pub(crate) fn of(self, entry: DumpData) -> TableData {
        TableData {
            dump_id: entry.dump_id,
            oid: entry.oid,
            schema: entry.schema,
            name: entry.name,
            bytes: self.bytes,
            rows: Some(self.rows),
            fingerprint: self.fingerprint,
            lossy: entry.lossy,
        }
    }
}

/// What the data of an archive were found to be.
#[derive(Default)]
pub(crate) struct Emitted {
    /// Of each entry with rows, in the order of the plan.
    pub(crate) tables: Vec<Moved>,
    pub(crate) objects: LargeObjectsSummary,
}

/// Writes the data of every entry. `executor` looks after the movers when nothing moves.
pub(crate) async fn emit<'a>(
    shared: &Shared,
    executor: &'a dyn PgExecutor,
    files: &mut Files<'a>,
    progress: &mut Progress<'_>,
) -> Result<Emitted, Failure> {
    let mut watch = Watch::new(executor);
    let plan = &shared.plan;
    let custom = plan.format.kind == ArchiveKind::Custom;
    let mut emitted = Emitted::default();
    // At once: what grows step by step leaves as much again in holes.
    emitted.tables.reserve_exact(plan.data.len());
    let mut units = plan.units.iter().peekable();
    while let Some(unit) = units.peek() {
        let number = unit.entry;
        let entry = plan.entry(unit);
        let objects = matches!(unit.what, What::Objects { .. });
        let count = std::iter::from_fn(|| units.next_if(|unit| unit.entry == number)).count();
        let mut emitter = Emitter {
            shared,
            watch: &mut watch,
            files,
            progress,
            custom,
        };
        if objects {
            let written = emitter.objects(entry, count).await?;
            emitted.objects.merge(&written);
        } else {
            let table = emitter.rows(entry, count).await?;
            emitted.tables.push(Moved {
                bytes: table.bytes,
                rows: table.rows.unwrap_or(0),
                fingerprint: table.fingerprint,
            });
        }
    }
    shared.board.done();
    Ok(emitted)
}

struct Emitter<'e, 'f, 'p> {
    shared: &'e Shared,
    watch: &'e mut Watch<'f>,
    files: &'e mut Files<'f>,
    progress: &'e mut Progress<'p>,
    custom: bool,
}

fn archived(error: &archive::ArchiveError) -> Failure {
    Failure::Stock(chain(error))
}

impl Emitter<'_, '_, '_> {
    /// Writes an entry of rows. The server's count of each unit has to be that of what came.
    async fn rows(&mut self, entry: &DumpData, units: usize) -> Result<TableData, Failure> {
        let format = self.shared.plan.format;
        if !self.custom {
            let name = file_name(entry)?;
            let name = format!("{name}{}", format.file_suffix());
            self.files.begin(Some(&name)).await?;
        }
        let mut writer = EntryWriter::begin(format, entry, self.files.buffer())
            .map_err(|error| archived(&error))?;
        for _ in 0..units {
            loop {
                match self.next().await? {
                    Part::Bytes(bytes) => self.files.write(bytes).await?,
                    Part::Rows(summary, rows) => {
                        if summary.rows != rows {
                            return Err(Failure::Stock(format!(
                                "the server counted {rows} rows of {}.{}, and {} came",
                                entry.schema, entry.name, summary.rows
                            )));
                        }
                        writer.add(&summary);
                        break;
                    }
                    _ => return Err(Failure::Stock("a part of another kind".to_owned())),
                }
            }
            self.shared.board.advance();
        }
        let table = writer
            .finish(self.files.buffer())
            .map_err(|error| archived(&error))?;
        self.end().await?;
        Ok(table)
    }

    /// Writes an entry of large objects.
    async fn objects(
        &mut self,
        entry: &DumpData,
        units: usize,
    ) -> Result<LargeObjectsSummary, Failure> {
        let format = self.shared.plan.format;
        // The list of a directory; in one file the block's own begin.
        let mut list = Vec::new();
        let mut writer = LargeObjectsWriter::begin(format, entry, &mut list)
            .map_err(|error| archived(&error))?;
        if self.custom {
            self.files
                .write(Bytes::from(std::mem::take(&mut list)))
                .await?;
        }
        for _ in 0..units {
            loop {
                match self.next().await? {
                    Part::Bytes(bytes) => self.files.write(bytes).await?,
                    Part::Object(oid) => {
                        writer.list(oid, &mut list);
                        let name = LargeObjectsWriter::file_name(format, oid);
                        self.files.begin(Some(&name)).await?;
                    }
                    Part::ObjectEnd => self.files.commit().await?,
                    Part::Objects(summary) => {
                        writer.add(&summary);
                        break;
                    }
                    Part::Rows(..) => {
                        return Err(Failure::Stock("a part of another kind".to_owned()));
                    }
                }
            }
            self.shared.board.advance();
        }
        let summary = writer.finish(&mut list);
        if !self.custom {
            let name = file_name(entry)?;
            self.files.begin(Some(&name)).await?;
        }
        self.files.write(Bytes::from(list)).await?;
        self.end().await?;
        Ok(summary)
    }

    async fn end(&mut self) -> Result<(), Failure> {
        if self.custom {
            self.files.flush(false).await
        } else {
            self.files.commit().await
        }
    }

    /// The next part; tells progress meanwhile.
    async fn next(&mut self) -> Result<Part, Failure> {
        loop {
            let waited = tokio::select! {
                biased;
                () = self.files.target.cancel.cancelled() => {
                    return Err(self.files.target.interrupted());
                }
                part = tokio::time::timeout(TELL, self.shared.board.next()) => part,
            };
            let moved = self.shared.moved();
            self.progress.add(moved);
            if moved > 0 || waited.is_ok() {
                self.watch.moved();
            }
            match waited {
                Ok(Ok(part)) => return Ok(part),
                Ok(Err(_stopped)) => {
                    let failure = self.shared.failure();
                    return Err(failure
                        .unwrap_or_else(|| Failure::Stock("the work was given up".to_owned())));
                }
                Err(_elapsed) => tokio::select! {
                    biased;
                    () = self.files.target.cancel.cancelled() => {
                        return Err(self.files.target.interrupted());
                    }
                    looked = self.watch.look(&self.shared.sessions) => looked?,
                },
            }
        }
    }
}

fn file_name(entry: &DumpData) -> Result<String, Failure> {
    let name = entry.file_name();
    if name.contains('/') || storage::check_name(&name).is_err() {
        return Err(Failure::Stock(format!("{name:?} is no name of a file")));
    }
    Ok(name)
}
