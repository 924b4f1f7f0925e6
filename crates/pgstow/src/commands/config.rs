//! `pgstow config show [--origin]`.

use serde_json::json;

use crate::args::ConfigCommand;
use crate::error::CommandError;
use crate::settings::keys::{KEYS, TARGETS};
use crate::settings::layers::{Origin, Sourced, Value};
use crate::{exit, redact, session::Session};

pub(crate) fn run(session: &Session, command: &ConfigCommand) -> Result<u8, CommandError> {
    let ConfigCommand::Show { origin } = command;
    let layers = &session.settings.layers;
    let printer = &session.printer;
    let named = |name: &str| format!("{TARGETS}.{name}");
    // The URL of a target may hold a password although it should not.
    let safe = |sourced: &Sourced| {
        let value = match &sourced.value {
            Value::Text(text) => Value::Text(redact::url(text)),
            other => other.clone(),
        };
        Sourced {
            value,
            origin: sourced.origin.clone(),
        }
    };
    if printer.json {
        let values: serde_json::Map<_, _> = layers
            .values
            .iter()
            .map(|(name, sourced)| ((*name).to_owned(), json!(safe(sourced))))
            .chain(
                layers
                    .targets
                    .iter()
                    .map(|(name, sourced)| (named(name), json!(safe(sourced)))),
            )
            .collect();
        printer.json_line(&values);
        return Ok(exit::DONE);
    }
    let show = |name: &str, sourced: Option<&Sourced>| match sourced.map(safe) {
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
