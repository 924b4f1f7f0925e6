//! Logging in: start-up message, password in the form that the server asks for, first parameters.

use std::collections::BTreeMap;

use bytes::{Buf, BytesMut};
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::frontend;
use secrecy::ExposeSecret;

use super::message::{error, text};
use super::wire::{Wire, broken};
use super::{NativeError, Route};
use crate::creds::DbCreds;
use crate::executor::ConnectionSettings;

const SCRAM: &str = "SCRAM-SHA-256";
const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// What the server told at the login.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) pid: i32,
    pub(super) secret: i32,
}

/// What a login needs to know of the connection.
#[derive(Debug)]
pub(super) struct Channel {
    /// Whether a password may be sent as it is.
    pub(super) private: bool,
    /// What a login over TLS can be bound to.
    pub(super) end_point: Option<Vec<u8>>,
}

/// `channel_binding` of libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binding {
    Disable,
    Prefer,
    Require,
}

impl Binding {
    fn of(creds: &DbCreds) -> Result<Self, NativeError> {
        match creds.tls.channel_binding.as_deref() {
            None | Some("" | "prefer") => Ok(Self::Prefer),
            Some("disable") => Ok(Self::Disable),
            Some("require") => Ok(Self::Require),
            Some(other) => Err(NativeError::unsupported(format!("channel_binding={other}"))),
        }
    }
}

/// Sends the start-up message and answers the server until it waits for statements.
pub(super) async fn log_in(
    wire: &mut Wire,
    route: &Route,
    creds: &DbCreds,
    database: &str,
    settings: &ConnectionSettings,
    application_name: &str,
    channel: Channel,
) -> Result<Greeting, NativeError> {
    let binding = Binding::of(creds)?;
    let idle = settings.keepalives_idle.as_secs().max(1).to_string();
    let mut parameters = vec![
        ("user", creds.user.as_str()),
        ("database", database),
        ("application_name", application_name),
        ("client_encoding", "UTF8"),
        // As the programs: the same rows give the same text, whatever the role's settings say.
        ("TimeZone", "UTC"),
    ];
    if !matches!(route, Route::Socket { .. }) {
        parameters.push(("tcp_keepalives_idle", idle.as_str()));
    }
    encode(wire, |output| frontend::startup_message(parameters, output))?;
    wire.flush().await?;
    Login {
        wire,
        creds,
        channel,
        binding,
        bound: false,
    }
    .answer()
    .await
}

struct Login<'a> {
    wire: &'a mut Wire,
    creds: &'a DbCreds,
    channel: Channel,
    binding: Binding,
    /// Whether the login was bound to the TLS channel.
    bound: bool,
}

impl<'a> Login<'a> {
    async fn answer(mut self) -> Result<Greeting, NativeError> {
        loop {
            let message = self.wire.next().await?;
            match message.kind {
                b'R' => {
                    if self.authenticate(message.body).await? {
                        break;
                    }
                }
                b'E' => return Err(refused(error(&message.body))),
                b'N' => {}
                kind => return Err(unexpected(kind)),
            }
        }
        if self.binding == Binding::Require && !self.bound {
            return Err(NativeError::login(
                "channel binding is required, but the server logged us in without it",
            ));
        }
        let mut greeting = Greeting::default();
        loop {
            let mut message = self.wire.next().await?;
            match message.kind {
                b'K' if message.body.len() >= 8 => {
                    greeting.pid = message.body.get_i32();
                    greeting.secret = message.body.get_i32();
                }
                b'S' => {
                    let (name, rest) = text(&message.body);
                    greeting.parameters.insert(name, text(rest).0);
                }
                b'Z' => return Ok(greeting),
                b'E' => return Err(refused(error(&message.body))),
                b'N' => {}
                kind => return Err(unexpected(kind)),
            }
        }
    }

