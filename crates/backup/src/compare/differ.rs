//! The comparison itself: a function of what was expected and what was observed.

use archive::{Catalogue, DifferenceKind};
use serde::{Deserialize, Serialize};

use super::expected::{CatalogueRule, Expected, ExpectedTable};
use super::observed::{Observed, ObservedTable};
use crate::attest::TableScope;

/// Word of pg_dump for an object that a large object's privilege or comment belongs to.
const LARGE_OBJECT: &str = "LARGE OBJECT";

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Object in words: `table app.orders`, `sequence app.orders_id_seq`, `large objects`, or an
    /// object of the catalogue.
    pub object: String,
    /// What was expected, in words.
    pub expected: String,
    /// What was found, in words.
    pub found: String,
}

/// How far the catalogue was compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatalogueState {
    /// Not at all.
    #[default]
    NotCompared,
    /// Existence of objects (and owners, unless these were left out).
    Names,
    /// Definitions, owners and privileges.
    Full,
}

/// Result of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Tables without a difference.
    pub tables_equal: u64,
    /// Tables that were compared.
    pub tables_total: u64,
    /// Tables of these that were compared by their content, not their row count alone.
    pub fingerprints: u64,
    /// Rows that were expected in all tables.
    pub rows: u64,
    /// Sequences without a difference.
    pub sequences_equal: u64,
    /// Sequences that were compared.
    pub sequences_total: u64,
    /// Large objects that were expected; `None` where nothing is known of them.
    pub large_objects: Option<u64>,
    /// How far the catalogue was compared.
    pub catalogue: CatalogueState,
    /// Objects of the catalogue that were expected.
    pub catalogue_objects: u64,
    /// Each difference.
    pub differences: Vec<Difference>,
    /// What could not be compared, in words.
    pub not_compared: Vec<String>,
}

impl Comparison {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }

    fn differ(&mut self, object: String, expected: impl Into<String>, found: impl Into<String>) {
        self.differences.push(Difference {
            object,
            expected: expected.into(),
            found: found.into(),
        });
    }
}

/// Compares a copy with what it has to hold.
#[must_use]
pub fn compare(expected: &Expected, observed: &Observed) -> Comparison {
    let mut result = Comparison {
        not_compared: expected.missing.clone(),
        ..Comparison::default()
    };
    tables(expected, observed, &mut result);
    sequences(expected, observed, &mut result);
    large_objects(expected, observed, &mut result);
    catalogue(expected, observed, &mut result);
    result
}

fn tables(expected: &Expected, observed: &Observed, result: &mut Comparison) {
    for (key, wanted) in &expected.tables {
        result.tables_total += 1;
        result.rows += wanted.rows;
        let before = result.differences.len();
        match observed.tables.get(key) {
            Some(found) => table(key, wanted, found, result),
            // The rows of foreign tables are elsewhere; partitioned roots hold none of their own.
            None if wanted.rows == 0 || observed.foreign.contains(key) => {}
            None => result.differ(
                object("table", key),
                rows(wanted.rows),
                "not there as an ordinary table",
            ),
        }
        if result.differences.len() == before {
            result.tables_equal += 1;
        }
    }
    let others = observed
        .tables
        .iter()
        .filter(|(key, table)| !expected.tables.contains_key(*key) && !table.of_extension);
    if let Some(wanted) = expected.unnamed_rows {
        let found: u64 = others.map(|(_, table)| table.rows).sum();
        result.rows += wanted;
        if found != wanted {
            result.differ(
                "tables whose names are not ASCII".to_owned(),
                rows(wanted),
                rows(found),
            );
        }
    } else if expected.whole {
        for (key, table) in others.filter(|(_, table)| table.rows > 0) {
            result.differ(object("table", key), "no such table", rows(table.rows));
        }
    }
}

fn table(
    key: &(String, String),
    wanted: &ExpectedTable,
    found: &ObservedTable,
    result: &mut Comparison,
) {
    // An extension may bring rows of its own into a table that it also lets users configure.
    let at_least = wanted.scope == TableScope::Configuration || found.of_extension;
    let enough = if at_least {
        found.rows >= wanted.rows
    } else {
        found.rows == wanted.rows
    };
    if !enough {
        let words = if at_least {
            format!("at least {}", rows(wanted.rows))
        } else {
            rows(wanted.rows)
        };
        result.differ(object("table", key), words, rows(found.rows));
        return;
    }
    if let Some(print) = &wanted.fingerprint
        && found.rows == wanted.rows
    {
        match &found.fingerprint {
            Some(other) if other == print => result.fingerprints += 1,
            Some(other) => result.differ(
                object("table", key),
                format!("{} with fingerprint {print}", rows(wanted.rows)),
                format!("as many rows with fingerprint {other}"),
            ),
            None => result.not_compared.push(format!(
                "{}: only its rows were counted, not read",
                object("table", key)
            )),
        }
    }
}

