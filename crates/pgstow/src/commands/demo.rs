//! `pgstow demo`: the whole way on a throw-away server. Every step runs the code of the verb that
//! it shows; nothing of the host's databases is touched.

mod container;
mod host;
mod shop;

use std::sync::Arc;

use dbexec::{EnvSnapshot, PgExecutor};
use secrecy::SecretString;
use serde_json::json;

use self::{container::DemoContainer, host::DemoHost, shop::Census};
use crate::args::{BackupArgs, DiscoverArgs, LevelArg, RestoreArgs, VerifyArgs};
use crate::commands;
use crate::dirs::DataDir;
use crate::error::CommandError;
use crate::exit::{self, codes};
use crate::printer::{Printer, Style};
use crate::render::text;
use crate::session::Session;
use crate::settings::TargetSettings;

/// The shop's database.
const DATABASE: &str = "shop";
/// Role of the demo's server.
const USER: &str = "shopkeeper";

/// A throw-away server.
enum Server {
    Container(DemoContainer),
    Host(Box<DemoHost>),
}

impl Server {
    async fn stop(self, printer: &Printer) {
        let stopped = match self {
            Self::Container(container) => container.stop().await,
            Self::Host(host) => host.stop().await,
        };
        if let Err(error) = stopped {
            printer.warning(format!("cleaning up: {error}"));
        }
    }

    fn target(&self) -> TargetSettings {
        match self {
            Self::Container(container) => TargetSettings {
                name: Some(container.target()),
                name_typed: true,
                named: true,
                ..TargetSettings::default()
            },
            Self::Host(host) => host.target(USER),
        }
    }

    /// How a user would name it.
    fn words(&self) -> String {
        match self {
            Self::Container(container) => container.target(),
            Self::Host(host) => host.words(USER),
        }
    }
}

pub(crate) async fn run(session: &Session) -> Result<u8, CommandError> {
    let begun = session.clock.now();
    let printer = &session.printer;
    let work = tempfile::Builder::new()
        .prefix("pgstow-demo-")
        .tempdir_in(scratch(&session.env))
        .map_err(|error| {
            CommandError::caused(
                codes::DEMO_FAILED,
                "making a temporary directory failed",
                &error,
            )
        })?;
    say(printer, "a throw-away PostgreSQL server");
    let password = SecretString::from(random_word());
    let server = start(session, &password).await?;
    let result = story(session, &server, work.path()).await;
    say(printer, "cleaning up");
    server.stop(printer).await;
    if let Err(error) = work.close() {
        printer.warning(format!("cleaning up: {error}"));
    }
    let (before, after) = result?;
    let seconds = (session.clock.now() - begun)
        .total(jiff::Unit::Second)
        .unwrap_or_default();
    if printer.json {
        printer.json_line(&json!({
            "result": "demo",
            "equal": true,
            "before": before,
            "restored": after,
            "seconds": seconds,
        }));
    } else {
        printer.result(format!(
            "demo done in {}: backed up, broken, restored, and every row is back",
            text::seconds(seconds)
        ));
    }
    Ok(exit::DONE)
}

/// A container where an engine and an image are at hand, else programs of this host.
async fn start(session: &Session, password: &SecretString) -> Result<Server, CommandError> {
    let printer = &session.printer;
    let no_container = match session.runtime().await {
        Ok(runtime) => {
            match container::start(session, runtime.as_ref(), USER, DATABASE, password).await {
                Ok(container) => {
                    printer.message(format!("started {}", container.words()));
                    return Ok(Server::Container(container));
                }
                Err(why) => why,
            }
        }
        Err(error) => error.to_string(),
    };
    let interrupts = &session.interrupts;
    interrupts
        .guard("starting the demo's server", std::future::ready(()))
        .await?;
    printer.message(format!("not in a container: {no_container}"));
    let host = host::start(session, USER, password);
    match interrupts.guard("starting the demo's server", host).await? {
        Ok(host) => {
            printer.message(format!("started {} of this host", host.version));
            Ok(Server::Host(Box::new(host)))
        }
        Err(why) => Err(CommandError {
            messages: vec![
                "the demo has no PostgreSQL to start".to_owned(),
                format!("in a container: {no_container}"),
                format!("on this host: {why}"),
            ],
            ..CommandError::new(codes::DEMO_FAILED, "")
        }
        .hint(
            "get an image (docker pull postgres:17), or install the server package of PostgreSQL",
        )),
    }
}

