//! `docs/cli.md` is the help of the program, checked here. After a change of the arguments:
//! `PGSTOW_UPDATE_DOCS=1 cargo test -p pgstow help_page`.

use std::fmt::Write;
use std::path::Path;

use clap::{Command, CommandFactory};

use crate::args::Cli;

const WIDTH: usize = 100;

fn page() -> String {
    let mut program = Cli::command().term_width(WIDTH);
    program.build();
    let mut page = String::from(
        "# Command line\n\nThe help of the program, made from its source; a test keeps this page equal to it. \
         Global\noptions, which every verb takes, stand with the program alone.\n",
    );
    section(&mut page, &program, false);
    page
}

fn section(page: &mut String, command: &Command, inner: bool) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let shown = command.clone().term_width(WIDTH);
    let mut shown = shown.mut_args(|arg| {
        let hidden = inner && (arg.is_global_set() || arg.get_id() == "help");
        arg.hide(hidden)
    });
    let help = shown.render_long_help();
    let _ = write!(page, "\n## {name}\n\n```text\n");
    for line in help.to_string().trim_end().lines() {
        page.push_str(line.trim_end());
        page.push('\n');
    }
    page.push_str("```\n");
    for verb in command.get_subcommands() {
        if verb.get_name() != "help" {
            section(page, verb, true);
        }
    }
}

#[test]
fn the_page_is_the_help() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let page = page();
    if std::env::var_os("PGSTOW_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    for (at, (is, should)) in written.lines().zip(page.lines()).enumerate() {
        assert_eq!(is, should, "docs/cli.md line {}", at + 1);
    }
    assert_eq!(written, page, "docs/cli.md has another length");
}

#[test]
fn every_option_and_verb_has_words_of_help() {
    fn look(command: &Command) {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            assert!(arg.get_help().is_some(), "{}: {id}", command.get_name());
        }
        command.get_subcommands().for_each(look);
    }
    look(&Cli::command());
}
