//! The proof itself: each database of a backup restored into the throw-away server, compared,
//! checked and dropped again.

use std::collections::BTreeSet;
use std::sync::Arc;

use dbexec::{ExecError, PgExecutor, executor::ProgramExit, query};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::amcheck::check_indexes;
use super::checks::{CheckProof, check};
use super::record::{DatabaseProof, PROOF_VERSION, Proof, ProofResult};
use super::server::{self, ProveServer};
use super::shelf;
use crate::compare::{Comparison, Difference, Expected, ExpectedFrom, compare, observe};
use crate::manifest::DatabaseRecord;
use crate::restore::{
    carry_out, chosen, database_oid, drop_database, role_statements, source_of_backup,
};
use crate::{
    BackupError, BackupEvent, EngineChoice, EventSink, Manifest, Repository, RestoreContents,
    RestorePlace, RestoreRequest, RestoreSource, RolesPolicy, VerifyLevel, manifest_file,
    plan_restore,
};

/// Longest name of a database, bytes.
const NAME_LIMIT: usize = 63;
/// What a server or program says when the place, not the backup, is at fault.
const OF_THE_PLACE: &[&str] = &[
    "No space left on device",
    "Disk quota exceeded",
    "Cannot allocate memory",
    "out of memory",
    "out of shared memory",
    "could not resize shared memory",
    "server closed the connection unexpectedly",
    "the database system is",
    "could not connect to server",
    "connection to server",
    "terminating connection due to",
];

/// How a backup is proven.
#[derive(Debug, Clone, Default)]
pub struct ProveOptions {
    /// Queries of the user's; each has to return a single true.
    pub checks: Vec<String>,
    /// Database that they run in; where there is one alone that a user made, it need not be named.
    pub check_database: Option<String>,
    /// Jobs of pg_restore; `None` chooses.
    pub jobs: Option<u32>,
}

/// Restores all of a backup into a throw-away server, compares it with what was attested, and
/// records the result beside the manifest. The backup has been verified to level `read` before:
/// what this finds is about the restore.
///
/// The server is this run's alone; it is left as it was, but for roles and tablespaces.
///
/// # Errors
/// [`BackupError::Sandbox`] when the throw-away server cannot do it (no room, an extension that it
/// lacks): nothing is recorded then. A backup that cannot be restored, or differs, is no error but
/// a proof that says so. [`BackupError::Interrupted`], and the store's failure.
pub async fn prove(
    repo: &Repository,
    manifest: &Manifest,
    server: &ProveServer<'_>,
    options: &ProveOptions,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<Proof, BackupError> {
    let started_at = repo.clock.now();
    let manifest_sha256 = hash_of(repo, manifest).await?;
    let check_database = check_database(manifest, options)?;
    let mut run = Run {
        repo,
        manifest,
        server,
        executor: &server.executor,
        options,
        sink,
        cancel,
        warnings: Vec::new(),
    };
    let globals = run.roles().await?;
    let mut databases = Vec::new();
    let mut checks = Vec::new();
    for record in &manifest.databases {
        if cancel.is_cancelled() {
            return Err(interrupted(record));
        }
        let wanted = check_database == Some(record.name.as_str());
        let (proof, checked) = run.database(record, wanted).await?;
        databases.push(proof.bounded());
        checks.extend(checked);
    }
    let passed = globals.is_empty()
        && databases.iter().all(DatabaseProof::passed)
        && checks.iter().all(|check| check.passed);
    let proof = Proof {
        format_version: PROOF_VERSION,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        backup: manifest.id.clone(),
        manifest_sha256,
        level: VerifyLevel::Restore,
        started_at,
        finished_at: repo.clock.now(),
        place: server.place.clone(),
        server_version: server.executor.context().server.version.clone(),
        result: if passed {
            ProofResult::Passed
        } else {
            ProofResult::Failed
        },
        databases,
        globals,
        checks,
        warnings: run.warnings,
    };
    shelf::put(repo.store.as_ref(), &proof).await?;
    Ok(proof)
}

/// Hash of the manifest's stored bytes, which have to be the manifest that is proven.
async fn hash_of(repo: &Repository, manifest: &Manifest) -> Result<String, BackupError> {
    let unusable = |problem: String| BackupError::Manifest {
        id: manifest.id.to_string(),
        problem,
    };
    let stored = manifest_file::read(repo.store.as_ref(), &manifest.id)
        .await
        .map_err(unusable)?;
    if stored.manifest.map_err(unusable)? != *manifest {
        return Err(unusable("it changed meanwhile".to_owned()));
    }
    Ok(stored.sha256)
}

/// The database that the user's checks run in.
fn check_database<'a>(
    manifest: &'a Manifest,
    options: &'a ProveOptions,
) -> Result<Option<&'a str>, BackupError> {
    if options.checks.is_empty() {
        return Ok(None);
    }
    let wanted = options.check_database.as_deref();
    chosen(manifest, wanted).map(|record| Some(record.name.as_str()))
}

