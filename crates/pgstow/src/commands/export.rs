//! `pgstow export`: an archive as an ordinary file or directory.

use std::sync::Arc;

use backup::{DumpFormat, ExportRequest, export};
use dbexec::PgExecutor;
use serde_json::json;

use crate::args::{ExportArgs, FormatArg};
use crate::render::{events::Renderer, text};
use crate::{error::CommandError, exit, session::Session};

pub(crate) async fn run(session: &Session, args: &ExportArgs) -> Result<u8, CommandError> {
    if args.output.as_os_str() == "-" {
        return Err(
            CommandError::usage("an export goes to a file or directory, not to -")
                .hint("give a path that does not exist yet: -o shop.dump"),
        );
    }
    let repository = session.filled_repository(&args.id)?;
    let format = args.format.map(|format| match format {
        FormatArg::Custom => DumpFormat::Custom,
        FormatArg::Directory => DumpFormat::Directory,
        FormatArg::Plain => DumpFormat::Plain,
    });
    let output = std::path::absolute(&args.output)
        .map_err(|error| CommandError::caused(exit::codes::USAGE, "-o is no path", &error))?;
    let executor = converter(session, &repository, args, format).await?;
    let request = ExportRequest {
        backup: args.id.clone(),
        database: args.database.clone(),
        format,
        output,
    };
    let renderer = Renderer::new(&session.printer);
    let done = export(
        &repository,
        &request,
        executor.as_ref(),
        &renderer,
        &session.interrupts.token,
    )
    .await;
    renderer.clear();
    let report = done?;
    let printer = &session.printer;
    if printer.json {
        printer.json_line(&json!({ "result": "export", "export": report }));
    } else {
        let bytes = report.files.iter().map(|file| file.bytes).sum();
        printer.result(format!(
            "wrote {}: {} file{}, {}",
            report.output.display(),
            report.files.len(),
            if report.files.len() == 1 { "" } else { "s" },
            text::bytes(bytes)
        ));
    }
    Ok(exit::DONE)
}

/// A server is needed only where pg_restore has to turn an archive into a script.
async fn converter(
    session: &Session,
    repository: &backup::Repository,
    args: &ExportArgs,
    format: Option<DumpFormat>,
) -> Result<Option<Arc<dyn PgExecutor>>, CommandError> {
    if format != Some(DumpFormat::Plain) {
        return Ok(None);
    }
    let manifest = repository.find(&args.id).await?;
    let stored_as_plain = manifest
        .databases
        .iter()
        .filter(|database| {
            args.database
                .as_ref()
                .is_none_or(|name| *name == database.name)
        })
        .all(|database| database.archive.format == DumpFormat::Plain);
    if stored_as_plain {
        return Ok(None);
    }
    let run = session.run_id();
    let explicit = session.explicit().await?;
    let server = session.discover(explicit, &run).await?;
    session.open(server, &run).await.map(Some)
}
