//! The entries of a table of contents, packed: that of 100,000 tables has 300,000 of them, and a
//! restore holds it until the rows are there. Texts stand behind each other in one buffer, and what
//! most entries have in common is held once.

use std::collections::HashMap;
use std::fmt;

use crate::{
    name::{Name, SharedNames},
    toc::{DataPosition, Section, TocEntry, describe},
};

/// A text that is not there, or a part that an entry does not have.
const NONE: u32 = u32::MAX;
/// Most combinations of what entries have in common that are looked for; of more each is held anew.
const REMEMBERED: usize = 4096;

/// An entry of [`TocEntries`]: as [`TocEntry`], which tells what each of it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "TocEntry tells what each of it means")]
pub struct Entry<'a> {
    pub dump_id: i32,
    pub table_oid: u32,
    pub oid: u32,
    pub has_data: bool,
    pub kind: &'a str,
    pub name: &'a str,
    pub schema: Option<&'a str>,
    pub tablespace: Option<&'a str>,
    pub access_method: Option<&'a str>,
    pub owner: Option<&'a str>,
    pub section: Section,
    pub definition: Option<&'a str>,
    pub copy_statement: Option<&'a str>,
    pub dependencies: &'a [i32],
    pub position: DataPosition,
    pub file_name: Option<&'a str>,
    pub lossy: bool,
}

impl Entry<'_> {
    /// The entry in words, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        describe(self.kind, self.schema, self.name)
    }

    /// Whether it is an exclusion constraint: it may need an operator class of an extension, and
    /// its dependencies do not say so.
    pub(crate) fn is_exclusion(&self) -> bool {
        self.kind == "CONSTRAINT"
            && self
                .definition
                .is_some_and(|definition| definition.contains(" EXCLUDE "))
    }
}

/// What an entry has to itself. Its dependencies and texts end where those of the next one begin.
#[derive(Clone)]
struct Record {
    dump_id: i32,
    oid: u32,
    /// Index of what it has in common with others.
    common: u32,
    /// Where its texts begin: name, definition, COPY statement, file name.
    text: u32,
    /// Bytes of the name.
    name: u32,
    /// Where its dependencies begin.
    dependencies: u32,
    /// Index of what few entries have, or [`NONE`].
    more: u32,
}

/// What few entries have: bytes of its texts, or [`NONE`].
#[derive(Clone)]
struct More {
    definition: u32,
    copy_statement: u32,
    file_name: u32,
    /// Place of the data, where it is known.
    offset: u64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Common {
    table_oid: u32,
    kind: Name,
    schema: Option<Name>,
    tablespace: Option<Name>,
    access_method: Option<Name>,
    owner: Option<Name>,
    section: Section,
    /// Without the offset.
    position: DataPosition,
    has_data: bool,
    lossy: bool,
}

impl Common {
    fn is_of(&self, entry: &Entry<'_>) -> bool {
        self.table_oid == entry.table_oid
            && self.kind == *entry.kind
            && self.schema.as_deref() == entry.schema
            && self.tablespace.as_deref() == entry.tablespace
            && self.access_method.as_deref() == entry.access_method
            && self.owner.as_deref() == entry.owner
            && self.section == entry.section
            && self.position == without_offset(entry.position)
            && self.has_data == entry.has_data
            && self.lossy == entry.lossy
    }
}

/// Entries in the order of the file.
#[derive(Clone, Default)]
pub struct TocEntries {
    records: Vec<Record>,
    more: Vec<More>,
    common: Vec<Common>,
    dependencies: Vec<i32>,
    texts: String,
}

impl TocEntries {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The entry at a place.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Entry<'_>> {
        let record = self.records.get(index)?;
        let common = self.common.get(record.common as usize)?;
        let end = self
            .records
            .get(index + 1)
            .map_or(self.dependencies.len(), |next| next.dependencies as usize);
        let more = self.more.get(record.more as usize);
        let mut texts = self.texts.get(record.text as usize..).unwrap_or_default();
        let mut text = |length: u32| {
            let (text, rest) = texts.split_at_checked(length as usize)?;
            texts = rest;
            Some(text)
        };
        let some = |length: u32| (length != NONE).then_some(length);
        let name = text(record.name).unwrap_or_default();
        let definition = more
            .and_then(|more| some(more.definition))
            .and_then(&mut text);
        let copied = more.and_then(|more| some(more.copy_statement));
        let copy_statement = copied.and_then(&mut text);
        let file_name = more
            .and_then(|more| some(more.file_name))
            .and_then(&mut text);
        Some(Entry {
            dump_id: record.dump_id,
            table_oid: common.table_oid,
            oid: record.oid,
            has_data: common.has_data,
            kind: &common.kind,
            name,
            schema: common.schema.as_deref(),
            tablespace: common.tablespace.as_deref(),
            access_method: common.access_method.as_deref(),
            owner: common.owner.as_deref(),
            section: common.section,
            definition,
            copy_statement,
            dependencies: self
                .dependencies
                .get(record.dependencies as usize..end)
                .unwrap_or_default(),
            position: match (common.position, more) {
                (DataPosition::At(_), Some(more)) => DataPosition::At(more.offset),
                (position, _) => position,
            },
            file_name,
            lossy: common.lossy,
        })
    }

