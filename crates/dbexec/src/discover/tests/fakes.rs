//! A fake engine and a fake server for the flow: what is in them is a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use secrecy::ExposeSecret;
use tokio::io::AsyncRead;

use crate::{
    ConnectionSettings, ContainerRuntime, DbCreds, EnvSnapshot, ExecError, RuntimeError,
    ServerIdentity,
    discover::{
        DiscoverInput, ExplicitSettings,
        credentials::{CredentialProbe, Place},
    },
    executor::HostPrograms,
    runtime::{
        ContainerDetails, ContainerState, ContainerSummary, ExecSession, ExecSpec, ExecStatus,
        Frame, PutFile,
    },
};

/// A container of the fake engine.
#[derive(Debug, Clone)]
pub(super) struct Box_ {
    pub name: &'static str,
    pub image: &'static str,
    pub env: Vec<(&'static str, &'static str)>,
    pub labels: Vec<(&'static str, &'static str)>,
    pub ports: Vec<&'static str>,
    pub addresses: Vec<&'static str>,
    pub state: ContainerState,
    /// Port of the server's socket, when a server runs inside.
    pub server: Option<u16>,
    pub files: Vec<(&'static str, &'static str)>,
    pub shell: bool,
}

pub(super) fn container(name: &'static str) -> Box_ {
    Box_ {
        name,
        image: "something:1",
        env: Vec::new(),
        labels: Vec::new(),
        ports: Vec::new(),
        addresses: Vec::new(),
        state: ContainerState::Running,
        server: None,
        files: Vec::new(),
        shell: true,
    }
}

/// A container as the official image makes it.
pub(super) fn official(name: &'static str) -> Box_ {
    Box_ {
        image: "postgres:17",
        env: vec![
            ("PG_MAJOR", "17"),
            ("PGDATA", "/var/lib/postgresql/data"),
            ("POSTGRES_USER", "shop"),
            ("POSTGRES_DB", "shop"),
            ("POSTGRES_PASSWORD", "canary-container"),
        ],
        ports: vec!["0.0.0.0:55432->5432/tcp"],
        server: Some(5432),
        ..container(name)
    }
}

impl Box_ {
    fn id(&self) -> String {
        let mut id = String::new();
        for byte in self.name.bytes().cycle().take(32) {
            let _ = write!(id, "{byte:02x}");
        }
        id
    }

    fn labels(&self) -> BTreeMap<String, String> {
        self.labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }
}

#[derive(Debug, Default)]
pub(super) struct FakeEngine {
    pub boxes: Vec<Box_>,
    /// Every exec: container name and arguments.
    pub execs: Mutex<Vec<(String, Vec<String>)>>,
}

impl FakeEngine {
    fn find(&self, wanted: &str) -> Result<&Box_, RuntimeError> {
        self.boxes
            .iter()
            .find(|b| b.name == wanted || b.id() == wanted)
            .ok_or_else(|| RuntimeError::NotFound {
                container: wanted.to_owned(),
            })
    }
}

#[async_trait]
impl ContainerRuntime for FakeEngine {
    fn describe(&self) -> String {
        "Fake 1.0 at unix:///fake.sock".to_owned()
    }

    async fn list(&self) -> Result<Vec<ContainerSummary>, RuntimeError> {
        Ok(self
            .boxes
            .iter()
            .filter(|b| b.state != ContainerState::NotRunning)
            .map(|b| ContainerSummary {
                id: b.id(),
                name: b.name.to_owned(),
                image: b.image.to_owned(),
                labels: b.labels(),
                ports: b.ports.iter().map(|p| (*p).to_owned()).collect(),
            })
            .collect())
    }

    async fn inspect(&self, container: &str) -> Result<ContainerDetails, RuntimeError> {
        let found = self.find(container)?;
        Ok(ContainerDetails {
            id: found.id(),
            name: found.name.to_owned(),
            image: found.image.to_owned(),
            image_digest: "sha256:00".to_owned(),
            labels: found.labels(),
            env: found.env.iter().copied().collect(),
            state: found.state,
            addresses: found.addresses.iter().map(|a| (*a).to_owned()).collect(),
            host_network: false,
            process: None,
            published: Vec::new(),
        })
    }

    async fn exec(&self, container: &str, spec: &ExecSpec) -> Result<ExecSession, RuntimeError> {
        let found = self.find(container)?;
        self.execs
            .lock()
            .unwrap()
            .push((found.name.to_owned(), spec.argv.clone()));
        let mut out = Vec::new();
        if found.shell {
            let mut text =
                String::from("programs /usr/bin\tpg_dump (PostgreSQL) 17.4\tpg_dump psql\tzstd\n");
            if let Some(port) = found.server {
                let _ = write!(
                    text,
                    "process\nsocket /var/run/postgresql/.s.PGSQL.{port}\n"
                );
            }
            let patterns: usize = spec.argv[4].parse().unwrap();
            for path in &spec.argv[5 + patterns..] {
                match found.files.iter().find(|(at, _)| at == path) {
                    Some((_, content)) => {
                        let _ = write!(text, "file {}\n{content}\n", content.len());
                    }
                    None => text.push_str("nofile there is no such file in the container\n"),
                }
            }
            text.push_str("end\n");
            out.push(Ok(Frame::Stdout(Bytes::from(text))));
        } else {
            out.push(Ok(Frame::Stdout(Bytes::from_static(
                b"OCI runtime exec failed: exec: \"sh\": executable file not found in $PATH: unknown\r\n",
            ))));
        }
        Ok(ExecSession {
            exec_id: "1".to_owned(),
            output: Box::pin(futures_util::stream::iter(out)),
            input: None,
        })
    }

