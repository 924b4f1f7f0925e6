//! `state/db.env`: the credentials of the last successful backup, to reach the database again or
//! to say where it was.
//!
//! # Format, version 1
//!
//! Lines `KEY=VALUE` as Docker's `--env-file` reads them: everything after the first `=` is the
//! value, literally; no quotes, no expansion; lines that start with `#` and empty lines are
//! skipped. A value with a line break is written as `KEY_PERCENT=VALUE`, percent-encoded (`%`, line
//! breaks and zero bytes). Unknown keys are skipped; a higher `PGSTOW_FORMAT_VERSION` is refused
//! for reading credentials and never rewritten.
//!
//! # Safety
//!
//! The file is opened without following a link and judged by its descriptor: regular, owned by
//! the effective user, no rights for group and others; its directory must not be writable by
//! others. It is written under a temporary name (0600), synced, renamed, and its directory synced.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use percent_encoding::{AsciiSet, percent_decode_str, utf8_percent_encode};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use secrecy::{ExposeSecret, SecretString};

use super::settings::{Fields, Setting};
use crate::{
    ComposeService, CredentialSource, DbContext, DbCreds, DbMode, SslMode, TlsOptions,
    creds::DEFAULT_PORT,
};

/// Version of the format that this code writes.
pub const PERSISTED_FORMAT_VERSION: u32 = 1;
/// Largest file that is read, in bytes.
const LIMIT: u64 = 64 * 1024;
/// What cannot stand in a line of its own.
const LINE_BREAKS: &AsciiSet = &AsciiSet::EMPTY.add(b'%').add(b'\n').add(b'\r').add(b'\0');
const TEMPORARY: &str = ".db.env.tmp.";

/// What the persisted file holds.
#[derive(Debug, Clone)]
pub struct Persisted {
    /// Where the server ran.
    pub mode: DbMode,
    /// The login that worked.
    pub creds: DbCreds,
    /// Name of the container, in mode `InContainer`.
    pub container_name: Option<String>,
    /// Compose identity of the container.
    pub compose: Option<ComposeService>,
    /// The server's system identifier.
    pub system_identifier: Option<String>,
}

impl Persisted {
    /// Where the database was, in words.
    pub(crate) fn place(&self) -> String {
        match (self.mode, &self.compose, &self.container_name) {
            (DbMode::InContainer, Some(compose), _) => {
                format!("compose service {}/{}", compose.project, compose.service)
            }
            (DbMode::InContainer, None, Some(name)) => format!("container {name}"),
            _ => format!(
                "{} port {}",
                self.creds.host.as_deref().unwrap_or("the local socket"),
                self.creds.port
            ),
        }
    }

    /// The login as fields of one place.
    pub(crate) fn fields(&self, source: CredentialSource) -> Fields {
        let origin = "the persisted file";
        let creds = &self.creds;
        Fields {
            host: creds
                .host
                .clone()
                .map(|host| Setting::new(host, origin, source)),
            port: Some(Setting::new(creds.port, origin, source)),
            database: Some(Setting::new(creds.database.clone(), origin, source)),
            user: Some(Setting::new(creds.user.clone(), origin, source)),
            passwords: creds
                .password
                .clone()
                .map(|password| Setting::new(password, origin, source))
                .into_iter()
                .collect(),
            tls: creds.tls.clone(),
        }
    }
}

/// Why the persisted file cannot be used or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PersistedError {
    /// It may have been made or read by somebody else.
    #[error("{} {problem}", path.display())]
    Unsafe {
        /// The file or its directory.
        path: PathBuf,
        /// What is wrong, and the fix.
        problem: String,
    },
    /// Its content cannot be understood.
    #[error("{} cannot be understood: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, naming the key, never its value.
        problem: String,
    },
    /// A file operation failed.
    #[error("{operation} {} failed", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's failure.
        #[source]
        source: io::Error,
    },
}

