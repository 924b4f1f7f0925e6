//! `pgstow restore`: plan, show, obtain consent where something existing changes, apply.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use backup::{
    Manifest, Repository, RestoreContents, RestorePlace, RestorePlan, RestoreReport,
    RestoreRequest, RestoreSection, RestoreSource, RolesPolicy, SwapReport, database_for_part,
    database_to_restore, plan_restore, restore,
};
use dbexec::{ContainerIdentity, DbMode, ExplicitSettings, TargetSpec};
use serde_json::json;
use tokio::io::AsyncBufReadExt;

use crate::args::{OwnerArg, RestoreArgs, RolesArg, SectionArg};
use crate::exit::codes;
use crate::render::{events::Renderer, text};
use crate::{error::CommandError, exit, session::Session};

pub(crate) async fn run(session: &Session, args: &RestoreArgs) -> Result<u8, CommandError> {
    let Some(wanted) = args.source.as_deref() else {
        return super::rollback::resume(session).await;
    };
    let place_given = place_given(wanted, args)?;
    let (repository, source, manifest) = source(session, wanted).await?;
    let place = place(session, place_given, args, manifest.as_ref())?;
    let run = session.run_id();
    let mut explicit = session.explicit().await?;
    assume_origin(session, &mut explicit, manifest.as_ref());
    let mut server = session.discover(explicit, &run).await;
    if let (Err(error), Some(manifest)) = (&server, &manifest)
        && error.code == dbexec::codes::CONTAINER_NOT_FOUND
        && let Some(explicit) = same_server(session, &place, manifest).await?
    {
        server = session.discover(explicit, &run).await;
    }
    let server = server.map_err(|error| match &manifest {
        Some(manifest) if !session.settings.target.named => error.hint(format!(
            "the backup came from {}; name the server to restore to with --to TARGET",
            text::name(&manifest.target.name)
        )),
        _ => error,
    })?;
    say_where(session, &server.context, manifest.as_ref());
    let executor = session.open(server, &run).await?;
    let request = RestoreRequest {
        source,
        database: args.database.clone(),
        place,
        roles: match args.roles {
            RolesArg::Create => RolesPolicy::Create,
            RolesArg::Skip => RolesPolicy::Skip,
        },
        keep_owner: args.owner == OwnerArg::Keep,
        engine: session.settings.restore_engine,
        jobs: args.jobs,
        contents: contents(args),
    };
    let plan = session
        .interrupts
        .guard(
            "planning the restore",
            plan_restore(&repository, &executor, &request),
        )
        .await??;
    show(session, &plan);
    if args.dry_run {
        if session.printer.json {
            session
                .printer
                .json_line(&json!({ "result": "plan", "plan": plan }));
        } else {
            session
                .printer
                .message("this was a dry run: nothing was touched");
        }
        return Ok(exit::DONE);
    }
    let asks = match &plan.place {
        RestorePlace::InPlace { .. } => true,
        RestorePlace::Swap { .. } => plan.replaces,
        _ => false,
    };
    if asks && args.yes.is_none() {
        confirm(session, plan.place.database()).await?;
    }
    let renderer = Renderer::new(&session.printer).told(&plan.warnings);
    let done = restore(
        &repository,
        &executor,
        &plan,
        &renderer,
        &session.interrupts.token,
    )
    .await;
    renderer.clear();
    let report = done?;
    tell(session, &report);
    // pg_restore said something that was judged harmless: rows are there, but it is to be read.
    Ok(if report.warnings.is_empty() {
        exit::DONE
    } else {
        exit::WARNINGS
    })
}

/// What was typed about the part.
fn contents(args: &RestoreArgs) -> RestoreContents {
    let part = &args.part;
    RestoreContents {
        tables: part.table.clone(),
        schemas: part.schema.clone(),
        sections: part
            .section
            .iter()
            .map(|section| match section {
                SectionArg::PreData => RestoreSection::PreData,
                SectionArg::Data => RestoreSection::Data,
                SectionArg::PostData => RestoreSection::PostData,
            })
            .collect(),
        data_only: part.data_only,
        connect_foreign: part.connect_foreign,
    }
}

/// What was typed about the place.
enum Given {
    New(String),
    InPlace,
    /// A part, into a new database that nobody named.
    Part,
    Swap,
}

