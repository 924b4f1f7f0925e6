//! `pgstow discover`: which server, where each field of the login came from, what was tried.

mod would_use;

use dbexec::discover::Found;
use dbexec::executor::ProgramInfo;
use dbexec::{
    ContainerIdentity, CredentialSource, DbContext, DbCreds, DiscoverError, FieldSources,
    PgProgram, Trail,
};
use serde::Serialize;
use serde_json::json;

use crate::args::DiscoverArgs;
use crate::render::{tables::table, text};
use crate::session::source_words;
use crate::{error::CommandError, exit, printer::Printer, session::Session};

pub(crate) async fn run(session: &Session, args: &DiscoverArgs) -> Result<u8, CommandError> {
    if args.all {
        return every(session, args.explain).await;
    }
    let explicit = session.explicit().await?;
    let run = session.run_id();
    let input = session.discover_input(explicit, &run).await?;
    let found = session
        .interrupts
        .guard(
            "looking for the database",
            dbexec::discover_db_context(&input),
        )
        .await?;
    let context = match found {
        Ok(context) => context,
        Err(error) => return Err(not_found(session, error, args.explain)),
    };
    session.measure(|metrics| metrics.trail(&context.trail));
    let server = crate::session::Server {
        context: context.clone(),
        runtime: input.runtime.ok(),
        host_programs: input.host_programs,
    };
    // The server is found also where a program is missing; the table then says which.
    let mut programs = Vec::new();
    let mut would = None;
    match session.open(server, &run).await {
        Ok(executor) => {
            for program in [PgProgram::PgDump, PgProgram::PgRestore, PgProgram::Psql] {
                let looked = session
                    .interrupts
                    .guard("looking for programs", executor.program(program))
                    .await?;
                programs.push((program, looked.map_err(|error| error.to_string())));
            }
            if args.explain {
                would = Some(would_use::would_use(session, executor.as_ref()).await?);
            }
        }
        Err(error) => session.printer.warning(error.messages.join(": ")),
    }
    let printer = &session.printer;
    if printer.json {
        let mut shown = as_json(&context, &programs);
        // Only where it was asked for: a route is looked for with sessions of our own.
        if let Some(would) = &would {
            shown["would_use"] = json!(would);
        }
        printer.json_line(&shown);
    } else {
        tell(printer, &context, &programs);
        if args.explain {
            explain(printer, &context.trail);
        }
        if let Some(would) = &would {
            would_use::tell(printer, would);
        }
    }
    Ok(exit::DONE)
}

fn not_found(session: &Session, error: DiscoverError, with_trail: bool) -> CommandError {
    session.measure(|metrics| metrics.trail(error.trail()));
    if session.printer.json {
        session
            .printer
            .json_line(&json!({ "trail": error.trail() }));
    } else if with_trail {
        explain(&session.printer, error.trail());
    }
    error.into()
}

async fn every(session: &Session, with_trail: bool) -> Result<u8, CommandError> {
    let (found, trail) = session.discover_every(&session.run_id()).await?;
    let printer = &session.printer;
    if printer.json {
        let servers: Vec<_> = found.iter().map(found_json).collect();
        printer.json_line(&json!({ "servers": servers, "trail": trail }));
    } else {
        if !found.is_empty() {
            let rows: Vec<Vec<String>> = found.iter().map(found_row).collect();
            let head = [
                "TARGET",
                "SERVER",
                "LOGIN",
                "CREDENTIALS FROM",
                "IMAGE",
                "PORTS",
            ];
            for line in table(&head, &rows) {
                printer.result(line);
            }
        }
        if with_trail {
            explain(printer, &trail);
        }
    }
    if found.is_empty() {
        let mut error = CommandError::new(
            dbexec::codes::DATABASE_NOT_FOUND,
            "no PostgreSQL database was found",
        );
        for entry in trail.entries.iter().rev() {
            error = error.hint(format!("{}: {}", entry.step, entry.reason));
        }
        return Err(error);
    }
    Ok(exit::DONE)
}

#[derive(Serialize)]
struct JsonLogin<'a> {
    host: Option<&'a str>,
    port: u16,
    database: &'a str,
    user: &'a str,
    /// Whether there is one; never which.
    password: bool,
    sslmode: Option<&'static str>,
}

fn login(creds: &DbCreds) -> JsonLogin<'_> {
    JsonLogin {
        host: creds.host.as_deref(),
        port: creds.port,
        database: &creds.database,
        user: &creds.user,
        password: creds.password.is_some(),
        sslmode: creds.tls.mode.map(dbexec::SslMode::as_str),
    }
}