    async fn exec_status(&self, _exec_id: &str) -> Result<ExecStatus, RuntimeError> {
        Ok(ExecStatus {
            running: false,
            exit_code: Some(0),
        })
    }

    async fn put_file(
        &self,
        _container: &str,
        _file: &PutFile,
        _content: Pin<Box<dyn AsyncRead + Send>>,
    ) -> Result<(), RuntimeError> {
        Err(RuntimeError::Refused {
            operation: "put a file",
            message: "discovery writes nothing".to_owned(),
        })
    }

    async fn get_tar(
        &self,
        container: &str,
        path: &str,
    ) -> Result<Pin<Box<dyn AsyncRead + Send>>, RuntimeError> {
        let found = self.find(container)?;
        let (_, content) = found
            .files
            .iter()
            .find(|(at, _)| *at == path)
            .ok_or_else(|| RuntimeError::Refused {
                operation: "copy",
                message: "no such file".to_owned(),
            })?;
        let mut tar = vec![0_u8; 512];
        tar[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        tar[156] = b'0';
        tar.extend_from_slice(content.as_bytes());
        tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
        Ok(Box::pin(std::io::Cursor::new(tar)))
    }
}

/// What a server of the table accepts; `place` is a container's name or `host:port`.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub place: &'static str,
    pub user: &'static str,
    /// `None` accepts whatever is given (`trust`).
    pub password: Option<&'static str>,
    pub databases: Vec<&'static str>,
    pub system_identifier: &'static str,
}

pub(super) fn account(
    place: &'static str,
    user: &'static str,
    password: Option<&'static str>,
) -> Account {
    Account {
        place,
        user,
        password,
        databases: vec!["postgres", "shop"],
        system_identifier: "7000000000000000001",
    }
}

/// One attempt: place, host, user, password, database.
pub(super) type Attempt = (String, Option<String>, String, Option<String>, String);

/// Servers that judge logins as PostgreSQL does, and remember every attempt.
#[derive(Debug, Default)]
pub(super) struct FakeServers {
    pub accounts: Vec<Account>,
    /// Places whose local socket asks for `peer`.
    pub peer: Vec<&'static str>,
    pub attempts: Mutex<Vec<Attempt>>,
}

#[async_trait]
impl CredentialProbe for FakeServers {
    async fn identity(
        &self,
        place: Place<'_>,
        creds: &DbCreds,
    ) -> Result<ServerIdentity, ExecError> {
        let place = match place {
            Place::Container(identity) => identity.name.clone(),
            Place::Host => format!(
                "{}:{}",
                creds.host.as_deref().unwrap_or("socket"),
                creds.port
            ),
        };
        let password = creds
            .password
            .as_ref()
            .map(|p| p.expose_secret().to_owned());
        self.attempts.lock().unwrap().push((
            place.clone(),
            creds.host.clone(),
            creds.user.clone(),
            password.clone(),
            creds.database.clone(),
        ));
        let refused = |message: String| ExecError::CredentialsRefused {
            user: creds.user.clone(),
            database: creds.database.clone(),
            message,
        };
        if !self.accounts.iter().any(|a| a.place == place) {
            return Err(ExecError::ServerUnreachable {
                address: place,
                message: "connection refused".to_owned(),
            });
        }
        if creds.host.is_none() && self.peer.contains(&place.as_str()) {
            return Err(refused(format!(
                "FATAL:  Peer authentication failed for user \"{}\"",
                creds.user
            )));
        }
        let Some(account) = self
            .accounts
            .iter()
            .find(|a| a.place == place && a.user == creds.user)
        else {
            return Err(refused(format!(
                "FATAL:  password authentication failed for user \"{}\"",
                creds.user
            )));
        };
        match (account.password, &password) {
            (Some(_), None) => return Err(refused("fe_sendauth: no password supplied".to_owned())),
            (Some(right), Some(given)) if right != given => {
                return Err(refused(format!(
                    "FATAL:  password authentication failed for user \"{}\"",
                    creds.user
                )));
            }
            _ => {}
        }
        if !account.databases.contains(&creds.database.as_str()) {
            return Err(refused(format!(
                "FATAL:  database \"{}\" does not exist",
                creds.database
            )));
        }
        Ok(ServerIdentity {
            version_num: 170_002,
            version: "17.2".to_owned(),
            system_identifier: Some(account.system_identifier.to_owned()),
            in_recovery: false,
            is_superuser: true,
            running: None,
        })
    }
}

/// An input with an engine and an environment.
pub(super) fn input(boxes: Vec<Box_>, env: &[(&str, &str)]) -> (DiscoverInput, Arc<FakeEngine>) {
    let engine = Arc::new(FakeEngine {
        boxes,
        execs: Mutex::default(),
    });
    let runtime: Arc<dyn ContainerRuntime> = Arc::clone(&engine) as _;
    (with_runtime(Ok(runtime), env), engine)
}

pub(super) fn with_runtime(
    runtime: Result<Arc<dyn ContainerRuntime>, Arc<RuntimeError>>,
    env: &[(&str, &str)],
) -> DiscoverInput {
    let mut settings = ConnectionSettings::new("test");
    settings.connect_timeout = Duration::from_secs(2);
    DiscoverInput {
        explicit: ExplicitSettings::default(),
        env: env.iter().copied().collect::<EnvSnapshot>(),
        runtime,
        persisted_file: None,
        allow_mixed_sources: false,
        host_programs: HostPrograms::default(),
        settings,
    }
}

pub(super) fn servers(accounts: Vec<Account>) -> FakeServers {
    FakeServers {
        accounts,
        ..FakeServers::default()
    }
}