fn place_given(source: &str, args: &RestoreArgs) -> Result<Given, CommandError> {
    if args.yes.is_some() && args.new_database.is_some() {
        return Err(CommandError::usage(
            "--yes is the consent to replace or change a database; a new database (--as) needs none",
        ));
    }
    if args.yes.is_some() && args.part.is_partial() {
        return Err(CommandError::usage(
            "--yes is the consent to replace or change a database; a part of a backup goes into a \
             new one",
        ));
    }
    match (&args.new_database, args.in_place) {
        (Some(name), _) if name.is_empty() => Err(CommandError::usage(
            "--as needs the name of the new database",
        )),
        (Some(name), _) => Ok(Given::New(name.clone())),
        (None, true) => Ok(Given::InPlace),
        (None, false) if args.part.is_partial() && !source.contains('/') => Ok(Given::Part),
        // A file does not say which database it would replace.
        (None, false) if source.contains('/') && args.yes.is_none() => Err(CommandError::usage(
            "a restore of a file needs a place: a new database (--as NEWDB), or the consent to \
             replace one (--yes=DBNAME)",
        )
        .hint(format!("pgstow restore {} --as copy", shell_word(source)))),
        (None, false) => Ok(Given::Swap),
    }
}

/// A word for a shell, so that a proposed command can be pasted whatever the name holds.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':');
    if !word.is_empty() && !word.starts_with('-') && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// `latest` is the newest that is whole; who restores it has to know of newer ones that are not.
async fn warn_of_newer(
    session: &Session,
    repository: &Repository,
    chosen: &Manifest,
) -> Result<(), CommandError> {
    let catalog = repository.catalog_without_tables().await?;
    for damaged in catalog.damaged.iter().filter(|one| one.id > chosen.id) {
        session.printer.warning(format!(
            "backup {} is newer than {}, but damaged: {}",
            damaged.id, chosen.id, damaged.problem
        ));
    }
    Ok(())
}

/// A backup of the repository, or a file: a word with a slash, or one that exists and that no
/// backup is called by.
async fn source(
    session: &Session,
    wanted: &str,
) -> Result<(Repository, RestoreSource, Option<Manifest>), CommandError> {
    let path = PathBuf::from(wanted);
    if wanted.contains('/') {
        return Ok((session.repository()?, RestoreSource::Path(path), None));
    }
    let is_file = path.symlink_metadata().is_ok();
    let found = match session.existing_repository()? {
        Some(repository) => {
            // What it attests is read with the plan, where it is needed.
            let found = repository.find_without_tables(wanted).await;
            found.map(|manifest| (repository, manifest))
        }
        None if is_file => {
            return Ok((session.repository()?, RestoreSource::Path(path), None));
        }
        None => {
            return Err(session.filled_repository(wanted).err().unwrap_or_else(|| {
                CommandError::new(
                    backup::codes::BACKUP_NOT_FOUND,
                    "the backups vanished meanwhile",
                )
            }));
        }
    };
    match found {
        Ok((repository, manifest)) => {
            if wanted == "latest" {
                warn_of_newer(session, &repository, &manifest).await?;
            }
            let id = manifest.id.to_string();
            Ok((repository, RestoreSource::Backup(id), Some(manifest)))
        }
        Err(backup::BackupError::NotFound { .. }) if is_file => {
            Ok((session.repository()?, RestoreSource::Path(path), None))
        }
        Err(error) => Err(error.into()),
    }
}

fn place(
    session: &Session,
    given: Given,
    args: &RestoreArgs,
    manifest: Option<&Manifest>,
) -> Result<RestorePlace, CommandError> {
    let source = args.source.as_deref().unwrap_or_default();
    let name = match given {
        Given::New(name) => return Ok(RestorePlace::NewDatabase { name }),
        Given::Part => return beside(session, args, manifest),
        Given::Swap => return swap(session, args, manifest),
        Given::InPlace => args.yes.clone(),
    };
    let of_backup = || match manifest.map(|manifest| manifest.databases.as_slice()) {
        Some([only]) => Some(only.name.clone()),
        _ => args.database.clone(),
    };
    match name.or_else(of_backup) {
        Some(name) => Ok(RestorePlace::InPlace { name }),
        None => Err(
            CommandError::usage("--in-place does not say which database is changed").hint(format!(
                "pgstow restore {} --in-place --yes=DBNAME",
                shell_word(source)
            )),
        ),
    }
}

