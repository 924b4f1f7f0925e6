//! The table of contents of pg_dump's own archive, copied into the archive to be made.

use std::collections::HashMap;
use std::io::{self, Read};

use crate::{
    columns::order_of_columns,
    contents::{Part, walk},
    error::ArchiveError,
    header::{ArchiveKind, ArchiveVersion, Compression, Header},
    name::Name,
    options::CheckOptions,
    primitives::ArchiveReader,
    summary::ArchiveSummary,
    toc::{TocEntry, describe},
    write::{WriteFormat, compress::write_int},
};

/// Place of the format byte in a header; that of the compression follows.
const FORMAT_AT: usize = 10;
/// The state of an entry whose data is at a known place.
const POSITION_AT: u8 = 2;
/// The state of an entry whose data is somewhere behind the table of contents.
const POSITION_NOT_SET: u8 = 1;
/// Bytes that are collected before they are written.
const BUFFER: usize = 64 * 1024;

/// What is kept of a table of contents that was copied.
#[derive(Debug)]
pub struct DumpToc {
    /// Header (that of the archive to be made), number of entries, sequences and, where it was
    /// asked for, the catalogue. Nothing of the data.
    pub summary: ArchiveSummary,
    /// Encoding of the archive, as its entry `ENCODING` names it (`UTF8`).
    pub encoding: Option<String>,
    /// Entries that have data, in the order of the table of contents.
    pub data: Vec<DumpData>,
    /// Bytes that were written.
    pub bytes: u64,
}

/// An entry that has data.
#[derive(Debug, Clone)]
pub struct DumpData {
    /// Number of the entry.
    pub dump_id: i32,
    /// Oid of the table in the source.
    pub oid: u32,
    /// What the data is.
    pub kind: DumpDataKind,
    /// Schema; empty for what has none.
    pub schema: Name,
    /// Name of the table.
    pub name: Name,
    /// Whether a text here may be wrong: it is not UTF-8, or not ASCII in an archive whose
    /// encoding is another.
    pub lossy: bool,
    /// Whether large objects of several entries are listed in files of their own, as since 17.
    lists: bool,
    /// Of a table that inherits: the order of its columns' names.
    pub(crate) columns: Option<Box<[usize]>>,
}

/// What the data of an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpDataKind {
    /// A table's rows in COPY's text format.
    Rows {
        /// `COPY s.t (a, b) FROM stdin;` and a line break.
        copy_statement: Box<str>,
    },
    /// Large objects.
    LargeObjects {
        /// Those of this entry, in the order of the table of contents, which names every one.
        oids: Box<[u32]>,
    },
    /// Something else: INSERT statements.
    Other {
        /// Kind of the entry.
        kind: Name,
    },
}