    /// Answers one request. Whether the login is done.
    async fn authenticate(&mut self, mut body: BytesMut) -> Result<bool, NativeError> {
        if body.len() < 4 {
            return Err(NativeError::protocol("a login request without a kind"));
        }
        match body.get_i32() {
            0 => Ok(true),
            3 => {
                if !self.channel.private {
                    return Err(NativeError::login(
                        "the server asks for the password in clear text over a connection that \
                         others may read",
                    ));
                }
                self.refuse_unbound()?;
                let password = self.password()?;
                encode(self.wire, |output| {
                    frontend::password_message(password.as_bytes(), output)
                })?;
                self.wire.flush().await?;
                Ok(false)
            }
            5 => {
                self.refuse_unbound()?;
                let salt = body
                    .first_chunk::<4>()
                    .ok_or_else(|| NativeError::protocol("a login request without its salt"))?;
                let password = self.password()?;
                let hash = md5_hash(self.creds.user.as_bytes(), password.as_bytes(), *salt);
                encode(self.wire, |output| {
                    frontend::password_message(hash.as_bytes(), output)
                })?;
                self.wire.flush().await?;
                Ok(false)
            }
            10 => {
                self.scram(&body).await?;
                Ok(false)
            }
            kind => Err(NativeError::unsupported(format!(
                "the login that the server asks for ({})",
                match kind {
                    7 | 8 => "GSSAPI",
                    9 => "SSPI",
                    _ => "an unknown kind",
                }
            ))),
        }
    }

    fn refuse_unbound(&self) -> Result<(), NativeError> {
        if self.binding == Binding::Require {
            return Err(NativeError::login(
                "channel binding is required, but the server asks for another kind of login",
            ));
        }
        Ok(())
    }

    fn password(&self) -> Result<&'a str, NativeError> {
        match &self.creds.password {
            Some(password) => Ok(password.expose_secret()),
            None => Err(NativeError::login(
                "the server asks for a password, and none is known",
            )),
        }
    }

    async fn scram(&mut self, mechanisms: &[u8]) -> Result<(), NativeError> {
        let mut offered = Vec::new();
        let mut rest = mechanisms;
        while rest.first().is_some_and(|byte| *byte != 0) {
            let (name, after) = text(rest);
            offered.push(name);
            rest = after;
        }
        let offers = |name: &str| offered.iter().any(|offer| offer == name);
        let end_point = self
            .channel
            .end_point
            .take()
            .filter(|_| self.binding != Binding::Disable);
        let (mechanism, channel) = match end_point {
            Some(hash) if offers(SCRAM_PLUS) => {
                self.bound = true;
                (SCRAM_PLUS, sasl::ChannelBinding::tls_server_end_point(hash))
            }
            // Says that we could have: a server that could as well then knows of a man between.
            Some(_) => (SCRAM, sasl::ChannelBinding::unrequested()),
            None => (SCRAM, sasl::ChannelBinding::unsupported()),
        };
        if !self.bound {
            self.refuse_unbound()?;
        }
        if !offers(mechanism) {
            return Err(NativeError::unsupported(format!(
                "the logins that the server offers ({})",
                offered.join(", ")
            )));
        }
        let mut scram = sasl::ScramSha256::new(self.password()?.as_bytes(), channel);
        encode(self.wire, |output| {
            frontend::sasl_initial_response(mechanism, scram.message(), output)
        })?;
        self.wire.flush().await?;
        let bad = |error: std::io::Error| NativeError::login(format!("SCRAM failed: {error}"));
        let first = self.sasl(11).await?;
        scram.update(&first).map_err(bad)?;
        encode(self.wire, |output| {
            frontend::sasl_response(scram.message(), output)
        })?;
        self.wire.flush().await?;
        // The server proves that it knows the password as well.
        let last = self.sasl(12).await?;
        scram.finish(&last).map_err(bad)
    }

    /// The next message of the SCRAM exchange.
    async fn sasl(&mut self, wanted: i32) -> Result<BytesMut, NativeError> {
        loop {
            let mut message = self.wire.next().await?;
            match message.kind {
                b'R' if message.body.len() >= 4 && message.body.get_i32() == wanted => {
                    return Ok(message.body);
                }
                b'E' => return Err(refused(error(&message.body))),
                b'N' => {}
                kind => return Err(unexpected(kind)),
            }
        }
    }
}

fn encode(
    wire: &mut Wire,
    message: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
) -> Result<(), NativeError> {
    message(&mut wire.output).map_err(|source| broken("writing", source))
}

fn refused(error: NativeError) -> NativeError {
    match error {
        NativeError::Server {
            sqlstate, message, ..
        } => NativeError::Login {
            sqlstate: Some(sqlstate),
            message,
        },
        error => error,
    }
}

fn unexpected(kind: u8) -> NativeError {
    NativeError::protocol(format!("message {:?} during the login", char::from(kind)))
}
