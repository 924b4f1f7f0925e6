//! What goes wrong in a session of pgstow's own.

use std::io;

use crate::{causes, codes};

/// Errors of native sessions. Messages carry the server's own words, never a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NativeError {
    /// The server refused a statement, or ended the session with a reason.
    #[error("the server says: {message} ({sqlstate}){}", more(detail.as_deref()))]
    Server {
        /// SQLSTATE, five characters.
        sqlstate: String,
        /// `ERROR`, `FATAL` or `PANIC`, not translated.
        severity: Box<str>,
        /// The server's own words.
        message: String,
        /// Its detail, where it gave one.
        detail: Option<Box<str>>,
        /// Its hint, where it gave one.
        hint: Option<Box<str>>,
        /// Where it happened (`COPY t, line 3`), where it told.
        context: Option<Box<str>>,
    },
    /// The server refused the login, or asked for a kind of login that is not given this way.
    #[error("the login was refused: {message}")]
    Login {
        /// SQLSTATE, where the server gave one.
        sqlstate: Option<String>,
        /// The server's own words, or ours.
        message: String,
    },
    /// Nobody answers at the address, or not in time.
    #[error("no server answers at {address}: {message}")]
    Unreachable {
        /// Where.
        address: String,
        /// What was seen.
        message: String,
    },
    /// The connection broke.
    #[error("the connection to the server broke while {operation}")]
    Io {
        /// What was done.
        operation: &'static str,
        /// The system's failure.
        #[source]
        source: io::Error,
    },
    /// TLS failed: certificate, authority, host name or handshake.
    #[error("TLS failed: {message}")]
    Tls {
        /// What was seen.
        message: String,
    },
    /// The other side does not speak as a server does, or an answer was not understood.
    #[error("the server's answer was not understood: {message}")]
    Protocol {
        /// What was seen.
        message: String,
    },
    /// The session cannot be used any more: it was left in the middle of an answer, or it ended.
    #[error("the session is over: {reason}")]
    Over {
        /// Why.
        reason: String,
    },
    /// Something that this client does not do; the stock programs may.
    #[error("not supported by sessions of pgstow's own: {what}")]
    Unsupported {
        /// What.
        what: String,
    },
    /// Another server answers on the route than the one that was discovered.
    #[error("another server answers there: {found}")]
    OtherServer {
        /// What told them apart.
        found: String,
    },
}

impl NativeError {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Server { .. } | Self::Protocol { .. } | Self::Over { .. } => codes::QUERY_FAILED,
            Self::Login { .. } => codes::CREDENTIALS_REFUSED,
            Self::Unreachable { .. } | Self::Io { .. } => codes::SERVER_UNREACHABLE,
            Self::Tls { .. } => codes::TLS_FAILED,
            Self::Unsupported { .. } => codes::ROUTE_UNAVAILABLE,
            Self::OtherServer { .. } => codes::CONTAINER_CHANGED,
        }
    }

    /// SQLSTATE of the server's answer, where there was one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server { sqlstate, .. } => Some(sqlstate),
            Self::Login { sqlstate, .. } => sqlstate.as_deref(),
            _ => None,
        }
    }

    /// The message and those of its sources in one line.
    #[must_use]
    pub fn in_words(&self) -> String {
        causes::in_words(self)
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Protocol { message }
    }

    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        let what = what.into();
        Self::Unsupported { what }
    }

    pub(crate) fn login(message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Login {
            sqlstate: None,
            message,
        }
    }
}

fn more(detail: Option<&str>) -> String {
    detail.map_or_else(String::new, |detail| format!(": {detail}"))
}
