//! Large objects of one `BLOBS` entry.

use crate::{
    error::ArchiveError,
    fingerprint::Fingerprint,
    write::{DumpData, WriteFormat},
};

/// Encodes large objects, one after the other, in any thread. In a custom archive the bytes of many
/// objects follow each other; in a directory those of each are a file of their own, named
/// [`LargeObjectsWriter::file_name`].
pub struct LargeObjectEncoder(());

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
        if let Some(fingerprint) = other.fingerprint {
            self.fingerprint
                .get_or_insert_with(Fingerprint::default)
                .merge(fingerprint);
        }
    }
}

impl LargeObjectEncoder {
    /// `fingerprint` says whether the large objects are fingerprinted.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] when a compressor cannot be made.
    pub fn new(format: WriteFormat, fingerprint: bool) -> Result<Self, ArchiveError> {
        let _ = (format, fingerprint);
        Err(crate::write::soon())
    }

    /// Begins a large object. Appends what is ready to `output`, as the others do.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] for oid 0, and when the compressor fails.
    pub fn begin(&mut self, oid: u32, output: &mut Vec<u8>) -> Result<(), ArchiveError> {
        let _ = (oid, output);
        Err(crate::write::soon())
    }

    /// Takes a part of the content.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] when the compressor fails.
    pub fn push(&mut self, content: &[u8], output: &mut Vec<u8>) -> Result<(), ArchiveError> {
        let _ = (content, output);
        Err(crate::write::soon())
    }

    /// Ends the large object.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] when the compressor fails.
    pub fn end(&mut self, output: &mut Vec<u8>) -> Result<(), ArchiveError> {
        let _ = output;
        Err(crate::write::soon())
    }

    /// Encodes a whole large object.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] for oid 0, and when the compressor fails.
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

    /// What was encoded.
    #[must_use]
    pub fn finish(self) -> LargeObjectsSummary {
        LargeObjectsSummary::default()
    }
}

/// Writes what stands around the large objects of an entry: in a custom archive the begin and the
/// end of their block (the objects' bytes stand between); in a directory the list, which is a file
/// of its own, named [`DumpData::file_name`].
pub struct LargeObjectsWriter(());

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
        let _ = (format, entry, output);
        Err(crate::write::soon())
    }

    /// Directory: appends the line of this large object to the list. Custom: nothing.
    pub fn list(&mut self, oid: u32, output: &mut Vec<u8>) {
        let _ = (oid, output);
    }

    /// Adds objects whose bytes were written.
    pub fn add(&mut self, objects: &LargeObjectsSummary) {
        let _ = objects;
    }

    /// Appends the end to `output`: nothing, for a directory.
    #[must_use]
    pub fn finish(self, output: &mut Vec<u8>) -> LargeObjectsSummary {
        let _ = output;
        LargeObjectsSummary::default()
    }

    /// Directory: name of the file of a large object, with the suffix of its compression.
    #[must_use]
    pub fn file_name(format: WriteFormat, oid: u32) -> String {
        format!("blob_{oid}.dat{}", format.file_suffix())
    }
}
