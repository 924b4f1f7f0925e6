//! The selection itself.

use std::collections::{BTreeSet, HashSet};

use crate::entries::Entry;
use crate::toc::{Section, Toc};

use super::{
    graph::{Graph, Role, role, sections},
    pattern::Pattern,
};

/// What is to be restored. Without tables and schemas: everything, as far as the sections go.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Tables, views, foreign tables and sequences.
    pub tables: Vec<Pattern>,
    /// Schemas with all that is in them.
    pub schemas: Vec<Pattern>,
    /// Sections; all when empty.
    pub sections: Vec<Section>,
    /// Only rows, sequence values and large objects.
    pub data_only: bool,
}

/// What a selection takes from an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selected {
    /// Numbers of the entries.
    pub ids: BTreeSet<i32>,
    /// The same numbers in the order of the table of contents.
    pub order: Vec<i32>,
    /// Schema and name of the tables whose rows are taken, in the order of the table of contents.
    pub tables: Vec<(String, String)>,
    /// Tables, in words, that are made without their rows, because something that was chosen
    /// cannot be made without them.
    pub without_rows: Vec<String>,
    /// What belongs to a chosen table and is left out, in words: it needs something that was not
    /// chosen (a foreign key to another table), or it acts on more than the selection.
    pub left_out: Vec<String>,
    /// Patterns that nothing fits.
    pub unmatched: Vec<String>,
}

/// Chooses entries: what the patterns name, all that this depends on, and all that belongs to it.
#[must_use]
pub fn select(toc: &Toc, selection: &Selection) -> Selected {
    let graph = Graph::new(toc);
    let mut choice = Choice {
        graph: &graph,
        chosen: HashSet::new(),
        needed: HashSet::new(),
    };
    let mut selected = Selected::default();
    if selection.tables.is_empty() && selection.schemas.is_empty() {
        let everything = toc.entries.iter().filter(|e| role(e) != Role::Never);
        choice.chosen.extend(everything.map(|entry| entry.dump_id));
    } else {
        selected.unmatched = choice.seed(toc, selection);
        choice.grow(toc);
        selected.left_out = choice.left_out(toc);
    }
    for (entry, section) in sections(toc) {
        let id = entry.dump_id;
        if !choice.has(id) {
            continue;
        }
        if role(&entry) == Role::Relation && entry.kind == "TABLE" && !choice.chosen.contains(&id) {
            selected.without_rows.push(entry.describe());
        }
        let wanted = selection.sections.is_empty() || selection.sections.contains(&section);
        if !wanted || (selection.data_only && section != Section::Data) {
            continue;
        }
        selected.ids.insert(id);
        selected.order.push(id);
        if entry.kind == "TABLE DATA" {
            let schema = entry.schema.unwrap_or_default();
            let table = (schema.to_owned(), entry.name.to_string());
            selected.tables.push(table);
        }
    }
    selected
}

/// The content of a file for `pg_restore -L`.
#[must_use]
pub fn list_file(selected: &Selected) -> String {
    selected.order.iter().map(|id| format!("{id};\n")).collect()
}

struct Choice<'a> {
    graph: &'a Graph<'a>,
    /// What was asked for, and what belongs to it.
    chosen: HashSet<i32>,
    /// What this cannot be made without.
    needed: HashSet<i32>,
}

impl<'a> Choice<'a> {
    fn has(&self, id: i32) -> bool {
        self.chosen.contains(&id) || self.needed.contains(&id)
    }