/// The new database of a part: beside the one that it is a part of.
fn beside(
    session: &Session,
    args: &RestoreArgs,
    manifest: Option<&Manifest>,
) -> Result<RestorePlace, CommandError> {
    let Some(manifest) = manifest else {
        return Err(CommandError::usage(
            "a restore of a file needs a place: a new database (--as NEWDB)",
        ));
    };
    let database = database_to_restore(manifest, args.database.as_deref())?;
    let name = database_for_part(&database, &session.run_id());
    session.printer.message(format!(
        "a part goes into a new database, {}; --as NEWDB gives it another name, and database {} \
         is not touched",
        text::name(&name),
        text::name(&database)
    ));
    Ok(RestorePlace::NewDatabase { name })
}

/// A backup goes back to the database that it is of; a file to the one that the consent names.
fn swap(
    session: &Session,
    args: &RestoreArgs,
    manifest: Option<&Manifest>,
) -> Result<RestorePlace, CommandError> {
    let name = match (manifest, &args.yes) {
        (Some(manifest), yes) => {
            let name = database_to_restore(manifest, args.database.as_deref())?;
            consent(yes.as_deref(), &name)?;
            name
        }
        (None, Some(yes)) => yes.clone(),
        (None, None) => {
            return Err(CommandError::usage(
                "a restore of a file needs a place: a new database (--as NEWDB), or the consent \
                 to replace one (--yes=DBNAME)",
            ));
        }
    };
    Ok(RestorePlace::Swap {
        name,
        safety_backup: !args.no_safety_backup,
        keep_old_seconds: session.settings.keep_old.as_secs(),
    })
}

/// A consent is for exactly one database.
pub(super) fn consent(yes: Option<&str>, name: &str) -> Result<(), CommandError> {
    match yes {
        Some(yes) if yes != name => Err(CommandError::new(
            codes::NOT_CONFIRMED,
            format!(
                "--yes names the database {yes:?}, and {name:?} is the one that would be replaced"
            ),
        )
        .hint(format!("--yes={}", shell_word(name)))),
        _ => Ok(()),
    }
}

/// Where nothing names a server, a backup goes back to the container that it came from.
fn assume_origin(session: &Session, explicit: &mut ExplicitSettings, manifest: Option<&Manifest>) {
    if session.settings.target.named {
        return;
    }
    let Some(target) = manifest.map(|manifest| &manifest.target) else {
        return;
    };
    let Some(spec) = spec(target.mode, target.container.as_ref()) else {
        return;
    };
    explicit.target = Some(spec);
    session.printer.message(format!(
        "restoring to where the backup came from ({}); --to TARGET names another place",
        target.name
    ));
}

/// How a container is named that was worked with before.
pub(super) fn spec(mode: DbMode, container: Option<&ContainerIdentity>) -> Option<TargetSpec> {
    let (DbMode::InContainer, Some(container)) = (mode, container) else {
        return None;
    };
    Some(match &container.compose {
        Some(compose) => TargetSpec::Compose {
            project: compose.project.clone(),
            service: compose.service.clone(),
            database: None,
        },
        None => TargetSpec::Container {
            name: container.name.clone(),
            database: None,
        },
    })
}

/// The server that was backed up, when its container has another name now. Only where nothing
/// existing changes, and only when exactly one container serves that cluster: a copy of its
/// files has the same identifier.
async fn same_server(
    session: &Session,
    place: &RestorePlace,
    manifest: &Manifest,
) -> Result<Option<ExplicitSettings>, CommandError> {
    let Some(wanted) = &manifest.target.server.system_identifier else {
        return Ok(None);
    };
    if session.settings.target.named || !matches!(place, RestorePlace::NewDatabase { .. }) {
        return Ok(None);
    }
    let (found, _) = session.discover_every(&session.run_id()).await?;
    let same: Vec<_> = found
        .iter()
        .filter(|found| {
            let login = found.login.as_ref().ok();
            login.and_then(|login| login.server.system_identifier.as_ref()) == Some(wanted)
        })
        .filter_map(|found| found.container.as_ref())
        .collect();
    let [container] = same.as_slice() else {
        return Ok(None);
    };
    session.printer.message(format!(
        "{} is gone; container {} serves the same cluster (system identifier {wanted})",
        text::name(&manifest.target.name),
        text::name(&container.name)
    ));
    let mut explicit = session.explicit().await?;
    explicit.target = Some(TargetSpec::Container {
        name: container.name.clone(),
        database: None,
    });
    Ok(Some(explicit))
}

