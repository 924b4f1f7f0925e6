//! Decides, from what is known of source and target, whether a restore can work, and says in
//! words what it will do. A function of its inputs.

use std::collections::BTreeSet;

use dbexec::ProgramInfo;

use super::{
    check::Checked,
    extensions::{self, Early},
    facts::DatabaseFacts,
    needs,
    parallel::{self, RowsWay},
    partial, roles,
    source::{Source, SourceFormat, refused},
    statistics,
    target::Target,
};
use crate::{BackupError, EngineChoice, RestorePlace, RestoreRequest, RolesPolicy};

/// Oldest psql of each major that has `\restrict` and refuses commands while it holds
/// (CVE-2025-8714).
const PATCHED: &[(u32, u32)] = &[(13, 22), (14, 19), (15, 14), (16, 10), (17, 6)];

/// What the preflight looks at.
pub(crate) struct Inputs<'a> {
    pub(crate) request: &'a RestoreRequest,
    pub(crate) source: &'a Source,
    pub(crate) checked: &'a Checked,
    pub(crate) facts: &'a DatabaseFacts,
    pub(crate) target: &'a Target,
    /// pg_restore, or psql for a plain dump.
    pub(crate) program: &'a ProgramInfo,
    /// Whether the program reads the source's files in place.
    pub(crate) shares_files: bool,
    /// Sessions that may be held at once.
    pub(crate) max_connections: u32,
    /// Processors here.
    pub(crate) cores: u32,
}

/// What the preflight decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) steps: Vec<String>,
    pub(crate) warnings: Vec<String>,
    /// Missing roles that will be created.
    pub(crate) create_roles: BTreeSet<String>,
    /// Everything goes to the default tablespace.
    pub(crate) no_tablespaces: bool,
    /// Jobs of pg_restore, where it fills the database alone.
    pub(crate) jobs: u32,
    /// Who moves the rows.
    pub(crate) rows: RowsWay,
    /// psql knows `\restrict`.
    pub(crate) restrict: bool,
    /// Extensions that are created before pg_restore does it.
    pub(crate) early: Option<Early>,
    /// The same in words.
    pub(crate) early_words: String,
    /// Entries that are not restored.
    pub(crate) left_out: BTreeSet<i32>,
    /// What is to be known beside the steps; nobody has to do anything about it.
    pub(crate) notes: Vec<String>,
}

/// Problems, each with its remedy; all are shown at once.
#[derive(Default)]
pub(super) struct Refusals(Vec<(String, String)>);

impl Refusals {
    pub(super) fn add(&mut self, problem: impl Into<String>, remedy: impl Into<String>) {
        self.0.push((problem.into(), remedy.into()));
    }

    fn into_result(self) -> Result<(), BackupError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let (problems, remedies): (Vec<_>, Vec<_>) = self.0.into_iter().unzip();
        Err(refused(problems.join("; "), remedies.join("; ")))
    }
}

/// Decides.
///
/// # Errors
/// [`BackupError::RestoreRefused`] with every reason and remedy.
pub(crate) fn decide(inputs: &Inputs<'_>) -> Result<Decision, BackupError> {
    let mut refusals = Refusals::default();
    let mut decision = Decision {
        jobs: 1,
        ..Decision::default()
    };
    decision.warnings.extend(inputs.facts.notes.iter().cloned());
    let new = inputs.request.place.makes_database();
    place(inputs, &mut refusals);
    versions(inputs, &mut decision, &mut refusals);
    if new {
        locale(inputs, &mut refusals);
    }
    needed_roles(inputs, &mut decision, &mut refusals);
    tablespaces(inputs, &mut decision);
    extensions::outside(inputs, &mut decision);
    extensions::decide(inputs, &mut decision, &mut refusals);
    needs::rights(inputs, &mut refusals);
    needs::space(inputs, &mut decision, &mut refusals);
    statistics::room(inputs, &mut refusals);
    needs::locks(inputs, &mut refusals);
    rows(inputs, &mut decision, &mut refusals);
    jobs(inputs, &mut decision);
    needs::connections(inputs, &mut decision, &mut refusals);
    refusals.into_result()?;
    steps(inputs, &mut decision, new);
    Ok(decision)
}

