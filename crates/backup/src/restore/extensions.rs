//! Extensions and other objects that a restore treats with care: which extensions are created
//! beforehand and in which version, what TimescaleDB needs, and which objects would reach out to
//! other servers.

use std::collections::{BTreeMap, BTreeSet};

use archive::{Entry, SqlToken, Toc, split_statements};

use super::{
    preflight::{Decision, Inputs, Refusals},
    roles,
};

/// The extension whose tables are not to be filled while its own machinery watches.
const TIMESCALEDB: &str = "timescaledb";

/// Extensions that are created before pg_restore does it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Early {
    /// Entries of the schemas that they go to, restored first.
    pub(crate) schemas: BTreeSet<i32>,
    /// In the order of the archive, which is that of their dependencies.
    pub(crate) extensions: Vec<EarlyExtension>,
    /// Schema of TimescaleDB, when it is among them.
    pub(crate) timescaledb: Option<String>,
}

/// One extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EarlyExtension {
    pub(crate) name: String,
    /// Schema that its objects go to.
    pub(crate) schema: Option<String>,
    /// `None` for the target's default.
    pub(crate) version: Option<String>,
}

/// `CREATE EXTENSION IF NOT EXISTS name WITH SCHEMA schema;`
fn schema_of(entry: Entry<'_>) -> Option<String> {
    let statements = split_statements(entry.definition?).ok()?;
    let tokens = &statements.first()?.tokens;
    let at = tokens.iter().position(|token| token.is("SCHEMA"))?;
    tokens.get(at + 1).and_then(SqlToken::name)
}

/// Decides about the extensions.
pub(super) fn decide(inputs: &Inputs<'_>, decision: &mut Decision, refusals: &mut Refusals) {
    let Some(toc) = &inputs.checked.toc else {
        return;
    };
    let none = BTreeMap::new();
    let recorded = inputs
        .source
        .backup
        .as_ref()
        .map_or(&none, |backup| &backup.1.extensions);
    let makes_database = inputs.request.place.makes_database();
    let mut missing = Vec::new();
    let mut forbidden = Vec::new();
    let mut list = Vec::new();
    let mut early = Early::default();
    let mut needed = false;
    let entries = toc
        .entries
        .iter()
        .filter(|entry| entry.kind == "EXTENSION" && !decision.left_out.contains(&entry.dump_id));
    for entry in entries {
        let Some(available) = inputs.target.extensions.get(entry.name) else {
            missing.push(match recorded.get(entry.name) {
                Some(version) => format!("{} {version}", entry.name),
                None => entry.name.to_string(),
            });
            continue;
        };
        if !available.may_create {
            forbidden.push(entry.name.to_string());
        }
        let version = recorded.get(entry.name);
        let exact = version.filter(|version| available.versions.contains(version));
        let timescaledb = entry.name == TIMESCALEDB;
        match (version, exact) {
            (Some(version), None) if timescaledb => refusals.add(
                format!(
                    "the source has timescaledb {version}, whose rows only the same version \
                     reads, and the target has {}",
                    available.versions.join(", ")
                ),
                format!("install timescaledb {version} on the target's system, and upgrade later"),
            ),
            (Some(version), None) => decision.warnings.push(format!(
                "extension {:?} was {version} in the source; the target has {} and makes {}",
                entry.name,
                available.versions.join(", "),
                available.default_version
            )),
            _ => {}
        }
        if timescaledb && !makes_database {
            refusals.add(
                "the source uses timescaledb, which cannot be restored in one transaction",
                "restore it into a new database with --as",
            );
        }
        let version = exact
            .filter(|version| **version != available.default_version)
            .cloned();
        if let (Some(version), false) = (&version, makes_database) {
            decision.warnings.push(format!(
                "extension {:?} was {version} in the source; where it has to be made, it will be \
                 {}",
                entry.name, available.default_version
            ));
        }
        needed |= version.is_some() || timescaledb;
        let schema = schema_of(entry);
        let place = toc.entries.iter().find(|place| {
            place.kind == "SCHEMA"
                && Some(place.name) == schema.as_deref()
                && place.name != "public"
        });
        early.schemas.extend(place.map(|place| place.dump_id));
        if timescaledb {
            early.timescaledb = Some(schema.clone().unwrap_or_else(|| "public".to_owned()));
        }
        list.push(match &version {
            Some(version) => format!("{} {version}", entry.name),
            None => format!("{} {}", entry.name, available.default_version),
        });
        early.extensions.push(EarlyExtension {
            name: entry.name.to_string(),
            schema,
            version,
        });
    }
    if !missing.is_empty() {
        refusals.add(
            format!("the target has no extensions {}", roles::list(&missing)),
            "install the packages that bring them on the target's system",
        );
    }
    if !forbidden.is_empty() {
        refusals.add(
            format!(
                "role {:?} may not create the extensions {}",
                inputs.target.role,
                roles::list(&forbidden)
            ),
            "restore as a superuser",
        );
    }
    if needed && makes_database {
        decision.early_words = format!("create the extensions {}", list.join(", "));
        if early.timescaledb.is_some() {
            decision.early_words.push_str(
                ", then timescaledb_pre_restore(); timescaledb_post_restore() when it is filled",
            );
        }
        decision.early = Some(early);
    }
}

