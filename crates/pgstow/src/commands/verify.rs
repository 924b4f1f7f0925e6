//! `pgstow verify`.

use backup::requests::VerifyProblem;
use backup::{
    BackupError, BackupId, Proof, ProofResult, Repository, VerifyLevel, VerifyReport, verify,
};
use serde_json::json;

use super::prove;
use crate::args::{LevelArg, ProveArgs, VerifyArgs};
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
        LevelArg::Restore => VerifyLevel::Restore,
    };
    check_arguments(level, &args.prove)?;
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
    let mut proofs = Vec::new();
    // A throw-away server that cannot be had says nothing of the other backups.
    let mut unproven: Option<CommandError> = None;
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
        let mut report = report?;
        tell(session, &report);
        if report.ok && level == VerifyLevel::Restore {
            match restored(session, &repository, &id, args, &renderer).await {
                Ok(proof) => {
                    prove::tell(session, &proof);
                    report.ok = proof.result == ProofResult::Passed;
                    report.problems = problems(&proof);
                    proofs.push(proof);
                }
                Err(error) if args.all && session.interrupts.exit_code().is_none() => {
                    for message in &error.messages {
                        session.printer.warning(format!("{id}: {message}"));
                    }
                    unproven = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if !report.ok {
            bad.push(id);
        }
        reports.push(report);
    }
    let exit_code = match (&bad[..], &unproven) {
        ([], None) => exit::DONE,
        ([], Some(error)) => error.exit,
        _ => exit::VERIFY_FAILED,
    };
    if session.printer.json {
        session.printer.json_line(&json!({
            "result": "verify",
            "ok": bad.is_empty() && unproven.is_none(),
            "reports": reports,
            "proofs": proofs,
            "exit_code": exit_code,
        }));
    }
    if bad.is_empty() {
        return unproven.map_or(Ok(exit::DONE), Err);
    }
    let names: Vec<_> = bad.iter().map(ToString::to_string).collect();
    let problems = reports
        .iter()
        .filter(|report| !report.ok)
        .flat_map(|report| report.problems.clone())
        .collect();
    Err(BackupError::VerifyFailed {
        id: names.join(", "),
        problems,
    }
    .into())
}

/// Options of a restore mean nothing to the other levels.
fn check_arguments(level: VerifyLevel, args: &ProveArgs) -> Result<(), CommandError> {
    let given = args.image.is_some()
        || args.memory.is_some()
        || args.cpus.is_some()
        || args.database.is_some()
        || !args.check.is_empty();
    if given && level != VerifyLevel::Restore {
        return Err(CommandError::usage(
            "--image, --memory, --cpus, --check and --database belong to --level restore",
        ));
    }
    if args
        .cpus
        .is_some_and(|cpus| !(cpus > 0.0 && cpus <= 4096.0))
    {
        return Err(CommandError::usage("--cpus must be more than 0"));
    }
    Ok(())
}

async fn restored(
    session: &Session,
    repository: &Repository,
    id: &BackupId,
    args: &VerifyArgs,
    renderer: &Renderer,
) -> Result<Proof, CommandError> {
    let manifest = repository.find(id.as_str()).await?;
    prove::run(session, repository, &manifest, &args.prove, renderer).await
}

/// What a proof found, as a report tells it.
pub(crate) fn problems(proof: &Proof) -> Vec<VerifyProblem> {
    let found = proof.problems().into_iter();
    found
        .map(|(object, problem)| VerifyProblem { object, problem })
        .collect()
}

/// Which backups: with `--all` also the damaged ones, whose problems are to be named; with `latest`
/// those that are newer than it or, without any, all: whoever verifies it wants to know of the last run.
async fn ids(repository: &Repository, args: &VerifyArgs) -> Result<Vec<BackupId>, CommandError> {
    if args.all {
        let catalog = repository.catalog_without_tables().await?;
        let damaged = catalog.damaged.into_iter().map(|damaged| damaged.id);
        let good = catalog.backups.into_iter().map(|manifest| manifest.id);
        return Ok(good.chain(damaged).collect());
    }
    let wanted = args.id.as_deref().unwrap_or("latest");
    // A full id also reaches a backup whose manifest cannot be read.
    if let Some(id) = BackupId::parse(wanted) {
        return Ok(vec![id]);
    }
    let found = repository.find_id(wanted).await;
    if wanted != "latest" {
        return Ok(vec![found?]);
    }
    let damaged = repository.catalog_without_tables().await?.damaged;
    let damaged = damaged.into_iter().map(|damaged| damaged.id);
    match found {
        Ok(found) => Ok(std::iter::once(found.clone())
            .chain(damaged.filter(|id| *id > found))
            .collect()),
        // There are no others: what is wrong with them is the answer.
        Err(error @ BackupError::NotFound { .. }) => match damaged.collect::<Vec<_>>() {
            damaged if damaged.is_empty() => Err(error.into()),
            damaged => Ok(damaged),
        },
        Err(error) => Err(error.into()),
    }
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
