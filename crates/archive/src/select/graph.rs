//! The entries of a table of contents and what they depend on.
//!
//! Source of facts: PostgreSQL's `pg_dump.c` and `pg_depend`. An entry names what it depends on
//! directly, as far as that is in the archive; members of extensions are not, their extensions are.

use std::collections::{HashMap, HashSet};

use crate::entries::Entry;
use crate::toc::{Section, Toc};

/// Tables and what can be read like one.
const RELATIONS: &[&str] = &["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW"];
/// What belongs to relations and is taken with them.
const HANGERS: &[&str] = &[
    "TABLE DATA",
    "MATERIALIZED VIEW DATA",
    "DEFAULT",
    "INDEX",
    "INDEX ATTACH",
    "TABLE ATTACH",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "STATISTICS",
    "STATISTICS DATA",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
];
/// What is said of any object and is taken with it.
const ATTACHED: &[&str] = &["ACL", "COMMENT", "SECURITY LABEL"];
/// What acts on a whole database or connects it with others; and what is the database.
const NEVER: &[&str] = &[
    "PUBLICATION",
    "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA",
    "SUBSCRIPTION",
    "SUBSCRIPTION TABLE",
    "EVENT TRIGGER",
    "DATABASE",
    "DATABASE PROPERTIES",
    "ENCODING",
    "STDSTRINGS",
    "SEARCHPATH",
];

/// How an entry comes into a selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A table, view or foreign table.
    Relation,
    /// It belongs to relations.
    Hanger,
    /// It is said of another object.
    Attached,
    /// Not at all.
    Never,
    /// A schema, type, function and so on.
    Object,
}

pub(super) struct Graph<'a> {
    toc: &'a Toc,
    /// Place of each entry, by its number.
    places: HashMap<i32, usize>,
    /// Dependencies that only say what comes first.
    soft: HashSet<(i32, i32)>,
    /// Partitions of each partitioned table.
    partitions: HashMap<i32, Vec<i32>>,
    extensions: Vec<i32>,
}

impl<'a> Graph<'a> {
    pub(super) fn new(toc: &'a Toc) -> Self {
        let mut graph = Self {
            toc,
            places: (0..)
                .zip(&toc.entries)
                .map(|(at, e)| (e.dump_id, at))
                .collect(),
            soft: HashSet::new(),
            partitions: HashMap::new(),
            extensions: Vec::new(),
        };
        let mut attached = false;
        for entry in &toc.entries {
            match entry.kind {
                "TABLE ATTACH" => {
                    attached = true;
                    graph.attach_table(entry);
                }
                "EXTENSION" => graph.extensions.push(entry.dump_id),
                "INDEX ATTACH" => graph.attach_index(entry),
                _ => {}
            }
        }
        if !attached {
            graph.old_partitions(toc);
        }
        graph
    }

    pub(super) fn entry(&self, id: i32) -> Option<Entry<'a>> {
        self.toc.entries.get(*self.places.get(&id)?)
    }

    /// What an entry cannot be made without, as far as the archive holds it.
    pub(super) fn needs(&self, entry: Entry<'a>) -> impl Iterator<Item = Entry<'a>> + '_ {
        let from = entry.dump_id;
        let extensions: &[i32] = if entry.is_exclusion() {
            &self.extensions
        } else {
            &[]
        };
        entry
            .dependencies
            .iter()
            .chain(extensions)
            .filter(move |to| **to != from && !self.soft.contains(&(from, **to)))
            .filter_map(|to| self.entry(*to))
    }

    pub(super) fn partitions(&self, id: i32) -> &[i32] {
        self.partitions.get(&id).map_or(&[], Vec::as_slice)
    }

    /// A partition is made as a table of its own and attached later, so that it can be had
    /// without its parent.
    fn attach_table(&mut self, entry: Entry<'_>) {
        let tables = entry
            .dependencies
            .iter()
            .filter_map(|id| self.entry(*id))
            .filter(|table| role(table) == Role::Relation);
        let (children, parents): (Vec<_>, Vec<_>) =
            tables.partition(|table| table.name == entry.name && table.schema == entry.schema);
        for child in &children {
            for parent in &parents {
                self.soft.insert((child.dump_id, parent.dump_id));
                self.partitions
                    .entry(parent.dump_id)
                    .or_default()
                    .push(child.dump_id);
            }
        }
    }

    /// Indexes of partitions are made on their own and attached later, like their tables.
    fn attach_index(&mut self, entry: Entry<'_>) {
        let indexes: Vec<_> = entry
            .dependencies
            .iter()
            .filter_map(|id| self.entry(*id))
            .filter(|index| matches!(index.kind, "INDEX" | "CONSTRAINT"))
            .map(|index| index.dump_id)
            .collect();
        for from in &indexes {
            self.soft.extend(indexes.iter().map(|to| (*from, *to)));
        }
    }

    /// Before major 14, attaching is part of the partition's own definition. Partitioned tables
    /// are those that others depend on and that hold no rows of their own.
    fn old_partitions(&mut self, toc: &Toc) {
        let with_rows: HashSet<i32> = toc
            .entries
            .iter()
            .filter(|entry| entry.kind == "TABLE DATA")
            .flat_map(|entry| entry.dependencies.iter().copied())
            .collect();
        for child in toc.entries.iter().filter(|entry| is_table(entry)) {
            for parent in child.dependencies {
                let parent_is_table = self
                    .entry(*parent)
                    .is_some_and(|entry| entry.kind == "TABLE");
                if parent_is_table && !with_rows.contains(parent) {
                    self.partitions
                        .entry(*parent)
                        .or_default()
                        .push(child.dump_id);
                }
            }
        }
    }
}

fn is_table(entry: &Entry<'_>) -> bool {
    matches!(entry.kind, "TABLE" | "FOREIGN TABLE")
}

pub(super) fn role(entry: &Entry<'_>) -> Role {
    let kind = entry.kind;
    let of_database = ATTACHED.contains(&kind) && entry.name.starts_with("DATABASE ");
    if NEVER.contains(&kind) || of_database {
        Role::Never
    } else if RELATIONS.contains(&kind) {
        Role::Relation
    } else if HANGERS.contains(&kind) {
        Role::Hanger
    } else if ATTACHED.contains(&kind) {
        Role::Attached
    } else {
        Role::Object
    }
}

/// The section of each entry. Privileges and comments name none: they belong to the section of
/// what stands before them, as for pg_restore.
pub(super) fn sections(toc: &Toc) -> impl Iterator<Item = (Entry<'_>, Section)> {
    toc.entries.iter().scan(Section::PreData, |current, entry| {
        if entry.section != Section::None {
            *current = entry.section;
        }
        Some((entry, *current))
    })
}
