//! From arguments to exit code.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser};
use dbexec::EnvSnapshot;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, ColorArg, Command};
use crate::commands;
use crate::exit::{self, codes};
use crate::{
    error::CommandError, printer::Printer, redact, render::metrics, session::Session,
    settings::Settings, signals::Interrupts,
};

/// Threads of the asynchronous runtime: one moves bytes while the other hashes or draws.
const WORKERS: usize = 2;
/// Threads for blocking file work; an archive's check holds one for its whole length.
const BLOCKING: usize = 16;

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let env: EnvSnapshot = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error, &args, &env),
    };
    let global = &cli.global;
    let printer = Arc::new(Printer::new(global.json, global.quiet, global.color, &env));
    let code = match run(&cli, env, &printer) {
        Ok(code) => code,
        Err(error) => {
            printer.error(&error);
            error.exit
        }
    };
    ExitCode::from(code)
}

/// Help, version, or arguments that are wrong.
fn not_parsed(error: &clap::Error, args: &[OsString], env: &EnvSnapshot) -> ExitCode {
    let typed = args.iter().filter_map(|arg| arg.to_str());
    let shown = redact::arguments(&error.to_string(), typed);
    // Where nothing can be printed, the exit code still tells.
    if shown == error.to_string() {
        let _ = error.print();
    } else {
        let _ = write!(std::io::stderr(), "{shown}");
    }
    if !error.use_stderr() {
        return ExitCode::from(exit::DONE);
    }
    if args.iter().any(|arg| arg == "--json") {
        let first = shown.lines().next().unwrap_or_default();
        let message = first.trim_start_matches("error: ");
        Printer::new(true, true, ColorArg::Never, env)
            .json_line(&CommandError::usage(message).json());
    }
    ExitCode::from(exit::USAGE)
}

fn run(cli: &Cli, env: EnvSnapshot, printer: &Arc<Printer>) -> Result<u8, CommandError> {
    if let Command::Completions { shell } = &cli.command {
        return completions(*shell);
    }
    let settings = Settings::resolve(&cli.global, &cli.command, &env)?;
    start_log(&settings.log, settings.log_json)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()
        .map_err(|error| {
            CommandError::caused(codes::OUTPUT_FAILED, "starting the runtime failed", &error)
        })?;
    let done = runtime.block_on(async {
        let interrupts = Interrupts::listen(printer).map_err(|error| {
            CommandError::caused(codes::OUTPUT_FAILED, "listening for signals failed", &error)
        })?;
        let session = Session::new(settings, env, Arc::clone(printer), interrupts.clone());
        let mut result = dispatch(&session, cli).await;
        if let (Err(error), Some(code)) = (&mut result, interrupts.exit_code()) {
            error.exit = code;
        }
        write_metrics(&session, &result);
        if printer.output_failed() && result.is_ok() {
            return Err(CommandError::new(
                codes::OUTPUT_FAILED,
                "the result could not be written to standard output",
            ));
        }
        result
    });
    // A blocked read of a file must not hold the exit of a program that has said its result.
    runtime.shutdown_background();
    done
}

async fn dispatch(session: &Session, cli: &Cli) -> Result<u8, CommandError> {
    match &cli.command {
        Command::Discover(args) => commands::discover::run(session, args).await,
        Command::Doctor(_) => commands::doctor::run(session).await,
        Command::Backup(args) => commands::backup::run(session, args).await,
        Command::List => commands::list::run(session).await,
        Command::Show(args) => commands::show::run(session, args).await,
        Command::Diff(args) => commands::diff::run(session, args).await,
        Command::Verify(args) => commands::verify::run(session, args).await,
        Command::Restore(args) => commands::restore::run(session, args).await,
        Command::Rollback(args) => commands::rollback::run(session, args).await,
        Command::Prune(args) => commands::prune::run(session, args).await,
        Command::Export(args) => commands::export::run(session, args).await,
        Command::Config { command } => commands::config::run(session, command),
        Command::Completions { shell } => completions(*shell),
        Command::Demo => commands::demo::run(session).await,
    }
}

fn completions(shell: clap_complete::Shell) -> Result<u8, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pgstow", &mut script);
    match std::io::stdout().write_all(&script) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CommandError::caused(
            codes::OUTPUT_FAILED,
            "writing the completion script failed",
            &error,
        )),
        _ => Ok(exit::DONE),
    }
}

fn start_log(filter: &str, json: bool) -> Result<(), CommandError> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        CommandError::caused(
            codes::INVALID_CONFIG,
            format!("the log filter {filter:?} cannot be used"),
            &error,
        )
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    match json {
        true => log.json().init(),
        false => log.init(),
    }
    Ok(())
}

/// Metrics are an extra: a failure to write them is a warning.
fn write_metrics(session: &Session, result: &Result<u8, CommandError>) {
    let Some(path) = &session.settings.metrics_textfile else {
        return;
    };
    let code = match result {
        Ok(code) => *code,
        Err(error) => error.exit,
    };
    let mut text = String::new();
    session.measure(|collected| text = collected.render(code, session.clock.now()));
    if let Err(error) = metrics::write_file(path, &text) {
        session.printer.warning(format!(
            "the metrics could not be written to {}: {error}",
            path.display()
        ));
    }
}
