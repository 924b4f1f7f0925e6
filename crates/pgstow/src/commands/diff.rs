//! `pgstow diff ID ID`.

use std::collections::BTreeSet;

use backup::diff::{DatabaseDiff, ObjectChange, RowsDiff, diff};
use backup::{Manifest, manifest::DatabaseRecord};
use serde_json::json;

use super::show::contents;
use crate::args::DiffArgs;
use crate::error::CommandError;
use crate::printer::Printer;
use crate::render::{tables::table, text};
use crate::{exit, session::Session};

pub(crate) async fn run(session: &Session, args: &DiffArgs) -> Result<u8, CommandError> {
    let repository = session.filled_repository(&args.before)?;
    let before = repository.find(&args.before).await?;
    let after = repository.find(&args.after).await?;
    let printer = &session.printer;
    let mut found = Vec::new();
    let names = names(&before, &after, args.database.as_deref())?;
    for name in &names {
        let sides = (database(&before, name), database(&after, name));
        let compared = match sides {
            (Some(first), Some(second)) => {
                let first = contents(session, &repository, &before, first).await?;
                let second = contents(session, &repository, &after, second).await?;
                Some(diff(&first, &second))
            }
            _ => None,
        };
        found.push((*name, sides.0.is_some(), compared));
    }
    if printer.json {
        let databases: Vec<_> = found
            .iter()
            .map(|(name, in_first, compared)| {
                let change = match (compared, in_first) {
                    (Some(_), _) => "compared",
                    (None, true) => "dropped",
                    (None, false) => "added",
                };
                json!({ "name": name, "change": change, "diff": compared })
            })
            .collect();
        printer.json_line(&json!({
            "result": "diff",
            "before": before.id,
            "after": after.id,
            "databases": databases,
            "exit_code": exit::DONE,
        }));
        return Ok(exit::DONE);
    }
    printer.message(format!("from {} to {}", before.id, after.id));
    for (name, in_first, compared) in &found {
        let name = text::name(name);
        match (compared, in_first) {
            (Some(compared), _) => tell(printer, &name, compared),
            (None, true) => printer.result(format!("- database {name}")),
            (None, false) => printer.result(format!("+ database {name}")),
        }
    }
    Ok(exit::DONE)
}

/// Databases of both, or the one that was named.
fn names<'a>(
    before: &'a Manifest,
    after: &'a Manifest,
    wanted: Option<&str>,
) -> Result<BTreeSet<&'a str>, CommandError> {
    let all = before.databases.iter().chain(&after.databases);
    let names: BTreeSet<_> = all
        .map(|database| database.name.as_str())
        .filter(|name| wanted.is_none_or(|wanted| wanted == *name))
        .collect();
    match wanted {
        Some(wanted) if names.is_empty() => Err(CommandError::new(
            dbexec::codes::DATABASE_NOT_FOUND,
            format!("neither backup holds a database {wanted:?}"),
        )),
        _ => Ok(names),
    }
}

fn database<'a>(manifest: &'a Manifest, name: &str) -> Option<&'a DatabaseRecord> {
    manifest
        .databases
        .iter()
        .find(|database| database.name == name)
}

fn tell(printer: &Printer, name: &str, compared: &DatabaseDiff) {
    let objects = compared.objects.as_deref().unwrap_or_default();
    if objects.is_empty() && compared.rows.is_empty() {
        printer.result(format!("  database {name}: no difference was found"));
    } else {
        printer.result(format!("~ database {name}"));
    }
    for object in objects {
        let (mark, words) = match object.change {
            ObjectChange::Added => ("+", ""),
            ObjectChange::Dropped => ("-", ""),
            ObjectChange::Changed => ("~", " (definition)"),
            ObjectChange::Owner => ("~", " (owner)"),
        };
        printer.result(format!("  {mark} {}{words}", one_line(&object.object)));
    }
    if !compared.rows.is_empty() {
        let rows: Vec<_> = compared.rows.iter().map(rows_line).collect();
        for line in table(&["", "TABLE", "BEFORE", "AFTER", "ROWS"], &rows) {
            printer.result(line);
        }
    }
    for words in left_open(compared) {
        printer.message(format!("{name}: {words}"));
    }
}

/// What could not be compared.
fn left_open(compared: &DatabaseDiff) -> Vec<String> {
    let mut told = Vec::new();
    if compared.objects.is_none() {
        told.push("objects were not compared, a plain script has no table of contents".to_owned());
    }
    let hashed = compared.hashed_differently;
    let without = compared.not_compared - hashed;
    if without > 0 {
        told.push(format!(
            "{without} tables have as many rows as before, and without fingerprints in both backups \
             nothing more is known of them"
        ));
    }
    if hashed > 0 {
        told.push(format!(
            "{hashed} tables have as many rows as before; whether these are the same could not be \
             compared, because the two backups hash rows differently (one was made by an older \
             pgstow): restore both (pgstow restore ID --as NEWDB) and compare them there"
        ));
    }
    told
}

/// A name with a line break must not look like another line.
fn one_line(object: &str) -> String {
    if object.chars().any(char::is_control) {
        format!("{object:?}")
    } else {
        object.to_owned()
    }
}

fn rows_line(rows: &RowsDiff) -> Vec<String> {
    let shown = |count: Option<u64>| count.map_or("-".to_owned(), text::count);
    let (before, after) = (rows.before.unwrap_or(0), rows.after.unwrap_or(0));
    let change = match (rows.before, rows.after) {
        (Some(_), Some(_)) if before == after => "as many, but other rows".to_owned(),
        _ if after >= before => format!("+{}", text::count(after - before)),
        _ => format!("-{}", text::count(before - after)),
    };
    vec![
        String::new(),
        format!("{}.{}", text::name(&rows.schema), text::name(&rows.name)),
        shown(rows.before),
        shown(rows.after),
        change,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_compared_is_told_with_its_reason() {
        let of = |not_compared, hashed_differently| {
            left_open(&DatabaseDiff {
                objects: Some(Vec::new()),
                not_compared,
                hashed_differently,
                ..DatabaseDiff::default()
            })
        };
        assert!(of(0, 0).is_empty());
        let told = of(3, 0).join("\n");
        assert!(told.starts_with("3 tables") && told.contains("without fingerprints"));
        let told = of(3, 1);
        assert!(told[0].starts_with("2 tables"), "{told:?}");
        let told = &told[1];
        assert!(
            told.starts_with("1 tables") && told.contains("--as NEWDB"),
            "{told}"
        );
        assert_eq!(of(2, 2).len(), 1);
        let script = left_open(&DatabaseDiff::default());
        assert!(script[0].contains("plain script"), "{script:?}");
    }
}
