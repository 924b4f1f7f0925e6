//! From a route to a connection: socket, keepalives, and (where it is wanted) TLS.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpStream, UnixStream};

use super::stream::Stream;
use super::{NativeError, Route};
use crate::creds::{DbCreds, SslMode};
use crate::executor::ConnectionSettings;

/// How to make a connection, also a second one to cancel a statement.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    route: Route,
    /// Longest wait for the connection itself.
    connect_timeout: Duration,
    keepalive: Duration,
}

/// A connection, and what is known of its privacy.
pub(super) struct Dialled {
    pub(super) stream: Stream,
    /// Nobody between the two ends can read along: TLS, a socket of this host, or the bridge of
    /// this host's own container.
    pub(super) private: bool,
}

impl Dialer {
    pub(super) fn new(
        route: &Route,
        creds: &DbCreds,
        settings: &ConnectionSettings,
    ) -> Result<Self, NativeError> {
        let mode = creds.tls.mode.unwrap_or(SslMode::Prefer);
        if !matches!(route, Route::Socket { .. })
            && !matches!(mode, SslMode::Disable | SslMode::Prefer)
        {
            return Err(NativeError::unsupported(format!(
                "sslmode={}",
                mode.as_str()
            )));
        }
        Ok(Self {
            route: route.clone(),
            connect_timeout: settings.connect_timeout,
            keepalive: settings.keepalives_idle,
        })
    }

    /// Connects.
    pub(super) async fn dial(&self) -> Result<Dialled, NativeError> {
        let private = matches!(
            self.route,
            Route::Socket { .. } | Route::ContainerAddress { .. }
        );
        let stream = self.connect().await?;
        Ok(Dialled { stream, private })
    }

    async fn connect(&self) -> Result<Stream, NativeError> {
        match &self.route {
            Route::Socket { directory, port } => {
                let path = directory.join(format!(".s.PGSQL.{port}"));
                let stream = self.in_time(UnixStream::connect(path)).await?;
                Ok(Stream::Unix(stream))
            }
            Route::Tcp { host, port }
            | Route::ContainerAddress {
                address: host,
                port,
            }
            | Route::PublishedPort { host, port } => {
                let stream = self
                    .in_time(TcpStream::connect((host.as_str(), *port)))
                    .await?;
                self.prepare(&stream)
                    .map_err(|error| self.unreachable(&error.to_string()))?;
                Ok(Stream::Tcp(stream))
            }
        }
    }

    async fn in_time<T>(
        &self,
        connecting: impl Future<Output = io::Result<T>>,
    ) -> Result<T, NativeError> {
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.unreachable(&error.to_string())),
            Err(_) => Err(self.unreachable(&format!("no answer in {:?}", self.connect_timeout))),
        }
    }

    pub(super) fn unreachable(&self, message: &str) -> NativeError {
        NativeError::Unreachable {
            address: self.route.to_string(),
            message: message.to_owned(),
        }
    }

    /// A peer that is gone without a word is noticed: by keepalives while nothing is sent.
    fn prepare(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, self.keepalive.max(Duration::from_secs(1)))?;
        sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10))?;
        sockopt::set_tcp_keepcnt(stream, 3)?;
        Ok(())
    }
}