type Programs = [(PgProgram, Result<ProgramInfo, String>)];

fn as_json(context: &DbContext, programs: &Programs) -> serde_json::Value {
    let programs: serde_json::Map<_, _> = programs
        .iter()
        .map(|(program, found)| {
            let value = match found {
                Ok(info) => json!(info),
                Err(problem) => json!({ "missing": problem }),
            };
            (program.as_str().to_owned(), value)
        })
        .collect();
    json!({
        "target": context.target_name(),
        "mode": context.mode,
        "source": context.source,
        "login": login(&context.creds),
        "field_sources": context.field_sources,
        "container": context.container,
        "server": context.server,
        "programs": programs,
        "trail": context.trail,
    })
}

fn found_json(found: &Found) -> serde_json::Value {
    let (fields, server, problem) = match &found.login {
        Ok(ok) => (
            json!({ "login": login(&ok.creds), "field_sources": ok.field_sources }),
            json!(ok.server),
            None,
        ),
        Err(problem) => (json!(null), json!(null), Some(problem)),
    };
    json!({
        "target": found.candidate.target,
        "evidence": found.candidate.evidence,
        "ports": found.candidate.ports,
        "mode": found.mode,
        "source": found.source,
        "container": found.container,
        "credentials": fields,
        "server": server,
        "problem": problem,
    })
}

fn found_row(found: &Found) -> Vec<String> {
    let (server, login, source) = match &found.login {
        Ok(ok) => (
            format!("PostgreSQL {}", ok.server.version),
            format!(
                "{} on {}",
                text::name(&ok.creds.user),
                text::name(&ok.creds.database)
            ),
            credential_source(&ok.field_sources).map_or("defaults", source_words),
        ),
        Err(problem) => ("not usable".to_owned(), problem.clone(), ""),
    };
    vec![
        found.candidate.target.clone(),
        server,
        login,
        source.to_owned(),
        found.candidate.image.clone(),
        found.candidate.ports.join(" "),
    ]
}

fn credential_source(sources: &FieldSources) -> Option<CredentialSource> {
    sources.password.or(sources.user)
}

fn tell(printer: &Printer, context: &DbContext, programs: &Programs) {
    let creds = &context.creds;
    let mut rows = vec![row("target", &context.target_name(), None)];
    if let Some(container) = &context.container {
        rows.push(row("container", &container_words(container), None));
    }
    let sources = &context.field_sources;
    rows.push(row(
        "server",
        &format!(
            "PostgreSQL {}{}",
            context.server.version,
            if context.server.in_recovery {
                " (standby)"
            } else {
                ""
            }
        ),
        Some(context.source),
    ));
    let host = creds.host.as_deref().unwrap_or("local socket");
    rows.push(row("host", host, sources.host));
    rows.push(row("port", &creds.port.to_string(), sources.port));
    rows.push(row(
        "database",
        &text::name(&creds.database),
        sources.database,
    ));
    rows.push(row("user", &text::name(&creds.user), sources.user));
    let password = match creds.password {
        Some(_) => "set, and accepted",
        None => "none needed",
    };
    rows.push(row("password", password, sources.password));
    if let Some(mode) = creds.tls.mode {
        rows.push(row("sslmode", mode.as_str(), None));
    }
    for (program, found) in programs {
        let words = match found {
            Ok(info) => format!("{} ({})", info.version, info.path),
            Err(problem) => problem.clone(),
        };
        rows.push(vec![program.as_str().to_owned(), words, String::new()]);
    }
    for line in table(&["FIELD", "VALUE", "FROM"], &rows) {
        printer.result(line);
    }
}

fn row(field: &str, value: &str, source: Option<CredentialSource>) -> Vec<String> {
    vec![
        field.to_owned(),
        value.to_owned(),
        source.map_or("", source_words).to_owned(),
    ]
}

fn container_words(container: &ContainerIdentity) -> String {
    format!(
        "{} ({}, image {})",
        container.name,
        container.id.get(..12).unwrap_or(&container.id),
        container.image
    )
}

/// The trail in words.
fn explain(printer: &Printer, trail: &Trail) {
    printer.result("");
    printer.result("what discovery tried:");
    let rows: Vec<Vec<String>> = trail
        .entries
        .iter()
        .map(|entry| {
            vec![
                entry.step.to_owned(),
                entry.outcome.as_str().to_owned(),
                format!("{:.0} ms", entry.duration.as_secs_f64() * 1000.0),
                entry.reason.clone(),
            ]
        })
        .collect();
    for line in table(&["STEP", "OUTCOME", "TIME", "WHY"], &rows) {
        printer.result(line);
    }
}
