//! Large objects of one `BLOBS` entry.

use crate::{
    custom::BLOCK_LARGE_OBJECTS,
    data::LargeObjectSink,
    error::ArchiveError,
    fingerprint::{Fingerprint, ItemHash},
    write::{
        DumpData, DumpDataKind, WriteFormat,
        compress::{Compressor, Role, write_block_begin, write_int},
    },
};

/// Encodes large objects, one after the other, in any thread. In a custom archive the bytes of many
/// objects follow each other; in a directory those of each are a file of their own, named
/// [`LargeObjectsWriter::file_name`].
pub struct LargeObjectEncoder {
    format: WriteFormat,
    hash: Option<ItemHash>,
    summary: LargeObjectsSummary,
    /// The large object that is being encoded.
    current: Option<LargeObjectSink>,
    compressor: Compressor,
}

/// What was encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LargeObjectsSummary {
    /// Large objects.
    pub count: u64,
    /// Their bytes before compression.
    pub bytes: u64,
    /// Their fingerprint, as in [`crate::ArchiveSummary::large_object_fingerprint`], where it was
    /// asked for.
    pub fingerprint: Option<Fingerprint>,
}

impl LargeObjectsSummary {
    /// Adds what another encoder encoded.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.bytes += other.bytes;
        Fingerprint::merge_some(&mut self.fingerprint, other.fingerprint);
    }
}

impl LargeObjectEncoder {
    /// `hash`: by what the large objects are fingerprinted, if at all.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] for a level that does not exist.
    pub fn new(format: WriteFormat, hash: Option<ItemHash>) -> Result<Self, ArchiveError> {
        format.check_level()?;
        Ok(Self {
            format,
            hash,
            summary: LargeObjectsSummary::default(),
            current: None,
            compressor: Compressor::new(format, Role::Whole),
        })
    }

    /// Begins a large object. Appends what is ready to `output`, as the others do.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] for oid 0, and when the one before was not ended.
    pub fn begin(&mut self, oid: u32, output: &mut Vec<u8>) -> Result<(), ArchiveError> {
        if oid == 0 || self.current.is_some() {
            return Err(out_of_turn("begin"));
        }
        if self.format.custom() {
            // As pg_dump writes it.
            write_int(oid.cast_signed(), output);
        }
        self.current = Some(LargeObjectSink::new(oid, self.hash));
        Ok(())
    }

    /// Takes a part of the content.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] when none was begun, [`ArchiveError::Compress`].
    pub fn push(&mut self, content: &[u8], output: &mut Vec<u8>) -> Result<(), ArchiveError> {
        let Some(sink) = &mut self.current else {
            return Err(out_of_turn("go on"));
        };
        sink.push(content);
        self.compressor.push(content, output)
    }

    /// Ends the large object.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] when none was begun, [`ArchiveError::Compress`].
    pub fn end(&mut self, output: &mut Vec<u8>) -> Result<(), ArchiveError> {
        let Some(sink) = self.current.take() else {
            return Err(out_of_turn("end"));
        };
        self.compressor.finish(output)?;
        if self.format.custom() {
            write_int(0, output);
        }
        self.summary.merge(&sink.finish());
        Ok(())
    }

    /// Encodes a whole large object.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] for oid 0, [`ArchiveError::Compress`].
    pub fn encode(
        &mut self,
        oid: u32,
        content: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), ArchiveError> {
        self.begin(oid, output)?;
        self.push(content, output)?;
        self.end(output)
    }

    /// What was encoded and ended.
    #[must_use]
    pub fn finish(self) -> LargeObjectsSummary {
        self.summary
    }
}

fn out_of_turn(what: &str) -> ArchiveError {
    ArchiveError::Unsupported {
        problem: format!("no large object can {what} here"),
    }
}

/// Writes what stands around the large objects of an entry: in a custom archive the begin and the
/// end of their block (the objects' bytes stand between); in a directory the list, which is a file
/// of its own, named [`DumpData::file_name`].
pub struct LargeObjectsWriter {
    format: WriteFormat,
    summary: LargeObjectsSummary,
}

impl LargeObjectsWriter {
    /// Appends the begin to `output`: nothing, for a directory.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] when the entry does not hold large objects.
    pub fn begin(
        format: WriteFormat,
        entry: &DumpData,
        output: &mut Vec<u8>,
    ) -> Result<Self, ArchiveError> {
        if !matches!(entry.kind, DumpDataKind::LargeObjects { .. }) {
            return Err(ArchiveError::Unsupported {
                problem: format!("{} holds no large objects", entry.describe()),
            });
        }
        write_block_begin(format, BLOCK_LARGE_OBJECTS, entry.dump_id, output);
        Ok(Self {
            format,
            summary: LargeObjectsSummary::default(),
        })
    }

    /// Directory: appends the line of this large object to the list. Custom: nothing.
    pub fn list(&mut self, oid: u32, output: &mut Vec<u8>) {
        if !self.format.custom() {
            output.extend_from_slice(format!("{oid} {}\n", listed_name(oid)).as_bytes());
        }
    }

    /// Adds objects whose bytes were written.
    pub fn add(&mut self, objects: &LargeObjectsSummary) {
        self.summary.merge(objects);
    }

    /// Appends the end to `output`: nothing, for a directory.
    #[must_use]
    pub fn finish(self, output: &mut Vec<u8>) -> LargeObjectsSummary {
        if self.format.custom() {
            // An oid of 0.
            write_int(0, output);
        }
        self.summary
    }

    /// Directory: name of the file of a large object, with the suffix of its compression.
    #[must_use]
    pub fn file_name(format: WriteFormat, oid: u32) -> String {
        format!("{}{}", listed_name(oid), format.file_suffix())
    }
}

fn listed_name(oid: u32) -> String {
    format!("blob_{oid}.dat")
}
