//! From a route to a connection: socket, keepalives, and (where it is wanted) TLS.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpStream, UnixStream};

use super::stream::Stream;
use super::{NativeError, Route, container_socket, tls};
use crate::creds::DbCreds;
use crate::executor::ConnectionSettings;

/// How to make a connection, also a second one to cancel a statement.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    route: Route,
    /// `None`: no TLS.
    tls: Option<tls::Plan>,
    /// Longest wait for the connection itself.
    connect_timeout: Duration,
    keepalive: Duration,
}

/// A connection, and what is known of its privacy.
pub(super) struct Dialled {
    pub(super) stream: Stream,
    pub(super) tls: bool,
    /// Hash of the server's certificate, where its kind of signature names a hash.
    pub(super) end_point: Option<Vec<u8>>,
    /// Nobody between the two ends can read along: TLS, a socket of this host, or the bridge of
    /// this host's own container. A password may be sent as it is.
    pub(super) private: bool,
}

impl Dialled {
    fn plain(stream: Stream, private: bool) -> Self {
        Self {
            stream,
            tls: false,
            end_point: None,
            private,
        }
    }
}

impl Dialer {
    pub(super) fn new(
        route: &Route,
        creds: &DbCreds,
        settings: &ConnectionSettings,
    ) -> Result<Self, NativeError> {
        let tls = match route {
            Route::Socket { .. } | Route::ContainerSocket { .. } => None,
            Route::Tcp { host, .. }
            | Route::ContainerAddress { address: host, .. }
            | Route::PublishedPort { host, .. } => tls::plan(&creds.tls, host)?,
        };
        Ok(Self {
            route: route.clone(),
            tls,
            connect_timeout: settings.connect_timeout,
            keepalive: settings.keepalives_idle,
        })
    }

    /// Connects, and speaks TLS where that is wanted and had.
    pub(super) async fn dial(&self) -> Result<Dialled, NativeError> {
        let plain = matches!(
            self.route,
            Route::Socket { .. } | Route::ContainerSocket { .. } | Route::ContainerAddress { .. }
        );
        match (self.connect().await?, &self.tls) {
            (Stream::Tcp(stream), Some(plan)) => match plan.negotiate(stream).await? {
                Ok(stream) => Ok(Dialled {
                    end_point: tls::end_point(&stream),
                    stream: Stream::Tls(stream),
                    tls: true,
                    private: true,
                }),
                Err(stream) => Ok(Dialled::plain(Stream::Tcp(stream), plain)),
            },
            (stream, _) => Ok(Dialled::plain(stream, plain)),
        }
    }

    /// For another connection like one that was made: not without TLS, when that had it.
    pub(super) fn keeping_tls_of(mut self, dialled: &Dialled) -> Self {
        if let Some(plan) = &mut self.tls {
            plan.required |= dialled.tls;
        }
        self
    }

    async fn connect(&self) -> Result<Stream, NativeError> {
        match &self.route {
            Route::Socket { directory, port } => {
                let path = directory.join(format!(".s.PGSQL.{port}"));
                let stream = self.in_time(UnixStream::connect(path)).await?;
                Ok(Stream::Unix(stream))
            }
            Route::ContainerSocket {
                container,
                process,
                directory,
                port,
            } => {
                let socket = container_socket::open(container, *process, directory, *port)
                    .map_err(|error| self.unreachable(&error.to_string()))?;
                // By its handle: what the name means may change meanwhile.
                let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
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
