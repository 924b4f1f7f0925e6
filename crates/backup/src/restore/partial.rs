//! Restores of a part: which entries of an archive are chosen, and an archive that holds no
//! others for everything that follows (roles, extensions, rights, counts).

use archive::{Pattern, Section, Selection, Toc};

use super::{
    check::Checked,
    journal::beside,
    source::{Source, refused},
};
use crate::{BackupError, BackupId, RestoreContents, RestorePlace, RestoreSection};

/// Name of the new database that a part goes to where a person names none: recognisable, with the
/// random tail of the run's id.
#[must_use]
pub fn database_for_part(database: &str, run: &BackupId) -> String {
    beside(database, "restore", run)
}

/// What was chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Entries, and how many the archive has.
    pub(crate) entries: (usize, usize),
    /// Bytes of rows, and how many the archive has; as text.
    pub(crate) bytes: (u64, u64),
    /// What belongs to a chosen table and is not restored, in words.
    pub(crate) left_out: Vec<String>,
    /// Tables that are made without their rows, in words.
    pub(crate) without_rows: Vec<String>,
}

/// Names that are shown of a list.
const SHOWN: usize = 10;

/// Reduces a checked archive to what was asked for.
///
/// # Errors
/// [`BackupError::RestoreRefused`] for patterns that stand for nothing, parts that cannot be
/// restored alone, and places that a part cannot go to.
pub(super) fn choose(
    contents: &RestoreContents,
    place: &RestorePlace,
    source: &Source,
    mut checked: Checked,
) -> Result<Checked, BackupError> {
    if !contents.is_partial() {
        return Ok(checked);
    }
    if !matches!(place, RestorePlace::NewDatabase { .. }) {
        return Err(refused(
            format!(
                "a part of a backup cannot take the place of database {:?}: the rest of it would \
                 be lost or would not fit",
                place.database()
            ),
            "restore the part into a new database with --as NEWDB, and move the rows from there"
                .to_owned(),
        ));
    }
    let Some(toc) = checked.toc.as_mut() else {
        return Err(refused(
            format!(
                "{} is a plain dump, a script that is run from its beginning to its end",
                source.label
            ),
            "restore all of it into a new database with --as NEWDB, or a part of a backup in the \
             custom or directory format"
                .to_owned(),
        ));
    };
    let selection = selection(contents)?;
    let selected = archive::select(toc, &selection);
    if !selected.unmatched.is_empty() {
        return Err(refused(
            format!(
                "{} holds nothing that {} stands for{}",
                source.label,
                listed(&selected.unmatched),
                nearest(toc, &selected.unmatched)
            ),
            "pgstow show ID --toc lists what a backup holds; names with upper-case letters need \
             double quotes inside the pattern"
                .to_owned(),
        ));
    }
    if selected.ids.is_empty() {
        return Err(refused(
            format!("{} holds nothing of these sections", source.label),
            "choose other sections".to_owned(),
        ));
    }
    let total: u64 = checked.tables.iter().map(|table| table.bytes).sum();
    let entries = toc.entries.len();
    toc.entries
        .retain(|entry| selected.ids.contains(&entry.dump_id));
    checked
        .tables
        .retain(|table| selected.ids.contains(&table.dump_id));
    // Large objects are made before their contents come, so without the rows their number says
    // nothing.
    let with_rows = selection.sections.is_empty() || selection.sections.contains(&Section::Data);
    let large_objects = toc
        .entries
        .iter()
        .any(|entry| entry.kind == "BLOBS" && entry.has_data);
    checked.large_objects = match (with_rows, large_objects) {
        (true, true) => checked.large_objects,
        (true, false) => Some(0),
        (false, _) => None,
    };
    checked.part = Some(Part {
        entries: (toc.entries.len(), entries),
        bytes: (checked.tables.iter().map(|table| table.bytes).sum(), total),
        left_out: selected.left_out,
        without_rows: selected.without_rows,
    });
    Ok(checked)
}

