//! The table of contents: one entry for each object and each set of rows.
//!
//! Source of facts: `ReadToc` and `WriteToc` of PostgreSQL's `pg_backup_archiver.c`.

use std::collections::HashSet;
use std::io::Read;

use crate::{
    entries::{Entry, Packer, TocEntries},
    error::ArchiveError,
    header::{ArchiveKind, Header, read_header},
    name::{Name, SharedNames},
    primitives::ArchiveReader,
};

/// Longest name (tag, schema, owner, …) that is accepted, bytes. Tags of functions hold the
/// types of all arguments and can be long.
const NAME_LIMIT: u64 = 4 * 1024 * 1024;
/// Longest definition that is kept, bytes.
const DEFINITION_LIMIT: u64 = 64 * 1024 * 1024;
/// Most bytes that [`read_toc`] keeps in memory for one archive.
pub(crate) const TOC_LIMIT: u64 = 256 * 1024 * 1024;
/// Entries for which room is made at once: what grows bit by bit leaves holes behind. A number in a
/// damaged file may be anything.
const FORESEEN: usize = 1 << 19;
/// Kinds whose definitions name roles, extensions, tablespaces or settings, so that a restore's
/// preflight needs their text. Definitions of other kinds are passed over, which keeps the
/// memory for 100,000 tables small.
const KEEP_DEFINITION: &[&str] = &[
    "ACL",
    // The oids of the large objects that it stands for, one in a line.
    "BLOB METADATA",
    "DEFAULT ACL",
    "DATABASE",
    "DATABASE PROPERTIES",
    "ENCODING",
    "EXTENSION",
    "POLICY",
    "SEARCHPATH",
    "STDSTRINGS",
    "USER MAPPING",
    "SUBSCRIPTION",
    "EVENT TRIGGER",
];

/// Section of a restore that an entry belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Section {
    /// Not given.
    None,
    /// Before the rows.
    PreData,
    /// Rows, large objects, sequence values.
    Data,
    /// After the rows: indexes, constraints, triggers.
    PostData,
}

/// Where a custom archive says the data of an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataPosition {
    /// Written to a pipe: not known, found by reading on.
    NotSet,
    /// At this offset.
    At(u64),
    /// The entry has no data.
    NoData,
    /// Not a custom archive.
    Elsewhere,
}

/// One entry of the table of contents. Texts that are not UTF-8 (the archive is in the encoding
/// of its database) hold replacement characters, and [`TocEntry::lossy`] says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TocEntry {
    /// Number by which entries refer to each other.
    pub dump_id: i32,
    /// Oid of the system catalogue that held the object in the source (1259 for `pg_class`); 0
    /// for entries that are no object of their own, rows among them.
    pub table_oid: u32,
    /// Oid of the object in the source; for `TABLE DATA` that of the table.
    pub oid: u32,
    /// Whether data belongs to the entry (rows, large objects).
    pub has_data: bool,
    /// Kind: `TABLE`, `TABLE DATA`, `ACL`, `BLOBS`, ….
    pub kind: Name,
    /// Name of the object (for functions with arguments; for `ACL` and `COMMENT` with a word
    /// before it).
    pub name: Name,
    /// Schema.
    pub schema: Option<Name>,
    /// Tablespace; empty for the database's default.
    pub tablespace: Option<Name>,
    /// Table access method.
    pub access_method: Option<Name>,
    /// Owner.
    pub owner: Option<Name>,
    /// Section.
    pub section: Section,
    /// Statement that makes the object, for the kinds that a preflight needs, and for exclusion
    /// constraints.
    pub definition: Option<Box<str>>,
    /// `COPY … FROM stdin;`, where the rows are in COPY's text format.
    pub copy_statement: Option<Box<str>>,
    /// Entries that this one depends on.
    pub dependencies: Box<[i32]>,
    /// Place of the data in a custom archive.
    pub position: DataPosition,
    /// Name of the data file in a directory or tar archive.
    pub file_name: Option<Box<str>>,
    /// Whether a text of this entry was not UTF-8.
    pub lossy: bool,
}

/// Header and entries of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toc {
    /// Header.
    pub header: Header,
    /// Entries in the order of the file.
    pub entries: TocEntries,
    /// Whether the archive's texts are UTF-8; otherwise names that are not ASCII are shown
    /// wrongly.
    pub utf8: bool,
}

