//! What a check takes from a table of contents before it comes to the data.

use std::collections::HashSet;
use std::io::Read;

use crate::{
    catalogue::CatalogueBuilder,
    columns::inherits,
    data::DataEntry,
    error::ArchiveError,
    header::ArchiveKind,
    options::CheckOptions,
    primitives::ArchiveReader,
    summary::{ArchiveSummary, SequenceValue},
    toc::TocReader,
};

/// What was found, and what the data must hold.
pub(crate) struct Contents {
    pub(crate) summary: ArchiveSummary,
    /// Entries that have data, in the order of the table of contents.
    pub(crate) entries: Vec<DataEntry>,
    utf8: bool,
}

impl Contents {
    /// Reads header and entries, and leaves the reader behind the last one.
    pub(crate) fn read<R: Read>(
        reader: &mut ArchiveReader<R>,
        kind: ArchiveKind,
        options: &CheckOptions<'_>,
    ) -> Result<Self, ArchiveError> {
        let mut toc = TocReader::begin(reader)?;
        if toc.header.kind != kind {
            let problem = match kind {
                ArchiveKind::Custom => {
                    "it is the table of contents of a directory or tar archive, not a custom \
                     archive"
                }
                ArchiveKind::DirectoryOrTar => "toc.dat is a custom archive",
            };
            return Err(ArchiveError::Unsupported {
                problem: problem.to_owned(),
            });
        }
        let mut contents = Self {
            summary: ArchiveSummary::new(toc.header.clone()),
            entries: Vec::new(),
            utf8: true,
        };
        let mut catalogue = options.catalogue.then(CatalogueBuilder::default);
        let keep = |kind: &str, name: &str| {
            matches!(kind, "ENCODING" | "SEQUENCE SET" | "TABLE")
                || (options.catalogue && CatalogueBuilder::wants(kind, name))
        };
        // Tables come before their rows.
        let mut inheriting = HashSet::new();
        while let Some(entry) = toc.next_entry(reader, keep)? {
            contents.summary.entries += 1;
            match entry.kind.as_str() {
                "ENCODING" => contents.utf8 = entry.names_utf8(),
                "SEQUENCE SET" => contents.summary.sequences.extend(SequenceValue::of(&entry)),
                "TABLE" if entry.definition.as_deref().is_some_and(inherits) => {
                    inheriting.insert(entry.oid);
                }
                _ => {}
            }
            if let Some(catalogue) = &mut catalogue {
                catalogue.take(&entry)?;
            }
            if entry.has_data {
                let inherits = inheriting.contains(&entry.oid);
                contents.entries.push(DataEntry::of(entry, inherits));
            }
        }
        contents.summary.catalogue = catalogue.map(CatalogueBuilder::finish);
        Ok(contents)
    }

    /// The entry of this number, when it has data that is no large objects.
    pub(crate) fn rows_of(&self, dump_id: i32) -> Result<&DataEntry, ArchiveError> {
        let entry = self.entries.iter().find(|e| e.dump_id() == dump_id);
        match entry {
            Some(entry) if entry.is_large_objects() => Err(ArchiveError::Unsupported {
                problem: format!("entry {dump_id} is large objects, which are many streams"),
            }),
            Some(entry) => Ok(entry),
            None => Err(self.no_data(dump_id)),
        }
    }

    pub(crate) fn no_data(&self, dump_id: i32) -> ArchiveError {
        let entry = self.entries.iter().find(|e| e.dump_id() == dump_id);
        let missing = entry.map_or_else(|| format!("entry {dump_id}"), DataEntry::describe);
        ArchiveError::DataMissing {
            missing: vec![missing],
        }
    }

    /// The summary, once all data was read.
    pub(crate) fn finish(mut self) -> ArchiveSummary {
        if !self.utf8 {
            self.summary.not_utf8();
        }
        self.summary
    }
}