/// The story itself. Both censuses, when they are equal.
async fn story(
    outer: &Session,
    server: &Server,
    work: &std::path::Path,
) -> Result<(Census, Census), CommandError> {
    let printer = &outer.printer;
    let session = inner_session(outer, server, work);
    let words = server.words();

    // An image makes the database itself.
    if matches!(server, Server::Host(_)) {
        let executor = open(&session, Some("postgres")).await?;
        shop::create_database(executor.as_ref(), DATABASE).await?;
    }

    say(printer, "finding it");
    command(printer, &format!("pgstow discover {words}"));
    commands::discover::run(&session, &DiscoverArgs::default()).await?;

    say(printer, "filling it with a small shop");
    let executor = open(&session, None).await?;
    let filled = shop::fill(executor.as_ref(), DATABASE);
    outer.interrupts.guard("filling the shop", filled).await??;
    let before = shop::census(executor.as_ref(), DATABASE).await?;
    before.show(printer, &format!("in {DATABASE}"));

    say(printer, "backing it up");
    command(printer, &format!("pgstow backup {words}"));
    commands::backup::run(&session, &BackupArgs::default()).await?;

    say(
        printer,
        "proving that the backup restores: into another throw-away server, then compared",
    );
    command(printer, "pgstow verify latest --level restore");
    let verify = VerifyArgs {
        id: Some("latest".to_owned()),
        all: false,
        level: LevelArg::Restore,
        prove: crate::args::ProveArgs::default(),
    };
    commands::verify::run(&session, &verify).await?;

    say(printer, "an accident");
    command(
        printer,
        &format!("psql -d {DATABASE} -c 'DROP TABLE order_lines'"),
    );
    shop::accident(executor.as_ref(), DATABASE).await?;
    let broken = shop::census(executor.as_ref(), DATABASE).await?;
    broken.show(printer, &format!("left in {DATABASE}"));

    say(
        printer,
        "restoring: beside it, compared with the backup, then both change their names",
    );
    let to = match server {
        Server::Container(_) => "--to ",
        Server::Host(_) => "",
    };
    command(
        printer,
        &format!("pgstow restore latest --database {DATABASE} --yes={DATABASE} {to}{words}"),
    );
    let restore = RestoreArgs {
        source: Some("latest".to_owned()),
        database: Some(DATABASE.to_owned()),
        yes: Some(DATABASE.to_owned()),
        ..RestoreArgs::default()
    };
    commands::restore::run(&session, &restore).await?;

    say(printer, "comparing");
    let after = shop::census(executor.as_ref(), DATABASE).await?;
    compare(printer, &before, &after)?;
    if broken == before {
        return Err(CommandError::new(
            codes::DEMO_FAILED,
            "the accident changed nothing, so the restore proves nothing",
        ));
    }
    Ok((before, after))
}

/// Shows both sides of every table; they must be equal.
fn compare(printer: &Printer, before: &Census, after: &Census) -> Result<(), CommandError> {
    let mut differ = Vec::new();
    for (name, was) in &before.tables {
        let is = after.tables.get(name);
        let equal = is == Some(was);
        let (mark, style) = if equal {
            ("equal", Style::Good)
        } else {
            ("DIFFERENT", Style::Bad)
        };
        let shown = is.map_or_else(|| "missing".to_owned(), shop::Count::words);
        printer.message(format!(
            "  {name:12} before: {}; restored: {shown}; {}",
            was.words(),
            printer.styled(mark, style)
        ));
        if !equal {
            differ.push(name.clone());
        }
    }
    if differ.is_empty() && before.tables.len() == after.tables.len() {
        return Ok(());
    }
    Err(CommandError::new(
        codes::DEMO_FAILED,
        format!(
            "the restored shop differs from the one that was backed up: {}",
            differ.join(", ")
        ),
    ))
}

/// A session that knows the demo's server and data directory alone.
fn inner_session(outer: &Session, server: &Server, work: &std::path::Path) -> Session {
    let mut settings = outer.settings.clone();
    settings.target = server.target();
    settings.metrics_textfile = None;
    settings.data_dir = DataDir {
        root: work.join("data"),
    };
    let env: EnvSnapshot = outer
        .env
        .with_prefix("")
        .filter(|(name, _)| {
            !name.starts_with("PG") && !name.starts_with("POSTGRES") && *name != "DATABASE_URL"
        })
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Session::new(
        settings,
        env,
        Arc::clone(&outer.printer),
        outer.interrupts.clone(),
    )
}

/// An executor of the demo's server; `database` for the time before the shop exists.
async fn open(
    session: &Session,
    database: Option<&str>,
) -> Result<Arc<dyn PgExecutor>, CommandError> {
    let run = session.run_id();
    let mut explicit = session.explicit().await?;
    if let Some(database) = database {
        explicit.database = Some(database.to_owned());
    }
    let input = session.discover_input(explicit, &run).await?;
    let context = session
        .interrupts
        .guard(
            "looking for the demo's server",
            dbexec::discover_db_context(&input),
        )
        .await??;
    let server = crate::session::Server {
        context,
        runtime: input.runtime.ok(),
        host_programs: input.host_programs,
    };
    session.open(server, &run).await
}

fn say(printer: &Printer, step: &str) {
    printer.message("");
    printer.message(printer.styled(&format!("== {step}"), Style::Strong));
}

fn command(printer: &Printer, line: &str) {
    printer.message(format!("$ {line}"));
}

/// A directory on a disk: /tmp may be memory.
fn scratch(env: &EnvSnapshot) -> std::path::PathBuf {
    let var_tmp = std::path::Path::new("/var/tmp");
    match env.get("TMPDIR") {
        Some(dir) => dir.into(),
        None if var_tmp.is_dir() => var_tmp.to_owned(),
        None => std::env::temp_dir(),
    }
}

fn random_word() -> String {
    const ALPHABET: &[u8] = b"0123456789abcdefghjkmnpqrstvwxyz";
    (0..16)
        .map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())]))
        .collect()
}