/// Reads header and table of contents of a custom archive, or of the `toc.dat` of a directory or
/// tar archive. Reads no data. Keeps the definitions of only those kinds that a preflight needs.
///
/// # Errors
/// [`ArchiveError`]; also when the texts that would be kept exceed 256 MiB.
pub fn read_toc(reader: impl Read) -> Result<Toc, ArchiveError> {
    let mut reader = ArchiveReader::new(reader, "the table of contents");
    let mut toc = TocReader::begin(&mut reader)?;
    let mut packer = Packer::foreseeing(toc.foreseen());
    let mut utf8 = true;
    while let Some(mut entry) = toc.next_entry(&mut reader, keep_definition)? {
        if entry.kind == "CONSTRAINT" && !entry.view().is_exclusion() {
            entry.definition = None;
        }
        if entry.kind == "ENCODING" {
            utf8 = entry.names_utf8();
        }
        packer.push(entry.view());
        if packer.size() > TOC_LIMIT {
            return Err(ArchiveError::TooLarge {
                subject: "the table of contents".to_owned(),
                limit: TOC_LIMIT,
            });
        }
    }
    Ok(Toc {
        header: toc.header,
        entries: packer.finish(),
        utf8,
    })
}

fn keep_definition(kind: &str, name: &str) -> bool {
    KEEP_DEFINITION.contains(&kind)
        || kind == "CONSTRAINT"
        || (kind == "COMMENT" && name.starts_with("DATABASE "))
}

impl TocEntry {
    /// The entry as it is packed.
    #[must_use]
    pub fn view(&self) -> Entry<'_> {
        Entry {
            dump_id: self.dump_id,
            table_oid: self.table_oid,
            oid: self.oid,
            has_data: self.has_data,
            kind: &self.kind,
            name: &self.name,
            schema: self.schema.as_deref(),
            tablespace: self.tablespace.as_deref(),
            access_method: self.access_method.as_deref(),
            owner: self.owner.as_deref(),
            section: self.section,
            definition: self.definition.as_deref(),
            copy_statement: self.copy_statement.as_deref(),
            dependencies: &self.dependencies,
            position: self.position,
            file_name: self.file_name.as_deref(),
            lossy: self.lossy,
        }
    }

    /// For the entry `ENCODING` (`SET client_encoding = 'UTF8';`): whether it names UTF-8.
    pub(crate) fn names_utf8(&self) -> bool {
        self.definition
            .as_deref()
            .is_some_and(|definition| definition.contains("'UTF8'"))
    }

    /// For the entry `ENCODING`: the name of the encoding.
    pub(crate) fn encoding(&self) -> Option<&str> {
        self.definition.as_deref()?.split('\'').nth(1)
    }

    /// The entry in words, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        describe(&self.kind, self.schema.as_deref(), &self.name)
    }
}

pub(crate) fn describe(kind: &str, schema: Option<&str>, name: &str) -> String {
    match schema {
        Some(schema) if !schema.is_empty() => format!("{kind} {schema}.{name}"),
        _ => format!("{kind} {name}"),
    }
}

/// Reads entries one by one, so that a caller decides what it keeps.
pub(crate) struct TocReader {
    pub(crate) header: Header,
    left: i32,
    seen: HashSet<i32>,
    names: SharedNames,
}

impl TocReader {
    pub(crate) fn begin<R: Read>(reader: &mut ArchiveReader<R>) -> Result<Self, ArchiveError> {
        let header = read_header(reader)?;
        let left = reader.int32("the number of entries")?;
        if left < 0 {
            return Err(reader.damaged(format!("the number of entries is {left}")));
        }
        let mut toc = Self {
            header,
            left,
            seen: HashSet::new(),
            names: SharedNames::default(),
        };
        toc.seen.reserve(toc.foreseen());
        Ok(toc)
    }

    /// Entries to come, as far as room is made for them.
    pub(crate) fn foreseen(&self) -> usize {
        usize::try_from(self.left).unwrap_or(0).min(FORESEEN)
    }