fn selection(contents: &RestoreContents) -> Result<Selection, BackupError> {
    let parsed = |texts: &[String], parse: fn(&str) -> Result<Pattern, archive::PatternError>| {
        let patterns = texts.iter().map(|text| parse(text));
        patterns.collect::<Result<Vec<_>, _>>().map_err(|error| {
            refused(
                error.to_string(),
                "write schema.table, with * and ? for any text, and double quotes around names \
                 that are not lower-case words"
                    .to_owned(),
            )
        })
    };
    let sections = &contents.sections;
    if !sections.is_empty() && !sections.contains(&RestoreSection::PreData) {
        return Err(refused(
            "rows, indexes and constraints need the tables that they belong to, and a new \
             database has none"
                .to_owned(),
            "add --section pre-data, or restore with --data-only, which makes the bare tables"
                .to_owned(),
        ));
    }
    let mut chosen: Vec<_> = sections
        .iter()
        .map(|section| match section {
            RestoreSection::PreData => Section::PreData,
            RestoreSection::Data => Section::Data,
            RestoreSection::PostData => Section::PostData,
        })
        .collect();
    if contents.data_only {
        // A new database has no tables: they are made, without indexes, constraints, triggers.
        chosen = vec![Section::PreData, Section::Data];
    }
    Ok(Selection {
        tables: parsed(&contents.tables, Pattern::parse)?,
        schemas: parsed(&contents.schemas, Pattern::parse_schema)?,
        sections: chosen,
        data_only: false,
    })
}

/// Names that differ from a pattern in nothing but case: it lacks its double quotes.
fn nearest(toc: &Toc, unmatched: &[String]) -> String {
    let plain = |text: &str| text.replace('"', "").to_lowercase();
    let wanted: Vec<_> = unmatched.iter().map(|text| plain(text)).collect();
    let same = toc.entries.iter().find(|entry| {
        let schema = entry.schema.unwrap_or_default();
        matches!(
            entry.kind,
            "TABLE" | "VIEW" | "MATERIALIZED VIEW" | "FOREIGN TABLE" | "SEQUENCE" | "SCHEMA"
        ) && (wanted.contains(&plain(entry.name))
            || wanted.contains(&plain(&format!("{schema}.{}", entry.name))))
    });
    same.map_or_else(String::new, |entry| {
        format!("; it does hold {:?}", entry.name)
    })
}

/// What the plan says of a part: steps, and what is to be read.
pub(super) fn words(part: &Part, contents: &RestoreContents) -> (String, Vec<String>) {
    let mut what = Vec::new();
    let mut add = |kind: &str, patterns: &[String]| {
        if !patterns.is_empty() {
            what.push(format!("{kind} {}", listed(patterns)));
        }
    };
    add("tables", &contents.tables);
    add("schemas", &contents.schemas);
    let sections: Vec<_> = contents
        .sections
        .iter()
        .map(|section| section.as_str().to_owned())
        .collect();
    add("sections", &sections);
    if contents.data_only {
        what.push("rows with the bare tables that hold them".to_owned());
    }
    let step = format!(
        "restore a part, with what it needs: {} ({} of {} entries of the archive)",
        what.join(", "),
        part.entries.0,
        part.entries.1
    );
    let mut warnings = Vec::new();
    if !part.left_out.is_empty() {
        warnings.push(format!(
            "left out, because it needs what is not restored: {}",
            shown(&part.left_out)
        ));
    }
    if !part.without_rows.is_empty() {
        warnings.push(format!(
            "made without rows, because what is restored needs them: {}",
            shown(&part.without_rows)
        ));
    }
    (step, warnings)
}

fn listed(names: &[String]) -> String {
    super::roles::list(names)
}

fn shown(names: &[String]) -> String {
    let mut text = names
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    if names.len() > SHOWN {
        text.push_str(&format!("; and {} more", names.len() - SHOWN));
    }
    text
}
