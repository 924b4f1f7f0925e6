//! `pgstow doctor`: every thing that a backup needs, each good or with its fix.

mod extensions;

use std::sync::Arc;

use backup::{BackupOptions, Repository, rehearse};
use dbexec::{DbContext, DbMode, PgExecutor, PgProgram, query};
use serde::Serialize;
use serde_json::json;
use storage::Store;

use crate::dirs;
use crate::error::{CommandError, one_line};
use crate::exit::{self, codes};
use crate::printer::{Printer, Style};
use crate::render::text;
use crate::session::{Server, Session};

/// Older than this, the last backup is worth a word.
const OLD_AFTER_HOURS: i64 = 26;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Good,
    Note,
    Bad,
}

#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    status: Status,
    found: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fixes: Vec<String>,
}

/// Collects checks and shows each as it is made.
struct Findings<'a> {
    printer: &'a Printer,
    checks: Vec<Check>,
}

impl Findings<'_> {
    fn add(&mut self, check: &'static str, status: Status, found: String, fixes: Vec<String>) {
        if !self.printer.json && (!self.printer.quiet || status == Status::Bad) {
            let (mark, style) = match status {
                Status::Good => ("ok  ", Style::Good),
                Status::Note => ("note", Style::Warning),
                Status::Bad => ("BAD ", Style::Bad),
            };
            let mark = self.printer.styled_result(mark, style);
            self.printer.result(format!("{mark} {check:18} {found}"));
            for fix in &fixes {
                self.printer.result(format!("     {:18} fix: {fix}", ""));
            }
        }
        self.checks.push(Check {
            check,
            status,
            found,
            fixes,
        });
    }

    fn good(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, Status::Good, found.into(), Vec::new());
    }

    fn note(&mut self, check: &'static str, found: impl Into<String>, fix: &str) {
        self.add(check, Status::Note, found.into(), vec![fix.to_owned()]);
    }

    fn bad(&mut self, check: &'static str, error: &CommandError) {
        self.add(
            check,
            Status::Bad,
            error.messages.join(": "),
            error.hints.clone(),
        );
    }
}

pub(crate) async fn run(session: &Session) -> Result<u8, CommandError> {
    let mut findings = Findings {
        printer: &session.printer,
        checks: Vec::new(),
    };
    engine(session, &mut findings).await?;
    let repository = store(session, &mut findings).await;
    let executor = server(session, &mut findings).await?;
    if let Some(executor) = &executor {
        programs(session, executor, &mut findings).await?;
        connection(executor, &mut findings).await;
    }
    match (&repository, &executor) {
        (Some(repository), Some(executor)) => {
            rights_and_room(session, repository, executor, &mut findings).await?;
        }
        _ => findings.note(
            "rights and room",
            "not checked: that needs a server and a store",
            "correct what is bad above, then run pgstow doctor again",
        ),
    }
    if let Some(repository) = &repository {
        last_backup(session, repository, executor.as_ref(), &mut findings).await?;
    }
    conclude(session, &findings)
}

fn conclude(session: &Session, findings: &Findings<'_>) -> Result<u8, CommandError> {
    let bad: Vec<&str> = findings
        .checks
        .iter()
        .filter(|check| check.status == Status::Bad)
        .map(|check| check.check)
        .collect();
    if session.printer.json {
        session.printer.json_line(&json!({
            "result": "doctor",
            "ok": bad.is_empty(),
            "checks": findings.checks,
        }));
    }
    if bad.is_empty() {
        session
            .printer
            .message("a backup can be made: pgstow backup");
        return Ok(exit::DONE);
    }
    Err(CommandError::new(
        codes::DOCTOR_FAILED,
        format!("a backup would fail: {}", bad.join(", ")),
    )
    .hint("follow the fixes above, then run pgstow doctor again"))
}

/// A note only: an external server needs no engine.
async fn engine(session: &Session, findings: &mut Findings<'_>) -> Result<(), CommandError> {
    let connected = session
        .interrupts
        .guard("connecting to the container engine", session.runtime())
        .await?;
    match connected {
        Ok(runtime) => findings.good("container engine", runtime.describe()),
        Err(error) => findings.note(
            "container engine",
            one_line(error.as_ref()),
            "start it (sudo systemctl start docker), or point DOCKER_HOST to one; for an external server none is needed",
        ),
    }
    Ok(())
}

/// Directories, and a stream that is really written, read back and removed.
async fn store(session: &Session, findings: &mut Findings<'_>) -> Option<Repository> {
    let dir = &session.settings.data_dir;
    let repository = match session.repository() {
        Ok(repository) => repository,
        Err(error) => {
            findings.bad("data directory", &error);
            return None;
        }
    };
    findings.good(
        "data directory",
        format!("{} is private", dir.root.display()),
    );
    match dirs::check(&dir.state()) {
        Ok(()) => findings.good(
            "state directory",
            format!("{} is private", dir.state().display()),
        ),
        Err(error) => findings.bad("state directory", &error),
    }
    match dbexec::discover::read_persisted(&dir.persisted_file()) {
        Ok(_) => {}
        Err(error) => findings.bad(
            "persisted file",
            &CommandError::new(error.code(), one_line(&error)),
        ),
    }
    match write_probe(session, repository.store.as_ref()).await {
        Ok(()) => {
            let free = repository.store.free_bytes().await.ok().flatten();
            let free =
                free.map_or_else(String::new, |free| format!(", {} free", text::bytes(free)));
            findings.good(
                "store",
                format!("{} can be written{free}", repository.store.describe()),
            );
            Some(repository)
        }
        Err(error) => {
            findings.bad("store", &error);
            None
        }
    }
}

