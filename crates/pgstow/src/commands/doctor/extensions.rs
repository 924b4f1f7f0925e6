//! Extensions that a restore will need, and those that ask for more than a restore does.

use std::sync::Arc;

use dbexec::{PgExecutor, query};
use serde::Deserialize;

use super::Findings;
use crate::error::{CommandError, one_line};
use crate::render::text;
use crate::session::Session;

/// Extensions whose rows or jobs an ordinary restore does not bring back as they were.
const SPECIAL: &[(&str, &str, &str)] = &[
    (
        "timescaledb",
        "pgstow backs it up, and refuses to restore it",
        "restore by hand: timescaledb_pre_restore(), pg_restore -j1, timescaledb_post_restore()",
    ),
    (
        "citus",
        "a dump of the coordinator does not say which tables were distributed",
        "after a restore create the distribution again, before the rows are loaded",
    ),
    (
        "pg_cron",
        "its jobs are rows of one database, and run in a restored copy too",
        "look at cron.job after a restore",
    ),
];

#[derive(Debug, Deserialize)]
struct Extension {
    name: String,
    version: String,
    /// What `CREATE EXTENSION` of a restore would give on this server.
    newest: Option<String>,
}

const INSTALLED: &str = "
select e.extname as name, e.extversion as version, a.default_version as newest
from pg_extension e left join pg_available_extensions a on a.name = e.extname
where e.extname <> 'plpgsql' order by 1";

/// Looks into every database that a backup would dump.
pub(super) async fn check(
    session: &Session,
    executor: &Arc<dyn PgExecutor>,
    databases: &[(String, Option<u64>)],
    findings: &mut Findings<'_>,
) -> Result<(), CommandError> {
    let mut all = Vec::new();
    for (database, _) in databases {
        let asked = query::rows(executor.as_ref(), database, "extensions", INSTALLED, &[]);
        let asked = session
            .interrupts
            .guard("looking at extensions", asked)
            .await?;
        let installed: Vec<Extension> = match asked {
            Ok(installed) => installed,
            Err(error) => {
                findings.note("extensions", one_line(&error), "pgstow discover --explain");
                return Ok(());
            }
        };
        for extension in &installed {
            judge(database, extension, findings);
        }
        if !installed.is_empty() {
            let names: Vec<_> = installed
                .iter()
                .map(|extension| format!("{} {}", extension.name, extension.version))
                .collect();
            all.push(format!("{}: {}", text::name(database), names.join(", ")));
        }
    }
    if all.is_empty() {
        findings.good("extensions", "none");
    } else {
        findings.good("extensions", all.join("; "));
    }
    Ok(())
}

fn judge(database: &str, extension: &Extension, findings: &mut Findings<'_>) {
    let place = format!("{} in {}", extension.name, text::name(database));
    if let Some((_, what, fix)) = SPECIAL.iter().find(|(name, ..)| *name == extension.name) {
        findings.note("extensions", format!("{place}: {what}"), fix);
    }
    match &extension.newest {
        None => findings.note(
            "extensions",
            format!(
                "{place}: its files are no longer on the server, so nothing can be restored here"
            ),
            "install its package again",
        ),
        Some(newest) if *newest != extension.version => findings.note(
            "extensions",
            format!(
                "{place} is {}, and a restore would give {newest}",
                extension.version
            ),
            "ALTER EXTENSION … UPDATE, or keep it in mind for a restore",
        ),
        Some(_) => {}
    }
}
