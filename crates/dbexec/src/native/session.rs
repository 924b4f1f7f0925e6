//! One session with the server.

use serde::de::DeserializeOwned;

use super::{Canceller, CopyIn, CopyOut, NativeError, Route};
use crate::creds::DbCreds;
use crate::executor::ConnectionSettings;

/// A session with the server. Dropping it closes the connection; a statement that is running then
/// goes on until it next writes, unless a [`Canceller`] ends it.
///
/// An error of a statement leaves the session usable. A future of it that is dropped half-way, and
/// a COPY that is dropped before its end, make it unusable ([`NativeError::Over`]).
#[derive(Debug)]
pub struct NativeSession {
    pid: i32,
}

impl NativeSession {
    /// Connects and logs in, within the settings' connect timeout.
    ///
    /// # Errors
    /// The connection's failure, the login's refusal, TLS, or what this client does not do.
    pub async fn connect(
        route: &Route,
        creds: &DbCreds,
        database: &str,
        settings: &ConnectionSettings,
        application_name: &str,
    ) -> Result<Self, NativeError> {
        let _ = (route, creds, database, settings, application_name);
        Err(NativeError::unsupported("native sessions"))
    }

    /// Runs statements in one message (one implicit transaction, unless they say otherwise); rows
    /// are dropped.
    ///
    /// # Errors
    /// [`NativeError::Server`] of the first that fails; the session can go on.
    pub async fn batch(&mut self, sql: &str) -> Result<(), NativeError> {
        self.query(sql).await.map(drop)
    }

    /// Runs statements and returns the rows of the last one that answers rows, as text.
    ///
    /// # Errors
    /// [`NativeError::Server`] of the first that fails; the session can go on.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, NativeError> {
        let _ = sql;
        Err(NativeError::unsupported("native sessions"))
    }

    /// Runs one SELECT and decodes each row from JSON, as [`crate::query::rows`] does: `:'name'`
    /// becomes a literal and `:"name"` an identifier.
    ///
    /// # Errors
    /// As [`NativeSession::query`], or rows that do not decode.
    pub async fn rows<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
        select: &str,
        vars: &[(&str, &str)],
    ) -> Result<Vec<T>, NativeError> {
        let _ = (name, select, vars);
        Err(NativeError::unsupported("native sessions"))
    }

    /// Runs statements of which one is a `COPY … TO STDOUT`, and stands at its first row.
    ///
    /// # Errors
    /// [`NativeError::Server`] when a statement before it fails; the session can go on.
    pub async fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>, NativeError> {
        self.batch(sql).await?;
        Ok(CopyOut { session: self })
    }

    /// Runs statements of which one is a `COPY … FROM STDIN`, and waits for its rows.
    ///
    /// # Errors
    /// [`NativeError::Server`] when a statement before it fails; the session can go on.
    pub async fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>, NativeError> {
        self.batch(sql).await?;
        Ok(CopyIn { session: self })
    }

    /// What can cancel this session's statement from elsewhere.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller { pid: self.pid }
    }

    /// Process id of the server's side.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.pid
    }

    /// A parameter that the server reported (`server_version`, `client_encoding`, …), as it is now.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let _ = name;
        None
    }

    /// Ends the session; bounded to 5 s.
    pub async fn close(self) {}
}
