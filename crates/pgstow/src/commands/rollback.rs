//! `pgstow rollback`, `pgstow restore --resume`, and what every command says about restores that
//! were killed.

use std::sync::Arc;

use backup::{RestoreJournal, RestoreStep, SwapReport, replacing_restores, unfinished_restores};
use dbexec::PgExecutor;
use serde_json::json;

use super::restore::{confirm, consent, spec, tell_swap};
use crate::args::RollbackArgs;
use crate::render::{events::Renderer, text};
use crate::{error::CommandError, error::one_line, exit, session::Session};

/// Says which restores stand in the middle, and what to run. A warning, whatever goes wrong.
pub(crate) fn warn_of_unfinished(session: &Session) {
    match unfinished_restores(&session.settings.data_dir.state()) {
        Ok(journals) => {
            for journal in journals {
                session.printer.warning(words(&journal));
            }
        }
        Err(error) => session.printer.warning(format!(
            "whether a restore was killed is not known: {}",
            one_line(&error)
        )),
    }
}

fn words(journal: &RestoreJournal) -> String {
    let about = format!(
        "restore {} of database {} on {}",
        journal.id,
        text::name(&journal.database),
        text::name(&journal.target)
    );
    match journal.step {
        RestoreStep::Swapping => format!(
            "{about} stopped while the databases changed their names; pgstow restore --resume \
             finishes it, pgstow rollback takes it back"
        ),
        RestoreStep::RollingBack => {
            format!("the rollback of {about} stopped; pgstow restore --resume finishes it")
        }
        step => format!(
            "{about} stopped at step {}: the live database was not touched; pgstow restore \
             --resume removes what is left of it",
            step.as_str()
        ),
    }
}

/// Finishes or undoes every restore that was killed.
pub(super) async fn resume(session: &Session) -> Result<u8, CommandError> {
    let Some(repository) = session.repository_to_mend()? else {
        return Ok(nothing(session));
    };
    let named = named(session).await?;
    let mut journals = unfinished_restores(&repository.state_dir)?;
    if let Some(executor) = &named {
        journals.retain(|journal| journal.is_of(executor.context()));
    }
    if journals.is_empty() {
        return Ok(nothing(session));
    }
    let renderer = Renderer::new(&session.printer);
    let mut reports = Vec::new();
    for journal in journals {
        session.printer.message(words(&journal));
        let executor = match &named {
            Some(executor) => Arc::clone(executor),
            None => connect(session, &journal).await?,
        };
        let (journal, report) =
            backup::resume(&repository, &executor, &journal.id, &renderer).await?;
        tell(session, &journal, report.as_ref());
        reports.push(json!({ "restore": journal.id, "step": journal.step, "swap": report }));
    }
    if session.printer.json {
        session
            .printer
            .json_line(&json!({ "result": "resume", "restores": reports }));
    }
    Ok(exit::DONE)
}

fn nothing(session: &Session) -> u8 {
    if session.printer.json {
        session
            .printer
            .json_line(&json!({ "result": "resume", "restores": [] }));
    }
    session
        .printer
        .message("no restore was killed: there is nothing to resume");
    exit::DONE
}

pub(crate) async fn run(session: &Session, args: &RollbackArgs) -> Result<u8, CommandError> {
    let none = || {
        CommandError::new(
            backup::codes::BACKUP_NOT_FOUND,
            "there is no restore here whose database could be put back",
        )
        .hint("pgstow list shows the backups")
    };
    let repository = session.repository_to_mend()?.ok_or_else(none)?;
    let mut journals = replacing_restores(&repository.state_dir)?;
    journals.retain(|journal| {
        let open = journal.step.unfinished() || journal.step == RestoreStep::Swapped;
        open && args
            .database
            .as_ref()
            .is_none_or(|name| *name == journal.database)
    });
    let named = named(session).await?;
    if let Some(executor) = &named {
        journals.retain(|journal| journal.is_of(executor.context()));
    }
    let journal = last(journals)?.ok_or_else(none)?;
    let executor = match named {
        Some(executor) => executor,
        None => connect(session, &journal).await?,
    };
    let touches = journal.step >= RestoreStep::Swapping;
    session.printer.message(plan(&journal));
    consent(args.yes.as_deref(), &journal.database)?;
    if touches && args.yes.is_none() {
        confirm(session, &journal.database).await?;
    }
    let renderer = Renderer::new(&session.printer);
    let (journal, report) =
        backup::rollback(&repository, &executor, &journal.id, &renderer).await?;
    tell(session, &journal, report.as_ref());
    if session.printer.json {
        session.printer.json_line(&json!({
            "result": "rollback", "restore": journal.id, "step": journal.step, "swap": report
        }));
    }
    Ok(exit::DONE)
}

