//! The level `restore` of `pgstow verify` and `pgstow backup`: a throw-away server, the proof in
//! it, and how a proof is told.

use std::time::Duration;

use backup::{
    Manifest, Proof, ProofResult, ProofSummary, ProveOptions, ProveServer, Repository, prove,
    sandbox_needs,
};
use dbexec::{DbMode, Sandbox, SandboxError, SandboxPlace, SandboxSpec, reap_sandboxes};
use jiff::Timestamp;

use crate::args::ProveArgs;
use crate::error::{CommandError, one_line};
use crate::printer::Style;
use crate::render::{events::Renderer, tables::table, text};
use crate::session::Session;
use crate::settings::layers::parse_size;

/// Memory of the throw-away server where nobody says how much, bytes.
const MEMORY: u64 = 2 << 30;
/// How long the server may take to start.
const START: Duration = Duration::from_secs(120);
/// Characters of a problem in a listing.
const LISTED: usize = 60;
/// Rows of a table of differences.
const SHOWN: usize = 50;

/// Restores a backup into a throw-away server and compares it.
pub(crate) async fn run(
    session: &Session,
    repository: &Repository,
    manifest: &Manifest,
    args: &ProveArgs,
    renderer: &Renderer,
) -> Result<Proof, CommandError> {
    let sandbox = start(session, manifest, args).await?;
    session
        .printer
        .message(format!("restoring into {}", sandbox.describe()));
    let options = ProveOptions {
        checks: args.check.clone(),
        check_database: args.database.clone(),
        jobs: None,
    };
    let proof = {
        let server = ProveServer::from(&sandbox);
        let token = &session.interrupts.token;
        prove(repository, manifest, &server, &options, renderer, token).await
    };
    renderer.clear();
    let log = sandbox.log();
    // What stayed behind must be told, whatever the proof says.
    if let Err(left) = sandbox.remove().await {
        session
            .printer
            .warning(format!("of the throw-away server: {}", one_line(&left)));
    }
    if let Err(backup::BackupError::Sandbox { .. }) = &proof {
        for line in log {
            tracing::info!(line, "log of the throw-away server");
        }
    }
    Ok(proof?)
}

