//! One session with the server.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use serde::de::DeserializeOwned;

use super::dial::Dialer;
use super::login::{self, Channel, Greeting};
use super::message::{self, error, text};
use super::quote::substitute;
use super::wire::{Message, Wire, broken};
use super::{Canceller, CopyIn, CopyOut, NativeError, Route};
use crate::creds::DbCreds;
use crate::executor::ConnectionSettings;
use crate::query;

/// How long the end of a session may take.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// What a session says that was left in the middle of an answer.
const TORN: &str = "an earlier statement was not read to its end";

/// A parameter of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Oid of its type.
    pub kind: u32,
    /// Its value in the type's binary format.
    pub value: Vec<u8>,
}

/// A session with the server. Dropping it closes the connection; a statement that is running then
/// goes on until it next writes, unless a [`Canceller`] ends it.
///
/// An error of a statement leaves the session usable. A future of it that is dropped half-way, and
/// a COPY that is dropped before its end, make it unusable ([`NativeError::Over`]).
///
/// Only connecting and closing are bounded in time: whoever waits for an answer decides how long.
#[derive(Debug)]
pub struct NativeSession {
    pub(super) wire: Wire,
    parameters: BTreeMap<String, String>,
    pid: i32,
    canceller: Canceller,
    /// Why it cannot be used, while (or because) an answer is not read to its end.
    over: Option<String>,
    /// See [`NativeSession::has_its_thread`].
    pub(super) own_thread: bool,
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
        let dialer = Dialer::new(route, creds, settings)?;
        let connecting = async {
            let dialled = dialer.dial().await?;
            let again = dialer.clone().keeping_tls_of(&dialled);
            let channel = Channel {
                private: dialled.private,
                end_point: dialled.end_point,
            };
            let mut wire = Wire::new(dialled.stream);
            let greeting = login::log_in(
                &mut wire,
                route,
                creds,
                database,
                settings,
                application_name,
                channel,
            )
            .await?;
            Ok((wire, greeting, again))
        };
        let limit = settings.connect_timeout;
        let connected = tokio::time::timeout(limit, connecting).await;
        let (wire, greeting, again) = connected
            .map_err(|_| dialer.unreachable(&format!("no answer to the login in {limit:?}")))??;
        let Greeting {
            parameters,
            pid,
            secret,
        } = greeting;
        Ok(Self {
            wire,
            parameters,
            pid,
            canceller: Canceller::new(again, pid, secret),
            over: None,
            own_thread: false,
        })
    }

    /// Says that this session was opened in a runtime of a thread that serves nothing else. Rows are
    /// then read in larger pieces, for which the thread sleeps: 200 µs at a time, and only after the
    /// first 128 KiB of a COPY.
    pub fn has_its_thread(&mut self) {
        self.own_thread = true;
    }

    /// Runs statements in one message (one implicit transaction, unless they say otherwise); rows
    /// are dropped.
    ///
    /// # Errors
    /// [`NativeError::Server`] of the first that fails; the session can go on.
    pub async fn batch(&mut self, sql: &str) -> Result<(), NativeError> {
        self.begin(sql).await?;
        loop {
            let message = self.next().await?;
            match message.kind {
                b'Z' => {
                    self.ready();
                    return Ok(());
                }
                b'T' | b'D' | b'C' | b'I' => {}
                kind => self.refuse_copy(kind).await?,
            }
        }
    }

    /// As [`NativeSession::batch`], with `:'name'` for a literal and `:"name"` for an identifier, as
    /// [`crate::query::execute`] takes them.
    ///
    /// # Errors
    /// As [`NativeSession::batch`].
    pub async fn execute(&mut self, sql: &str, vars: &[(&str, &str)]) -> Result<(), NativeError> {
        self.batch(&substitute(sql, vars)?).await
    }

    /// Runs statements and returns the rows of the last one that answers with rows (also none), as
    /// text.
    ///
    /// # Errors
    /// [`NativeError::Server`] of the first that fails; the session can go on.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, NativeError> {
        let mut rows = Vec::new();
        self.begin(sql).await?;
        self.each(&mut rows, keep).await?;
        Ok(rows)
    }

    /// Reads the answer to what was begun and hands over each row of the last statement that
    /// answers with rows, as it comes.
    async fn each<T>(
        &mut self,
        rows: &mut Vec<T>,
        push: impl Fn(&mut Vec<T>, Vec<Option<String>>) -> Result<(), NativeError>,
    ) -> Result<(), NativeError> {
        let mut size = 0;
        let mut wrong = None;
        loop {
            let message = self.next().await?;
            match message.kind {
                b'Z' => {
                    self.ready();
                    return match wrong {
                        Some(error) => Err(error),
                        None => Ok(()),
                    };
                }
                b'T' => {
                    rows.clear();
                    size = 0;
                }
                b'D' => {
                    size += message.body.len() as u64;
                    if size > query::MAX_ANSWER {
                        rows.clear();
                        wrong.get_or_insert_with(|| {
                            let limit = query::MAX_ANSWER >> 20;
                            NativeError::protocol(format!("an answer longer than {limit} MiB"))
                        });
                    } else if wrong.is_none() {
                        let row = message::row(&message.body.freeze());
                        wrong = row.and_then(|row| push(rows, row)).err();
                    }
                }
                // Parsed, bound, done.
                b'1' | b'2' | b'C' | b'I' => {}
                kind => self.refuse_copy(kind).await?,
            }
        }
    }

    /// Runs one statement with parameters `$1`, `$2`, … in the binary format of their types, and
    /// returns its rows as text.
    ///
    /// # Errors
    /// [`NativeError::Server`] when it fails; the session can go on. Parameters of 2 GiB and more.
    pub async fn query_with(
        &mut self,
        sql: &str,
        parameters: &[Parameter],
    ) -> Result<Vec<Vec<Option<String>>>, NativeError> {
        self.begin_with(sql, parameters).await?;
        let mut rows = Vec::new();
        self.each(&mut rows, keep).await?;
        Ok(rows)
    }

    async fn begin_with(&mut self, sql: &str, parameters: &[Parameter]) -> Result<(), NativeError> {
        let types = parameters.iter().map(|parameter| parameter.kind);
        let value = |parameter: &Parameter, to: &mut BytesMut| {
            to.extend_from_slice(&parameter.value);
            Ok(IsNull::No)
        };
        self.ask(|output| {
            frontend::parse("", sql, types, output).map_err(|_| zero_byte())?;
            frontend::bind("", "", [1], parameters, value, [0], output)
                .map_err(|_| NativeError::unsupported("a parameter that is too long"))?;
            frontend::execute("", 0, output).map_err(|_| zero_byte())?;
            frontend::sync(output);
            Ok(())
        })
        .await
    }

    /// Runs one SELECT and decodes each row from JSON, as [`crate::query::rows`] does: `:'name'`
    /// becomes a literal and `:"name"` an identifier. `name` is for messages.
    ///
    /// # Errors
    /// As [`NativeSession::query`], or rows that do not decode.
    pub async fn rows<T: DeserializeOwned + Send>(
        &mut self,
        name: &'static str,
        select: &str,
        vars: &[(&str, &str)],
    ) -> Result<Vec<T>, NativeError> {
        let sql = substitute(&query::json_rows(select), vars)?;
        let mut rows = Vec::new();
        let decode = |rows: &mut Vec<T>, row: Vec<Option<String>>| {
            let text = row.into_iter().next().flatten().unwrap_or_default();
            let row = serde_json::from_str(&text)
                .map_err(|error| NativeError::protocol(format!("query {name:?}: {error}")))?;
            rows.push(row);
            Ok(())
        };
        self.begin(&sql).await?;
        self.each(&mut rows, decode).await?;
        Ok(rows)
    }

    /// Runs statements of which one is a `COPY … TO STDOUT`, and stands at its first row.
    ///
    /// # Errors
    /// [`NativeError::Server`] when a statement before it fails; the session can go on.
    pub async fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>, NativeError> {
        self.start_copy(sql, b'H').await?;
        Ok(CopyOut::new(self))
    }

    /// Runs statements of which one is a `COPY … FROM STDIN`, and waits for its rows. Statements
    /// after it run when the rows are finished.
    ///
    /// # Errors
    /// [`NativeError::Server`] when a statement before it fails; the session can go on.
    pub async fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>, NativeError> {
        self.start_copy(sql, b'G').await?;
        Ok(CopyIn::new(self))
    }

    async fn start_copy(&mut self, sql: &str, wanted: u8) -> Result<(), NativeError> {
        self.begin(sql).await?;
        loop {
            let message = self.next().await?;
            match message.kind {
                kind if kind == wanted => return Ok(()),
                b'Z' => {
                    self.ready();
                    return Err(NativeError::protocol(
                        "no statement of a COPY copied anything",
                    ));
                }
                b'T' | b'D' | b'C' | b'I' => {}
                kind => self.refuse_copy(kind).await?,
            }
        }
    }

    /// What can cancel this session's statement from elsewhere.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Process id of the server's side.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.pid
    }

    /// A parameter that the server reported (`server_version`, `client_encoding`, …), as it is now.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Ends the session; bounded to 5 s.
    pub async fn close(mut self) {
        let closing = async {
            if self.over.is_none() {
                self.wire.output.clear();
                frontend::terminate(&mut self.wire.output);
                // The server closes the connection when its session is gone.
                if self.wire.flush().await.is_ok() {
                    while self.wire.fill().await.is_ok() {}
                }
            }
            let _ = self.wire.shutdown().await;
        };
        let _ = tokio::time::timeout(CLOSE_WAIT, closing).await;
    }

    /// Sends statements. Until [`NativeSession::ready`], the session counts as torn.
    pub(super) async fn begin(&mut self, sql: &str) -> Result<(), NativeError> {
        self.ask(|output| frontend::query(sql, output).map_err(|_| zero_byte()))
            .await
    }

    /// Sends what `put` makes, as [`NativeSession::begin`].
    async fn ask(
        &mut self,
        put: impl FnOnce(&mut BytesMut) -> Result<(), NativeError>,
    ) -> Result<(), NativeError> {
        if let Some(reason) = &self.over {
            return Err(NativeError::Over {
                reason: reason.clone(),
            });
        }
        self.wire.output.clear();
        put(&mut self.wire.output)?;
        self.over = Some(TORN.to_owned());
        let sent = self.wire.flush().await;
        self.heard(sent).await
    }

    /// The server waits for the next statement.
    pub(super) fn ready(&mut self) {
        self.over = None;
    }

    /// The next message that belongs to an answer. An error of the server is returned after the
    /// rest of the answer was read.
    pub(super) async fn next(&mut self) -> Result<Message, NativeError> {
        loop {
            if let Some(message) = self.step().await? {
                return Ok(message);
            }
        }
    }

    /// As [`NativeSession::next`], for one message; `None` when it was one that may come at any
    /// time.
    pub(super) async fn step(&mut self) -> Result<Option<Message>, NativeError> {
        let message = match self.wire.next().await {
            Ok(message) => message,
            Err(error) => return Err(self.dead(error)),
        };
        match message.kind {
            b'E' => Err(self.recover(error(&message.body)).await),
            _ if self.told(&message) => Ok(None),
            _ => Ok(Some(message)),
        }
    }

    /// Takes what a server may say at any time: notices and parameters.
    pub(super) fn told(&mut self, message: &Message) -> bool {
        match message.kind {
            b'S' => {
                let (name, rest) = text(&message.body);
                self.parameters.insert(name, text(rest).0);
                true
            }
            b'N' | b'A' => true,
            _ => false,
        }
    }

    /// After an error of the server: reads on until it waits for the next statement.
    pub(super) async fn recover(&mut self, found: NativeError) -> NativeError {
        if let NativeError::Server {
            severity, message, ..
        } = &found
            && &**severity != "ERROR"
        {
            self.over = Some(format!("the server ended it: {message}"));
            return found;
        }
        loop {
            match self.wire.next().await {
                Ok(message) if message.kind == b'Z' => {
                    self.over = None;
                    return found;
                }
                // It was ended while it dealt with the error.
                Ok(message) if message.kind == b'E' => {
                    let second = error(&message.body);
                    self.over = Some(format!("the server ended it: {second}"));
                }
                Ok(message) => {
                    self.told(&message);
                }
                Err(error) => {
                    // What the server said before says more.
                    if self.over.as_deref() == Some(TORN) {
                        self.dead(error);
                    }
                    return found;
                }
            }
        }
    }

    /// The connection is of no use any more.
    pub(super) fn dead(&mut self, error: NativeError) -> NativeError {
        self.over = Some(error.in_words());
        error
    }

    /// After a failed write: the server may have said why before it hung up.
    pub(super) async fn heard(&mut self, sent: Result<(), NativeError>) -> Result<(), NativeError> {
        let Err(failure) = sent else {
            return Ok(());
        };
        let failure = self.dead(failure);
        let last_words = async {
            loop {
                match self.wire.next().await {
                    Ok(message) if message.kind == b'E' => return Some(error(&message.body)),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        };
        match tokio::time::timeout(Duration::from_secs(1), last_words).await {
            Ok(Some(error)) => Err(error),
            _ => Err(failure),
        }
    }

    /// A COPY where none is wanted is ended; its error, or its end, then comes by itself.
    async fn refuse_copy(&mut self, kind: u8) -> Result<(), NativeError> {
        match kind {
            b'H' | b'd' | b'c' => Ok(()),
            b'G' => {
                self.wire.output.clear();
                frontend::copy_fail("no rows are given here", &mut self.wire.output)
                    .map_err(|source| broken("writing", source))?;
                let sent = self.wire.flush().await;
                self.heard(sent).await
            }
            kind => Err(self.unexpected(kind)),
        }
    }

    pub(super) fn unexpected(&mut self, kind: u8) -> NativeError {
        let kind = char::from(kind);
        self.dead(NativeError::protocol(format!(
            "message {kind:?} where it cannot be"
        )))
    }
}

/// For [`NativeSession::each`]: rows as they are.
fn keep(rows: &mut Vec<Vec<Option<String>>>, row: Vec<Option<String>>) -> Result<(), NativeError> {
    rows.push(row);
    Ok(())
}

fn zero_byte() -> NativeError {
    NativeError::unsupported("a statement that holds a zero byte")
}