/// The last restore, when all are of one server.
fn last(mut journals: Vec<RestoreJournal>) -> Result<Option<RestoreJournal>, CommandError> {
    let Some(last) = journals.pop() else {
        return Ok(None);
    };
    let mut others: Vec<_> = journals
        .iter()
        .filter(|journal| journal.lock_key != last.lock_key)
        .map(|journal| journal.target.clone())
        .collect();
    if others.is_empty() {
        return Ok(Some(last));
    }
    others.push(last.target);
    others.sort();
    others.dedup();
    Err(CommandError::usage(format!(
        "databases were replaced on more than one server: {}",
        others.join(", ")
    ))
    .hint("name one: pgstow rollback TARGET"))
}

fn plan(journal: &RestoreJournal) -> String {
    let database = text::name(&journal.database);
    match (journal.step, journal.live_oid) {
        (step, _) if step < RestoreStep::Swapping => format!(
            "plan: restore {} has not replaced {database} yet; what it made is removed",
            journal.id
        ),
        (_, Some(_)) => format!(
            "plan: end the sessions in {database}; in one transaction rename it to {} and {} to \
             {database}, with the rows that it had before restore {} ({})",
            text::name(&journal.undone),
            text::name(&journal.before),
            journal.id,
            journal.source
        ),
        (_, None) => format!(
            "plan: end the sessions in {database} and rename it to {}: there was no such database \
             before restore {}",
            text::name(&journal.undone),
            journal.id
        ),
    }
}

fn tell(session: &Session, journal: &RestoreJournal, report: Option<&SwapReport>) {
    if session.printer.json {
        return;
    }
    let database = text::name(&journal.database);
    session.printer.result(match journal.step {
        RestoreStep::Swapped => format!(
            "restore {} is finished: {database} is the restored database",
            journal.id
        ),
        RestoreStep::RolledBack => format!(
            "restore {} is rolled back: {database} is the database from before",
            journal.id
        ),
        RestoreStep::Undone => format!(
            "restore {} is undone: {database} was not replaced",
            journal.id
        ),
        step => format!("restore {}: {}", journal.id, step.as_str()),
    });
    if let Some(report) = report {
        tell_swap(session, report);
    }
}

/// The server that argument, environment or configuration name.
async fn named(session: &Session) -> Result<Option<Arc<dyn PgExecutor>>, CommandError> {
    if !session.settings.target.named {
        return Ok(None);
    }
    let run = session.run_id();
    let explicit = session.explicit().await?;
    let server = session.discover(explicit, &run).await?;
    session.open(server, &run).await.map(Some)
}

/// The server that a restore worked on.
pub(super) async fn connect(
    session: &Session,
    journal: &RestoreJournal,
) -> Result<Arc<dyn PgExecutor>, CommandError> {
    let run = session.run_id();
    let mut explicit = session.explicit().await?;
    if !session.settings.target.named
        && let Some(spec) = spec(journal.mode, journal.container.as_ref())
    {
        explicit.target = Some(spec);
    }
    let hint = |error: CommandError| {
        error.hint(format!(
            "restore {} was made on {}; name that server",
            journal.id,
            text::name(&journal.target)
        ))
    };
    let server = session.discover(explicit, &run).await.map_err(hint)?;
    let executor = session.open(server, &run).await?;
    if journal.is_of(executor.context()) {
        Ok(executor)
    } else {
        Err(hint(CommandError::new(
            backup::codes::RESTORE_REFUSED,
            format!(
                "{} is another server than the one of restore {}",
                executor.context().target_name(),
                journal.id
            ),
        )))
    }
}