fn place(inputs: &Inputs<'_>, refusals: &mut Refusals) {
    let target = inputs.target;
    if target.in_recovery {
        refusals.add(
            "the target is a standby, which takes no writes",
            "restore into its primary",
        );
    }
    match &inputs.request.place {
        RestorePlace::NewDatabase { name } => {
            if name.is_empty() || name.len() > 63 {
                refusals.add(
                    format!(
                        "{name:?} cannot be the name of a database: it has {} bytes",
                        name.len()
                    ),
                    "choose a name of 1 to 63 bytes",
                );
            }
            if target.database_exists {
                refusals.add(
                    format!("database {name:?} exists already, and a restore never replaces one"),
                    "choose another name with --as",
                );
            }
            if !target.create_database {
                refusals.add(
                    format!("role {:?} may not create databases", target.role),
                    format!(
                        "ALTER ROLE {} CREATEDB, or restore with --in-place",
                        target.role
                    ),
                );
            }
        }
        RestorePlace::Swap { .. } => {
            if !target.create_database {
                refusals.add(
                    format!(
                        "role {:?} may not create databases, and a staging database is needed",
                        target.role
                    ),
                    format!("ALTER ROLE {} CREATEDB", target.role),
                );
            }
        }
        RestorePlace::InPlace { name } => {
            if !target.database_exists {
                refusals.add(
                    format!("database {name:?} does not exist"),
                    "restore with --as, which creates it",
                );
            }
            let plain = inputs.checked.plain.as_ref();
            if plain.is_some_and(|plain| plain.controls_transactions) {
                refusals.add(
                    "the plain dump ends transactions of its own (it holds large objects), so it \
                     cannot be restored in one",
                    "restore it into a new database with --as",
                );
            }
        }
    }
}

fn versions(inputs: &Inputs<'_>, decision: &mut Decision, refusals: &mut Refusals) {
    let target = inputs.target.major();
    let source = match (&inputs.checked.toc, &inputs.checked.plain) {
        (Some(toc), _) => toc.header.server_major(),
        (None, Some(plain)) => plain.server_major(),
        (None, None) => None,
    };
    match source {
        Some(source) if source > target => refusals.add(
            format!(
                "the dump is of a PostgreSQL {source} server, and the target is {target}: an \
                 older server does not understand all of a newer one's dump"
            ),
            format!("restore into a server of major {source} or later"),
        ),
        Some(_) => {}
        None => decision.warnings.push(
            "the dump does not say which server it is of; whether the target is new enough is \
             not known"
                .to_owned(),
        ),
    }
    let program = inputs.program;
    if let Some(toc) = &inputs.checked.toc {
        let needed = toc.header.restore_major();
        if program.major < needed {
            refusals.add(
                format!(
                    "the archive's format {} needs pg_restore {needed} or later, and {} is {}",
                    toc.header.version, program.path, program.version
                ),
                format!("restore into a server of major {needed} or later"),
            );
        }
        let in_place = matches!(inputs.request.place, RestorePlace::InPlace { .. });
        if in_place && program.major >= 17 && target < 17 {
            // Elsewhere this error does no harm (see `messages`); a transaction is lost by it.
            refusals.add(
                format!(
                    "pg_restore {} sets transaction_timeout, which a server {target} does not \
                     know, and that ends the one transaction",
                    program.version
                ),
                format!(
                    "install the client programs of major {target} (or 16), or restore into a new \
                     database with --as"
                ),
            );
        }
    }
    if let Some(plain) = &inputs.checked.plain {
        decision.restrict = knows_restrict(&program.version);
        if plain.kind == archive::PlainKind::Cluster {
            refusals.add(
                "the plain dump is of a whole cluster (pg_dumpall)",
                "restore a dump of one database, or run the script by hand with psql",
            );
        }
        if plain.creates_database {
            refusals.add(
                "the plain dump creates its own database (pg_dump -C)",
                "dump again without -C, or run the script by hand with psql",
            );
        }
        if !decision.restrict {
            decision.warnings.push(format!(
                "psql {} does not know \\restrict (CVE-2025-8714): the script was checked here \
                 and holds no commands of psql, but a newer minor release is safer",
                program.version
            ));
        }
        if !inputs.request.keep_owner {
            refusals.add(
                "ownership cannot be left out of a plain dump",
                "restore with --owner keep, or restore an archive",
            );
        }
    }
}

