//! `pgstow backup`.

use std::collections::BTreeMap;

use backup::{
    BackupOptions, BackupReport, DumpFormat, EngineChoice, Proof, ProofResult, VerifyLevel, back_up,
};
use dbexec::{DbMode, TargetSpec, discover::write_persisted};
use serde::Serialize;

use super::{prove, verify::problems};
use crate::args::{BackupArgs, ProveArgs};
use crate::error::{CommandError, one_line};
use crate::render::{events::Renderer, text};
use crate::{exit, session::Session, settings::Settings};

/// The result object of `--json`.
#[derive(Serialize)]
struct Done<'a> {
    result: &'static str,
    id: &'a str,
    location: &'a str,
    bytes: u64,
    seconds: f64,
    warnings: Vec<String>,
    exit_code: u8,
    manifest: &'a backup::Manifest,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<&'a Proof>,
}

pub(crate) async fn run(session: &Session, args: &BackupArgs) -> Result<u8, CommandError> {
    let options = options(session, args)?;
    let explicit = session.explicit().await?;
    let named = explicit.target.as_ref().and_then(TargetSpec::database);
    let repository = session.repository()?;
    let id = session.run_id();
    let server = session.discover(explicit, &id).await?;
    let context = server.context.clone();
    let runtime = server.runtime.clone();
    let executor = session.open(server, &id).await?;
    if let (Some(named), true) = (named, options.databases.is_empty()) {
        // It is easily taken for a choice of what is backed up.
        let named = text::name(&named);
        session.printer.message(format!(
            "every database is backed up: {named} is where the first connection goes; \
             --database {named} backs up that one alone"
        ));
    }
    let chosen = session
        .transport(executor, runtime, &options.databases, &id)
        .await;
    let mut renderer = Renderer::new(&session.printer);
    // Only for the time that is left, so a catalogue that cannot be read is told elsewhere.
    if session.printer.bars().is_some()
        && let Ok(catalog) = repository.catalog_without_tables().await
    {
        renderer = renderer.with_history(&catalog, &context.target_name());
    }
    let done = back_up(
        &repository,
        &chosen.executor,
        id,
        &options,
        &renderer,
        &session.interrupts.token,
    )
    .await;
    renderer.clear();
    chosen.close(&session.printer).await;
    let report = done?;
    session.measure(|metrics| metrics.backup(&report));
    // The backup is there; losing this convenience must not make it look failed.
    if context.mode == DbMode::InContainer
        && let Err(error) = write_persisted(&session.settings.data_dir.persisted_file(), &context)
    {
        session.printer.warning(format!(
            "the credentials were not kept for later: {}",
            one_line(&error)
        ));
    }
    // The backup is published; what a restore of it shows is recorded beside it.
    let proof = match session.settings.verify {
        VerifyLevel::Restore => {
            let args = ProveArgs::default();
            Some(prove::run(session, &repository, &report.manifest, &args, &renderer).await)
        }
        VerifyLevel::None | VerifyLevel::Hash | VerifyLevel::Read => None,
    };
    let (proof, error) = match proof {
        Some(Ok(proof)) if proof.result == ProofResult::Failed => {
            let error = backup::BackupError::VerifyFailed {
                id: report.manifest.id.to_string(),
                problems: problems(&proof),
            };
            (Some(proof), Some(error.into()))
        }
        Some(Ok(proof)) => (Some(proof), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let exit_code = error
        .as_ref()
        .map_or_else(|| exit_code(&report), |error: &CommandError| error.exit);
    tell(
        session,
        &report,
        proof.as_ref(),
        renderer.warnings(),
        exit_code,
    );
    error.map_or(Ok(exit_code), Err)
}

/// Options as settings and arguments give them.
fn options(session: &Session, args: &BackupArgs) -> Result<BackupOptions, CommandError> {
    let mut tags = BTreeMap::new();
    for tag in &args.tag {
        let (name, value) = tag
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| CommandError::usage(format!("--tag {tag:?} is not K=V")))?;
        tags.insert(name.to_owned(), value.to_owned());
    }
    let settings = &session.settings;
    check_jobs(settings)?;
    Ok(BackupOptions {
        databases: args.database.clone(),
        exclude_table_data: settings.exclude_table_data.clone(),
        format: settings.format,
        engine: settings.engine,
        jobs: settings.jobs,
        verify: settings.verify,
        fingerprint_budget: settings.fingerprint_budget,
        tags,
    })
}

/// Refuses a wish that this format or this engine cannot fulfil.
fn check_jobs(settings: &Settings) -> Result<(), CommandError> {
    let Settings { format, engine, .. } = settings;
    if *format == DumpFormat::Plain && *engine == EngineChoice::Parallel {
        return Err(CommandError::usage(
            "a script comes from pg_dump alone: the parallel engine writes the other formats",
        )
        .hint("leave --engine or --format plain out"));
    }
    let one_at_a_time = match format {
        DumpFormat::Plain => true,
        DumpFormat::Custom => *engine == EngineChoice::Stock,
        DumpFormat::Directory => false,
    };
    if one_at_a_time && settings.jobs.is_some_and(|jobs| jobs > 1) {
        return Err(CommandError::usage(
            "pg_dump alone writes with several jobs only in the directory format",
        )
        .hint("add --format directory, or leave --jobs or --engine stock out"));
    }
    Ok(())
}

/// Warnings that matter are those in the manifest: the backup lacks something, or was made under
/// doubt. Others (the kept credentials, leftovers of earlier runs) do not change the exit code.
fn exit_code(report: &BackupReport) -> u8 {
    let manifest = &report.manifest;
    let dumped = manifest
        .databases
        .iter()
        .any(|database| !database.archive.warnings.is_empty());
    if manifest.warnings.is_empty() && !dumped {
        exit::DONE
    } else {
        exit::WARNINGS
    }
}

fn tell(
    session: &Session,
    report: &BackupReport,
    proof: Option<&Proof>,
    warnings: Vec<String>,
    exit_code: u8,
) {
    let printer = &session.printer;
    let manifest = &report.manifest;
    let id = manifest.id.as_str();
    if printer.json {
        printer.json_line(&Done {
            result: "backup",
            id,
            location: &report.location,
            bytes: report.bytes,
            seconds: report.seconds,
            warnings,
            exit_code,
            manifest,
            proof,
        });
        return;
    }
    for database in &manifest.databases {
        for warning in &database.archive.warnings {
            printer.warning(format!("{}: {warning}", text::name(&database.name)));
        }
    }
    if printer.quiet {
        printer.result(id);
        return;
    }
    let many = manifest.databases.len();
    printer.result(format!(
        "backup {id}: {many} database{} of {}, {}, verified: {}, {}",
        if many == 1 { "" } else { "s" },
        text::name(&manifest.target.name),
        text::bytes(report.bytes),
        super::verify::level_word(manifest.verified),
        text::seconds(report.seconds)
    ));
    printer.result(format!("stored in {}", report.location));
    if let Some(proof) = proof {
        prove::tell(session, proof);
    }
    printer.message(format!("restore it beside: pgstow restore {id} --as NEWDB"));
}