fn interrupted(record: &DatabaseRecord) -> BackupError {
    BackupError::Interrupted {
        operation: format!("proving database {:?}", record.name),
    }
}

struct Run<'a> {
    repo: &'a Repository,
    manifest: &'a Manifest,
    server: &'a ProveServer<'a>,
    executor: &'a Arc<dyn PgExecutor>,
    options: &'a ProveOptions,
    sink: &'a dyn EventSink,
    cancel: &'a CancellationToken,
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

impl Run<'_> {
    fn warn(&mut self, message: String) {
        self.sink.emit(BackupEvent::Warning {
            message: message.clone(),
        });
        self.warnings.push(message);
    }

    /// Runs a statement in the server's own database.
    async fn execute(
        &self,
        name: &'static str,
        script: &str,
        vars: &[(&str, &str)],
    ) -> Result<(), ExecError> {
        let executor = self.executor.as_ref();
        let own = &executor.context().creds.database;
        query::execute(executor, own, name, script, vars, false).await
    }

    async fn names(
        &self,
        name: &'static str,
        select: &str,
    ) -> Result<BTreeSet<String>, BackupError> {
        let executor = self.executor.as_ref();
        let own = &executor.context().creds.database;
        let rows: Vec<Name> = query::rows(executor, own, name, select, &[])
            .await
            .map_err(|source| self.of_place(name, source))?;
        Ok(rows.into_iter().map(|row| row.name).collect())
    }

    /// Says so where the server ended by itself.
    fn with_loss(&self, operation: &str) -> String {
        match (self.server.lost)() {
            Some(why) => format!("{operation} ({why})"),
            None => operation.to_owned(),
        }
    }

    /// A failure of the throw-away server.
    fn of_place(&self, operation: &str, source: ExecError) -> BackupError {
        if self.cancel.is_cancelled() || matches!(source, ExecError::Interrupted { .. }) {
            return BackupError::Interrupted {
                operation: operation.to_owned(),
            };
        }
        BackupError::Sandbox {
            operation: self.with_loss(operation),
            source: Box::new(BackupError::Exec {
                operation: operation.to_owned(),
                source,
            }),
        }
    }

    /// Creates every role of the backup's globals that is not there.
    async fn roles(&mut self) -> Result<Vec<Difference>, BackupError> {
        let Some(first) = self.manifest.databases.first() else {
            return Ok(Vec::new());
        };
        if self.manifest.globals.file.is_none() {
            self.warn(
                "the backup was made without globals: its roles were not restored".to_owned(),
            );
            return Ok(Vec::new());
        }
        let select = "select rolname as name from pg_catalog.pg_roles";
        let existing = self.names("listing the roles", select).await?;
        let wanted: BTreeSet<String> = self
            .manifest
            .globals
            .roles
            .iter()
            .filter(|role| !existing.contains(*role))
            .cloned()
            .collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let source = source_of_backup(self.repo, self.manifest.clone(), Some(&first.name))?;
        let differs = |found: String| {
            vec![Difference {
                object: "roles".to_owned(),
                expected: "the roles of the backup's globals".to_owned(),
                found,
            }]
        };
        let made = match role_statements(&source, &wanted, &existing).await {
            Ok(made) => made,
            Err(BackupError::RestoreRefused { problem, .. }) => return Ok(differs(problem)),
            Err(error) => return Err(error),
        };
        // Terse: the server's message must not show the statement, which holds the password
        // verifier.
        let mut script = "\\set VERBOSITY terse\n\\set SHOW_CONTEXT never\n".to_owned();
        for statement in &made.statements {
            script.push_str(statement);
            script.push_str(";\n");
        }
        match self.execute("creating the roles", &script, &[]).await {
            Ok(()) => Ok(Vec::new()),
            Err(ExecError::Query { message, .. }) if !of_the_place(&message) => {
                Ok(differs(message))
            }
            Err(error) => Err(self.of_place("creating the roles", error)),
        }
    }

    /// Creates tablespaces in the server's own directory, where it can.
    async fn tablespaces(&mut self, wanted: &BTreeSet<String>) -> Result<(), BackupError> {
        let select = "select spcname as name from pg_catalog.pg_tablespace";
        let existing = self.names("listing the tablespaces", select).await?;
        for name in wanted.difference(&existing) {
            let script = "set allow_in_place_tablespaces = on;\n\
                          create tablespace :\"name\" location '';";
            let made = self
                .execute("creating a tablespace", script, &[("name", name)])
                .await;
            if let Err(error) = made {
                self.warn(format!(
                    "tablespace {name:?} could not be made, so its objects go to the default one: \
                     {error}"
                ));
            }
        }
        Ok(())
    }

    /// Restores one database, compares and checks it, and drops it.
    async fn database(
        &mut self,
        record: &DatabaseRecord,
        with_checks: bool,
    ) -> Result<(DatabaseProof, Vec<CheckProof>), BackupError> {
        let executor = self.executor;
        let wanted = server::tablespaces(self.repo, self.manifest, record).await;
        self.tablespaces(&wanted).await?;
        let select = "select datname as name from pg_catalog.pg_database";
        let taken = self.names("listing the databases", select).await?;
        let copy = copy_name(&record.name, &taken);
        let request = RestoreRequest {
            source: RestoreSource::Backup(self.manifest.id.to_string()),
            database: Some(record.name.clone()),
            place: RestorePlace::NewDatabase { name: copy.clone() },
            roles: RolesPolicy::Create,
            keep_owner: true,
            engine: EngineChoice::Auto,
            jobs: self.options.jobs,
            contents: RestoreContents::default(),
        };
        let plan = match plan_restore(self.repo, executor, &request).await {
            Ok(plan) => plan,
            Err(error) => return Err(self.not_restored(record, error)),
        };
        let expected = match Expected::of_plan(&plan).await {
            Ok(expected) => expected,
            Err(error) => return Err(self.not_restored(record, error)),
        };
        let mut proof = DatabaseProof {
            name: record.name.clone(),
            attested: expected.from == ExpectedFrom::Attestation,
            ..DatabaseProof::default()
        };
        let restored = carry_out(self.repo, executor, &plan, false, self.sink, self.cancel).await;
        match restored {
            Ok(report) => {
                proof.restore_seconds = report.seconds;
                self.warnings.extend(
                    report
                        .warnings
                        .into_iter()
                        .map(|warning| format!("database {:?}: {warning}", record.name)),
                );
            }
            Err(error) => {
                let Some(found) = self.of_backup(&error) else {
                    return Err(self.not_restored(record, error));
                };
                proof.comparison = Comparison {
                    tables_total: expected.tables.len() as u64,
                    differences: vec![Difference {
                        object: "the restore".to_owned(),
                        expected: "no error".to_owned(),
                        found,
                    }],
                    ..Comparison::default()
                };
                return Ok((proof, Vec::new()));
            }
        }
        let observed = observe(executor, &copy, &expected.wanted(), self.sink, self.cancel)
            .await
            .map_err(|error| self.not_restored(record, error))?;
        proof.comparison = compare(&expected, &observed);
        proof.compare_seconds = observed.seconds;
        match check_indexes(executor.as_ref(), &copy, self.cancel).await {
            Ok(amcheck) => proof.amcheck = amcheck,
            Err(error) if (self.server.lost)().is_some() => {
                return Err(self.of_place("checking the indexes", error));
            }
            Err(ExecError::Query { message, .. }) => self.warn(format!(
                "the indexes of database {:?} were not checked: {message}",
                record.name
            )),
            Err(error) => return Err(self.of_place("checking the indexes", error)),
        }
        let mut checks = Vec::new();
        for sql in self.options.checks.iter().filter(|_| with_checks) {
            let checked = check(executor.as_ref(), &record.name, &copy, sql, self.cancel)
                .await
                .map_err(|error| self.of_place("running a check", error))?;
            if let (false, Some(why)) = (checked.passed, (self.server.lost)()) {
                return Err(self.of_place(
                    "running a check",
                    ExecError::ExitUnknown {
                        program: dbexec::PgProgram::Psql,
                        reason: why,
                    },
                ));
            }
            checks.push(checked);
        }
        let dropped = match database_oid(executor.as_ref(), &copy).await {
            Ok(Some(oid)) => drop_database(executor.as_ref(), &copy, oid).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = dropped {
            self.warn(format!(
                "database {:?} could not be dropped after its comparison: {error}",
                record.name
            ));
        }
        Ok((proof, checks))
    }

    /// What a failed restore says of the backup; `None` when the place is at fault.
    fn of_backup(&self, error: &BackupError) -> Option<String> {
        if self.cancel.is_cancelled() || (self.server.lost)().is_some() {
            return None;
        }
        let cause = match error {
            BackupError::RestoreFailed { source, .. }
            | BackupError::RestoreNeedsAttention { source, .. } => source.as_ref(),
            other => other,
        };
        let backup_is_bad = match cause {
            BackupError::ArchiveIncomplete { .. } => true,
            BackupError::Exec { source, .. } => match source {
                ExecError::Failed { exit, stderr, .. } => {
                    !matches!(exit, ProgramExit::Signal(_))
                        && !stderr.iter().any(|line| of_the_place(line))
                }
                ExecError::Query { message, .. } => !of_the_place(message),
                _ => false,
            },
            _ => false,
        };
        backup_is_bad.then(|| crate::run::chain(error))
    }

    /// The error for a database that could not be restored or looked at because of the place.
    fn not_restored(&self, record: &DatabaseRecord, error: BackupError) -> BackupError {
        match error {
            BackupError::Interrupted { .. } => error,
            _ if self.cancel.is_cancelled() => interrupted(record),
            error => BackupError::Sandbox {
                operation: self.with_loss(&format!("restoring database {:?}", record.name)),
                source: Box::new(error),
            },
        }
    }
}

fn of_the_place(words: &str) -> bool {
    OF_THE_PLACE.iter().any(|part| words.contains(part))
}

/// Name of the copy: the database's own, unless the server has one of that name already.
fn copy_name(name: &str, taken: &BTreeSet<String>) -> String {
    let mut copy = name.to_owned();
    let mut number = 1;
    while taken.contains(&copy) {
        let tail = format!("_copy{number}");
        let mut end = name.len().min(NAME_LIMIT - tail.len());
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        copy = format!("{}{tail}", &name[..end]);
        number += 1;
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_same_name_where_it_is_free() {
        let taken = BTreeSet::from(["template1".to_owned(), "ü".repeat(31)]);
        assert_eq!(copy_name("shop", &taken), "shop");
        assert_eq!(copy_name("template1", &taken), "template1_copy1");
        let long = copy_name(&"ü".repeat(31), &taken);
        assert!(
            long.len() <= NAME_LIMIT && long.ends_with("_copy1"),
            "{long}"
        );
    }

    #[test]
    fn a_full_disk_is_no_bad_backup() {
        assert!(of_the_place(
            "ERROR:  could not extend file \"base/1/2\": No space left on device"
        ));
        assert!(!of_the_place("ERROR:  type \"x\" does not exist"));
    }
}
