//! The decoded data of one entry: counted, and checked where its format has an end.

use crate::{
    columns::order_of_columns,
    error::ArchiveError,
    fingerprint::{Fingerprint, ItemHash, ItemHasher},
    name::Name,
    options::CheckOptions,
    rows::RowCounter,
    summary::{ArchiveSummary, TableData},
    toc::{DataPosition, TocEntry, describe},
    write::LargeObjectsSummary,
};

const TABLE_DATA: &str = "TABLE DATA";
const BLOBS: &str = "BLOBS";

/// What is kept of an entry that has data.
pub(crate) struct DataEntry {
    dump_id: i32,
    oid: u32,
    schema: Option<Name>,
    name: Name,
    copied: bool,
    lossy: bool,
    position: DataPosition,
    /// `None` for the rows of a table as most are, in a custom archive.
    more: Option<Box<More>>,
}

/// What few entries have.
struct More {
    kind: Name,
    /// Of a table that inherits: the order of its columns' names.
    columns: Option<Vec<usize>>,
    file_name: Option<Box<str>>,
}

impl DataEntry {
    /// `inherits` says whether the rows are those of a table that inherits.
    pub(crate) fn of(entry: TocEntry, inherits: bool) -> Self {
        let statement = entry.copy_statement.as_deref().filter(|_| inherits);
        let more = More {
            columns: statement.and_then(order_of_columns),
            file_name: entry.file_name,
            kind: entry.kind,
        };
        let plain = &*more.kind == TABLE_DATA && more.columns.is_none() && more.file_name.is_none();
        Self {
            more: (!plain).then(|| Box::new(more)),
            dump_id: entry.dump_id,
            oid: entry.oid,
            copied: entry.copy_statement.is_some(),
            lossy: entry.lossy,
            position: entry.position,
            schema: entry.schema,
            name: entry.name,
        }
    }

    fn kind(&self) -> &str {
        self.more.as_ref().map_or(TABLE_DATA, |more| &more.kind)
    }

    pub(crate) fn is_large_objects(&self) -> bool {
        self.kind() == BLOBS
    }

    fn columns(&self) -> Option<Vec<usize>> {
        self.more.as_ref()?.columns.clone()
    }

    pub(crate) fn dump_id(&self) -> i32 {
        self.dump_id
    }

    pub(crate) fn position(&self) -> DataPosition {
        self.position
    }

    pub(crate) fn file_name(&self) -> Option<&str> {
        self.more.as_ref()?.file_name.as_deref()
    }

    pub(crate) fn describe(&self) -> String {
        describe(self.kind(), self.schema.as_deref(), &self.name)
    }
}

/// Takes the decoded data of one entry.
pub(crate) struct DataSink<'a> {
    entry: &'a DataEntry,
    bytes: u64,
    rows: Option<RowCounter>,
}

impl<'a> DataSink<'a> {
    pub(crate) fn new(entry: &'a DataEntry, options: &CheckOptions<'_>) -> Self {
        Self {
            entry,
            bytes: 0,
            rows: entry
                .copied
                .then(|| RowCounter::new(options.of_table(entry.oid), entry.columns())),
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.bytes += bytes.len() as u64;
        match &mut self.rows {
            Some(rows) => rows.push(bytes).map_err(|problem| self.damaged(problem)),
            None => Ok(()),
        }
    }

    /// The count, for entries that hold a table's rows.
    pub(crate) fn finish(mut self) -> Result<Option<TableData>, ArchiveError> {
        let rows = match self.rows.take() {
            Some(rows) => Some(rows.finish().map_err(|problem| self.damaged(problem))?),
            None => None,
        };
        Ok((self.entry.kind() == TABLE_DATA).then(|| TableData {
            dump_id: self.entry.dump_id,
            oid: self.entry.oid,
            schema: self.entry.schema.clone().unwrap_or_default(),
            name: self.entry.name.clone(),
            bytes: self.bytes,
            rows: rows.map(|rows| rows.rows),
            fingerprint: rows.and_then(|rows| rows.fingerprint),
            lossy: self.entry.lossy,
        }))
    }

    /// An offset of 0: whoever knows the place in the file puts it in.
    fn damaged(&self, problem: &str) -> ArchiveError {
        ArchiveError::Damaged {
            subject: format!("the data of {}", self.entry.describe()),
            offset: 0,
            problem: problem.to_owned(),
        }
    }
}

/// Takes the content of one large object.
pub(crate) struct LargeObjectSink {
    oid: u32,
    bytes: u64,
    hasher: Option<(ItemHash, ItemHasher)>,
}

impl LargeObjectSink {
    pub(crate) fn new(oid: u32, hash: Option<ItemHash>) -> Self {
        Self {
            oid,
            bytes: 0,
            hasher: hash.map(|hash| (hash, ItemHasher::new(hash))),
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if let Some((_, hasher)) = &mut self.hasher {
            hasher.push(bytes);
        }
    }

    /// What the large object adds to the sums.
    pub(crate) fn finish(self) -> LargeObjectsSummary {
        let fingerprint = self.hasher.map(|(hash, hasher)| {
            let mut item = [0; 20];
            item[..4].copy_from_slice(&self.oid.to_be_bytes());
            item[4..].copy_from_slice(&hasher.finish().to_be_bytes());
            let mut fingerprint = Fingerprint::default();
            fingerprint.add(hash, &item);
            fingerprint
        });
        LargeObjectsSummary {
            count: 1,
            bytes: self.bytes,
            fingerprint,
        }
    }

    /// Adds the large object to what was found.
    pub(crate) fn add_to(self, summary: &mut ArchiveSummary) {
        let found = self.finish();
        summary.large_objects += found.count;
        summary.large_object_bytes += found.bytes;
        Fingerprint::merge_some(&mut summary.large_object_fingerprint, found.fingerprint);
    }
}
