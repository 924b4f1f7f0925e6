//! How native sessions reach the server.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::find::{Facts, Keeper};
use crate::codes;
use crate::creds::DbCreds;
use crate::executor::ConnectionSettings;

/// A way to the server, without credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Route {
    /// A Unix socket of this host.
    Socket {
        /// Directory that holds `.s.PGSQL.<port>`.
        directory: PathBuf,
        /// Number in the socket's name.
        port: u16,
    },
    /// A host name or address as the credentials name it.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// The server's Unix socket in its container, where that runs on this host and we may look
    /// into it.
    ContainerSocket {
        /// Full id of the container.
        container: String,
        /// The container's first process, as this host counts.
        process: u32,
        /// Directory in the container that holds `.s.PGSQL.<port>`.
        directory: PathBuf,
        /// Number in the socket's name.
        port: u16,
    },
    /// The address of the server's container in one of its networks.
    ContainerAddress {
        /// IP address.
        address: String,
        /// Port in the container.
        port: u16,
    },
    /// A port of this host that the engine forwards to the server's container.
    PublishedPort {
        /// Address of this host.
        host: String,
        /// Port of this host.
        port: u16,
    },
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { directory, port } => {
                write!(f, "socket {}/.s.PGSQL.{port}", directory.display())
            }
            Self::ContainerSocket {
                directory, port, ..
            } => write!(
                f,
                "the container's socket {}/.s.PGSQL.{port}",
                directory.display()
            ),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::ContainerAddress { address, port } => {
                write!(f, "the container's address {address}:{port}")
            }
            Self::PublishedPort { host, port } => {
                write!(f, "the container's published port {host}:{port}")
            }
        }
    }
}

/// Why there are no native sessions to the server; the work goes on in another way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}", in_words(tried))]
pub struct NoRoute {
    /// Routes that were tried, each with what stood against it.
    pub tried: Vec<(Route, String)>,
    /// The reason in one sentence.
    pub reason: String,
}

impl NoRoute {
    /// No route was even tried.
    #[must_use]
    pub fn because(reason: impl Into<String>) -> Self {
        Self {
            tried: Vec::new(),
            reason: reason.into(),
        }
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        codes::ROUTE_UNAVAILABLE
    }
}

fn in_words(tried: &[(Route, String)]) -> String {
    tried
        .iter()
        .map(|(route, why)| format!("; {route}: {why}"))
        .collect()
}

/// A route that was proven to lead to the discovered server; opens sessions on it.
#[derive(Debug)]
pub struct NativeRoute {
    pub(super) route: Route,
    pub(super) creds: DbCreds,
    pub(super) settings: ConnectionSettings,
    /// What the server told when it was proven.
    pub(super) expected: Facts,
    /// The question for it.
    pub(super) facts: String,
    pub(super) keeper: Keeper,
}

impl NativeRoute {
    /// The way.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.route
    }
}