/// Reads header and table of contents of a custom archive as pg_dump writes it to a pipe, and
/// writes those of the archive to be made through `output`, in pieces of bounded size. The entries'
/// bytes stay as they are, whatever encoding they are in; only format and compression of the header
/// and, for a directory, the file names of the entries are made. (In a custom archive the places of the
/// data are left open, as pg_dump leaves them when it writes to a pipe.) What follows in `reader` is not
/// needed (some of it may have been read).
///
/// # Errors
/// [`ArchiveError`]; [`ArchiveError::Unsupported`] for unknown versions, for an archive that is not
/// custom, and for what [`WriteFormat::check`] refuses; [`ArchiveError::Consumer`] when `output`
/// fails.
pub fn copy_toc(
    reader: impl Read,
    format: WriteFormat,
    options: &CheckOptions<'_>,
    output: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<DumpToc, ArchiveError> {
    let mut reader = ArchiveReader::new(reader, "the table of contents").copying();
    let mut writer = TocWriter {
        format,
        bytes: 0,
        buffer: Vec::new(),
        output,
    };
    let mut header = None;
    let mut data = Vec::new();
    let mut large_objects = LargeObjectOids::default();
    let walked = walk(
        &mut reader,
        Some(ArchiveKind::Custom),
        options,
        &mut |reader, part| match part {
            Part::Header(read, foreseen) => {
                data.reserve(foreseen);
                format.check(read.version)?;
                if read.compression != Compression::None {
                    return Err(ArchiveError::Unsupported {
                        problem: "the archive to be copied is compressed".to_owned(),
                    });
                }
                header = Some(Header {
                    kind: format.kind,
                    compression: format.compression,
                    ..read.clone()
                });
                writer.header(reader.take_copied(), read.version)
            }
            Part::Entry { entry, inherits } => {
                large_objects.take(&entry);
                let entry = entry.has_data.then(|| {
                    let oids = large_objects.of(&entry);
                    let minor = header.as_ref().map_or(0, |header| header.version.minor);
                    DumpData::of(*entry, inherits, minor >= 16, oids)
                });
                let file_name = entry.as_ref().filter(|_| !format.custom());
                let file_name = file_name.map(DumpData::file_name);
                writer.entry(
                    reader.take_copied(),
                    reader.off_size(),
                    file_name.as_deref(),
                )?;
                data.extend(entry);
                Ok(())
            }
        },
    )?;
    writer.flush()?;
    data.shrink_to_fit();
    let bytes = writer.bytes;
    let mut summary = walked.summary;
    if let Some(header) = header {
        summary.header = header;
    }
    if !walked.utf8 {
        summary.not_utf8();
        data.iter_mut().for_each(DumpData::not_utf8);
    }
    Ok(DumpToc {
        summary,
        encoding: walked.encoding,
        data,
        bytes,
    })
}

impl DumpData {
    fn of(entry: TocEntry, inherits: bool, lists: bool, oids: Vec<u32>) -> Self {
        let statement = entry.copy_statement.as_deref().filter(|_| inherits);
        Self {
            columns: statement
                .and_then(order_of_columns)
                .map(Vec::into_boxed_slice),
            dump_id: entry.dump_id,
            oid: entry.oid,
            kind: match (entry.kind.as_str(), entry.copy_statement) {
                ("BLOBS", _) => DumpDataKind::LargeObjects { oids: oids.into() },
                ("TABLE DATA", Some(statement)) => DumpDataKind::Rows {
                    copy_statement: statement,
                },
                _ => DumpDataKind::Other { kind: entry.kind },
            },
            schema: entry.schema.unwrap_or_default(),
            name: entry.name,
            lossy: entry.lossy,
            lists,
        }
    }

    /// In a directory archive: name of the data file or of the list of large objects, as pg_dump
    /// names it and the table of contents tells it. The data file itself has
    /// [`WriteFormat::file_suffix`] behind it, the list never.
    #[must_use]
    pub fn file_name(&self) -> String {
        match &self.kind {
            DumpDataKind::LargeObjects { .. } if self.lists => {
                format!("blobs_{}.toc", self.dump_id)
            }
            DumpDataKind::LargeObjects { .. } => "blobs.toc".to_owned(),
            _ => format!("{}.dat", self.dump_id),
        }
    }

    fn not_utf8(&mut self) {
        let statement = match &self.kind {
            DumpDataKind::Rows { copy_statement } => &**copy_statement,
            DumpDataKind::LargeObjects { .. } | DumpDataKind::Other { .. } => "",
        };
        let texts = [self.schema.as_str(), self.name.as_str(), statement];
        self.lossy |= !texts.iter().all(|text| text.is_ascii());
    }

    /// The entry in words, for messages.
    pub(crate) fn describe(&self) -> String {
        let kind = match &self.kind {
            DumpDataKind::Rows { .. } => "TABLE DATA",
            DumpDataKind::LargeObjects { .. } => "BLOBS",
            DumpDataKind::Other { kind } => kind,
        };
        describe(kind, Some(&self.schema), &self.name)
    }

    /// The statement of an entry with rows; others are refused.
    pub(crate) fn copy_statement(&self) -> Result<&str, ArchiveError> {
        match &self.kind {
            DumpDataKind::Rows { copy_statement } => Ok(copy_statement),
            DumpDataKind::LargeObjects { .. } | DumpDataKind::Other { .. } => {
                Err(ArchiveError::Unsupported {
                    problem: format!("{} holds no rows in COPY's text format", self.describe()),
                })
            }
        }
    }
}

/// Collects the oids of large objects from their metadata, which comes before their data: an entry
/// `BLOB` for each until 16, and one `BLOB METADATA` for many, a line each, since 17.
#[derive(Default)]
struct LargeObjectOids {
    single: Vec<u32>,
    groups: HashMap<i32, Vec<u32>>,
}

impl LargeObjectOids {
    fn take(&mut self, entry: &TocEntry) {
        match entry.kind.as_str() {
            "BLOB" => self.single.extend(entry.name.parse::<u32>()),
            "BLOB METADATA" => {
                let lines = entry.definition.as_deref().unwrap_or_default().lines();
                let oids = lines.filter_map(|line| line.parse().ok()).collect();
                self.groups.insert(entry.dump_id, oids);
            }
            _ => {}
        }
    }

    /// The oids of an entry `BLOBS`.
    fn of(&mut self, entry: &TocEntry) -> Vec<u32> {
        if entry.kind != "BLOBS" {
            return Vec::new();
        }
        let mut oids = std::mem::take(&mut self.single);
        for dependency in &entry.dependencies {
            oids.extend(self.groups.remove(dependency).unwrap_or_default());
        }
        oids
    }
}

/// Writes header and entries, changed from those of an archive that was read.
pub(crate) struct TocWriter<'a> {
    pub(crate) format: WriteFormat,
    /// Bytes written so far.
    pub(crate) bytes: u64,
    pub(crate) buffer: Vec<u8>,
    pub(crate) output: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
}