    /// Chooses what the patterns name, and returns those that name nothing.
    fn seed(&mut self, toc: &'a Toc, selection: &Selection) -> Vec<String> {
        let mut unmatched = Vec::new();
        for pattern in &selection.tables {
            let fits = |entry: &Entry<'_>| {
                (role(entry) == Role::Relation || entry.kind == "SEQUENCE")
                    && pattern.matches(entry.schema.unwrap_or_default(), entry.name)
            };
            if !self.choose_all(toc.entries.iter().filter(fits)) {
                unmatched.push(pattern.as_str().to_owned());
            }
        }
        for pattern in &selection.schemas {
            let fits = |entry: &Entry<'_>| {
                let inside = entry.schema.is_some_and(|s| pattern.matches_name(s))
                    && (matches!(role(entry), Role::Relation | Role::Object)
                        || entry.kind == "SEQUENCE");
                inside || (entry.kind == "SCHEMA" && pattern.matches_name(entry.name))
            };
            if !self.choose_all(toc.entries.iter().filter(fits)) {
                unmatched.push(pattern.as_str().to_owned());
            }
        }
        unmatched
    }

    fn choose_all(&mut self, entries: impl Iterator<Item = Entry<'a>>) -> bool {
        let mut any = false;
        for entry in entries {
            any = true;
            self.choose(entry);
        }
        any
    }

    /// Chooses an entry, with its partitions, and notes what it needs.
    fn choose(&mut self, entry: Entry<'a>) {
        let mut stack = vec![entry.dump_id];
        while let Some(id) = stack.pop() {
            if self.chosen.insert(id) {
                stack.extend(self.graph.partitions(id));
                self.needed.extend(self.missing(id));
            }
        }
    }

    /// All that an entry needs, directly or not, and that was not taken yet.
    fn missing(&self, id: i32) -> HashSet<i32> {
        let mut found = HashSet::new();
        let mut stack: Vec<_> = self.graph.entry(id).into_iter().collect();
        while let Some(entry) = stack.pop() {
            for need in self.graph.needs(entry) {
                if !self.has(need.dump_id)
                    && role(&need) != Role::Never
                    && found.insert(need.dump_id)
                {
                    stack.push(need);
                }
            }
        }
        found
    }

    /// Takes what belongs to the chosen, until nothing more does.
    fn grow(&mut self, toc: &'a Toc) {
        loop {
            let before = self.chosen.len();
            for entry in &toc.entries {
                if !self.chosen.contains(&entry.dump_id) && self.belongs(entry) {
                    self.choose(entry);
                }
            }
            if self.chosen.len() == before {
                return;
            }
        }
    }

    fn belongs(&self, entry: Entry<'a>) -> bool {
        let mut needs = self.graph.needs(entry).peekable();
        match role(&entry) {
            Role::Attached => needs.peek().is_some() && needs.all(|need| self.has(need.dump_id)),
            Role::Hanger => self.hangs(entry) && self.obstacle(entry).is_none(),
            Role::Relation | Role::Object | Role::Never => false,
        }
    }

    /// Whether an entry belongs to something that was chosen.
    fn hangs(&self, entry: Entry<'a>) -> bool {
        self.graph.needs(entry).any(|need| match role(&need) {
            Role::Relation | Role::Hanger if self.chosen.contains(&need.dump_id) => true,
            // The value of a sequence that a default needs.
            _ => need.kind == "SEQUENCE" && self.has(need.dump_id),
        })
    }

    /// A relation that an entry needs and that was not chosen.
    fn obstacle(&self, entry: Entry<'a>) -> Option<Entry<'a>> {
        // Rows of a materialised view come from all that it reads.
        let rows_of_view = entry.kind == "MATERIALIZED VIEW DATA";
        let mut seen = HashSet::new();
        let mut stack = vec![entry];
        while let Some(at) = stack.pop() {
            for need in self.graph.needs(at) {
                let id = need.dump_id;
                if role(&need) == Role::Relation && !self.chosen.contains(&id) {
                    return Some(need);
                }
                let done = self.has(id) && !rows_of_view;
                if !done && seen.insert(id) {
                    stack.push(need);
                }
            }
        }
        None
    }

    /// What belongs to a chosen relation, but was not taken.
    fn left_out(&self, toc: &'a Toc) -> Vec<String> {
        let left = toc.entries.iter().filter(|entry| {
            let of_relation = self.graph.needs(*entry).any(|need| {
                self.chosen.contains(&need.dump_id)
                    && role(&need) == Role::Relation
                    && is_part_of(entry, &need)
            });
            let interesting = matches!(role(entry), Role::Hanger | Role::Never);
            interesting && of_relation && !self.has(entry.dump_id)
        });
        left.map(|entry| entry.describe()).collect()
    }
}

/// Whether the entry is part of this relation, and not of another that only refers to it: names
/// of constraints, triggers, rules and policies begin with that of their table.
fn is_part_of(entry: &Entry<'_>, relation: &Entry<'_>) -> bool {
    match entry.kind {
        "FK CONSTRAINT" | "CHECK CONSTRAINT" | "CONSTRAINT" | "TRIGGER" | "RULE" | "POLICY"
        | "DEFAULT" => {
            entry.schema == relation.schema
                && entry
                    .name
                    .strip_prefix(relation.name)
                    .is_some_and(|rest| rest.starts_with(' '))
        }
        "TABLE ATTACH" => entry.schema == relation.schema && entry.name == relation.name,
        // Told by that of its table.
        "INDEX ATTACH" => false,
        _ => true,
    }
}