/// Whether a psql of this version has `\restrict`.
fn knows_restrict(version: &str) -> bool {
    let mut parts = version.split(|c: char| !c.is_ascii_digit());
    let major: u32 = parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
    let minor: u32 = parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
    major >= 18
        || PATCHED
            .iter()
            .any(|(patched, from)| *patched == major && minor >= *from)
}

fn locale(inputs: &Inputs<'_>, refusals: &mut Refusals) {
    let facts = inputs.facts;
    let target = inputs.target;
    for locale in BTreeSet::from([&facts.collate, &facts.ctype])
        .into_iter()
        .flatten()
    {
        if !target.has_locale(locale) {
            refusals.add(
                format!("the target's system has no locale {locale:?}"),
                format!(
                    "install the locale there and run SELECT \
                     pg_import_system_collations('pg_catalog') as a superuser ({locale})"
                ),
            );
        }
    }
    match facts.provider.as_deref() {
        Some("icu") if target.major() < 15 => refusals.add(
            format!(
                "the source sorts by ICU, which databases of a server {} cannot",
                target.major()
            ),
            "restore into a server of major 15 or later",
        ),
        Some("icu") if !target.icu => refusals.add(
            "the source sorts by ICU, and the target was built without it",
            "restore into a server that has ICU",
        ),
        Some("builtin") if target.major() < 17 => refusals.add(
            "the source sorts by the builtin provider, which the target does not have",
            "restore into a server of major 17 or later",
        ),
        Some("libc" | "icu" | "builtin") | None => {}
        Some(other) => refusals.add(
            format!("the source sorts by {other:?}, which is not known"),
            "use a newer pgstow",
        ),
    }
}

fn needed_roles(inputs: &Inputs<'_>, decision: &mut Decision, refusals: &mut Refusals) {
    let request = inputs.request;
    // An existing database keeps its own owner, settings and privileges.
    let none = DatabaseFacts::default();
    let facts = match request.place {
        RestorePlace::NewDatabase { .. } | RestorePlace::Swap { .. } => inputs.facts,
        RestorePlace::InPlace { .. } => &none,
    };
    let needed = roles::needed(inputs.checked.toc.as_ref(), facts, request.keep_owner);
    let missing: BTreeSet<_> = needed.difference(&inputs.target.roles).cloned().collect();
    if missing.is_empty() {
        return;
    }
    let without = if request.keep_owner && inputs.checked.toc.is_some() {
        ", or leave ownership out with --owner none"
    } else {
        ""
    };
    match request.roles {
        RolesPolicy::Skip => refusals.add(
            format!("the target has no roles {}", roles::list(&missing)),
            match inputs.source.backup {
                Some(_) => format!("create them with --roles create{without}"),
                None => format!("create them there first{without}"),
            },
        ),
        RolesPolicy::Create => {
            if !inputs.target.create_role {
                refusals.add(
                    format!(
                        "role {:?} may not create the missing roles {}",
                        inputs.target.role,
                        roles::list(&missing)
                    ),
                    "restore as a role with CREATEROLE",
                );
            }
            if inputs.source.backup.is_none() {
                refusals.add(
                    format!(
                        "the target has no roles {}, and a file holds no globals to create them \
                         from",
                        roles::list(&missing)
                    ),
                    format!("create them there first{without}"),
                );
            }
            decision.create_roles = missing;
        }
    }
}

