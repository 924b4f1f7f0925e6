//! `pgstow verify`.

use backup::{BackupId, Repository, VerifyLevel, VerifyReport, verify};
use serde_json::json;

use crate::args::{LevelArg, VerifyArgs};
use crate::exit;
use crate::printer::Style;
use crate::render::{events::Renderer, text};
use crate::{error::CommandError, session::Session};

/// The word of a level.
pub(crate) fn level_word(level: VerifyLevel) -> &'static str {
    match level {
        VerifyLevel::None => "none",
        VerifyLevel::Hash => "hash",
        VerifyLevel::Read => "read",
        VerifyLevel::Restore => "restore",
    }
}

pub(crate) async fn run(session: &Session, args: &VerifyArgs) -> Result<u8, CommandError> {
    let level = match args.level {
        LevelArg::Hash => VerifyLevel::Hash,
        LevelArg::Read => VerifyLevel::Read,
    };
    let wanted = args.id.as_deref().unwrap_or("latest");
    let repository = session.filled_repository(wanted)?;
    let ids = ids(&repository, args).await?;
    if ids.is_empty() {
        return Err(CommandError::new(
            backup::codes::BACKUP_NOT_FOUND,
            "there is no backup to verify",
        ));
    }
    let renderer = Renderer::new(&session.printer);
    let mut bad = Vec::new();
    let mut reports = Vec::new();
    for id in ids {
        let report = verify(
            &repository,
            &id,
            level,
            &renderer,
            &session.interrupts.token,
        )
        .await;
        renderer.clear();
        let report = report?;
        tell(session, &report);
        if !report.ok {
            bad.push(id);
        }
        reports.push(report);
    }
    let exit_code = if bad.is_empty() {
        exit::DONE
    } else {
        exit::VERIFY_FAILED
    };
    if session.printer.json {
        session.printer.json_line(&json!({
            "result": "verify",
            "ok": bad.is_empty(),
            "reports": reports,
            "exit_code": exit_code,
        }));
    }
    if bad.is_empty() {
        return Ok(exit::DONE);
    }
    let names: Vec<_> = bad.iter().map(ToString::to_string).collect();
    let problems = reports
        .iter()
        .filter(|report| !report.ok)
        .flat_map(|report| report.problems.clone())
        .collect();
    Err(backup::BackupError::VerifyFailed {
        id: names.join(", "),
        problems,
    }
    .into())
}

/// Which backups: with `--all` also the damaged ones, whose problems are to be named.
async fn ids(repository: &Repository, args: &VerifyArgs) -> Result<Vec<BackupId>, CommandError> {
    if args.all {
        let catalog = repository.catalog().await?;
        let damaged = catalog.damaged.into_iter().map(|damaged| damaged.id);
        let good = catalog.backups.into_iter().map(|manifest| manifest.id);
        return Ok(good.chain(damaged).collect());
    }
    let wanted = args.id.as_deref().unwrap_or("latest");
    // A full id also reaches a backup whose manifest cannot be read.
    if let Some(id) = BackupId::parse(wanted) {
        return Ok(vec![id]);
    }
    Ok(vec![repository.find(wanted).await?.id])
}

fn tell(session: &Session, report: &VerifyReport) {
    let printer = &session.printer;
    if printer.json {
        return;
    }
    let reader = report
        .reader
        .as_ref()
        .map_or_else(String::new, |reader| format!(", read by {reader}"));
    let (mark, style) = if report.ok {
        ("ok", Style::Good)
    } else {
        ("FAILED", Style::Bad)
    };
    if !printer.quiet || !report.ok {
        printer.result(format!(
            "{mark} {}: {} files, {}{reader}, {}",
            report.id,
            report.files,
            text::bytes(report.bytes),
            text::seconds(report.seconds)
        ));
    }
    for problem in &report.problems {
        printer.message(format!(
            "  {} {}: {}",
            printer.styled("-", style),
            text::name(&problem.object),
            problem.problem
        ));
    }
}
