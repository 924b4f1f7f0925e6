//! What the user may write as TARGET, and the reading of `postgres://` URLs.
//!
//! URLs follow libpq's grammar (`postgresql://[user[:password]@][host][:port][/database][?name=value&…]`)
//! with percent-encoding in every part. Differences from libpq, all on the safe side: a list of
//! hosts is refused (a backup needs to know which server it read), and parameters that would
//! tighten security but are not supported are refused rather than dropped.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use crate::{SslMode, TlsOptions};

/// A target as typed on the command line; see `cli.md`.
#[derive(Debug, Clone)]
pub enum TargetSpec {
    /// `container:NAME[/db]`: name or id prefix of a container.
    Container {
        /// Name or id.
        name: String,
        /// Database of the first connection.
        database: Option<String>,
    },
    /// `project/service[/db]`: compose labels.
    Compose {
        /// Project label.
        project: String,
        /// Service label.
        service: String,
        /// Database of the first connection.
        database: Option<String>,
    },
    /// `postgres://…` or `postgresql://…`; may carry a password, hence a secret.
    Url(SecretString),
}

/// Why a target or URL cannot be read. The text never repeats the URL: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct TargetError {
    /// What is wrong and what to write instead.
    pub problem: String,
}

impl TargetError {
    fn new(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
        }
    }
}

impl TargetSpec {
    /// Reads a target as typed. A URL is checked here, so that a bad one is refused early.
    ///
    /// # Errors
    /// [`TargetError`] that says what may be written.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if let Some(rest) = text.strip_prefix("container:") {
            let (name, database) = split_database(rest);
            if name.is_empty() {
                return Err(TargetError::new(
                    "container: needs a name, as in container:NAME or container:NAME/DATABASE",
                ));
            }
            return Ok(Self::Container {
                name: name.to_owned(),
                database,
            });
        }
        if text.contains("://") {
            parse_url(text)?;
            return Ok(Self::Url(SecretString::from(text.to_owned())));
        }
        if let Some((project, rest)) = text.split_once('/') {
            let (service, database) = split_database(rest);
            if project.is_empty() || service.is_empty() {
                return Err(TargetError::new(format!(
                    "{text:?} names no compose service; write project/service or project/service/DATABASE"
                )));
            }
            return Ok(Self::Compose {
                project: project.to_owned(),
                service: service.to_owned(),
                database,
            });
        }
        Err(TargetError::new(format!(
            "{text:?} is no target; write container:NAME, project/service (compose) or postgres://USER@HOST/DATABASE"
        )))
    }
}

impl TargetSpec {
    /// The database that was written, which is that of the first connection.
    #[must_use]
    pub fn database(&self) -> Option<String> {
        match self {
            Self::Container { database, .. } | Self::Compose { database, .. } => database.clone(),
            Self::Url(url) => parse_url(url.expose_secret()).ok()?.database,
        }
    }
}

/// Everything after the first `/` is the database: its name may hold further slashes.
fn split_database(text: &str) -> (&str, Option<String>) {
    match text.split_once('/') {
        Some((name, database)) => (name, (!database.is_empty()).then(|| database.to_owned())),
        None => (text, None),
    }
}

/// What a URL says.
#[derive(Debug, Clone, Default)]
pub struct UrlSettings {
    /// Host name, address or socket directory; `None` when the URL names none.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Database.
    pub database: Option<String>,
    /// User.
    pub user: Option<String>,
    /// Password.
    pub password: Option<SecretString>,
    /// TLS parameters.
    pub tls: TlsOptions,
    /// Names of parameters that have no meaning for pgstow and were left aside.
    pub ignored: Vec<String>,
}

/// Parameters of libpq that tighten a connection and that pgstow cannot pass on: dropping them in
/// silence would weaken what the user asked for.
const REFUSED_PARAMETERS: &[&str] = &[
    "gssencmode",
    "krbsrvname",
    "passfile",
    "require_auth",
    "requirepeer",
    "requiressl",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcertmode",
    "sslcrldir",
    "sslpassword",
];

/// Whether a URL's scheme is one of PostgreSQL's: `postgres`, `postgresql`, `postgis`, each with
/// an optional `+driver` (`postgresql+asyncpg://`), as frameworks write them.
#[must_use]
pub fn is_postgres_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        let base = scheme.split('+').next().unwrap_or(scheme);
        ["postgres", "postgresql", "postgis"]
            .iter()
            .any(|known| base.eq_ignore_ascii_case(known))
    })
}

/// Reads a `postgres://` URL.
///
/// # Errors
/// [`TargetError`] that names the part that is wrong, without its value.
pub fn parse_url(text: &str) -> Result<UrlSettings, TargetError> {
    if !is_postgres_url(text) {
        return Err(TargetError::new(
            "the URL's scheme is not postgres:// or postgresql://",
        ));
    }
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, Some(path)),
        None => (rest, None),
    };
    let mut url = UrlSettings::default();
    let address = match authority.split_once('@') {
        Some((login, address)) => {
            let (user, password) = match login.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (login, None),
            };
            url.user = non_empty(decode("user", user)?);
            url.password = password
                .map(|password| decode("password", password))
                .transpose()?
                .and_then(non_empty)
                .map(SecretString::from);
            address
        }
        None => authority,
    };
    read_address(address, &mut url)?;
    if let Some(path) = path {
        url.database = non_empty(decode("database", path)?);
    }
    for pair in query
        .unwrap_or("")
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode("parameter name", name)?;
        let value = decode(&name, value)?;
        read_parameter(&name, value, &mut url)?;
    }
    Ok(url)
}

