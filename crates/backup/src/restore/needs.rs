//! What a restore needs of the target beside names: rights, disk space, connections, locks. Each
//! is a function of its inputs.

use std::collections::BTreeSet;

use archive::Toc;

use super::{
    check::Checked,
    create::quoted,
    facts::DatabaseFacts,
    parallel::RowsWay,
    preflight::{Decision, Inputs, Refusals},
    roles,
    source::SourceFormat,
};
use crate::RestorePlace;
use crate::units::bytes;

/// A restored database is expected to take at most this much of the source's size, in percent:
/// indexes are built anew and smaller, sorting them takes space for a while.
const SPACE_PERCENT: u64 = 120;
/// Kinds that only a superuser makes on every major.
const SUPERUSER_KINDS: &[&str] = &["EVENT TRIGGER", "FOREIGN DATA WRAPPER"];
/// Kinds of objects that a transaction holds a lock on when it makes or drops them.
const LOCKED_KINDS: &[&str] = &[
    "TABLE",
    "INDEX",
    "SEQUENCE",
    "VIEW",
    "MATERIALIZED VIEW",
    "CONSTRAINT",
    "FOREIGN TABLE",
];

/// Roles that have to own something after the restore.
fn owners(toc: &Toc, facts: &DatabaseFacts, makes_database: bool) -> BTreeSet<String> {
    let of_entries = toc
        .entries
        .iter()
        .filter(|entry| !entry.kind.starts_with("DATABASE"))
        .filter_map(|entry| entry.owner.map(str::to_owned));
    let mut owners: BTreeSet<_> = of_entries
        .chain(facts.owner.clone().filter(|_| makes_database))
        .filter(|owner| !owner.is_empty() && (toc.utf8 || owner.is_ascii()))
        .collect();
    // The owner of `public` in new databases stands for the owner of the database.
    owners.remove("pg_database_owner");
    owners
}

/// A role that is no superuser may give objects only to roles that it can become.
pub(super) fn rights(inputs: &Inputs<'_>, refusals: &mut Refusals) {
    let target = inputs.target;
    let Some(toc) = &inputs.checked.toc else {
        return;
    };
    if target.is_superuser {
        return;
    }
    let makes_database = inputs.request.place.makes_database();
    if inputs.request.keep_owner {
        // Roles that are missing altogether are another refusal; those that would be created
        // now could not be become either.
        let refused: BTreeSet<_> = owners(toc, inputs.facts, makes_database)
            .into_iter()
            .filter(|owner| !target.may_become.contains(owner))
            .collect();
        if !refused.is_empty() {
            refusals.add(
                format!(
                    "role {:?} may not give objects to {}",
                    target.role,
                    roles::list(&refused)
                ),
                format!(
                    "make it a member of them (GRANT {} TO {}), restore as a superuser, or leave \
                     ownership out with --owner none",
                    names(&refused),
                    quoted(&target.role)
                ),
            );
        }
        let others: BTreeSet<_> = inputs
            .facts
            .settings
            .iter()
            .filter_map(|setting| setting.role.clone())
            .filter(|role| makes_database && *role != target.role)
            .collect();
        if !others.is_empty() && !target.create_role {
            refusals.add(
                format!(
                    "role {:?} may not change the settings of {} in the new database",
                    target.role,
                    roles::list(&others)
                ),
                "restore as a superuser, or leave ownership out with --owner none",
            );
        }
    }
    let kinds: BTreeSet<_> = toc
        .entries
        .iter()
        .map(|entry| entry.kind)
        .filter(|kind| SUPERUSER_KINDS.contains(kind))
        .collect();
    if !kinds.is_empty() {
        let kinds: Vec<_> = kinds.into_iter().map(str::to_lowercase).collect();
        refusals.add(
            format!(
                "role {:?} is no superuser, and the archive holds objects that only a superuser \
                 makes ({})",
                target.role,
                kinds.join(", ")
            ),
            "restore as a superuser",
        );
    }
}