/// Starts the server: of the image that the source ran in, or what was named.
async fn start(
    session: &Session,
    manifest: &Manifest,
    args: &ProveArgs,
) -> Result<Sandbox, CommandError> {
    let needs = sandbox_needs(manifest);
    let memory_bytes = match &args.memory {
        Some(memory) => parse_size(memory).map_err(CommandError::usage)?,
        None => MEMORY,
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut spec = SandboxSpec {
        place: SandboxPlace::Host {
            programs: session.host_programs(),
        },
        major: needs.major,
        run_id: session.run_id().to_string(),
        settings: needs.settings,
        env: Vec::new(),
        superuser: needs.superuser,
        memory_bytes,
        cpus: args.cpus.unwrap_or(processors as f64),
        disk_bytes: needs.disk_bytes,
        start_timeout: START,
    };
    let target = &manifest.target;
    let container = target
        .container
        .as_ref()
        .filter(|_| target.mode == DbMode::InContainer);
    let images: Vec<&str> = match (&args.image, container) {
        (Some(image), _) => vec![image],
        // The very image first; then what has its name now.
        (None, Some(container)) => vec![&container.image_digest, &container.image],
        (None, None) => return Ok(begin(session, &mut spec).await?),
    };
    let runtime = session
        .interrupts
        .guard("connecting to the container engine", session.runtime())
        .await?
        .map_err(|error| {
            CommandError::caused(
                error.code(),
                "a throw-away container needs the container engine",
                error.as_ref(),
            )
        })?;
    match reap_sandboxes(runtime.as_ref()).await {
        Ok(0) => {}
        Ok(number) => session.printer.message(format!(
            "removed {number} throw-away servers of runs that were killed"
        )),
        Err(error) => tracing::warn!(%error, "looking for throw-away servers that were left"),
    }
    let mut missing = None;
    for image in images {
        spec.place = SandboxPlace::Image {
            runtime: runtime.clone(),
            image: image.to_owned(),
        };
        match begin(session, &mut spec).await {
            Ok(sandbox) => {
                if let Some(SandboxError::ImageMissing { image: gone }) = &missing {
                    session.printer.warning(format!(
                        "image {gone} of the source is not on this engine: {image} is taken instead"
                    ));
                }
                return Ok(sandbox);
            }
            Err(error @ SandboxError::ImageMissing { .. }) => missing = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(missing.map_or_else(
        || CommandError::usage("the backup does not say which image it ran in; name one: --image"),
        CommandError::from,
    ))
}

/// Starts it; once more without the source's locales where these are not known.
async fn begin(session: &Session, spec: &mut SandboxSpec) -> Result<Sandbox, SandboxError> {
    let token = &session.interrupts.token;
    let started = Sandbox::start(spec, token).await;
    let is_locale = |name: &str| name.starts_with("lc_");
    match started {
        Err(SandboxError::NotStarted { log, .. })
            if spec.settings.keys().any(|name| is_locale(name))
                && log.iter().any(|line| line.contains("\"lc_")) =>
        {
            session.printer.warning(
                "the throw-away server does not know the locales of the source; amounts of money \
                 may be written otherwise there",
            );
            spec.settings.retain(|name, _| !is_locale(name));
            Sandbox::start(spec, token).await
        }
        started => started,
    }
}

/// `proven 3 d ago, 214/214 tables`, or `FAILED 3 d ago: …`.
pub(crate) fn summary(proof: &ProofSummary, now: Timestamp) -> String {
    let age = text::age(proof.finished_at, now);
    match proof.result {
        ProofResult::Passed => format!(
            "proven {age}, {}/{} tables",
            proof.tables_equal, proof.tables_total
        ),
        ProofResult::Failed => {
            let problem = proof.problem.as_deref().unwrap_or_default();
            let mut shown: String = problem.chars().take(LISTED).collect();
            if shown.len() < problem.len() {
                shown.push('…');
            }
            format!("FAILED {age}: {shown}")
        }
    }
}

/// A proof that was just made.
pub(crate) fn tell(session: &Session, proof: &Proof) {
    let printer = &session.printer;
    if printer.json {
        return;
    }
    let passed = proof.result == ProofResult::Passed;
    let (equal, total) = proof.tables();
    let seconds: f64 = proof
        .databases
        .iter()
        .map(|database| database.restore_seconds + database.compare_seconds)
        .sum();
    if passed && !printer.quiet {
        printer.result(format!(
            "proven {}: {} databases, {}/{} tables equal, {}",
            proof.backup,
            proof.databases.len(),
            text::count(equal),
            text::count(total),
            text::seconds(seconds)
        ));
    }
    if !passed {
        printer.result(format!(
            "FAILED {}: {}/{} tables equal after a restore",
            proof.backup,
            text::count(equal),
            text::count(total)
        ));
        for (object, problem) in proof.problems().iter().take(SHOWN) {
            printer.message(format!(
                "  {} {object}: {problem}",
                printer.styled("-", Style::Bad)
            ));
        }
    }
}

/// The report of `show`.
pub(crate) fn report(session: &Session, file: &str, proof: &Proof) {
    let printer = &session.printer;
    printer.result("");
    printer.result(format!(
        "proof of {} ({}): {}",
        text::time(proof.finished_at),
        text::age(proof.finished_at, session.clock.now()),
        match proof.result {
            ProofResult::Passed => "passed",
            ProofResult::Failed => "FAILED",
        }
    ));
    printer.result(format!("  in {}", proof.place));
    printer.result(format!("  recorded in {file}"));
    let rows: Vec<Vec<String>> = proof
        .databases
        .iter()
        .map(|database| {
            let c = &database.comparison;
            vec![
                text::name(&database.name),
                format!("{}/{}", c.tables_equal, c.tables_total),
                c.fingerprints.to_string(),
                text::count(c.rows),
                format!("{}/{}", c.sequences_equal, c.sequences_total),
                c.large_objects
                    .map_or_else(|| "-".to_owned(), |number| number.to_string()),
                match c.catalogue {
                    backup::compare::CatalogueState::NotCompared => "-".to_owned(),
                    backup::compare::CatalogueState::Names => {
                        format!("{} names", c.catalogue_objects)
                    }
                    backup::compare::CatalogueState::Full => c.catalogue_objects.to_string(),
                },
                database
                    .amcheck
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), |amcheck| amcheck.indexes.to_string()),
                text::seconds(database.restore_seconds + database.compare_seconds),
            ]
        })
        .collect();
    let head = [
        "DATABASE",
        "EQUAL TABLES",
        "BY CONTENT",
        "ROWS",
        "SEQUENCES",
        "LARGE OBJECTS",
        "OBJECTS",
        "INDEXES",
        "TIME",
    ];
    for line in table(&head, &rows) {
        printer.result(line);
    }
    let passed = proof.checks.iter().filter(|check| check.passed).count();
    if !proof.checks.is_empty() {
        printer.result(format!("checks passed: {passed} of {}", proof.checks.len()));
    }
    let problems = proof.problems();
    if !problems.is_empty() {
        printer.result("");
        let rows: Vec<Vec<String>> = problems
            .iter()
            .take(SHOWN)
            .map(|(object, problem)| vec![object.clone(), problem.replace('\n', " ")])
            .collect();
        for line in table(&["DIFFERENT", "HOW"], &rows) {
            printer.result(line);
        }
        if problems.len() > SHOWN {
            printer.result(format!("and {} more", problems.len() - SHOWN));
        }
    }
    for warning in &proof.warnings {
        printer.warning(warning);
    }
    for database in &proof.databases {
        for missing in database.comparison.not_compared.iter().take(SHOWN) {
            printer.message(format!(
                "not compared in {}: {missing}",
                text::name(&database.name)
            ));
        }
    }
}
