//! Where a server is and how to log in to it.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// Port of PostgreSQL when nothing names another.
pub const DEFAULT_PORT: u16 = 5432;

/// Host, port, database, user, password and TLS options of one login.
///
/// `Debug` never shows the password: [`SecretString`] redacts itself.
#[derive(Debug, Clone)]
pub struct DbCreds {
    /// Host name, address or socket directory as the client program next to the server sees it.
    /// `None` lets libpq use its default socket directory (the usual case inside a container).
    pub host: Option<String>,
    /// TCP port, or the number in the socket's file name.
    pub port: u16,
    /// Database of the first connection; others of the target are reached with the same login.
    pub database: String,
    /// Role that logs in.
    pub user: String,
    /// Password, where one was found. Absent means `trust`, `peer` or certificate login.
    pub password: Option<SecretString>,
    /// TLS options; all unset leaves libpq's defaults.
    pub tls: TlsOptions,
}

/// `sslmode` of libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS only if the server insists.
    Allow,
    /// TLS if the server offers it (libpq's default).
    Prefer,
    /// TLS always, any certificate.
    Require,
    /// TLS with a certificate of a trusted authority.
    VerifyCa,
    /// As `VerifyCa`, and the certificate names the host.
    VerifyFull,
}

impl SslMode {
    /// The word that libpq uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    /// Reads libpq's word; `None` for anything else.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [
            Self::Disable,
            Self::Allow,
            Self::Prefer,
            Self::Require,
            Self::VerifyCa,
            Self::VerifyFull,
        ]
        .into_iter()
        .find(|mode| mode.as_str() == word)
    }
}

/// TLS options as libpq names them; paths are of the side where the client program runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// `PGSSLMODE`.
    pub mode: Option<SslMode>,
    /// `PGSSLROOTCERT`: authority that signed the server's certificate.
    pub root_cert: Option<PathBuf>,
    /// `PGSSLCERT`: client certificate.
    pub cert: Option<PathBuf>,
    /// `PGSSLKEY`: client key, 0600.
    pub key: Option<PathBuf>,
    /// `PGSSLCRL`: revocation list.
    pub crl: Option<PathBuf>,
    /// `PGCHANNELBINDING`: `disable`, `prefer` or `require`.
    pub channel_binding: Option<String>,
}