async fn write_probe(session: &Session, store: &dyn Store) -> Result<(), CommandError> {
    // No backup's name, so that nothing can take it for one.
    let dir = format!("doctor-{}/", session.run_id());
    let name = format!("{dir}probe");
    let mut writer = store.create(&name).await?;
    writer.write(b"probe\n").await?;
    writer.commit().await?;
    store.delete(&name).await?;
    store.remove_leftovers(&dir).await?;
    Ok(())
}

async fn server(
    session: &Session,
    findings: &mut Findings<'_>,
) -> Result<Option<Arc<dyn PgExecutor>>, CommandError> {
    let run = session.run_id();
    let explicit = session.explicit().await?;
    let found: Result<Server, CommandError> = session.discover(explicit, &run).await;
    let server = match found {
        Ok(server) => server,
        Err(error) if session.interrupts.exit_code().is_some() => return Err(error),
        Err(error) => {
            findings.bad("server", &error);
            return Ok(None);
        }
    };
    findings.good("server", words(&server.context));
    match session.open(server, &run).await {
        Ok(executor) => Ok(Some(executor)),
        Err(error) => {
            findings.bad("programs", &error);
            Ok(None)
        }
    }
}

fn words(context: &DbContext) -> String {
    let place = match (&context.mode, &context.container) {
        (DbMode::InContainer, Some(container)) => format!("container {}", container.name),
        _ => context.target_name(),
    };
    format!("{place} answers: PostgreSQL {}", context.server.version)
}

async fn programs(
    session: &Session,
    executor: &Arc<dyn PgExecutor>,
    findings: &mut Findings<'_>,
) -> Result<(), CommandError> {
    let mut versions = Vec::new();
    for program in [
        PgProgram::PgDump,
        PgProgram::PgDumpall,
        PgProgram::PgRestore,
        PgProgram::Psql,
    ] {
        let found = session
            .interrupts
            .guard("looking for programs", executor.program(program))
            .await?;
        match found {
            Ok(info) => versions.push(format!("{program} {}", info.version)),
            Err(error) => findings.bad("programs", &error.into()),
        }
    }
    if versions.len() == 4 {
        findings.good("programs", versions.join(", "));
    }
    Ok(())
}

/// Standby and pooler.
async fn connection(executor: &Arc<dyn PgExecutor>, findings: &mut Findings<'_>) {
    match query::check_no_pooler(executor.as_ref()).await {
        Ok(()) => findings.good("connection", "to the server itself, no transaction pooler"),
        Err(error) => findings.bad("connection", &error.into()),
    }
    if executor.context().server.in_recovery {
        findings.note(
            "standby",
            "the server is a standby: long dumps can be cancelled by replay",
            "raise max_standby_streaming_delay there, or back up the primary",
        );
    }
}

/// What a backup checks before it begins: rights, locks, room.
async fn rights_and_room(
    session: &Session,
    repository: &Repository,
    executor: &Arc<dyn PgExecutor>,
    findings: &mut Findings<'_>,
) -> Result<(), CommandError> {
    let options = BackupOptions {
        exclude_table_data: session.settings.exclude_table_data.clone(),
        ..BackupOptions::default()
    };
    let rehearsed = session
        .interrupts
        .guard(
            "checking the rights",
            rehearse(repository, executor, &options),
        )
        .await?;
    match rehearsed {
        Ok(rehearsal) => {
            let size: u64 = rehearsal
                .databases
                .iter()
                .filter_map(|(_, size)| *size)
                .sum();
            let count = rehearsal.databases.len();
            findings.good(
                "rights and locks",
                format!(
                    "{count} database{} can be read whole, {} on the server",
                    if count == 1 { "" } else { "s" },
                    text::bytes(size)
                ),
            );
            if rehearsal.warnings.is_empty() {
                findings.good("room", "the store has room for the backup");
            }
            for warning in &rehearsal.warnings {
                findings.note(
                    "room",
                    warning,
                    "make room (pgstow prune --keep-last N), or give another --data-dir",
                );
            }
            extensions::check(session, executor, &rehearsal.databases, findings).await?;
        }
        Err(error) => findings.bad("rights and locks", &error.into()),
    }
    Ok(())
}

async fn last_backup(
    session: &Session,
    repository: &Repository,
    executor: Option<&Arc<dyn PgExecutor>>,
    findings: &mut Findings<'_>,
) -> Result<(), CommandError> {
    let catalog = match repository.catalog_without_tables().await {
        Ok(catalog) => catalog,
        Err(error) => {
            findings.bad("backups", &error.into());
            return Ok(());
        }
    };
    let target = executor.map(|executor| executor.context().target_name());
    let now = session.clock.now();
    let newest = catalog.backups.iter().find(|manifest| {
        target
            .as_ref()
            .is_none_or(|target| *target == manifest.target.name)
    });
    match newest {
        Some(manifest) => {
            let age = text::age(manifest.finished_at, now);
            let hours = now.duration_since(manifest.finished_at).as_hours();
            let found = format!("last one {age}: {}", manifest.id);
            if hours >= OLD_AFTER_HOURS {
                findings.note(
                    "backups",
                    found,
                    "pgstow backup, daily from cron (see README.md)",
                );
            } else {
                findings.good("backups", found);
            }
        }
        None => findings.note(
            "backups",
            "there is none of this target yet",
            "pgstow backup",
        ),
    }
    if !catalog.damaged.is_empty() {
        let ids: Vec<_> = catalog
            .damaged
            .iter()
            .map(|damaged| damaged.id.to_string())
            .collect();
        findings.note(
            "damaged",
            format!("backups that cannot be relied on: {}", ids.join(", ")),
            "pgstow verify ID names each problem",
        );
    }
    Ok(())
}
