//! Fields of a login, each with the place it came from, and the rules that merge them.

use std::net::IpAddr;

use secrecy::{ExposeSecret, SecretString};

use crate::{
    CredentialSource, DbCreds, FieldSources, TlsOptions,
    creds::DEFAULT_PORT,
    target::{TargetError, UrlSettings},
};

/// A value with the place it came from.
#[derive(Debug, Clone)]
pub(crate) struct Setting<T> {
    /// The value.
    pub value: T,
    /// Variable, flag or file, for messages: `POSTGRES_PASSWORD of container db`.
    pub origin: String,
    /// Its source.
    pub source: CredentialSource,
}

impl<T> Setting<T> {
    pub(crate) fn new(value: T, origin: impl Into<String>, source: CredentialSource) -> Self {
        Self {
            value,
            origin: origin.into(),
            source,
        }
    }
}

/// What one place (a family of variables, a URL, the flags) says about a server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields {
    pub host: Option<Setting<String>>,
    pub port: Option<Setting<u16>>,
    pub database: Option<Setting<String>>,
    pub user: Option<Setting<String>>,
    /// Passwords in the order in which they are to be tried.
    pub passwords: Vec<Setting<SecretString>>,
    pub tls: TlsOptions,
}

impl Fields {
    /// Whether nothing is set that names a server or a login (TLS options alone do not).
    pub(crate) fn is_empty(&self) -> bool {
        self.host.is_none()
            && self.port.is_none()
            && self.database.is_none()
            && self.user.is_none()
            && self.passwords.is_empty()
    }

    /// Host as the user wrote it, or the local one.
    pub(crate) fn host_value(&self) -> Option<&str> {
        self.host.as_ref().map(|host| host.value.as_str())
    }

    /// Port, or PostgreSQL's.
    pub(crate) fn port_value(&self) -> u16 {
        self.port.as_ref().map_or(DEFAULT_PORT, |port| port.value)
    }

    /// Whether the host, if any, is this machine (or this container).
    pub(crate) fn is_local(&self) -> bool {
        self.host_value().is_none_or(is_local_host)
    }

    /// Whether both certainly name one server: an explicit host in both, equal, with one port.
    pub(crate) fn same_server(&self, other: &Self) -> bool {
        let hosts = match (self.host_value(), other.host_value()) {
            (Some(one), Some(two)) => {
                one.eq_ignore_ascii_case(two) || (is_tcp_loopback(one) && is_tcp_loopback(two))
            }
            _ => false,
        };
        hosts && self.port_value() == other.port_value()
    }

    /// Takes from `other`, a later place of the same source, what is missing here.
    ///
    /// A place that names another host offers nothing: its login belongs to that host. A place
    /// that names another user offers no password: it belongs to that user.
    pub(crate) fn fill_from(&mut self, other: &Self) {
        if other.host.is_some() && self.host.is_some() && !self.same_server(other) {
            return;
        }
        let other_user = match (&self.user, &other.user) {
            (Some(one), Some(two)) => one.value != two.value,
            _ => false,
        };
        if !other_user {
            self.add_passwords(&other.passwords);
        }
        if self.host.is_none() {
            self.host.clone_from(&other.host);
        }
        if self.port.is_none() {
            self.port.clone_from(&other.port);
        }
        if self.database.is_none() {
            self.database.clone_from(&other.database);
        }
        if self.user.is_none() {
            self.user.clone_from(&other.user);
        }
        let (mine, theirs) = (&mut self.tls, &other.tls);
        mine.mode = mine.mode.or(theirs.mode);
        fill(&mut mine.root_cert, theirs.root_cert.as_ref());
        fill(&mut mine.cert, theirs.cert.as_ref());
        fill(&mut mine.key, theirs.key.as_ref());
        fill(&mut mine.crl, theirs.crl.as_ref());
        fill(&mut mine.channel_binding, theirs.channel_binding.as_ref());
    }

    /// Appends passwords that are not there yet: one attempt per distinct credential.
    pub(crate) fn add_passwords(&mut self, passwords: &[Setting<SecretString>]) {
        for password in passwords {
            let known = self
                .passwords
                .iter()
                .any(|known| known.value.expose_secret() == password.value.expose_secret());
            if !known {
                self.passwords.push(password.clone());
            }
        }
    }

