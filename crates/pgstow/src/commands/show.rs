//! `pgstow show ID`.

use archive::Toc;
use backup::{DumpFormat, Manifest, Repository, manifest::DatabaseRecord};
use serde_json::json;
use tokio_util::io::SyncIoBridge;

use super::{list::format_word, verify::level_word};
use crate::args::ShowArgs;
use crate::error::{CommandError, one_line};
use crate::render::{tables::table, text};
use crate::{exit, printer::Printer, session::Session};

pub(crate) async fn run(session: &Session, args: &ShowArgs) -> Result<u8, CommandError> {
    let repository = session.filled_repository(&args.id)?;
    let manifest = repository.find(&args.id).await?;
    let printer = &session.printer;
    if printer.json && !args.toc {
        printer.json_line(&manifest);
        return Ok(exit::DONE);
    }
    let mut contents = Vec::new();
    if args.toc {
        for database in &manifest.databases {
            let toc = session
                .interrupts
                .guard(
                    "reading an archive",
                    read_toc(&repository, &manifest, database),
                )
                .await??;
            contents.push((database.name.as_str(), toc));
        }
    }
    if printer.json {
        let contents: serde_json::Map<_, _> = contents
            .iter()
            .map(|(name, toc)| ((*name).to_owned(), json!(toc.as_ref().map(toc_json))))
            .collect();
        printer.json_line(&json!({ "manifest": manifest, "contents": contents }));
        return Ok(exit::DONE);
    }
    tell(session, &repository, &manifest);
    for (name, toc) in &contents {
        tell_toc(printer, name, toc.as_ref());
    }
    Ok(exit::DONE)
}

/// The table of contents of an archive; a script has none.
async fn read_toc(
    repository: &Repository,
    manifest: &Manifest,
    database: &DatabaseRecord,
) -> Result<Option<Toc>, CommandError> {
    let wanted = match database.archive.format {
        DumpFormat::Plain => return Ok(None),
        DumpFormat::Custom => database.archive.files.first(),
        DumpFormat::Directory => database
            .archive
            .files
            .iter()
            .find(|file| file.name.ends_with("/toc.dat")),
    };
    let file = wanted.ok_or_else(|| damaged(database, "it has no table of contents"))?;
    let stored = Repository::stored_name(&manifest.id, file);
    let reader = repository.store.open(&stored).await?;
    let handle = tokio::runtime::Handle::current();
    let read = tokio::task::spawn_blocking(move || {
        let reader = SyncIoBridge::new_with_handle(reader, handle);
        archive::read_toc(std::io::BufReader::new(reader))
    })
    .await;
    match read {
        Ok(Ok(toc)) => Ok(Some(toc)),
        Ok(Err(error)) => Err(damaged(database, &one_line(&error))),
        Err(panic) => Err(damaged(database, &panic.to_string())),
    }
}

fn damaged(database: &DatabaseRecord, problem: &str) -> CommandError {
    CommandError::new(
        backup::codes::VERIFY_FAILED,
        format!(
            "the archive of database {:?} cannot be read: {problem}",
            database.name
        ),
    )
}

fn toc_json(toc: &Toc) -> serde_json::Value {
    let entries: Vec<_> = toc
        .entries
        .iter()
        .map(|entry| {
            json!({
                "id": entry.dump_id,
                "kind": entry.kind,
                "schema": entry.schema,
                "name": entry.name,
                "owner": entry.owner,
                "has_data": entry.has_data,
            })
        })
        .collect();
    json!(entries)
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

fn tell_toc(printer: &Printer, name: &str, toc: Option<&Toc>) {
    printer.result("");
    let Some(toc) = toc else {
        printer.result(format!(
            "{}: a plain script has no table of contents",
            text::name(name)
        ));
        return;
    };
    printer.result(format!(
        "contents of {}: {} entries",
        text::name(name),
        toc.entries.len()
    ));
    let rows: Vec<Vec<String>> = toc
        .entries
        .iter()
        .map(|entry| {
            let plain = |value: &Option<String>| {
                value
                    .as_deref()
                    .filter(|v| !v.is_empty())
                    .map_or("-".to_owned(), text::name)
            };
            vec![
                entry.dump_id.to_string(),
                entry.kind.clone(),
                plain(&entry.schema),
                text::name(&entry.name),
                plain(&entry.owner),
            ]
        })
        .collect();
    for line in table(&["NR", "KIND", "SCHEMA", "NAME", "OWNER"], &rows) {
        printer.result(line);
    }
}