/// Bytes that the restore is expected to take where the database goes, and how that was found.
fn wanted(checked: &Checked, inputs: &Inputs<'_>) -> (u64, String) {
    // Without a manifest only the rows are known, as text: a lower bound with little doubt.
    let text: u64 = checked.tables.iter().map(|table| table.bytes).sum();
    let (size, what) = match (&inputs.source.backup, &checked.part) {
        (Some(backup), None) => (backup.1.size_bytes, "the database had"),
        // The part's share of the rows is its share of the space.
        (Some(backup), Some(part)) => {
            let (chosen, all) = part.bytes;
            let share =
                u128::from(backup.1.size_bytes) * u128::from(chosen) / u128::from(all.max(1));
            (
                u64::try_from(share).unwrap_or(u64::MAX),
                "its share of the database was",
            )
        }
        (None, _) => (text, "its rows have"),
    };
    let wanted = size.saturating_mul(SPACE_PERCENT) / 100;
    let uploaded = match inputs.source.format {
        SourceFormat::Directory if !inputs.shares_files => checked.bytes(),
        _ => 0,
    };
    let mut how = format!("{what} {}", bytes(size));
    if uploaded > 0 {
        how.push_str(&format!(
            ", and the archive of {} is put next to the server",
            bytes(uploaded)
        ));
    }
    (wanted.saturating_add(uploaded), how)
}

/// Disk space where the database goes.
pub(super) fn space(inputs: &Inputs<'_>, decision: &mut Decision, refusals: &mut Refusals) {
    let target = inputs.target;
    let tablespace = inputs
        .facts
        .tablespace
        .as_ref()
        .filter(|_| !decision.no_tablespaces);
    let directory = match tablespace {
        Some(tablespace) => target.tablespace_locations.get(tablespace),
        None => target.data_directory.as_ref(),
    };
    let free = directory.and_then(|directory| Some((directory, *target.free.get(directory)?)));
    let (wanted, how) = wanted(inputs.checked, inputs);
    let Some((directory, free)) = free else {
        decision.notes.push(format!(
            "the room on the server's disk is not known; the restore needs about {}",
            bytes(wanted)
        ));
        return;
    };
    if wanted > free {
        refusals.add(
            format!(
                "the restore needs about {} ({how}), and {} are free in {directory}",
                bytes(wanted),
                bytes(free)
            ),
            "make room there, or restore to another server",
        );
    }
}

/// Fewer jobs where connections are short; a refusal where not even one is left.
pub(super) fn connections(inputs: &Inputs<'_>, decision: &mut Decision, refusals: &mut Refusals) {
    let sessions = inputs.target.sessions;
    let left = (sessions.most - sessions.open).max(0);
    // pg_restore holds one session for each job and one of its own; ours ask beside it.
    let needed = |jobs: u32| i64::from(jobs) + 2;
    if left < needed(1) {
        refusals.add(
            format!(
                "the server has {left} of {} connections left, and the restore needs {}",
                sessions.most,
                needed(1)
            ),
            "end sessions that are not needed, or raise max_connections",
        );
        return;
    }
    if left < needed(decision.jobs) {
        let fit = u32::try_from(left - 2).unwrap_or(1).max(1);
        decision.warnings.push(format!(
            "{fit} jobs instead of {}: the server has only {left} connections left",
            decision.jobs
        ));
        decision.jobs = fit;
    }
    // Ours are there while pg_restore makes the tables, and others ask beside both.
    let fit = u32::try_from(left - 2).unwrap_or(1).max(1);
    if let RowsWay::Sessions(sessions) = &mut decision.rows
        && *sessions > fit
    {
        decision.warnings.push(format!(
            "{fit} sessions for the rows instead of {sessions}: the server has only {left} \
             connections left"
        ));
        *sessions = fit;
    }
}

/// One transaction locks every object that it makes.
pub(super) fn locks(inputs: &Inputs<'_>, refusals: &mut Refusals) {
    let (RestorePlace::InPlace { .. }, Some(toc)) = (&inputs.request.place, &inputs.checked.toc)
    else {
        return;
    };
    let objects = toc
        .entries
        .iter()
        .filter(|entry| LOCKED_KINDS.contains(&entry.kind))
        .count() as u64;
    // Dropped and made again: both hold a lock until the end.
    let needed = objects.saturating_mul(2);
    if needed > inputs.target.lock_table {
        refusals.add(
            format!(
                "in one transaction the restore holds about {needed} locks, and the server's lock \
                 table is made for {}",
                inputs.target.lock_table
            ),
            "restore into a new database with --as, or raise max_locks_per_transaction (needs a \
             restart of the server)",
        );
    }
}

fn names(roles: &BTreeSet<String>) -> String {
    let names: Vec<_> = roles.iter().map(|role| quoted(role)).collect();
    names.join(", ")
}