    /// Fields of a URL; `place` is the variable or flag that held it.
    pub(crate) fn from_url(url: UrlSettings, place: &str, source: CredentialSource) -> Self {
        let at = |part: &str| format!("{part} in {place}");
        Self {
            host: url.host.map(|v| Setting::new(v, at("host"), source)),
            port: url.port.map(|v| Setting::new(v, at("port"), source)),
            database: url
                .database
                .map(|v| Setting::new(v, at("database"), source)),
            user: url.user.map(|v| Setting::new(v, at("user"), source)),
            passwords: url
                .password
                .map(|v| Setting::new(v, at("password"), source))
                .into_iter()
                .collect(),
            tls: url.tls,
        }
    }
}

fn fill<T: Clone>(mine: &mut Option<T>, theirs: Option<&T>) {
    if mine.is_none() {
        *mine = theirs.cloned();
    }
}

/// One login to test: the credentials and where each field came from.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub user: Setting<String>,
    /// Whether the user is pgstow's own default, which no source named.
    pub user_is_default: bool,
    pub password: Option<Setting<SecretString>>,
}

impl Login {
    /// `user app, password from POSTGRES_PASSWORD of container db`.
    pub(crate) fn words(&self) -> String {
        match &self.password {
            Some(password) => format!(
                "user {:?} with the password from {}",
                self.user.value, password.origin
            ),
            None => format!("user {:?} without a password", self.user.value),
        }
    }
}

/// Logins of one user with each password in turn, or without one where none is known.
pub(crate) fn logins_of(
    user: &Setting<String>,
    user_is_default: bool,
    passwords: &[Setting<SecretString>],
) -> Vec<Login> {
    let login = |password| Login {
        user: user.clone(),
        user_is_default,
        password,
    };
    if passwords.is_empty() {
        return vec![login(None)];
    }
    passwords
        .iter()
        .map(|password| login(Some(password.clone())))
        .collect()
}

/// Drops logins that repeat an earlier one, whatever place they came from.
pub(crate) fn distinct(logins: Vec<Login>) -> Vec<Login> {
    let mut kept: Vec<Login> = Vec::new();
    for login in logins {
        let secret = |login: &Login| {
            login
                .password
                .as_ref()
                .map(|password| password.value.expose_secret().to_owned())
        };
        let known = kept
            .iter()
            .any(|other| other.user.value == login.user.value && secret(other) == secret(&login));
        if !known {
            kept.push(login);
        }
    }
    kept
}

/// Credentials of one attempt.
pub(crate) fn creds_of(
    fields: &Fields,
    host: Option<&str>,
    port: u16,
    database: &str,
    login: &Login,
) -> DbCreds {
    DbCreds {
        host: host.map(str::to_owned),
        port,
        database: database.to_owned(),
        user: login.user.value.clone(),
        password: login.password.as_ref().map(|p| p.value.clone()),
        tls: fields.tls.clone(),
    }
}

/// Sources of the fields of one attempt.
pub(crate) fn sources_of(
    fields: &Fields,
    host: Option<CredentialSource>,
    database: &str,
    login: &Login,
) -> FieldSources {
    FieldSources {
        host,
        port: fields.port.as_ref().map(|port| port.source),
        database: fields
            .database
            .as_ref()
            .filter(|named| named.value == database)
            .map(|named| named.source),
        user: (!login.user_is_default).then_some(login.user.source),
        password: login.password.as_ref().map(|password| password.source),
    }
}

/// Whether a host means "here": empty, `localhost`, `127.0.0.0/8`, `::1`, a socket directory.
pub(crate) fn is_local_host(host: &str) -> bool {
    host.is_empty() || is_socket(host) || is_tcp_loopback(host)
}

/// Whether a host is a socket directory (`@` starts an abstract socket name).
pub(crate) fn is_socket(host: &str) -> bool {
    host.starts_with('/') || host.starts_with('@')
}

/// Whether a host is this machine over TCP.
pub(crate) fn is_tcp_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = bare.trim_end_matches('.');
    if name.eq_ignore_ascii_case("localhost") || name.eq_ignore_ascii_case("localhost.localdomain")
    {
        return true;
    }
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback(),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback()
                || address
                    .to_ipv4_mapped()
                    .is_some_and(|address| address.is_loopback())
        }
        Err(_) => false,
    }
}

/// A host name that a client program would take as several is refused.
pub(crate) fn single_host(place: &str, host: &str) -> Result<(), TargetError> {
    if host.contains(',') {
        return Err(crate::target::several_hosts(place));
    }
    Ok(())
}