/// Says so when the server is not the one that was backed up.
fn say_where(session: &Session, context: &dbexec::DbContext, manifest: Option<&Manifest>) {
    let Some(target) = manifest.map(|manifest| &manifest.target) else {
        return;
    };
    let (then, now) = (
        target.server.system_identifier.as_deref(),
        context.server.system_identifier.as_deref(),
    );
    let different = match (then, now) {
        (Some(then), Some(now)) => then != now,
        _ => target.name != context.target_name(),
    };
    if different {
        session.printer.message(format!(
            "note: {} is a different server than the one that was backed up ({}, PostgreSQL {})",
            context.target_name(),
            target.name,
            target.server.version
        ));
    }
}

fn show(session: &Session, plan: &RestorePlan) {
    let printer = &session.printer;
    printer.message(format!("plan: {} to {}", plan.source, plan.target));
    for (at, step) in plan.steps.iter().enumerate() {
        printer.message(format!("  {}. {step}", at + 1));
    }
    for warning in &plan.warnings {
        printer.warning(warning);
    }
}

/// A person types the name of the database that will be replaced or changed.
pub(super) async fn confirm(session: &Session, name: &str) -> Result<(), CommandError> {
    let refused = |why: &str| {
        CommandError::new(
            codes::NOT_CONFIRMED,
            format!("replacing or changing the existing database {name:?} needs consent: {why}"),
        )
        .hint(format!("add --yes={}", shell_word(name)))
    };
    if session.printer.json || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(refused("there is no terminal to ask at"));
    }
    // The prompt has no line break, so it does not go through the printer.
    let mut err = std::io::stderr();
    let _ = write!(err, "type the name of the database to go on: ");
    let _ = err.flush();
    let mut line = String::new();
    let mut input = tokio::io::BufReader::new(tokio::io::stdin());
    session
        .interrupts
        .guard("asking for consent", input.read_line(&mut line))
        .await?
        .map_err(|error| {
            CommandError::caused(codes::NOT_CONFIRMED, "the answer could not be read", &error)
        })?;
    if line.trim_end_matches(['\r', '\n']) == name {
        Ok(())
    } else {
        Err(refused("another name was typed"))
    }
}

fn tell(session: &Session, report: &RestoreReport) {
    let printer = &session.printer;
    if printer.json {
        printer.json_line(&json!({ "result": "restore", "restore": report }));
        return;
    }
    for warning in &report.warnings {
        printer.warning(warning);
    }
    printer.result(format!(
        "restored database {}: {} table{}, {} row{}, {}",
        text::name(&report.database),
        text::count(report.tables),
        if report.tables == 1 { "" } else { "s" },
        text::count(report.rows),
        if report.rows == 1 { "" } else { "s" },
        text::seconds(report.seconds)
    ));
    if let Some(swap) = &report.swap {
        tell_swap(session, swap);
    }
}

/// What an exchange of databases did, and how to go back.
pub(super) fn tell_swap(session: &Session, swap: &SwapReport) {
    let printer = &session.printer;
    if let Some(outage) = swap.outage_seconds {
        let ended = match swap.sessions_ended {
            Some(ended) => format!(", {ended} sessions ended"),
            None => String::new(),
        };
        printer.message(format!("outage {outage:.3} s{ended}"));
    }
    if let Some(backup) = &swap.safety_backup {
        printer.message(format!("safety backup: {backup}"));
    }
    if let Some(kept) = &swap.kept {
        printer.message(format!(
            "the other database is kept as {}{}",
            text::name(&kept.name),
            match kept.keep_until {
                Some(until) => format!(" until {}", until.strftime("%Y-%m-%d %H:%M UTC")),
                None => String::new(),
            }
        ));
    }
}