    /// The next entry. `keep_definition` says for which kinds the definition is kept.
    pub(crate) fn next_entry<R: Read>(
        &mut self,
        reader: &mut ArchiveReader<R>,
        keep_definition: impl Fn(&str, &str) -> bool,
    ) -> Result<Option<TocEntry>, ArchiveError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let minor = self.header.version.minor;
        let mut text = Texts {
            reader,
            names: &mut self.names,
            lossy: false,
        };
        let dump_id = text.reader.int32("an entry's number")?;
        if dump_id <= 0 {
            return Err(text.reader.damaged(format!("entry number {dump_id}")));
        }
        if !self.seen.insert(dump_id) {
            return Err(text
                .reader
                .damaged(format!("two entries have number {dump_id}")));
        }
        let has_data = match text.reader.int32("an entry's data flag")? {
            0 => false,
            1 => true,
            other => return Err(text.reader.damaged(format!("the data flag is {other}"))),
        };
        let table_oid = text.number("the table's oid of an entry")?;
        let oid = text.number("the oid of an entry")?;
        let name = text.name("the name of an entry")?.unwrap_or_default();
        let kind = text.shared("the kind of an entry")?.unwrap_or_default();
        if kind.is_empty() {
            return Err(text.reader.damaged("an entry has no kind"));
        }
        let section = match text.reader.int32("the section of an entry")? {
            1 => Section::None,
            2 => Section::PreData,
            3 => Section::Data,
            4 => Section::PostData,
            other => return Err(text.reader.damaged(format!("the section is {other}"))),
        };
        let definition = if keep_definition(&kind, &name) {
            text.text("the definition of an entry", DEFINITION_LIMIT)?
        } else {
            text.reader.skip_string("the definition of an entry")?;
            None
        };
        text.reader.skip_string("the drop statement of an entry")?;
        let copy_statement = text
            .text("the COPY statement of an entry", DEFINITION_LIMIT)?
            .filter(|statement| !statement.is_empty());
        let schema = text
            .shared("the schema of an entry")?
            .filter(|schema| !schema.is_empty());
        let tablespace = text.shared("the tablespace of an entry")?;
        let access_method = if minor >= 14 {
            text.shared("the access method of an entry")?
        } else {
            None
        };
        if minor >= 16 {
            text.reader.int32("the relation kind of an entry")?;
        }
        let owner = text
            .shared("the owner of an entry")?
            .filter(|owner| !owner.is_empty());
        // Whether the table has oids: a relic of majors before 12.
        match text.name("the oid flag of an entry")?.as_deref() {
            Some("false" | "true") => {}
            other => {
                let shown = other.unwrap_or("null").to_owned();
                return Err(text.reader.damaged(format!("the oid flag is {shown:?}")));
            }
        }
        let mut dependencies = Vec::new();
        while let Some(dependency) = text.name("a dependency of an entry")? {
            let number = dependency.parse::<i32>().map_err(|_| {
                text.reader
                    .damaged(format!("{dependency:?} is no entry's number"))
            })?;
            if dependencies.len() as u64 * 4 > DEFINITION_LIMIT {
                return Err(text.reader.damaged("an entry has too many dependencies"));
            }
            dependencies.push(number);
        }
        let mut file_name = None;
        let position = match self.header.kind {
            ArchiveKind::Custom => {
                let state = text.reader.byte("the data state of an entry")?;
                let offset = text.reader.file_offset("the data offset of an entry")?;
                match state {
                    1 => DataPosition::NotSet,
                    2 => DataPosition::At(offset),
                    3 => DataPosition::NoData,
                    other => {
                        return Err(text.reader.damaged(format!("the data state is {other}")));
                    }
                }
            }
            ArchiveKind::DirectoryOrTar => {
                file_name = text
                    .name("the file name of an entry")?
                    .filter(|file| !file.is_empty());
                DataPosition::Elsewhere
            }
        };
        let lossy = text.lossy;
        let contradiction = match position {
            DataPosition::At(_) => !has_data,
            DataPosition::NoData => has_data,
            DataPosition::NotSet => false,
            DataPosition::Elsewhere => has_data != file_name.is_some(),
        };
        if contradiction {
            return Err(reader.damaged(format!(
                "entry {dump_id} contradicts itself about having data"
            )));
        }
        Ok(Some(TocEntry {
            dump_id,
            table_oid,
            oid,
            has_data,
            kind,
            name: name.into(),
            schema,
            tablespace,
            access_method,
            owner,
            section,
            definition: definition.map(String::into_boxed_str),
            copy_statement: copy_statement.map(String::into_boxed_str),
            dependencies: dependencies.into(),
            position,
            file_name: file_name.map(String::into_boxed_str),
            lossy,
        }))
    }
}

/// Reads texts and remembers whether one was not UTF-8.
struct Texts<'a, R> {
    reader: &'a mut ArchiveReader<R>,
    names: &'a mut SharedNames,
    lossy: bool,
}

impl<R: Read> Texts<'_, R> {
    fn text(&mut self, inside: &str, limit: u64) -> Result<Option<String>, ArchiveError> {
        Ok(self.reader.bytes(inside, limit)?.map(|bytes| {
            String::from_utf8(bytes).unwrap_or_else(|error| {
                self.lossy = true;
                String::from_utf8_lossy(error.as_bytes()).into_owned()
            })
        }))
    }

    fn name(&mut self, inside: &str) -> Result<Option<String>, ArchiveError> {
        self.text(inside, NAME_LIMIT)
    }

    /// A name that many entries have.
    fn shared(&mut self, inside: &str) -> Result<Option<Name>, ArchiveError> {
        let name = self.name(inside)?;
        Ok(name.map(|name| self.names.share(&name)))
    }

    /// An unsigned number written as text.
    fn number(&mut self, inside: &str) -> Result<u32, ArchiveError> {
        let text = self.name(inside)?.unwrap_or_default();
        text.parse()
            .map_err(|_| self.reader.damaged(format!("{inside} is {text:?}")))
    }
}