    /// All of them, in their order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { of: self, next: 0 }
    }

    /// Leaves only some of them.
    pub fn retain(&mut self, mut keep: impl FnMut(Entry<'_>) -> bool) {
        let mut packer = Packer::default();
        for entry in self.iter().filter(|entry| keep(*entry)) {
            packer.push(entry);
        }
        *self = packer.finish();
    }
}

/// See [`TocEntries::iter`].
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    of: &'a TocEntries,
    next: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let entry = self.of.get(self.next)?;
        self.next += 1;
        Some(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.of.len() - self.next;
        (left, Some(left))
    }
}

impl<'a> IntoIterator for &'a TocEntries {
    type Item = Entry<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<'a> FromIterator<&'a TocEntry> for TocEntries {
    fn from_iter<T: IntoIterator<Item = &'a TocEntry>>(entries: T) -> Self {
        let mut packer = Packer::default();
        for entry in entries {
            packer.push(entry.view());
        }
        packer.finish()
    }
}

impl FromIterator<TocEntry> for TocEntries {
    fn from_iter<T: IntoIterator<Item = TocEntry>>(entries: T) -> Self {
        let mut packer = Packer::default();
        for entry in entries {
            packer.push(entry.view());
        }
        packer.finish()
    }
}

impl PartialEq for TocEntries {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other)
    }
}

impl Eq for TocEntries {}

impl fmt::Debug for TocEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

/// Packs entries one by one.
#[derive(Default)]
pub(crate) struct Packer {
    packed: TocEntries,
    names: SharedNames,
    known: HashMap<Common, u32>,
    last: u32,
}

impl Packer {
    /// For about so many entries.
    pub(crate) fn foreseeing(entries: usize) -> Self {
        let mut packer = Self::default();
        let packed = &mut packer.packed;
        packed.records.reserve(entries);
        packed.more.reserve(entries / 2);
        packed.dependencies.reserve(entries * 2);
        packed.texts.reserve(entries * 40);
        packer
    }

    /// Adds an entry. The caller sees to it that all texts together stay below 4 GiB.
    pub(crate) fn push(&mut self, entry: Entry<'_>) {
        let common = self.common(&entry);
        let packed = &mut self.packed;
        let text = small(packed.texts.len());
        packed.texts.push_str(entry.name);
        let mut add = |text: Option<&str>| {
            text.map_or(NONE, |text| {
                packed.texts.push_str(text);
                small(text.len())
            })
        };
        let more = More {
            definition: add(entry.definition),
            copy_statement: add(entry.copy_statement),
            file_name: add(entry.file_name),
            offset: match entry.position {
                DataPosition::At(offset) => offset,
                DataPosition::NotSet | DataPosition::NoData | DataPosition::Elsewhere => 0,
            },
        };
        let has_more = more.offset != 0
            || [more.definition, more.copy_statement, more.file_name]
                .iter()
                .any(|length| *length != NONE);
        packed.records.push(Record {
            dump_id: entry.dump_id,
            oid: entry.oid,
            common,
            text,
            name: small(entry.name.len()),
            dependencies: small(packed.dependencies.len()),
            more: if has_more {
                small(packed.more.len())
            } else {
                NONE
            },
        });
        packed.dependencies.extend_from_slice(entry.dependencies);
        if has_more {
            packed.more.push(more);
        }
    }

    /// Neighbours mostly have the same.
    fn common(&mut self, entry: &Entry<'_>) -> u32 {
        let last = self.packed.common.get(self.last as usize);
        if last.is_some_and(|last| last.is_of(entry)) {
            return self.last;
        }
        let mut name = |text: Option<&str>| text.map(|text| self.names.share(text));
        let common = Common {
            table_oid: entry.table_oid,
            kind: name(Some(entry.kind)).unwrap_or_default(),
            schema: name(entry.schema),
            tablespace: name(entry.tablespace),
            access_method: name(entry.access_method),
            owner: name(entry.owner),
            section: entry.section,
            position: without_offset(entry.position),
            has_data: entry.has_data,
            lossy: entry.lossy,
        };
        self.last = match self.known.get(&common) {
            Some(known) => *known,
            None => {
                let index = small(self.packed.common.len());
                if self.known.len() < REMEMBERED {
                    self.known.insert(common.clone(), index);
                }
                self.packed.common.push(common);
                index
            }
        };
        self.last
    }