fn tablespaces(inputs: &Inputs<'_>, decision: &mut Decision) {
    let used = inputs.checked.toc.iter().flat_map(|toc| &toc.entries);
    let missing: BTreeSet<_> = used
        .filter_map(|entry| entry.tablespace.map(str::to_owned))
        .chain(inputs.facts.tablespace.clone())
        .filter(|name| !name.is_empty() && !inputs.target.tablespaces.contains(name))
        .collect();
    if !missing.is_empty() {
        decision.no_tablespaces = true;
        decision.warnings.push(format!(
            "the target has no tablespaces {}: everything goes to the default one",
            roles::list(&missing)
        ));
    }
}

fn rows(inputs: &Inputs<'_>, decision: &mut Decision, refusals: &mut Refusals) {
    let early = decision.early.as_ref();
    decision.rows = parallel::choose(&parallel::Facts {
        engine: inputs.request.engine,
        format: inputs.source.format,
        in_place: !inputs.request.place.makes_database(),
        timescaledb: early.is_some_and(|early| early.timescaledb.is_some()),
        toc: inputs.checked.toc.as_ref(),
        tables: &inputs.checked.tables,
        large_objects: inputs.checked.large_objects.unwrap_or_default(),
        shares_files: inputs.shares_files,
        jobs: inputs.request.jobs,
        cores: inputs.cores,
        max_connections: inputs.max_connections,
    });
    if let (EngineChoice::Parallel, RowsWay::Stock { reason, .. }) =
        (inputs.request.engine, &decision.rows)
    {
        refusals.add(
            format!("the rows cannot go over sessions of pgstow's own: {reason}"),
            "restore with --engine auto or stock",
        );
    }
}

fn jobs(inputs: &Inputs<'_>, decision: &mut Decision) {
    let parallel = inputs.request.place.makes_database()
        && match inputs.source.format {
            SourceFormat::Custom => {
                inputs.shares_files && inputs.source.place.local_path().is_some()
            }
            SourceFormat::Directory => true,
            SourceFormat::Plain => false,
        };
    // pg_restore holds one session for each job and one of its own.
    let most = inputs.max_connections.saturating_sub(1).max(1);
    let timescaledb = decision
        .early
        .as_ref()
        .is_some_and(|early| early.timescaledb.is_some());
    let parallel = parallel && !timescaledb;
    let wanted = inputs.request.jobs.unwrap_or(2).max(1);
    decision.jobs = if parallel { wanted.min(most) } else { 1 };
    let sessions = match decision.rows {
        RowsWay::Sessions(sessions) => sessions,
        RowsWay::Stock { .. } => 0,
    };
    if let Some(asked) = inputs.request.jobs
        && asked > decision.jobs.max(sessions)
    {
        let parallel = parallel || sessions > 0;
        let why = if parallel {
            format!("no more than {most} fit the connections that pgstow may hold")
        } else if timescaledb {
            "timescaledb is restored by one job".to_owned()
        } else {
            "this source is restored as one stream".to_owned()
        };
        decision.warnings.push(format!(
            "{} jobs instead of {asked}: {why}",
            decision.jobs.max(sessions)
        ));
    }
}

