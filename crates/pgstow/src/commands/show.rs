//! `pgstow show ID`.

mod toc;

use backup::attest::Attestation;
use backup::diff::ArchiveContents;
use backup::{EngineRecord, Manifest, Repository, manifest::DatabaseRecord};
use serde_json::json;

use super::{list::format_word, prove, verify::level_word};
use crate::args::ShowArgs;
use crate::error::CommandError;
use crate::render::{events::Renderer, tables::table, text};
use crate::{exit, session::Session};

pub(crate) async fn run(session: &Session, args: &ShowArgs) -> Result<u8, CommandError> {
    let repository = session.filled_repository(&args.id)?;
    let manifest = repository.find(&args.id).await?;
    let printer = &session.printer;
    let proof = repository.proof(&manifest.id).await?;
    if printer.json && !args.toc {
        let mut shown = json!(manifest);
        // Only where there is one: what was shown before stays as it was.
        if let Some((_, proof)) = &proof {
            shown["proof"] = json!(proof);
        }
        printer.json_line(&shown);
        return Ok(exit::DONE);
    }
    let mut found = Vec::new();
    if args.toc {
        for database in &manifest.databases {
            let contents = contents(session, &repository, &manifest, database).await?;
            found.push((database.name.as_str(), contents));
        }
    }
    if printer.json {
        let contents: serde_json::Map<_, _> = found
            .iter()
            .map(|(name, contents)| ((*name).to_owned(), toc::json(contents)))
            .collect();
        printer.json_line(&json!({ "manifest": manifest, "contents": contents }));
        return Ok(exit::DONE);
    }
    tell(session, &repository, &manifest);
    if let Some((file, proof)) = &proof {
        prove::report(session, file, proof);
    }
    for (name, contents) in &found {
        toc::tell(printer, name, contents);
    }
    Ok(exit::DONE)
}

/// What an archive holds; reads it whole only where nobody attested it.
pub(crate) async fn contents(
    session: &Session,
    repository: &Repository,
    manifest: &Manifest,
    database: &DatabaseRecord,
) -> Result<ArchiveContents, CommandError> {
    let renderer = Renderer::new(&session.printer);
    let token = &session.interrupts.token;
    let read = backup::diff::contents(repository, manifest, database, &renderer, token);
    let read = session.interrupts.guard("reading an archive", read).await;
    renderer.clear();
    Ok(read??)
}

fn tell(session: &Session, repository: &Repository, manifest: &Manifest) {
    let printer = &session.printer;
    let target = &manifest.target;
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut put = |field: &str, value: String| rows.push(vec![field.to_owned(), value]);
    put("backup", manifest.id.to_string());
    put("location", repository.location(&manifest.id));
    put(
        "finished",
        format!(
            "{} ({})",
            text::time(manifest.finished_at),
            text::age(manifest.finished_at, session.clock.now())
        ),
    );
    put("target", text::name(&target.name));
    if let Some(container) = &target.container {
        put(
            "container",
            format!("{} (image {})", container.name, container.image),
        );
    }
    put("server", format!("PostgreSQL {}", target.server.version));
    if let Some(identifier) = &target.server.system_identifier {
        put("system identifier", identifier.clone());
    }
    let programs: Vec<_> = manifest
        .programs
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    put(
        "made with",
        format!("pgstow {}, {}", manifest.tool_version, programs.join(", ")),
    );
    put("transport", text::transport(target.transport));
    put("verified", level_word(manifest.verified).to_owned());
    put("stored", text::bytes(manifest.bytes()));
    put(
        "roles",
        match &manifest.globals.file {
            Some(_) => format!(
                "{} ({} password verifiers)",
                manifest.globals.roles.len(),
                if manifest.globals.with_passwords {
                    "with"
                } else {
                    "without"
                }
            ),
            None => "not in this backup".to_owned(),
        },
    );
    for (name, value) in &manifest.tags {
        put("tag", format!("{}={}", text::name(name), text::name(value)));
    }
    for line in table(&["", ""], &rows).into_iter().skip(1) {
        printer.result(line);
    }
    printer.result("");
    let rows: Vec<Vec<String>> = manifest
        .databases
        .iter()
        .map(|database| {
            let archive = &database.archive;
            let extensions: Vec<_> = database
                .extensions
                .iter()
                .map(|(name, version)| format!("{name} {version}"))
                .collect();
            vec![
                text::name(&database.name),
                text::name(&database.owner),
                format!("{} {}", database.encoding, database.collate),
                text::bytes(database.size_bytes),
                text::bytes(archive.bytes()),
                format!("{} {}", format_word(archive.format), archive.compression),
                text::seconds(archive.seconds),
                extensions.join(", "),
            ]
        })
        .collect();
    let head = [
        "DATABASE",
        "OWNER",
        "LOCALE",
        "ON SERVER",
        "STORED",
        "ARCHIVE",
        "TIME",
        "EXTENSIONS",
    ];
    for line in table(&head, &rows) {
        printer.result(line);
    }
    printer.result("");
    for database in &manifest.databases {
        let words = engine_words(database.archive.engine.as_ref());
        printer.result(format!("{}: {words}", text::name(&database.name)));
    }
    tell_attestations(session, manifest);
    let dumped = manifest
        .databases
        .iter()
        .flat_map(|database| &database.archive.warnings);
    for warning in manifest.warnings.iter().chain(dumped) {
        printer.warning(warning);
    }
    printer.result("");
    printer.result("by hand:");
    for line in &manifest.recipe {
        printer.result(format!("  {line}"));
    }
}

