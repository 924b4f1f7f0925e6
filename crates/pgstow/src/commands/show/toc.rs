//! What is in an archive: schemas, their tables with bytes and rows, then other objects by kind.

use std::collections::{BTreeMap, BTreeSet};

use archive::Entry;
use backup::attest::{AttestedTable, TableScope};
use backup::diff::ArchiveContents;
use serde_json::{Value, json};

use crate::printer::Printer;
use crate::render::{tables::table, text};

/// Kinds that are told with the tables, or that are no objects.
const TOLD: &[&str] = &[
    "TABLE DATA",
    "SEQUENCE SET",
    "BLOBS",
    "ENCODING",
    "STDSTRINGS",
    "SEARCHPATH",
];

/// Tables of one schema.
struct Schema<'a> {
    name: &'a str,
    tables: Vec<&'a AttestedTable>,
}

impl Schema<'_> {
    fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    fn bytes(&self) -> u64 {
        self.tables.iter().filter_map(|table| table.bytes).sum()
    }
}

fn schemas(contents: &ArchiveContents) -> Vec<Schema<'_>> {
    let mut schemas: Vec<Schema<'_>> = Vec::new();
    for table in &contents.tables {
        match schemas.last_mut() {
            Some(last) if last.name == table.schema => last.tables.push(table),
            _ => schemas.push(Schema {
                name: &table.schema,
                tables: vec![table],
            }),
        }
    }
    schemas
}

/// Objects by kind that are not told with the tables.
fn objects(contents: &ArchiveContents) -> BTreeMap<&str, Vec<Entry<'_>>> {
    let told: BTreeSet<(&str, &str)> = contents
        .tables
        .iter()
        .map(|table| (table.schema.as_str(), table.name.as_str()))
        .collect();
    let mut kinds: BTreeMap<&str, Vec<Entry<'_>>> = BTreeMap::new();
    for entry in contents.toc.iter().flat_map(|toc| &toc.entries) {
        let name = (entry.schema.unwrap_or_default(), entry.name);
        let told = TOLD.contains(&entry.kind) || (entry.kind == "TABLE" && told.contains(&name));
        if !told {
            kinds.entry(entry.kind).or_default().push(entry);
        }
    }
    kinds
}

pub(crate) fn json(contents: &ArchiveContents) -> Value {
    let schemas: Vec<_> = schemas(contents)
        .iter()
        .map(|schema| {
            json!({
                "name": schema.name,
                "rows": schema.rows(),
                "bytes": schema.bytes(),
                "tables": schema.tables,
            })
        })
        .collect();
    let objects: BTreeMap<_, Vec<_>> = objects(contents)
        .into_iter()
        .map(|(kind, entries)| {
            let entries = entries.iter().map(|entry| {
                json!({
                    "id": entry.dump_id,
                    "schema": entry.schema,
                    "name": entry.name,
                    "owner": entry.owner,
                })
            });
            (kind, entries.collect())
        })
        .collect();
    json!({
        "attested": contents.attested,
        "schemas": schemas,
        "objects": contents.toc.is_some().then_some(objects),
    })
}

pub(crate) fn tell(printer: &Printer, name: &str, contents: &ArchiveContents) {
    let schemas = schemas(contents);
    let rows = schemas.iter().map(Schema::rows).sum();
    let bytes = schemas.iter().map(Schema::bytes).sum();
    printer.result("");
    printer.result(format!(
        "contents of {}: {} tables in {} schemas, {} rows, {}{}",
        text::name(name),
        text::count(contents.tables.len() as u64),
        text::count(schemas.len() as u64),
        text::count(rows),
        text::bytes(bytes),
        if contents.attested {
            ""
        } else {
            " (not attested; counted in the archive)"
        }
    ));
    let lines: Vec<Vec<String>> = schemas
        .iter()
        .flat_map(|schema| {
            let tables = schema.tables.iter().map(|table| table_line(table));
            std::iter::once(vec![
                text::name(schema.name),
                String::new(),
                text::count(schema.rows()),
                text::bytes(schema.bytes()),
                String::new(),
            ])
            .chain(tables)
            .collect::<Vec<_>>()
        })
        .collect();
    for line in table(&["SCHEMA", "TABLE", "ROWS", "BYTES", ""], &lines) {
        printer.result(line);
    }
    if contents.toc.is_none() {
        printer.result("other objects: a plain script has no table of contents");
        return;
    }
    for (kind, entries) in objects(contents) {
        printer.result("");
        printer.result(format!("{kind} ({})", text::count(entries.len() as u64)));
        for entry in entries {
            let name = text::name(entry.name);
            let owner = match entry.owner {
                Some(owner) if !owner.is_empty() => format!(" (owner {})", text::name(owner)),
                _ => String::new(),
            };
            match entry.schema {
                Some(schema) if !schema.is_empty() => {
                    printer.result(format!("  {}.{name}{owner}", text::name(schema)));
                }
                _ => printer.result(format!("  {name}{owner}")),
            }
        }
    }
}

fn table_line(table: &AttestedTable) -> Vec<String> {
    let (rows, note) = match table.scope {
        TableScope::All => (text::count(table.rows), ""),
        TableScope::Configuration => (text::count(table.rows), "configuration of an extension"),
        TableScope::Excluded => ("-".to_owned(), "rows left out"),
    };
    vec![
        String::new(),
        text::name(&table.name),
        rows,
        table.bytes.map_or("-".to_owned(), text::bytes),
        note.to_owned(),
    ]
}
