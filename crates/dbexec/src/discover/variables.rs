//! Reading families of variables: pgstow's own environment and that of containers.
//!
//! # Order in pgstow's own environment
//!
//! 1. `POSTGRES_HOST`, `POSTGRES_PORT`, `POSTGRES_DATABASE` or `POSTGRES_DB`,
//!    `POSTGRES_USERNAME` or `POSTGRES_USER`, `POSTGRES_PASSWORD`, `POSTGRES_SSLMODE`,
//!    `…_SSLROOTCERT`, `…_SSLCERT`, `…_SSLKEY`, `…_SSLCRL`, `…_CHANNELBINDING`;
//! 2. `DATABASE_URL`;
//! 3. `PGHOST` (else `PGHOSTADDR`), `PGPORT`, `PGDATABASE`, `PGUSER`, `PGPASSWORD`,
//!    `PGSSLMODE`, `PGSSLROOTCERT`, `PGSSLCERT`, `PGSSLKEY`, `PGSSLCRL`, `PGCHANNELBINDING`.
//!
//! Why this order: the `POSTGRES_*` names are what somebody sets for one deployment of a tool next
//! to a database; `DATABASE_URL` is the application's; `PG*` is often left over in a login
//! shell. The first family that names a host decides; the others fill in what it leaves open,
//! unless they name another host or user. Each variable may instead be given as `NAME_FILE`: the
//! whole content of that file without trailing newlines, as the official image reads it. Both
//! forms at once are an error, as there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::settings::{Fields, Setting, single_host};
use crate::{
    CredentialSource, EnvSnapshot, TlsOptions,
    target::{
        TargetError, is_postgres_url, parse_channel_binding, parse_port, parse_sslmode, parse_url,
    },
};

/// Contents of files that `…_FILE` variables name, by path; the text is why one was not read.
pub(crate) type FileContents = BTreeMap<String, Result<SecretString, String>>;

/// Names of the variables that make one family, each list in order of preference.
pub(crate) struct Family {
    host: &'static [&'static str],
    port: &'static [&'static str],
    database: &'static [&'static str],
    user: &'static [&'static str],
    password: &'static [&'static str],
    /// A variable that holds a whole URL.
    url: Option<&'static str>,
    /// Prefix of `SSLMODE` and its relatives.
    tls_prefix: Option<&'static str>,
}

/// `POSTGRES_*` of pgstow's own environment.
const POSTGRES: Family = Family {
    host: &["POSTGRES_HOST"],
    port: &["POSTGRES_PORT"],
    database: &["POSTGRES_DATABASE", "POSTGRES_DB"],
    user: &["POSTGRES_USERNAME", "POSTGRES_USER"],
    password: &["POSTGRES_PASSWORD"],
    url: None,
    tls_prefix: Some("POSTGRES_"),
};

const DATABASE_URL: Family = Family {
    host: &[],
    port: &[],
    database: &[],
    user: &[],
    password: &[],
    url: Some("DATABASE_URL"),
    tls_prefix: None,
};

const LIBPQ: Family = Family {
    host: &["PGHOST", "PGHOSTADDR"],
    port: &["PGPORT"],
    database: &["PGDATABASE"],
    user: &["PGUSER"],
    password: &["PGPASSWORD"],
    url: None,
    tls_prefix: Some("PG"),
};

/// `POSTGRES_*` in a container: the official image, PostGIS/kartoza's spellings
/// (`POSTGRES_DBNAME`, `POSTGRES_PASS`) and applications that carry their database inside.
const POSTGRES_IN_CONTAINER: Family = Family {
    host: &["POSTGRES_HOST"],
    port: &["POSTGRES_PORT"],
    database: &["POSTGRES_DATABASE", "POSTGRES_DB", "POSTGRES_DBNAME"],
    user: &["POSTGRES_USERNAME", "POSTGRES_USER"],
    password: &["POSTGRES_PASSWORD", "POSTGRES_PASS"],
    url: None,
    tls_prefix: Some("POSTGRES_"),
};