/// `parallel engine, 2 jobs, by the container's address 172.17.0.2:5432`, or
/// `stock engine: 12 MB are not worth it`.
fn engine_words(record: Option<&EngineRecord>) -> String {
    let Some(record) = record else {
        return "stock engine".to_owned();
    };
    let mut words = format!("{} engine", text::name(&record.engine));
    match record.jobs {
        Some(1) => words.push_str(", 1 job"),
        Some(jobs) => words.push_str(&format!(", {jobs} jobs")),
        None => {}
    }
    if let Some(route) = &record.route {
        words.push_str(&format!(", by {}", text::words(route)));
    }
    if let Some(reason) = &record.reason {
        words.push_str(&format!("; not the faster one: {}", text::words(reason)));
    }
    words
}

/// What was attested of each database, and what was not.
fn tell_attestations(session: &Session, manifest: &Manifest) {
    let printer = &session.printer;
    printer.result("");
    for database in &manifest.databases {
        let name = text::name(&database.name);
        let Some(attestation) = &database.attestation else {
            printer.result(format!("{name}: not attested"));
            continue;
        };
        printer.result(format!("{name}: {}", attested(attestation)));
        for missing in &attestation.missing {
            printer.result(format!("  not proven: {missing}"));
        }
    }
}

/// `214 tables, 52,000 rows and 3 sequences attested in the dump's snapshot, 200 fingerprints`.
fn attested(attestation: &Attestation) -> String {
    let tables = &attestation.tables;
    let rows = tables.iter().map(|table| table.rows).sum();
    let fingerprints = tables.iter().filter(|t| t.fingerprint.is_some()).count();
    let objects = attestation
        .large_objects
        .as_ref()
        .filter(|objects| objects.count > 0)
        .map_or_else(String::new, |objects| {
            format!(", {} large objects", text::count(objects.count))
        });
    format!(
        "{} tables, {} rows, {} sequences{objects} attested {}, {} fingerprints",
        text::count(tables.len() as u64),
        text::count(rows),
        text::count(attestation.sequences.len() as u64),
        if attestation.snapshot {
            "in the dump's snapshot"
        } else {
            "from the archive alone"
        },
        text::count(fingerprints as u64),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_told_with_route_jobs_and_reason() {
        let record = |engine: &str, route: Option<&str>, jobs, reason: Option<&str>| EngineRecord {
            engine: engine.to_owned(),
            route: route.map(str::to_owned),
            jobs,
            reason: reason.map(str::to_owned),
        };
        for (record, told) in [
            (None, "stock engine"),
            (
                Some(record("parallel", Some("socket /run/db"), Some(2), None)),
                "parallel engine, 2 jobs, by socket /run/db",
            ),
            (
                Some(record("stock", None, Some(1), Some("a pooler\nanswers"))),
                "stock engine, 1 job; not the faster one: a pooler answers",
            ),
        ] {
            assert_eq!(engine_words(record.as_ref()), told);
        }
    }
}
