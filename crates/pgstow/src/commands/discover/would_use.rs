//! What a backup of the server that was found would use: how programs run, how rows travel, who
//! moves them, and why not the faster one.

use backup::{EngineChoice, parallel_refusal};
use dbexec::{DbMode, PgExecutor};
use serde::Serialize;

use crate::error::{CommandError, one_line};
use crate::render::{tables::table, text};
use crate::{printer::Printer, session::Session, settings::Settings};

/// Said by `discover --explain`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct WouldUse {
    /// How client programs run, in words.
    transport: String,
    /// How our own sessions reach the server, in words; `None` where they do not.
    route: Option<String>,
    /// `parallel` or `stock`.
    engine: &'static str,
    /// When the engine is taken, or why not the faster one.
    reason: String,
}

/// Looks for a route as a backup does, and decides from the settings.
///
/// # Errors
/// An interrupt.
pub(super) async fn would_use(
    session: &Session,
    executor: &dyn PgExecutor,
) -> Result<WouldUse, CommandError> {
    let (route, engine, reason) = session
        .interrupts
        .guard("looking for a route", engine(&session.settings, executor))
        .await?;
    Ok(WouldUse {
        transport: session.transport_words(executor, engine == "stock").await,
        route: route.ok(),
        engine,
        reason,
    })
}

/// Route or why there is none, engine, and the reason for it.
pub(crate) async fn engine(
    settings: &Settings,
    executor: &dyn PgExecutor,
) -> (Result<String, String>, &'static str, String) {
    let route = match executor.native().await {
        Ok(native) => Ok(native.route().to_string()),
        Err(none) => Err(one_line(&none)),
    };
    let (engine, reason) = decide(
        settings,
        executor.context().mode,
        executor.context().server.major(),
        executor.settings().max_connections,
        &route,
    );
    (route, engine, reason)
}

/// Engine and reason.
fn decide(
    settings: &Settings,
    mode: DbMode,
    major: u32,
    max_connections: u32,
    route: &Result<String, String>,
) -> (&'static str, String) {
    if let Some(reason) = parallel_refusal(settings.engine, settings.format, max_connections) {
        return ("stock", reason);
    }
    if let Err(none) = route {
        return ("stock", none.clone());
    }
    let reason = match (settings.engine, mode) {
        (EngineChoice::Parallel, _) => "it was asked for",
        (_, DbMode::InContainer) => "rows need not pass through docker exec",
        (_, DbMode::External) if major < 16 => {
            "pg_dump alone would compress with one core and gzip"
        }
        (_, DbMode::External) => {
            "for large databases, one large table or many large objects; else pg_dump alone is as fast"
        }
    };
    ("parallel", reason.to_owned())
}

/// In words.
pub(super) fn tell(printer: &Printer, would: &WouldUse) {
    let route = would.route.as_deref().unwrap_or("none of our own sessions");
    let rows: Vec<Vec<String>> = [
        ("transport", would.transport.as_str()),
        ("route", route),
        ("engine", would.engine),
        ("why", would.reason.as_str()),
    ]
    .iter()
    .map(|(field, value)| vec![(*field).to_owned(), text::words(value)])
    .collect();
    printer.result("");
    printer.result("what a backup would use:");
    for line in table(&["", ""], &rows).into_iter().skip(1) {
        printer.result(line);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use dbexec::EnvSnapshot;

    use super::*;
    use crate::args::Cli;

    fn settings(engine: &str, format: &str) -> Settings {
        let cli = Cli::try_parse_from(["pgstow", "--data-dir", "/d", "list"]).unwrap();
        let env: EnvSnapshot = [("PGSTOW_ENGINE", engine), ("PGSTOW_FORMAT", format)]
            .into_iter()
            .collect();
        Settings::resolve(&cli.global, &cli.command, &env).unwrap()
    }

    #[test]
    fn each_reason_is_said() {
        let route = Ok("the container's address 172.17.0.2:5432".to_owned());
        let none = Err("a pooler is in the way".to_owned());
        let inside = DbMode::InContainer;
        for (settings, mode, major, most, route, engine, why) in [
            (
                settings("auto", "custom"),
                inside,
                17,
                4,
                &route,
                "parallel",
                "docker exec",
            ),
            (
                settings("auto", "directory"),
                DbMode::External,
                15,
                3,
                &route,
                "parallel",
                "gzip",
            ),
            (
                settings("auto", "custom"),
                DbMode::External,
                17,
                4,
                &route,
                "parallel",
                "large",
            ),
            (
                settings("parallel", "custom"),
                DbMode::External,
                17,
                4,
                &route,
                "parallel",
                "asked",
            ),
            (
                settings("stock", "custom"),
                inside,
                17,
                4,
                &route,
                "stock",
                "asked",
            ),
            (
                settings("auto", "plain"),
                inside,
                17,
                4,
                &route,
                "stock",
                "scripts",
            ),
            (
                settings("auto", "custom"),
                inside,
                17,
                2,
                &route,
                "stock",
                "needs 3",
            ),
            (
                settings("parallel", "custom"),
                inside,
                17,
                4,
                &none,
                "stock",
                "pooler",
            ),
        ] {
            let (found, reason) = decide(&settings, mode, major, most, route);
            assert_eq!(found, engine, "{reason}");
            assert!(reason.contains(why), "{reason}");
        }
    }
}
