//! `pgstow prune`: plan, show, and only with `--apply` remove.

use backup::{
    EventSink, KeptDatabase, Repository, apply_prune, drop_kept, kept_databases, plan_prune,
    replacing_restores,
};
use serde_json::json;

use crate::args::PruneArgs;
use crate::render::{events::Renderer, tables::table, text};
use crate::{error::CommandError, exit, session::Session};

pub(crate) async fn run(session: &Session, args: &PruneArgs) -> Result<u8, CommandError> {
    let printer = &session.printer;
    if args.keep_last == 0 {
        return Err(
            CommandError::usage("--keep-last 0 would remove every backup")
                .hint("keep at least one: --keep-last 1"),
        );
    }
    let Some(repository) = session.existing_repository()? else {
        if printer.json {
            printer.json_line(&json!({
                "result": "prune", "applied": false, "keep": [], "remove": [], "databases": []
            }));
        }
        printer.message("there are no backups to prune");
        return Ok(exit::DONE);
    };
    let catalog = repository.catalog_without_tables().await?;
    let plan = plan_prune(&catalog, args.keep_last, session.clock.now())?;
    if !printer.json {
        let row = |word: &str, (id, why): &(backup::BackupId, String)| {
            vec![word.to_owned(), id.to_string(), why.clone()]
        };
        let rows: Vec<_> = plan
            .keep
            .iter()
            .map(|entry| row("keep", entry))
            .chain(plan.remove.iter().map(|entry| row("remove", entry)))
            .collect();
        for line in table(&["", "ID", "WHY"], &rows) {
            printer.result(line);
        }
    }
    let databases = kept_databases(&repository.state_dir)?;
    tell_databases(session, &databases);
    let due = databases
        .iter()
        .any(|kept| kept.is_due(session.clock.now()));
    let mut code = exit::DONE;
    if args.apply {
        let renderer = Renderer::new(printer);
        apply_prune(&repository, &plan, &renderer).await?;
        if !drop_due(session, &repository, &databases, &renderer).await? {
            code = exit::WARNINGS;
        }
    } else if !plan.remove.is_empty() || due {
        printer.message(format!(
            "nothing was removed; to do so: pgstow prune --keep-last {} --apply",
            args.keep_last
        ));
    }
    if printer.json {
        printer.json_line(&json!({
            "result": "prune",
            "applied": args.apply,
            "keep": plan.keep,
            "remove": plan.remove,
            "databases": databases,
        }));
    }
    Ok(code)
}

/// Databases that restores and rollbacks have put aside.
fn tell_databases(session: &Session, databases: &[KeptDatabase]) {
    if session.printer.json || databases.is_empty() {
        return;
    }
    let now = session.clock.now();
    let rows: Vec<_> = databases
        .iter()
        .map(|kept| {
            let until = match kept.keep_until {
                Some(until) => until.strftime("%Y-%m-%d %H:%M UTC").to_string(),
                None => "ever".to_owned(),
            };
            vec![
                if kept.is_due(now) { "drop" } else { "keep" }.to_owned(),
                text::name(&kept.name),
                text::name(&kept.target),
                format!("put aside by restore {}, kept until {until}", kept.restore),
            ]
        })
        .collect();
    for line in table(&["", "DATABASE", "TARGET", "WHY"], &rows) {
        session.printer.result(line);
    }
}

/// Drops those whose time is over; one that cannot be dropped now is a warning. Whether all went.
async fn drop_due(
    session: &Session,
    repository: &Repository,
    databases: &[KeptDatabase],
    sink: &dyn EventSink,
) -> Result<bool, CommandError> {
    let mut all = true;
    let journals = replacing_restores(&repository.state_dir)?;
    let now = session.clock.now();
    for kept in databases.iter().filter(|kept| kept.is_due(now)) {
        let Some(journal) = journals.iter().find(|journal| journal.id == kept.restore) else {
            continue;
        };
        let dropped = async {
            let executor = super::rollback::connect(session, journal).await?;
            drop_kept(repository, &executor, &kept.restore, sink)
                .await
                .map_err(CommandError::from)
        };
        match dropped.await {
            Ok(()) => session
                .printer
                .message(format!("dropped database {}", text::name(&kept.name))),
            Err(error) => {
                all = false;
                session.printer.warning(format!(
                    "database {} could not be dropped: {}",
                    text::name(&kept.name),
                    error.messages.join(": ")
                ));
            }
        }
    }
    Ok(all)
}