    /// Bytes that are held for all entries, roughly.
    pub(crate) fn size(&self) -> u64 {
        let packed = &self.packed;
        let bytes = packed.records.len() * size_of::<Record>()
            + packed.more.len() * size_of::<More>()
            + packed.common.len() * size_of::<Common>()
            + size_of_val(packed.dependencies.as_slice())
            + packed.texts.len();
        bytes as u64
    }

    pub(crate) fn finish(self) -> TocEntries {
        let mut packed = self.packed;
        packed.records.shrink_to_fit();
        packed.more.shrink_to_fit();
        packed.common.shrink_to_fit();
        packed.dependencies.shrink_to_fit();
        packed.texts.shrink_to_fit();
        packed
    }
}

fn without_offset(position: DataPosition) -> DataPosition {
    match position {
        DataPosition::At(_) => DataPosition::At(0),
        other => other,
    }
}

/// Lengths are limited where they are read.
fn small(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(dump_id: i32) -> TocEntry {
        TocEntry {
            dump_id,
            table_oid: 1259,
            oid: 7,
            has_data: true,
            kind: "TABLE DATA".into(),
            name: format!("tä{dump_id}").into(),
            schema: Some("s".into()),
            tablespace: Some("".into()),
            access_method: None,
            owner: None,
            section: Section::Data,
            definition: None,
            copy_statement: Some("COPY s.t (a) FROM stdin;\n".into()),
            dependencies: [dump_id - 1, 1].into(),
            position: DataPosition::At(1 << 40),
            file_name: None,
            lossy: false,
        }
    }

    #[test]
    fn entries_come_out_as_they_went_in() {
        let mut entries: Vec<_> = (2..9).map(entry).collect();
        entries[1].copy_statement = None;
        entries[1].definition = Some("".into());
        entries[2].dependencies = Box::default();
        entries[2].position = DataPosition::NoData;
        entries[3].position = DataPosition::At(0);
        entries[3].copy_statement = None;
        entries[4].file_name = Some("6.dat".into());
        entries[4].definition = Some("a definition".into());
        entries[5].owner = Some("app".into());
        entries[5].lossy = true;
        entries[6].schema = None;
        entries[6].name = "".into();
        let mut packed: TocEntries = entries.iter().collect();
        let views: Vec<_> = entries.iter().map(TocEntry::view).collect();
        assert_eq!(packed.iter().collect::<Vec<_>>(), views);
        assert_eq!((packed.len(), packed.get(7)), (7, None));
        packed.retain(|entry| entry.dump_id % 2 == 0);
        let even = views.iter().filter(|entry| entry.dump_id % 2 == 0);
        assert!(packed.iter().eq(even.copied()));
        assert!(!packed.is_empty());
    }

    #[test]
    fn what_is_common_is_held_once_as_long_as_there_is_little_of_it() {
        let mut packer = Packer::default();
        for number in 0..2 * REMEMBERED {
            let mut one = entry(2);
            one.schema = Some(number.to_string().into());
            packer.push(one.view());
            packer.push(entry(2).view());
        }
        assert_eq!(packer.known.len(), REMEMBERED);
        let packed = packer.finish();
        assert_eq!(packed.common.len(), 2 * REMEMBERED + 1);
        let last = packed.get(4 * REMEMBERED - 2).unwrap();
        assert_eq!(last.schema, Some((2 * REMEMBERED - 1).to_string().as_str()));
    }

    /// A table has an entry of its own, one for its rows and one for its key; 100,000 of them have
    /// to fit beside everything else that a restore holds.
    #[test]
    fn a_table_takes_less_than_250_bytes() {
        let mut packer = Packer::default();
        for table in 0..1000 {
            let mut of_table = entry(3 * table + 2);
            of_table.kind = "TABLE".into();
            of_table.copy_statement = None;
            of_table.has_data = false;
            of_table.position = DataPosition::NoData;
            let mut key = of_table.clone();
            key.kind = "CONSTRAINT".into();
            key.name = format!("t{table} t{table}_pkey").into();
            packer.push(of_table.view());
            packer.push(entry(3 * table + 3).view());
            packer.push(key.view());
        }
        assert!(packer.size() < 250 * 1000, "{}", packer.size());
    }
}