fn sequences(expected: &Expected, observed: &Observed, result: &mut Comparison) {
    let words = |(value, called): (i64, bool)| {
        let called = if called { "" } else { ", not called yet" };
        format!("value {value}{called}")
    };
    for (key, wanted) in &expected.sequences {
        result.sequences_total += 1;
        match observed.sequences.get(key) {
            Some(found) if found == wanted => result.sequences_equal += 1,
            Some(found) => result.differ(object("sequence", key), words(*wanted), words(*found)),
            None => result.differ(object("sequence", key), words(*wanted), "missing"),
        }
    }
}

fn large_objects(expected: &Expected, observed: &Observed, result: &mut Comparison) {
    let Some(wanted) = &expected.large_objects else {
        return;
    };
    result.large_objects = Some(wanted.count);
    let count = |number: u64| match number {
        1 => "1 large object".to_owned(),
        number => format!("{number} large objects"),
    };
    if observed.large_objects != wanted.count {
        let (wanted, found) = (count(wanted.count), count(observed.large_objects));
        result.differ("large objects".to_owned(), wanted, found);
        return;
    }
    if let Some(bytes) = observed.large_object_bytes
        && bytes != wanted.bytes
    {
        result.differ(
            "large objects".to_owned(),
            format!("{} of {} bytes", count(wanted.count), wanted.bytes),
            format!("as many of {bytes} bytes"),
        );
        return;
    }
    if let Some(print) = &wanted.fingerprint {
        match &observed.large_object_fingerprint {
            Some(found) if found == print => {}
            Some(found) => result.differ(
                "large objects".to_owned(),
                format!("{} with fingerprint {print}", count(wanted.count)),
                format!("as many with fingerprint {found}"),
            ),
            None if wanted.count == 0 => {}
            None => result
                .not_compared
                .push("large objects: they were counted, not read".to_owned()),
        }
    } else if wanted.count > 0 {
        result
            .not_compared
            .push("large objects: their contents were not attested".to_owned());
    }
}

fn catalogue(expected: &Expected, observed: &Observed, result: &mut Comparison) {
    let Some(wanted) = &expected.catalogue else {
        if expected.whole {
            result
                .not_compared
                .push("the catalogue: the archive has no table of contents".to_owned());
        }
        return;
    };
    if let Some(attested) = &expected.catalogue_fingerprint {
        let own = wanted.fingerprint().to_string();
        if own != *attested {
            result.differ(
                "the catalogue of the archive".to_owned(),
                format!("fingerprint {attested}, as attested"),
                format!("fingerprint {own}"),
            );
        }
    }
    let Some(found) = &observed.catalogue else {
        result
            .not_compared
            .push("the catalogue: it was not read from the copy".to_owned());
        return;
    };
    let rule = expected.catalogue_rule;
    let keep = |catalogue: &Catalogue| {
        let mut kept = catalogue.clone();
        kept.objects.retain(|object| {
            // They come with the contents of large objects, which are not always read.
            let of_large_object =
                object.name.starts_with(LARGE_OBJECT) || object.kind.starts_with("BLOB");
            let privilege = object.kind == "ACL" || object.kind == "DEFAULT ACL";
            !(of_large_object && observed.large_object_bytes.is_none()
                || privilege && rule == CatalogueRule::WithoutOwners)
        });
        kept
    };
    let (wanted, found) = (keep(wanted), keep(found));
    result.catalogue_objects = wanted.objects.len() as u64;
    let other_writer = matches!(
        (expected.written_by, observed.written_by),
        (Some(one), Some(other)) if one != other
    );
    let definitions = rule == CatalogueRule::Full && !other_writer;
    result.catalogue = if definitions {
        CatalogueState::Full
    } else {
        CatalogueState::Names
    };
    for difference in wanted.differences(&found, definitions) {
        let (expected, found) = match difference.kind {
            DifferenceKind::Missing => ("as in the archive", "missing"),
            DifferenceKind::Added => ("no such object", "there"),
            DifferenceKind::Changed => ("as in the archive", "defined otherwise"),
            DifferenceKind::Owner if rule == CatalogueRule::WithoutOwners => continue,
            DifferenceKind::Owner => ("owner as in the archive", "another owner"),
        };
        result.differ(difference.object, expected, found);
    }
}

fn object(kind: &str, (schema, name): &(String, String)) -> String {
    format!("{kind} {schema}.{name}")
}

fn rows(number: u64) -> String {
    match number {
        1 => "1 row".to_owned(),
        number => format!("{number} rows"),
    }
}

#[cfg(test)]
#[path = "differ_tests.rs"]
mod tests;
