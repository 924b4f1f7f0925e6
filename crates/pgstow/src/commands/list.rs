//! `pgstow list`: what exists, and apart from it what failed, is incomplete or damaged.

use backup::{Catalog, DumpFormat, Manifest, ProofSummary, RunState};
use jiff::Timestamp;

use super::{prove, verify::level_word};
use crate::render::{tables::table, text};
use crate::{error::CommandError, exit, session::Session};

pub(crate) async fn run(session: &Session) -> Result<u8, CommandError> {
    let catalog = match session.existing_repository()? {
        Some(repository) => {
            session
                .interrupts
                .guard("listing the backups", async {
                    // Only JSON tells all.
                    match session.printer.json {
                        true => repository.catalog().await,
                        false => repository.catalog_without_tables().await,
                    }
                })
                .await??
        }
        None => Catalog::default(),
    };
    let printer = &session.printer;
    if printer.json {
        printer.json_line(&catalog);
        return Ok(exit::DONE);
    }
    let now = session.clock.now();
    if catalog.backups.is_empty() {
        printer.message(format!(
            "there are no backups in {}; make one with pgstow backup",
            session.settings.data_dir.root.display()
        ));
    } else {
        let rows: Vec<_> = catalog
            .backups
            .iter()
            .map(|m| backup_row(m, catalog.proof(&m.id), now))
            .collect();
        let head = [
            "ID",
            "AGE",
            "TARGET",
            "DATABASES",
            "SIZE",
            "FORMAT",
            "VERIFIED",
            "PROOF",
            "TAGS",
        ];
        for line in table(&head, &rows) {
            printer.result(line);
        }
    }
    others(session, &catalog, now);
    Ok(exit::DONE)
}

fn backup_row(manifest: &Manifest, proof: Option<&ProofSummary>, now: Timestamp) -> Vec<String> {
    let names: Vec<_> = manifest
        .databases
        .iter()
        .map(|database| text::name(&database.name))
        .collect();
    let mut formats: Vec<_> = manifest
        .databases
        .iter()
        .map(|database| format_word(database.archive.format))
        .collect();
    formats.dedup();
    let tags: Vec<_> = manifest
        .tags
        .iter()
        .map(|(name, value)| format!("{}={}", text::name(name), text::name(value)))
        .collect();
    vec![
        manifest.id.to_string(),
        text::age(manifest.finished_at, now),
        text::name(&manifest.target.name),
        shorten(&names),
        text::bytes(manifest.bytes()),
        formats.join(","),
        level_word(manifest.verified).to_owned(),
        proof.map_or_else(
            || "-".to_owned(),
            |proof| prove::summary(proof, now).replace('\n', " "),
        ),
        tags.join(" "),
    ]
}

fn shorten(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        [a] => a.clone(),
        [a, b] => format!("{a}, {b}"),
        [a, b, rest @ ..] => format!("{a}, {b} and {} more", rest.len()),
    }
}

pub(crate) fn format_word(format: DumpFormat) -> &'static str {
    match format {
        DumpFormat::Custom => "custom",
        DumpFormat::Directory => "directory",
        DumpFormat::Plain => "plain",
    }
}

fn others(session: &Session, catalog: &Catalog, now: Timestamp) {
    let printer = &session.printer;
    if !catalog.runs.is_empty() {
        printer.result("");
        printer.result("runs without a backup:");
        let rows: Vec<Vec<String>> = catalog
            .runs
            .iter()
            .map(|run| {
                let state = match run.state {
                    RunState::Running => "running",
                    RunState::Failed => "failed",
                    RunState::Interrupted => "interrupted",
                    RunState::Done => "done",
                };
                vec![
                    run.id.to_string(),
                    text::age(run.started_at, now),
                    text::name(&run.target),
                    state.to_owned(),
                    run.error_code.clone().unwrap_or_default(),
                    run.error.clone().unwrap_or_default().replace('\n', " "),
                ]
            })
            .collect();
        for line in table(&["ID", "AGE", "TARGET", "STATE", "CODE", "WHY"], &rows) {
            printer.result(line);
        }
    }
    if !catalog.damaged.is_empty() {
        printer.result("");
        printer.result("damaged, not to be relied on:");
        let rows: Vec<Vec<String>> = catalog
            .damaged
            .iter()
            .map(|damaged| vec![damaged.id.to_string(), damaged.problem.replace('\n', " ")])
            .collect();
        for line in table(&["ID", "WHAT IS WRONG"], &rows) {
            printer.result(line);
        }
    }
}