/// Bitnami's image.
const BITNAMI: Family = Family {
    host: &["POSTGRESQL_HOST"],
    port: &["POSTGRESQL_PORT_NUMBER", "POSTGRESQL_PORT"],
    database: &["POSTGRESQL_DATABASE"],
    user: &["POSTGRESQL_USERNAME", "POSTGRESQL_USER"],
    password: &["POSTGRESQL_PASSWORD"],
    url: None,
    tls_prefix: None,
};

/// Families of pgstow's own environment, in order.
pub(crate) const OWN: &[Family] = &[POSTGRES, DATABASE_URL, LIBPQ];
/// Families of a container's environment, in order.
pub(crate) const IN_CONTAINER: &[Family] = &[POSTGRES_IN_CONTAINER, BITNAMI, DATABASE_URL, LIBPQ];
/// Bitnami's password of the superuser `postgres` when `POSTGRESQL_USERNAME` names another user.
pub(crate) const SUPERUSER_PASSWORD: &[&str] =
    &["POSTGRESQL_POSTGRES_PASSWORD", "POSTGRES_POSTGRES_PASSWORD"];

impl Family {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        [
            self.host,
            self.port,
            self.database,
            self.user,
            self.password,
        ]
        .into_iter()
        .flatten()
        .copied()
        .chain(self.url)
    }
}

/// Files that `…_FILE` variables of these families name: variable and path.
pub(crate) fn files_named(env: &EnvSnapshot, families: &[Family]) -> Vec<(String, String)> {
    families
        .iter()
        .flat_map(Family::names)
        .chain(SUPERUSER_PASSWORD.iter().copied())
        .filter_map(|name| {
            let variable = format!("{name}_FILE");
            let path = env.get(&variable)?.to_owned();
            Some((variable, path))
        })
        .collect()
}

/// A file's content as the official image's entry point takes it: `$(< file)` drops zero bytes
/// and trailing newlines.
pub(crate) fn file_value(content: &[u8]) -> Result<SecretString, String> {
    let text = std::str::from_utf8(content).map_err(|_| "it is not UTF-8".to_owned())?;
    let text = text.replace('\0', "");
    let text = text.trim_end_matches('\n');
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(SecretString::from(text.to_owned()))
}

/// Reads variables of one environment.
pub(crate) struct Reader<'a> {
    pub env: &'a EnvSnapshot,
    pub files: &'a FileContents,
    pub source: CredentialSource,
    /// Added to each origin: empty, or ` of container NAME`.
    pub whose: String,
    /// Whether a value that cannot be used is a remark instead of an error. True for containers:
    /// their variables are written for their own programs (`POSTGRES_PORT=tcp://…` of a service
    /// link is one of them), and a login may work without.
    pub lenient: bool,
    /// Remarks for the trail.
    pub notes: RefCell<Vec<String>>,
}