/// Materialised views that read foreign tables, by schema and name: filling them would log in at
/// other servers. With the entries of their rows.
fn far_views(toc: &Toc) -> Vec<(i32, String)> {
    let of_view = |entry: &Entry<'_>| entry.kind == "MATERIALIZED VIEW DATA";
    if !toc.entries.iter().any(|entry| of_view(&entry)) {
        return Vec::new();
    }
    let by_id: BTreeMap<i32, Entry<'_>> = toc
        .entries
        .iter()
        .map(|entry| (entry.dump_id, entry))
        .collect();
    let reads_far = |from: &Entry<'_>| {
        let mut seen = BTreeSet::new();
        let mut waiting = from.dependencies.to_vec();
        while let Some(id) = waiting.pop() {
            let Some(entry) = by_id.get(&id).filter(|_| seen.insert(id)) else {
                continue;
            };
            if entry.kind == "FOREIGN TABLE" {
                return true;
            }
            waiting.extend(entry.dependencies);
        }
        false
    };
    toc.entries
        .iter()
        .filter(|entry| of_view(entry) && reads_far(entry))
        .map(|entry| {
            let schema = entry.schema.unwrap_or_default();
            (entry.dump_id, format!("{schema}.{}", entry.name))
        })
        .collect()
}

/// Objects that reach out, or that act on what the restore does.
pub(super) fn outside(inputs: &Inputs<'_>, decision: &mut Decision) {
    let Some(toc) = &inputs.checked.toc else {
        return;
    };
    let far = if inputs.request.contents.connect_foreign {
        Vec::new()
    } else {
        far_views(toc)
    };
    if !far.is_empty() {
        let names: Vec<_> = far.iter().map(|(_, name)| name.clone()).collect();
        decision.warnings.push(format!(
            "materialised views {} read foreign tables, so filling them would log in at other \
             servers: they stay empty until REFRESH MATERIALIZED VIEW (--connect-foreign fills them)",
            roles::list(&names)
        ));
        decision.left_out.extend(far.into_iter().map(|(id, _)| id));
    }
    let count = |kind: &str| {
        toc.entries
            .iter()
            .filter(|entry| entry.kind == kind && !decision.left_out.contains(&entry.dump_id))
            .count()
    };
    let mut notes = Vec::new();
    for (kind, note) in [
        (
            "SUBSCRIPTION",
            "subscriptions are restored without a connection; enable them by hand where they \
             belong",
        ),
        (
            "FOREIGN TABLE",
            "foreign tables are made and never read: nothing logs in at the servers that they name",
        ),
        (
            "EVENT TRIGGER",
            "event triggers are made last and act on later commands",
        ),
        (
            "PUBLICATION",
            "publications are restored; subscribers of the source's keep their own slots and \
             positions, which no archive holds",
        ),
    ] {
        match count(kind) {
            0 => {}
            // Something is left to do for a person.
            _ if kind == "SUBSCRIPTION" => decision.warnings.push(note.to_owned()),
            number => notes.push(format!("{note} ({number})")),
        }
    }
    decision.notes.extend(notes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_of_extensions() {
        let entry = |definition: &str| archive::TocEntry {
            dump_id: 1,
            table_oid: 0,
            oid: 0,
            has_data: false,
            kind: "EXTENSION".into(),
            name: "x".into(),
            schema: None,
            tablespace: None,
            access_method: None,
            owner: None,
            section: archive::Section::PreData,
            definition: Some(definition.into()),
            copy_statement: None,
            dependencies: Box::default(),
            position: archive::DataPosition::NoData,
            file_name: None,
            lossy: false,
        };
        for (definition, schema) in [
            (
                "CREATE EXTENSION IF NOT EXISTS x WITH SCHEMA public;\n",
                Some("public"),
            ),
            (
                "CREATE EXTENSION IF NOT EXISTS \"SCHEMA\" WITH SCHEMA \"a \"\"b\";",
                Some("a \"b"),
            ),
            ("CREATE EXTENSION x;", None),
        ] {
            assert_eq!(schema_of(entry(definition).view()).as_deref(), schema);
        }
    }
}