fn steps(inputs: &Inputs<'_>, decision: &mut Decision, new: bool) {
    let facts = inputs.facts;
    let rows: u64 = inputs.checked.tables.iter().filter_map(|t| t.rows).sum();
    let what = format!(
        "{} ({}, {} bytes, {} tables with data, {rows} rows)",
        inputs.source.label,
        inputs.source.format.as_str(),
        inputs.checked.bytes(),
        inputs.checked.tables.len(),
    );
    let read = match inputs.checked.decoded {
        true => "the source was read to its end and is whole",
        false => {
            "the source was read to its end and its bytes are those of the manifest; its rows are \
             decoded and counted while they are restored"
        }
    };
    let mut steps = vec![format!("{read}: {what}")];
    if let Some(part) = &inputs.checked.part {
        let (step, warnings) = partial::words(part, &inputs.request.contents);
        steps.push(step);
        decision.warnings.extend(warnings);
    }
    if !decision.create_roles.is_empty() {
        steps.push(format!(
            "create the missing roles {} from the backup's globals",
            roles::list(&decision.create_roles)
        ));
    }
    let program = format!("{} {}", inputs.program.path, inputs.program.version);
    match &inputs.request.place {
        RestorePlace::InPlace { name } => {
            steps.push(format!(
                "in ONE transaction in the existing database {name:?}: {}",
                if inputs.checked.plain.is_some() {
                    "run the script; objects that exist already make it fail".to_owned()
                } else {
                    "drop every object that the archive holds (with its rows, and with whatever \
                     was added to it since), and make it again from the archive; objects that \
                     the archive does not hold stay"
                        .to_owned()
                }
            ));
            steps.push(format!(
                "run {program}; when anything fails, the transaction is rolled back and {name:?} \
                 is as before; until it ends, its tables are locked"
            ));
        }
        RestorePlace::NewDatabase { .. } | RestorePlace::Swap { .. } => {
            let mut made = match &inputs.request.place {
                RestorePlace::Swap { name, .. } => {
                    format!("create a staging database beside {name:?} from template0")
                }
                place => format!("create database {:?} from template0", place.database()),
            };
            for (word, value) in [
                ("encoding", &facts.encoding),
                ("collation", &facts.collate),
                ("character type", &facts.ctype),
                ("provider", &facts.provider),
                ("locale", &facts.locale),
            ] {
                if let Some(value) = value {
                    made.push_str(&format!(", {word} {value}"));
                }
            }
            if let (true, Some(owner)) = (inputs.request.keep_owner, &facts.owner) {
                made.push_str(&format!(", owner {owner:?}"));
            }
            made.push_str("; it has a working name until it is whole");
            steps.push(made);
            if decision.early.is_some() {
                steps.push(decision.early_words.clone());
            }
            steps.push(format!(
                "fill it with {program}{}{}; the first error that does harm stops it and the new \
                 database is dropped",
                match decision.jobs {
                    1 => String::new(),
                    jobs => format!(" in {jobs} jobs"),
                },
                match decision.rows {
                    RowsWay::Stock { .. } => String::new(),
                    RowsWay::Sessions(sessions) => format!(
                        ", or, where the server can be reached, its rows over {sessions} sessions \
                         of pgstow's own"
                    ),
                }
            ));
        }
    }
    let compared = match (&inputs.request.place, &inputs.checked.part) {
        (RestorePlace::Swap { .. }, _) => {
            "read the staging database again and compare it with the backup: rows and their \
             content, sequences, large objects, definitions"
        }
        (_, Some(_)) => "read the part again and compare its rows with the backup",
        (_, None) => "compare the number of rows of each table with the archive",
    };
    steps.push(compared.to_owned());
    if new && (!facts.settings.is_empty() || facts.comment.is_some()) {
        steps.push(format!(
            "set the database's comment and its {} settings",
            facts.settings.len()
        ));
    }
    if new && inputs.request.keep_owner && facts.privileges != super::facts::Privileges::Default {
        steps.push("grant the database's privileges as in the source".to_owned());
    }
    steps.push("ANALYZE".to_owned());
    if let RestorePlace::NewDatabase { name } = &inputs.request.place {
        steps.push(format!("give the database its name {name:?}"));
    }
    steps.extend(decision.notes.iter().map(|note| format!("note: {note}")));
    decision.steps = steps;
}

#[cfg(test)]
mod tests {
    use super::knows_restrict;

    #[test]
    fn bar_37_patched_minors() {
        for (version, known) in [
            ("15.18 (Debian 15.18-1)", true),
            ("15.14", true),
            ("15.13", false),
            ("13.22", true),
            ("17.5", false),
            ("18.0", true),
            ("12.22", false),
            ("18beta1", true),
        ] {
            assert_eq!(knows_restrict(version), known, "{version}");
        }
    }
}