impl PersistedError {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        crate::codes::PERSISTED_FILE_UNSAFE
    }

    /// The message with what the system said, for a trail.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::File { source, .. } => format!("{self}: {source}"),
            _ => self.to_string(),
        }
    }
}

/// Reads the persisted file; `None` when there is none.
///
/// # Errors
/// [`PersistedError`] when it is unsafe, damaged or cannot be read.
pub fn read_persisted(path: &Path) -> Result<Option<Persisted>, PersistedError> {
    let Some(directory) = open_directory(path)? else {
        return Ok(None);
    };
    read_in(&directory, path)
}

fn read_in(directory: &OwnedFd, path: &Path) -> Result<Option<Persisted>, PersistedError> {
    let unsafe_file = |problem: &str| PersistedError::Unsafe {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let failed = |source: io::Error| PersistedError::File {
        operation: "reading",
        path: path.to_owned(),
        source,
    };
    // Non-blocking, so that a FIFO cannot hold us.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = match rustix::fs::openat(directory, file_name(path)?, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(rustix::io::Errno::LOOP) => {
            return Err(unsafe_file(
                "is a symbolic link; remove it, pgstow writes the file again after a backup",
            ));
        }
        Err(errno) => return Err(failed(errno.into())),
    };
    let stat = rustix::fs::fstat(&fd).map_err(|errno| failed(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(unsafe_file("is not a regular file; remove it"));
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(unsafe_file(&format!(
            "belongs to user id {}, pgstow runs as {}; remove it, or run as its owner",
            stat.st_uid,
            rustix::process::geteuid().as_raw()
        )));
    }
    if stat.st_mode & 0o077 != 0 {
        return Err(unsafe_file(&format!(
            "has mode {:04o}, so that others may read or write it; chmod 600 it after checking who could",
            stat.st_mode & 0o7777
        )));
    }
    let mut bytes = Vec::new();
    File::from(fd)
        .take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let damaged = |problem: String| PersistedError::Damaged {
        path: path.to_owned(),
        problem,
    };
    if bytes.len() as u64 > LIMIT {
        return Err(damaged("it is larger than 64 KiB".to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is not UTF-8".to_owned()))?;
    parse(text).map(Some).map_err(damaged)
}

/// Writes the persisted file in one step: readers see the old one or the new one.
///
/// # Errors
/// [`PersistedError`]; the old file is then untouched. A failure after the rename (the sync of the
/// directory) leaves the new one.
pub fn write_persisted(path: &Path, context: &DbContext) -> Result<(), PersistedError> {
    let failed = |operation: &'static str| {
        move |source: io::Error| PersistedError::File {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    let directory = open_directory(path)?.ok_or_else(|| {
        failed("opening the directory of")(io::Error::from(io::ErrorKind::NotFound))
    })?;
    if let Err(PersistedError::Damaged { problem, .. }) = read_in(&directory, path)
        && problem.starts_with(NEWER)
    {
        return Err(PersistedError::Damaged {
            path: path.to_owned(),
            problem,
        });
    }
    remove_leftovers(&directory).map_err(failed("removing leftovers next to"))?;
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let temporary = format!(
        "{TEMPORARY}{}.{}",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    );
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(
        &directory,
        temporary.as_str(),
        flags,
        Mode::RUSR | Mode::WUSR,
    )
    .map_err(|errno| failed("creating a temporary file for")(errno.into()))?;
    let mut file = File::from(fd);
    let written = file
        .write_all(render(context).expose_secret().as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| {
            rustix::fs::renameat(
                &directory,
                temporary.as_str(),
                &directory,
                file_name_os(path),
            )
            .map_err(io::Error::from)
        });
    if let Err(source) = written {
        // Best effort: the error that is told is the first one.
        let _ = rustix::fs::unlinkat(&directory, temporary.as_str(), AtFlags::empty());
        return Err(failed("writing")(source));
    }
    rustix::fs::fsync(&directory).map_err(|errno| failed("syncing the directory of")(errno.into()))
}

/// Temporary files of runs that were killed hold a password and go away here. A run that writes
/// at this moment then fails to rename, which is a warning there and never a torn file.
fn remove_leftovers(directory: &OwnedFd) -> io::Result<()> {
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_bytes()
            .starts_with(TEMPORARY.as_bytes())
        {
            match rustix::fs::unlinkat(directory, entry.file_name(), AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(())
}

fn file_name_os(path: &Path) -> &std::ffi::OsStr {
    path.file_name().unwrap_or_default()
}

fn file_name(path: &Path) -> Result<&std::ffi::OsStr, PersistedError> {
    path.file_name().ok_or_else(|| PersistedError::Unsafe {
        path: path.to_owned(),
        problem: "is no file name".to_owned(),
    })
}

fn open_directory(path: &Path) -> Result<Option<OwnedFd>, PersistedError> {
    file_name(path)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = |errno: rustix::io::Errno| PersistedError::File {
        operation: "opening the directory",
        path: directory.to_owned(),
        source: errno.into(),
    };
    let unsafe_directory = |problem: String| PersistedError::Unsafe {
        path: directory.to_owned(),
        problem,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(directory, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
            return Err(unsafe_directory(
                "is a symbolic link or no directory; name the real one".to_owned(),
            ));
        }
        Err(errno) => return Err(failed(errno)),
    };
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    let me = rustix::process::geteuid().as_raw();
    if stat.st_uid != me {
        return Err(unsafe_directory(format!(
            "belongs to user id {}, pgstow runs as {me}; run as its owner",
            stat.st_uid
        )));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(unsafe_directory(format!(
            "has mode {:04o}, so that others may replace files in it; chmod 700 it",
            stat.st_mode & 0o7777
        )));
    }
    Ok(Some(fd))
}

fn render(context: &DbContext) -> SecretString {
    let mut text = String::from(
        "# Written by pgstow after a successful backup. Holds a password: mode 0600.\n\
         # KEY=VALUE, literally; a key that ends in _PERCENT is percent-encoded.\n",
    );
    let mut put = |key: &str, value: Option<&str>| {
        let Some(value) = value else { return };
        // Writing to a String cannot fail.
        let _ = if value.contains(['\n', '\r', '\0']) {
            writeln!(
                text,
                "{key}_PERCENT={}",
                utf8_percent_encode(value, LINE_BREAKS)
            )
        } else {
            writeln!(text, "{key}={value}")
        };
    };
    let creds = &context.creds;
    put(
        "PGSTOW_FORMAT_VERSION",
        Some(&PERSISTED_FORMAT_VERSION.to_string()),
    );
    put(
        "PGSTOW_MODE",
        Some(match context.mode {
            DbMode::InContainer => "in_container",
            DbMode::External => "external",
        }),
    );
    if let (DbMode::InContainer, Some(container)) = (context.mode, &context.container) {
        put("PGSTOW_CONTAINER_NAME", Some(&container.name));
        if let Some(compose) = &container.compose {
            put("PGSTOW_COMPOSE_PROJECT", Some(&compose.project));
            put("PGSTOW_COMPOSE_SERVICE", Some(&compose.service));
        }
    }
    put(
        "PGSTOW_SYSTEM_IDENTIFIER",
        context.server.system_identifier.as_deref(),
    );
    put("POSTGRES_HOST", creds.host.as_deref());
    put("POSTGRES_PORT", Some(&creds.port.to_string()));
    put("POSTGRES_DATABASE", Some(&creds.database));
    put("POSTGRES_USERNAME", Some(&creds.user));
    put(
        "POSTGRES_PASSWORD",
        creds.password.as_ref().map(ExposeSecret::expose_secret),
    );
    let tls = &creds.tls;
    put("POSTGRES_SSLMODE", tls.mode.map(SslMode::as_str));
    for (key, path) in [
        ("POSTGRES_SSLROOTCERT", &tls.root_cert),
        ("POSTGRES_SSLCERT", &tls.cert),
        ("POSTGRES_SSLKEY", &tls.key),
        ("POSTGRES_SSLCRL", &tls.crl),
    ] {
        put(key, path.as_deref().and_then(Path::to_str));
    }
    put("POSTGRES_CHANNELBINDING", tls.channel_binding.as_deref());
    SecretString::from(text)
}

/// How the complaint about a newer format begins.
const NEWER: &str = "it was written by a newer pgstow";

/// Splits literal `KEY=VALUE` lines; the pairs may hold secrets.
fn pairs(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = BTreeMap::new();
    for (number, line) in text.split('\n').enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            return Err(format!("line {} has no =", number + 1));
        };
        let (key, value) = match key.strip_suffix("_PERCENT") {
            Some(key) => {
                let value = percent_decode_str(value)
                    .decode_utf8()
                    .map_err(|_| format!("{key} is not UTF-8"))?;
                (key, value.into_owned())
            }
            None => (key, value.to_owned()),
        };
        if pairs.insert(key.to_owned(), value).is_some() {
            return Err(format!("{key} is there twice"));
        }
    }
    Ok(pairs)
}

fn parse(text: &str) -> Result<Persisted, String> {
    let mut pairs = pairs(text)?;
    let mut take = |key: &str| pairs.remove(key);
    let version = take("PGSTOW_FORMAT_VERSION").ok_or("PGSTOW_FORMAT_VERSION is missing")?;
    match version.parse::<u32>() {
        Ok(version) if version == PERSISTED_FORMAT_VERSION => {}
        Ok(version) if version > PERSISTED_FORMAT_VERSION => {
            return Err(format!("{NEWER} (format version {version})"));
        }
        _ => return Err("PGSTOW_FORMAT_VERSION is no version that exists".to_owned()),
    }
    let mode = match take("PGSTOW_MODE").as_deref() {
        Some("in_container") => DbMode::InContainer,
        Some("external") => DbMode::External,
        _ => return Err("PGSTOW_MODE is neither in_container nor external".to_owned()),
    };
    let port = match take("POSTGRES_PORT") {
        Some(port) => crate::target::parse_port("POSTGRES_PORT", &port).map_err(|e| e.problem)?,
        None => DEFAULT_PORT,
    };
    let tls = TlsOptions {
        mode: take("POSTGRES_SSLMODE")
            .map(|word| crate::target::parse_sslmode("POSTGRES_SSLMODE", &word))
            .transpose()
            .map_err(|error| error.problem)?,
        root_cert: take("POSTGRES_SSLROOTCERT").map(PathBuf::from),
        cert: take("POSTGRES_SSLCERT").map(PathBuf::from),
        key: take("POSTGRES_SSLKEY").map(PathBuf::from),
        crl: take("POSTGRES_SSLCRL").map(PathBuf::from),
        channel_binding: take("POSTGRES_CHANNELBINDING"),
    };
    let compose = match (
        take("PGSTOW_COMPOSE_PROJECT"),
        take("PGSTOW_COMPOSE_SERVICE"),
    ) {
        (Some(project), Some(service)) => Some(ComposeService { project, service }),
        _ => None,
    };
    Ok(Persisted {
        mode,
        creds: DbCreds {
            host: take("POSTGRES_HOST"),
            port,
            database: take("POSTGRES_DATABASE").ok_or("POSTGRES_DATABASE is missing")?,
            user: take("POSTGRES_USERNAME").ok_or("POSTGRES_USERNAME is missing")?,
            password: take("POSTGRES_PASSWORD").map(SecretString::from),
            tls,
        },
        container_name: take("PGSTOW_CONTAINER_NAME"),
        compose,
        system_identifier: take("PGSTOW_SYSTEM_IDENTIFIER"),
    })
}

#[cfg(test)]
#[path = "persisted_tests.rs"]
mod tests;
