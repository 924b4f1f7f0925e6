//! What a check takes from a table of contents before it comes to the data.

use std::collections::HashSet;
use std::io::Read;

use crate::{
    catalogue::CatalogueBuilder,
    columns::inherits,
    data::DataEntry,
    error::ArchiveError,
    header::{ArchiveKind, Header},
    options::CheckOptions,
    primitives::ArchiveReader,
    summary::{ArchiveSummary, SequenceValue, TableData},
    toc::{TocEntry, TocReader},
};

/// What was found, and what the data must hold.
pub(crate) struct Contents {
    pub(crate) summary: ArchiveSummary,
    /// Entries that have data, in the order of the table of contents.
    pub(crate) entries: Vec<DataEntry>,
    utf8: bool,
}

/// A part of a table of contents, right after it was read.
pub(crate) enum Part<'a> {
    /// Header, and the number of entries as far as room is made for them.
    Header(&'a Header, usize),
    /// An entry.
    Entry {
        /// The entry; its definition only for some kinds.
        entry: Box<TocEntry>,
        /// Whether it belongs to a table that inherits.
        inherits: bool,
    },
}

/// Takes the parts; the reader stands behind the part.
pub(crate) type Each<'a, R> =
    dyn FnMut(&mut ArchiveReader<R>, Part<'_>) -> Result<(), ArchiveError> + 'a;

/// What a walk over a table of contents found.
pub(crate) struct Walked {
    pub(crate) summary: ArchiveSummary,
    /// Name of the encoding.
    pub(crate) encoding: Option<String>,
    /// Whether it is UTF-8, which it is where none is named.
    pub(crate) utf8: bool,
}

/// Reads header and entries, hands each over, and leaves the reader behind the last one. `kind` is
/// the only one that is read, where there is one.
pub(crate) fn walk<R: Read>(
    reader: &mut ArchiveReader<R>,
    kind: Option<ArchiveKind>,
    options: &CheckOptions<'_>,
    each: &mut Each<'_, R>,
) -> Result<Walked, ArchiveError> {
    let mut toc = TocReader::begin(reader)?;
    if let Some(kind) = kind
        && toc.header.kind != kind
    {
        let problem = match kind {
            ArchiveKind::Custom => {
                "it is the table of contents of a directory or tar archive, not a custom archive"
            }
            ArchiveKind::DirectoryOrTar => "toc.dat is a custom archive",
        };
        return Err(ArchiveError::Unsupported {
            problem: problem.to_owned(),
        });
    }
    each(reader, Part::Header(&toc.header, toc.foreseen()))?;
    let mut walked = Walked {
        summary: ArchiveSummary::new(toc.header.clone()),
        encoding: None,
        utf8: true,
    };
    let mut catalogue = CatalogueBuilder::new(options.catalogue);
    let with_catalogue = catalogue.is_some();
    let keep = |kind: &str, name: &str| {
        matches!(
            kind,
            "ENCODING" | "SEQUENCE SET" | "TABLE" | "BLOB METADATA"
        ) || (with_catalogue && CatalogueBuilder::wants(kind, name))
    };
    // Tables come before their rows.
    let mut inheriting = HashSet::new();
    while let Some(entry) = toc.next_entry(reader, keep)? {
        let summary = &mut walked.summary;
        summary.entries += 1;
        match entry.kind.as_str() {
            "ENCODING" => {
                walked.utf8 = entry.names_utf8();
                walked.encoding = entry.encoding().map(str::to_owned);
            }
            "SEQUENCE SET" => summary.sequences.extend(SequenceValue::of(&entry)),
            "TABLE" if entry.definition.as_deref().is_some_and(inherits) => {
                inheriting.insert(entry.oid);
            }
            _ => {}
        }
        if let Some(catalogue) = &mut catalogue {
            catalogue.take(&entry)?;
        }
        let inherits = inheriting.contains(&entry.oid);
        let entry = Box::new(entry);
        each(reader, Part::Entry { entry, inherits })?;
    }
    if let Some(builder) = catalogue {
        let (objects, fingerprint) = builder.finish();
        walked.summary.catalogue = objects;
        walked.summary.catalogue_fingerprint = Some(fingerprint);
    }
    Ok(walked)
}

/// Reads header and table of contents of an archive, with sequences and, where it is wanted, the
/// catalogue; nothing of its data, so that tables and large objects are not in the summary. What
/// stands behind the table of contents is not read.
///
/// # Errors
/// [`ArchiveError`].
pub fn summarize_contents(
    reader: impl Read,
    kind: ArchiveKind,
    options: &CheckOptions<'_>,
) -> Result<ArchiveSummary, ArchiveError> {
    let mut reader = ArchiveReader::new(reader, "the table of contents");
    let walked = walk(&mut reader, Some(kind), options, &mut |_, _| Ok(()))?;
    let mut summary = walked.summary;
    if !walked.utf8 {
        summary.not_utf8();
    }
    Ok(summary)
}

/// Takes the rows of a table, or gives them back.
pub type EachTable<'a> = dyn FnMut(TableData) -> Option<TableData> + 'a;

/// Where the rows of tables go.
pub(crate) struct Tables<'a, 'b> {
    each: Option<&'a mut EachTable<'b>>,
    utf8: bool,
    /// What nobody took.
    pub(crate) kept: Vec<TableData>,
}

impl<'a, 'b> Tables<'a, 'b> {
    pub(crate) fn new(contents: &Contents, each: Option<&'a mut EachTable<'b>>) -> Self {
        // Grown bit by bit it would leave holes behind.
        let room = match each {
            Some(_) => 0,
            None => contents.entries.len(),
        };
        Self {
            each,
            utf8: contents.utf8,
            kept: Vec::with_capacity(room),
        }
    }

    pub(crate) fn add(&mut self, table: Option<TableData>) {
        let Some(mut table) = table else { return };
        if !self.utf8 {
            table.not_utf8();
        }
        self.kept.extend(match &mut self.each {
            Some(each) => each(table),
            None => Some(table),
        });
    }
}

impl Contents {
    /// Reads header and entries, and leaves the reader behind the last one.
    pub(crate) fn read<R: Read>(
        reader: &mut ArchiveReader<R>,
        kind: ArchiveKind,
        options: &CheckOptions<'_>,
    ) -> Result<Self, ArchiveError> {
        let mut entries = Vec::new();
        let walked = walk(reader, Some(kind), options, &mut |_, part| {
            match part {
                Part::Header(_, foreseen) => entries.reserve(foreseen),
                Part::Entry { entry, inherits } if entry.has_data => {
                    entries.push(DataEntry::of(*entry, inherits));
                }
                Part::Entry { .. } => {}
            }
            Ok(())
        })?;
        entries.shrink_to_fit();
        Ok(Self {
            summary: walked.summary,
            entries,
            utf8: walked.utf8,
        })
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
