//! What a run needs of the server and the store: each check refuses or warns, and does nothing else.

use dbexec::{NativeRoute, PgExecutor};

use super::queries::{self, DatabaseFacts, InsideFacts};
use crate::units::bytes;
use crate::{BackupError, Repository, statistics};

/// Relations that a dump may use for each table: the table, the one with its long values, the index
/// of that, and a sequence.
const OF_A_TABLE: u64 = 4;

/// The role may connect to the databases that were chosen.
pub(super) fn connect(chosen: &[DatabaseFacts], user: &str) -> Result<(), BackupError> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    match chosen.iter().find(|database| !database.may_connect) {
        None => Ok(()),
        Some(database) => Err(BackupError::RightsMissing {
            database: database.name.clone(),
            missing: vec!["the right to connect".to_owned()],
            grants: vec![format!(
                "GRANT CONNECT ON DATABASE {} TO {}",
                quoted(&database.name),
                quoted(user)
            )],
        }),
    }
}

/// The role may read everything that a dump reads.
pub(super) fn rights(database: &str, inside: &InsideFacts) -> Result<(), BackupError> {
    if inside.missing_count == 0 {
        return Ok(());
    }
    let mut missing: Vec<_> = inside.missing.iter().map(|m| m.object.clone()).collect();
    let mut grants: Vec<_> = inside.missing.iter().map(|m| m.remedy.clone()).collect();
    grants.dedup();
    let unnamed = inside.missing_count.saturating_sub(missing.len() as u64);
    if unnamed > 0 {
        missing.push(format!("and {unnamed} more"));
    }
    Err(BackupError::RightsMissing {
        database: database.to_owned(),
        missing,
        grants,
    })
}

/// A dump takes one lock for each table in one transaction. The lock table has room for
/// `capacity`; a dump that fills it makes other sessions fail as well.
pub(super) fn locks(
    database: &str,
    inside: &InsideFacts,
    capacity: u64,
    per_transaction: u64,
) -> Result<(), BackupError> {
    if inside.tables <= capacity || capacity == 0 {
        return Ok(());
    }
    let others = (capacity / per_transaction.max(1)).max(1);
    let needed = (inside.tables + inside.tables / 5).div_ceil(others);
    Err(BackupError::Preflight {
        problem: format!(
            "database {database:?} has {} tables, and the server has room for {capacity} locks",
            inside.tables
        ),
        remedy: format!(
            "set max_locks_per_transaction to {needed} or more (now {per_transaction}) and \
             restart the server"
        ),
    })
}

/// Warns where the store will probably be too small: compressed archives take between a tenth and
/// a half of the size on the server.
pub(super) async fn space(
    repo: &Repository,
    databases: &[(DatabaseFacts, InsideFacts)],
    warnings: &mut Vec<String>,
) -> Result<(), BackupError> {
    let size: u64 = databases.iter().filter_map(|(d, _)| d.size_bytes).sum();
    let free = repo
        .store
        .free_bytes()
        .await
        .map_err(|source| BackupError::Store {
            operation: "asking for the free space".to_owned(),
            source,
        })?;
    if let Some(free) = free
        && free < size / 2
    {
        warnings.push(format!(
            "{} has {} free, and the databases have {}: the backup may not fit",
            repo.store.describe(),
            bytes(free),
            bytes(size)
        ));
    }
    Ok(())
}

/// Refuses a run whose reading would fill the server's shared memory with statistics. What the server
/// does not tell is not held against it.
pub(super) async fn statistics(
    route: Option<&NativeRoute>,
    executor: &dyn PgExecutor,
    databases: &[(DatabaseFacts, InsideFacts)],
) -> Result<(), BackupError> {
    let tables: u64 = databases.iter().map(|(_, inside)| inside.tables).sum();
    if statistics::needed(tables * OF_A_TABLE).is_none() {
        return Ok(());
    }
    let mut missing = 0;
    for (database, inside) in databases {
        if inside.tables > 0 {
            missing += queries::without_statistics(route, executor, &database.name)
                .await
                .unwrap_or_else(|error| {
                    tracing::warn!(%error, "missing statistics are not known");
                    0
                });
        }
    }
    let Some(needed) = statistics::needed(missing) else {
        return Ok(());
    };
    match statistics::free(executor).await {
        Some(free) if free < needed => {
            let whose = format!("{missing} of them that it has not used since it began to count");
            let (problem, remedy) = statistics::too_little(&whose, needed, free);
            Err(BackupError::Preflight { problem, remedy })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::queries::MissingRight;
    use super::*;

    fn inside(tables: u64) -> InsideFacts {
        InsideFacts {
            extensions: BTreeMap::new(),
            tables,
            missing_count: 0,
            missing: Vec::new(),
        }
    }

    #[test]
    fn bar_28_too_many_tables_name_the_setting() {
        assert!(locks("a", &inside(6400), 6400, 64).is_ok());
        let error = locks("a", &inside(100_000), 6400, 64).unwrap_err();
        let BackupError::Preflight { problem, remedy } = error else {
            panic!("{error}");
        };
        assert!(problem.contains("100000 tables"), "{problem}");
        assert!(
            remedy.contains("max_locks_per_transaction to 1200"),
            "{remedy}"
        );
    }

    #[test]
    fn bar_26_missing_rights_name_their_grants() {
        let mut facts_inside = inside(1);
        facts_inside.missing_count = 60;
        facts_inside.missing = vec![MissingRight {
            object: "table s.t".to_owned(),
            remedy: "GRANT SELECT ON TABLE s.t TO r".to_owned(),
        }];
        let error = rights("a", &facts_inside).unwrap_err();
        assert_eq!(error.code(), crate::codes::RIGHTS_MISSING);
        let text = error.to_string();
        assert!(
            text.contains("table s.t") && text.contains("and 59 more"),
            "{text}"
        );
    }
}
