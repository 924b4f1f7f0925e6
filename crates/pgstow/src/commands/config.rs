//! `pgstow config show [--origin]`.

use serde_json::json;

use crate::args::ConfigCommand;
use crate::error::CommandError;
use crate::settings::keys::{KEYS, TARGETS};
use crate::settings::layers::{Origin, Sourced};
use crate::{exit, session::Session};

pub(crate) fn run(session: &Session, command: &ConfigCommand) -> Result<u8, CommandError> {
    let ConfigCommand::Show { origin } = command;
    let layers = &session.settings.layers;
    let printer = &session.printer;
    let named = |name: &str| format!("{TARGETS}.{name}");
    if printer.json {
        let values: serde_json::Map<_, _> = layers
            .values
            .iter()
            .map(|(name, sourced)| ((*name).to_owned(), json!(sourced)))
            .chain(
                layers
                    .targets
                    .iter()
                    .map(|(name, sourced)| (named(name), json!(sourced))),
            )
            .collect();
        printer.json_line(&values);
        return Ok(exit::DONE);
    }
    let show = |name: &str, sourced: Option<&Sourced>| match sourced {
        Some(Sourced {
            value,
            origin: from,
        }) => {
            let from = if *origin {
                format!("  # {from}")
            } else {
                String::new()
            };
            printer.result(format!("{name} = {value}{from}"));
        }
        None if *origin => printer.result(format!("# {name} is not set")),
        None => {}
    };
    for key in KEYS {
        show(key.name, layers.values.get(key.name));
    }
    for (name, sourced) in &layers.targets {
        show(&named(name), Some(sourced));
    }
    // Said once, because the names of files are what people look for here.
    if *origin
        && !layers
            .values
            .values()
            .any(|sourced| matches!(sourced.origin, Origin::File(_)))
    {
        printer.message("no configuration file gives a value");
    }
    Ok(exit::DONE)
}
