//! What is moved: the units of every entry, in the order of the archive.

use std::collections::HashMap;

use archive::{DumpData, DumpDataKind, TableData, WriteFormat};

use super::emit::Moved;
use super::facts::TableFacts;
use super::objects;
use super::split::{Range, ranges};
use super::statement::CopyStatement;
use crate::attest::Wanted;

/// A part of an entry's data that one session reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Index of the entry in [`Plan::data`].
    pub(crate) entry: u32,
    pub(crate) what: What,
}

/// See [`Unit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// All rows of a table.
    Table,
    /// Those of some of its pages.
    Range(Range),
    /// Large objects: from this index on, so many.
    Objects { from: u32, count: u32 },
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) format: WriteFormat,
    pub(crate) data: Vec<DumpData>,
    pub(crate) units: Vec<Unit>,
    pub(crate) wanted: Wanted,
    /// Conditions of configuration tables, by oid.
    conditions: HashMap<u32, String>,
}

impl Plan {
    /// Cuts the entries into units. `facts` knows the tables that may be worth it, `conditions`
    /// the configuration tables of extensions, `split` is the size of units where tables may be cut,
    /// bytes.
    pub(crate) fn new(
        format: WriteFormat,
        mut data: Vec<DumpData>,
        facts: &HashMap<u32, TableFacts>,
        conditions: HashMap<u32, String>,
        wanted: Wanted,
        split: Option<u64>,
    ) -> Self {
        let mut units = Vec::with_capacity(data.len());
        for (entry, data) in data.iter_mut().enumerate() {
            let entry = u32::try_from(entry).unwrap_or(u32::MAX);
            let mut push = |what| units.push(Unit { entry, what });
            match &mut data.kind {
                DumpDataKind::LargeObjects { oids } => {
                    // The order in which pg_dump writes them.
                    oids.sort_unstable();
                    let all = u32::try_from(oids.len()).unwrap_or(u32::MAX);
                    let batch = u32::try_from(objects::BATCH).unwrap_or(1);
                    let mut from = 0;
                    loop {
                        let count = batch.min(all - from);
                        push(What::Objects { from, count });
                        from += count;
                        if from >= all {
                            break;
                        }
                    }
                }
                DumpDataKind::Rows { .. } | DumpDataKind::Other { .. } => {
                    let ranges = match (facts.get(&data.oid), split) {
                        (Some(facts), Some(unit))
                            if facts.splits() && !conditions.contains_key(&data.oid) =>
                        {
                            ranges(facts.bytes, facts.pages, unit)
                        }
                        _ => Vec::new(),
                    };
                    if ranges.len() > 1 {
                        ranges
                            .into_iter()
                            .for_each(|range| push(What::Range(range)));
                    } else {
                        push(What::Table);
                    }
                }
            }
        }
        Self {
            format,
            data,
            units,
            wanted,
            conditions,
        }
    }

    /// The rows of each table, from what came of them.
    pub(crate) fn tables(self, moved: Vec<Moved>) -> Vec<TableData> {
        let objects = |entry: &DumpData| matches!(entry.kind, DumpDataKind::LargeObjects { .. });
        let entries = self.data.into_iter().filter(|entry| !objects(entry));
        let tables = entries.zip(moved).map(|(entry, moved)| moved.of(entry));
        tables.collect()
    }

    /// The entry of a unit.
    pub(crate) fn entry(&self, unit: &Unit) -> &DumpData {
        &self.data[unit.entry as usize]
    }

    /// The large objects of a unit.
    pub(crate) fn objects(&self, unit: &Unit) -> &[u32] {
        match (&self.entry(unit).kind, unit.what) {
            (DumpDataKind::LargeObjects { oids }, What::Objects { from, count }) => {
                &oids[from as usize..(from + count) as usize]
            }
            _ => &[],
        }
    }

    /// What a session runs for a unit; `None` where there is nothing to be read. `lock`: whether
    /// the table is to be locked first (the leader has it locked).
    pub(crate) fn sql(&self, unit: &Unit, lock: bool) -> Result<Option<String>, String> {
        let entry = self.entry(unit);
        let copy_statement = match &entry.kind {
            DumpDataKind::LargeObjects { .. } => {
                let objects = self.objects(unit);
                return Ok((!objects.is_empty()).then(|| objects::statement(objects)));
            }
            DumpDataKind::Rows { copy_statement } => copy_statement,
            DumpDataKind::Other { kind } => return Err(format!("entries of kind {kind}")),
        };
        let Some(statement) = CopyStatement::parse(copy_statement) else {
            return Err(format!("the statement {copy_statement:?}"));
        };
        let copy = match (unit.what, self.conditions.get(&entry.oid)) {
            (What::Range(range), _) => statement.range(range.from, range.to),
            // The order of its rows is that of a plain scan, as in pg_dump.
            (_, Some(condition)) => format!(
                "set local enable_seqscan to on;\n{}",
                statement.filtered(condition)
            ),
            (_, None) => statement.whole(),
        };
        Ok(Some(if lock {
            format!(
                "lock table only {} in access share mode nowait;\n{copy}",
                statement.table
            )
        } else {
            copy
        }))
    }
}