fn read_address(address: &str, url: &mut UrlSettings) -> Result<(), TargetError> {
    if address.contains('@') {
        return Err(TargetError::new(
            "the URL has more than one @; write an @ inside the user or password as %40",
        ));
    }
    if address.contains(',') {
        return Err(several_hosts("the URL"));
    }
    let (host, port) = if let Some(bracketed) = address.strip_prefix('[') {
        let Some((host, after)) = bracketed.split_once(']') else {
            return Err(TargetError::new(
                "the URL opens an IPv6 address with [ and never closes it",
            ));
        };
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => {
                return Err(TargetError::new(
                    "the URL has something other than :PORT after the IPv6 address",
                ));
            }
        }
    } else if address.matches(':').count() > 1 {
        return Err(TargetError::new(
            "an IPv6 address in a URL needs brackets, as in postgres://[::1]:5432/db",
        ));
    } else {
        match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        }
    };
    url.host = non_empty(decode("host", host)?);
    if url.host.as_deref().is_some_and(|host| host.contains(',')) {
        return Err(several_hosts("the URL"));
    }
    url.port = port
        .filter(|port| !port.is_empty())
        .map(|port| parse_port("the URL", port))
        .transpose()?;
    Ok(())
}

fn read_parameter(name: &str, value: String, url: &mut UrlSettings) -> Result<(), TargetError> {
    let path = |value: String| non_empty(value).map(PathBuf::from);
    match name {
        "host" | "hostaddr" => {
            if value.contains(',') {
                return Err(several_hosts("the URL"));
            }
            url.host = non_empty(value).or(url.host.take());
        }
        "port" => url.port = Some(parse_port("the URL", &value)?),
        "dbname" => url.database = non_empty(value).or(url.database.take()),
        "user" => url.user = non_empty(value).or(url.user.take()),
        "password" => {
            url.password = non_empty(value)
                .map(SecretString::from)
                .or(url.password.take());
        }
        "sslmode" => url.tls.mode = Some(parse_sslmode("sslmode in the URL", &value)?),
        // What JDBC and several frameworks write for `sslmode=require`.
        "ssl" if value == "true" => {
            url.tls.mode = url.tls.mode.or(Some(SslMode::Require));
        }
        "sslrootcert" => url.tls.root_cert = path(value),
        "sslcert" => url.tls.cert = path(value),
        "sslkey" => url.tls.key = path(value),
        "sslcrl" => url.tls.crl = path(value),
        "channel_binding" => {
            url.tls.channel_binding =
                Some(parse_channel_binding("channel_binding in the URL", &value)?);
        }
        refused if REFUSED_PARAMETERS.contains(&refused) => {
            return Err(TargetError::new(format!(
                "the URL's parameter {refused} is not supported, and dropping it would weaken the connection; remove it"
            )));
        }
        other => url.ignored.push(other.to_owned()),
    }
    Ok(())
}

pub(crate) fn several_hosts(place: &str) -> TargetError {
    TargetError::new(format!(
        "{place} names several hosts; a backup has to know which server it reads: name one"
    ))
}

/// Reads a TCP port; `place` says where it was written.
pub(crate) fn parse_port(place: &str, text: &str) -> Result<u16, TargetError> {
    match text.trim().parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(TargetError::new(format!(
            "the port in {place} is not a number from 1 to 65535"
        ))),
    }
}

/// Reads libpq's `sslmode`; `place` says where it was written.
pub(crate) fn parse_sslmode(place: &str, text: &str) -> Result<SslMode, TargetError> {
    SslMode::parse(text).ok_or_else(|| {
        TargetError::new(format!(
            "{place} is not one of disable, allow, prefer, require, verify-ca, verify-full"
        ))
    })
}

/// Reads libpq's `channel_binding`; `place` says where it was written.
pub(crate) fn parse_channel_binding(place: &str, text: &str) -> Result<String, TargetError> {
    if ["disable", "prefer", "require"].contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(TargetError::new(format!(
            "{place} is not one of disable, prefer, require"
        )))
    }
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn decode(part: &str, text: &str) -> Result<String, TargetError> {
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('%') {
        let complete = bytes
            .get(at + 1..at + 3)
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        if !complete {
            return Err(TargetError::new(format!(
                "the {part} in the URL has a % that is not followed by two hex digits; write a % as %25"
            )));
        }
    }
    let decoded = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| TargetError::new(format!("the {part} in the URL is not UTF-8")))?;
    if decoded.contains('\0') {
        return Err(TargetError::new(format!(
            "the {part} in the URL holds a zero byte"
        )));
    }
    Ok(decoded.into_owned())
}

/// The settings of a URL target.
pub(crate) fn url_settings(url: &SecretString) -> Result<UrlSettings, TargetError> {
    parse_url(url.expose_secret())
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
