//! `pgstow prune`: plan, show, and only with `--apply` remove.

use backup::{apply_prune, plan_prune};
use serde_json::json;

use crate::args::PruneArgs;
use crate::render::{events::Renderer, tables::table};
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
                "result": "prune", "applied": false, "keep": [], "remove": []
            }));
        }
        printer.message("there are no backups to prune");
        return Ok(exit::DONE);
    };
    let catalog = repository.catalog().await?;
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
    if args.apply {
        let renderer = Renderer::new(printer);
        apply_prune(&repository, &plan, &renderer).await?;
    } else if !plan.remove.is_empty() {
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
        }));
    }
    Ok(exit::DONE)
}
