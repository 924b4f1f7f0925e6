//! The decoded data of one entry: counted, and checked where its format has an end.

use crate::{
    error::ArchiveError,
    rows::RowCounter,
    summary::TableData,
    toc::{TocEntry, describe},
};

/// What is kept of an entry that has data.
pub(crate) struct DataEntry {
    dump_id: i32,
    kind: String,
    schema: Option<String>,
    name: String,
    copied: bool,
    lossy: bool,
    file_name: Option<String>,
}

impl DataEntry {
    pub(crate) fn of(entry: TocEntry) -> Self {
        Self {
            dump_id: entry.dump_id,
            copied: entry.copy_statement.is_some(),
            lossy: entry.lossy,
            file_name: entry.file_name,
            kind: entry.kind,
            schema: entry.schema,
            name: entry.name,
        }
    }

    pub(crate) fn is_large_objects(&self) -> bool {
        self.kind == "BLOBS"
    }

    pub(crate) fn file_name(&self) -> Option<&str> {
        self.file_name.as_deref()
    }

    pub(crate) fn describe(&self) -> String {
        describe(&self.kind, self.schema.as_deref(), &self.name)
    }
}

/// Takes the decoded data of one entry.
pub(crate) struct DataSink<'a> {
    entry: &'a DataEntry,
    bytes: u64,
    rows: Option<RowCounter>,
}

impl<'a> DataSink<'a> {
    pub(crate) fn new(entry: &'a DataEntry) -> Self {
        Self {
            entry,
            bytes: 0,
            rows: entry.copied.then(RowCounter::default),
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
        Ok((self.entry.kind == "TABLE DATA").then(|| TableData {
            dump_id: self.entry.dump_id,
            schema: self.entry.schema.clone().unwrap_or_default(),
            name: self.entry.name.clone(),
            bytes: self.bytes,
            rows,
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
