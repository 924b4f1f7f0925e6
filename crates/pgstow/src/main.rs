//! pgstow: back up and restore PostgreSQL wherever it runs.

mod app;
mod args;
mod clock;
mod commands;
mod dirs;
mod env_vars;
mod error;
mod exit;
#[cfg(test)]
mod help_page;
mod printer;
mod redact;
mod render;
mod session;
mod settings;
mod signals;
mod transport;

fn main() -> std::process::ExitCode {
    app::main()
}