impl TocWriter<'_> {
    /// Takes the bytes of header and number of entries.
    pub(crate) fn header(
        &mut self,
        mut read: Vec<u8>,
        version: ArchiveVersion,
    ) -> Result<(), ArchiveError> {
        let mut compression = Vec::new();
        if version.minor >= 15 {
            compression.push(match self.format.compression {
                Compression::None => 0,
                Compression::Gzip => 1,
                Compression::Lz4 => 2,
                Compression::Zstd => 3,
            });
        } else {
            let level = match self.format.compression {
                Compression::None => 0,
                _ => self.format.level,
            };
            write_int(level, &mut compression);
        }
        read[FORMAT_AT] = match self.format.kind {
            ArchiveKind::Custom => 1,
            ArchiveKind::DirectoryOrTar => 3,
        };
        let at = FORMAT_AT + 1;
        read.splice(at..at + compression.len(), compression);
        self.write(&read)
    }

    /// Takes the bytes of an entry of a custom archive.
    fn entry(
        &mut self,
        mut read: Vec<u8>,
        off_size: usize,
        file_name: Option<&str>,
    ) -> Result<(), ArchiveError> {
        let state = read.len() - (1 + off_size);
        if self.format.custom() {
            if read[state] == POSITION_AT {
                read[state] = POSITION_NOT_SET;
                read[state + 1..].fill(0);
            }
        } else {
            read.truncate(state);
            let name = file_name.unwrap_or_default();
            write_int(i32::try_from(name.len()).unwrap_or(0), &mut read);
            read.extend_from_slice(name.as_bytes());
        }
        self.write(&read)
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), ArchiveError> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(BUFFER - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = rest;
            if self.buffer.len() == BUFFER {
                self.flush()?;
            }
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<(), ArchiveError> {
        self.bytes += self.buffer.len() as u64;
        (self.output)(&self.buffer).map_err(|source| ArchiveError::Consumer { source })?;
        self.buffer.clear();
        Ok(())
    }
}