impl Reader<'_> {
    /// Merges the families: the first that names a host decides, the others fill in.
    ///
    /// # Errors
    /// What is wrong, naming the variable, never its value.
    pub(crate) fn read(&self, families: &[Family]) -> Result<Fields, String> {
        let mut read = Vec::new();
        for family in families {
            read.push(self.family(family)?);
        }
        let first = read.iter().position(|fields| fields.host.is_some());
        let mut fields = Fields::default();
        if let Some(first) = first {
            fields = read.remove(first);
        }
        for other in &read {
            if let (Some(mine), Some(theirs)) = (&fields.host, &other.host)
                && !fields.same_server(other)
            {
                self.note(format!(
                    "{} names another server and was not used, because {} comes first",
                    theirs.origin, mine.origin
                ));
            }
            fields.fill_from(other);
        }
        Ok(fields)
    }

    fn note(&self, note: String) {
        self.notes.borrow_mut().push(note);
    }

    /// A value that cannot be used.
    fn problem<T>(&self, problem: String) -> Result<Option<T>, String> {
        if self.lenient {
            self.note(problem);
            Ok(None)
        } else {
            Err(problem)
        }
    }

    fn checked<T>(&self, result: Result<T, TargetError>) -> Result<Option<T>, String> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => self.problem(error.problem),
        }
    }

    /// The value of `name` or of the file that `name_FILE` names.
    pub(crate) fn get(&self, name: &str) -> Result<Option<Setting<SecretString>>, String> {
        let variable = format!("{name}_FILE");
        let whose = &self.whose;
        let plain = self.env.get(name);
        let path = self.env.get(&variable);
        if plain.is_some() && path.is_some() {
            self.problem::<()>(format!(
                "{name} and {variable}{whose} are both set; unset one of them"
            ))?;
        }
        match (plain, path) {
            (Some(value), _) => Ok(Some(Setting::new(
                SecretString::from(value.to_owned()),
                format!("{name}{whose}"),
                self.source,
            ))),
            (None, Some(path)) => match self.files.get(path) {
                Some(Ok(value)) => Ok(Some(Setting::new(
                    value.clone(),
                    format!("{variable}{whose}"),
                    self.source,
                ))),
                Some(Err(reason)) => self.problem(format!(
                    "{variable}{whose} names {path}, which cannot be used: {reason}"
                )),
                None => self.problem(format!(
                    "{variable}{whose} names {path}, which was not read"
                )),
            },
            (None, None) => Ok(None),
        }
    }

    fn first(&self, names: &[&str]) -> Result<Option<Setting<SecretString>>, String> {
        for name in names {
            if let Some(found) = self.get(name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn text(&self, names: &[&str]) -> Result<Option<Setting<String>>, String> {
        Ok(self.first(names)?.map(|found| {
            Setting::new(
                found.value.expose_secret().to_owned(),
                found.origin,
                found.source,
            )
        }))
    }

    fn family(&self, family: &Family) -> Result<Fields, String> {
        let mut fields = match family.url {
            Some(name) => self.url(name)?,
            None => Fields::default(),
        };
        if let Some(host) = self.text(family.host)?
            && self
                .checked(single_host(&host.origin, &host.value))?
                .is_some()
        {
            fields.host = Some(host);
        }
        if let Some(port) = self.text(family.port)?
            && let Some(number) = self.checked(parse_port(&port.origin, &port.value))?
        {
            fields.port = Some(Setting::new(number, port.origin, port.source));
        }
        if let Some(mut database) = self.text(family.database)? {
            // kartoza's POSTGRES_DBNAME may list several databases; the first is as good as any.
            if database.origin.starts_with("POSTGRES_DBNAME")
                && let Some((first, _)) = database.value.split_once(',')
            {
                database.value = first.trim().to_owned();
            }
            fields.database = Some(database);
        }
        if let Some(user) = self.text(family.user)? {
            fields.user = Some(user);
        }
        if let Some(password) = self.first(family.password)? {
            fields.passwords.push(password);
        }
        if let Some(prefix) = family.tls_prefix {
            fields.tls = self.tls(prefix)?;
        }
        Ok(fields)
    }

    fn url(&self, name: &str) -> Result<Fields, String> {
        let Some(found) = self.get(name)? else {
            return Ok(Fields::default());
        };
        let text = found.value.expose_secret();
        if !is_postgres_url(text) {
            self.note(format!(
                "{} is not a postgres:// URL and was left aside",
                found.origin
            ));
            return Ok(Fields::default());
        }
        let url = match parse_url(text) {
            Ok(url) => url,
            Err(error) => {
                self.problem::<()>(format!("{}: {error}", found.origin))?;
                return Ok(Fields::default());
            }
        };
        if !url.ignored.is_empty() {
            self.note(format!(
                "parameters of {} without meaning here: {}",
                found.origin,
                url.ignored.join(", ")
            ));
        }
        Ok(Fields::from_url(url, &found.origin, self.source))
    }

    fn tls(&self, prefix: &str) -> Result<TlsOptions, String> {
        let get = |name: &str| {
            let name = format!("{prefix}{name}");
            self.env.get(&name).map(|value| (name, value))
        };
        let path = |name: &str| get(name).map(|(_, value)| PathBuf::from(value));
        let mode = match get("SSLMODE") {
            Some((name, value)) => self.checked(parse_sslmode(&name, value))?,
            None => None,
        };
        let channel_binding = match get("CHANNELBINDING") {
            Some((name, value)) => self.checked(parse_channel_binding(&name, value))?,
            None => None,
        };
        Ok(TlsOptions {
            mode,
            root_cert: path("SSLROOTCERT"),
            cert: path("SSLCERT"),
            key: path("SSLKEY"),
            crl: path("SSLCRL"),
            channel_binding,
        })
    }
}
