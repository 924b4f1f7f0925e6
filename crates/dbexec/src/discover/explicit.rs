//! Step 0: what the user typed, merged field by field. Pure.

use super::settings::{Fields, Setting, single_host};
use crate::{
    CredentialSource, TlsOptions,
    discover::ExplicitSettings,
    target::{TargetSpec, url_settings},
};

/// What the user asked for.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    /// A server by its address: outside containers, whatever the address is.
    Server(Fields),
    /// A container by name, id or `project/service`; fields overlay what it says.
    Container { wanted: String, fields: Fields },
    /// Nothing that names a server; fields overlay whatever is found.
    Nothing(Fields),
}

/// Merges target and flags; flags win over the target's own fields.
///
/// # Errors
/// Which flags contradict each other.
pub(crate) fn asked(
    explicit: &ExplicitSettings,
    container_variable: Option<&str>,
) -> Result<Asked, String> {
    let source = CredentialSource::Explicit;
    if let Some(host) = &explicit.host {
        single_host("--host", host).map_err(|error| error.problem)?;
    }
    let mut fields = Fields {
        host: explicit
            .host
            .clone()
            .map(|host| Setting::new(host, "--host", source)),
        port: explicit
            .port
            .map(|port| Setting::new(port, "--port", source)),
        database: explicit
            .database
            .clone()
            .map(|name| Setting::new(name, "--dbname", source)),
        user: explicit
            .user
            .clone()
            .map(|user| Setting::new(user, "--username", source)),
        passwords: explicit
            .password
            .clone()
            .map(|password| Setting::new(password, "--password-file", source))
            .into_iter()
            .collect(),
        tls: explicit.tls.clone(),
    };
    // A variable of the environment does not contradict what was typed; a flag does.
    let container = match (&explicit.container, container_variable) {
        (Some(container), _) => Some(container.as_str()),
        (None, Some(variable)) if explicit.target.is_none() && explicit.host.is_none() => {
            Some(variable)
        }
        (None, _) => None,
    };
    let named = match &explicit.target {
        Some(TargetSpec::Url(url)) => {
            if container.is_some() {
                return Err("a URL and --container name two servers; leave one out".to_owned());
            }
            let url = url_settings(url).map_err(|error| error.problem)?;
            overlay(&mut fields, Fields::from_url(url, "the URL", source));
            return Ok(Asked::Server(fields));
        }
        Some(TargetSpec::Container { name, database }) => Some((name.clone(), database.clone())),
        Some(TargetSpec::Compose {
            project,
            service,
            database,
        }) => Some((format!("{project}/{service}"), database.clone())),
        None => None,
    };
    let named = match (named, container) {
        (Some((target, _)), Some(container)) if target != container => {
            return Err(format!(
                "the target names {target} and --container names {container}; leave one out"
            ));
        }
        (Some(named), _) => Some(named),
        (None, Some(container)) => Some((container.to_owned(), None)),
        (None, None) => None,
    };
    match named {
        Some((wanted, database)) => {
            if fields.host.is_some() {
                return Err(format!(
                    "--host names a server and {wanted} names a container; leave one out"
                ));
            }
            if fields.database.is_none() {
                fields.database = database.map(|name| Setting::new(name, "the target", source));
            }
            Ok(Asked::Container { wanted, fields })
        }
        None if fields.host.is_some() => Ok(Asked::Server(fields)),
        None => Ok(Asked::Nothing(fields)),
    }
}

/// Fills what `fields` leaves open, field by field. A password of another user is not taken: it
/// belongs to that user.
pub(crate) fn overlay(fields: &mut Fields, under: Fields) {
    let same_user = match (&fields.user, &under.user) {
        (Some(above), Some(below)) => above.value == below.value,
        _ => true,
    };
    fields.host = fields.host.take().or(under.host);
    fields.port = fields.port.take().or(under.port);
    fields.database = fields.database.take().or(under.database);
    fields.user = fields.user.take().or(under.user);
    if fields.passwords.is_empty() && same_user {
        fields.passwords = under.passwords;
    }
    overlay_tls(&mut fields.tls, under.tls);
}

/// Fills the TLS options that are left open.
pub(crate) fn overlay_tls(mine: &mut TlsOptions, theirs: TlsOptions) {
    mine.mode = mine.mode.or(theirs.mode);
    mine.root_cert = mine.root_cert.take().or(theirs.root_cert);
    mine.cert = mine.cert.take().or(theirs.cert);
    mine.key = mine.key.take().or(theirs.key);
    mine.crl = mine.crl.take().or(theirs.crl);
    mine.channel_binding = mine.channel_binding.take().or(theirs.channel_binding);
}
