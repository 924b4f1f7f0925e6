//! Which routes there are, and the proof that one leads to the discovered server.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::{NativeError, NativeRoute, NativeSession, NoRoute, Route, container_socket};
use crate::causes;
use crate::context::DbContext;
use crate::creds::DbCreds;
use crate::executor::PgExecutor;
use crate::query;
use crate::runtime::{ContainerDetails, ContainerRuntime, ContainerState};

/// How long a container's address may take to answer: a bridge of this host is there or not.
const BRIDGE_WAIT: Duration = Duration::from_secs(2);
/// Where client libraries look for the server's socket, if nothing is said.
const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Behind the run's name in that of a session that looks whether the server is there.
const LOOK: &str = "look";
/// Why a container has no route at all.
const NO_WAY: &str = "the container has no address, publishes no port of the server and has no \
                      socket that can be reached from here";

/// What tells one running server from all others, a copy of it and its own successor included.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Facts {
    /// Of the data directory; a copy has the same. `None` where the role may not read it.
    system_identifier: Option<String>,
    /// When the server was started, in microseconds.
    started: String,
    /// `None` where the role may not read it.
    data_directory: Option<String>,
}

/// What a session tells of itself and its server.
#[derive(Debug, Deserialize)]
struct Own {
    #[serde(flatten)]
    facts: Facts,
    pid: i32,
}

/// What the programs see of the server, and whether they see our session.
#[derive(Debug, Deserialize)]
struct Seen {
    #[serde(flatten)]
    facts: Facts,
    seen: bool,
}

/// The part of a SELECT that asks for [`Facts`]: what the role may not read is not asked for.
fn facts(context: &DbContext) -> String {
    let identifier = match context.server.system_identifier {
        Some(_) => "(select system_identifier::text from pg_catalog.pg_control_system())",
        None => "null::text",
    };
    format!("{}, {identifier} as system_identifier", query::RUNNING)
}

/// What the programs saw when the server was discovered, where it tells it from all others.
fn discovered(context: &DbContext) -> Option<Facts> {
    let running = context.server.running.clone()?;
    Some(Facts {
        system_identifier: Some(context.server.system_identifier.clone()?),
        started: running.started,
        data_directory: Some(running.data_directory?),
    })
}

/// Asks a session for its server's facts; a pooler in between is found out.
async fn own_facts(session: &mut NativeSession, facts: &str) -> Result<Facts, NativeError> {
    let select = format!("select {facts}, pg_catalog.pg_backend_pid() as pid");
    let own: Vec<Own> = session.rows("same server", &select, &[]).await?;
    let Some(own) = own.into_iter().next() else {
        return Err(NativeError::protocol("no row where there must be one"));
    };
    if own.pid != session.backend_pid() {
        return Err(NativeError::unsupported(format!(
            "a pooler in the way (process {} answers for {})",
            own.pid,
            session.backend_pid()
        )));
    }
    Ok(own.facts)
}

/// Who vouches that a route still leads where it did.
#[derive(Debug, Clone)]
pub(crate) enum Keeper {
    /// The address is the server's own name.
    Nobody,
    /// The route was read off a container.
    Container {
        /// Its engine.
        runtime: Arc<dyn ContainerRuntime>,
        /// Its full id.
        id: String,
    },
}

impl Keeper {
    /// Fails when the route is not (any more) one of the container: credentials of a container go
    /// nowhere else.
    async fn vouch(&self, route: &Route, creds: &DbCreds) -> Result<(), NativeError> {
        let Self::Container { runtime, id } = self else {
            return Ok(());
        };
        let changed = |found: String| NativeError::OtherServer { found };
        let details = runtime.inspect(id).await;
        let details = details.map_err(|error| changed(format!("the container: {error}")))?;
        match container_routes(&details, creds) {
            Ok(routes) if routes.contains(route) => Ok(()),
            Ok(_) => Err(changed("the container has another address now".to_owned())),
            Err(reason) => Err(changed(reason)),
        }
    }
}

/// Tries routes in turn and returns the first that is proven.
pub(crate) async fn find(
    executor: &dyn PgExecutor,
    routes: Vec<Route>,
    keeper: Keeper,
) -> Result<Arc<NativeRoute>, NoRoute> {
    let mut tried = Vec::new();
    for route in routes {
        if tried.iter().any(|(before, _)| *before == route) {
            continue;
        }
        match prove(executor, &route, &keeper).await {
            Ok(proven) => return Ok(Arc::new(proven)),
            Err(why) => {
                tracing::debug!(%route, %why, "no native sessions this way");
                tried.push((route, why));
            }
        }
    }
    Err(NoRoute {
        tried,
        reason: "sessions of pgstow's own have no way to the server".to_owned(),
    })
}

/// Logs in and lets the programs look for that very session: it has to be on their server. Through
/// the container's own socket that is known where the server is the one that they saw before.
async fn prove(
    executor: &dyn PgExecutor,
    route: &Route,
    keeper: &Keeper,
) -> Result<NativeRoute, String> {
    let context = executor.context();
    let (creds, settings) = (&context.creds, executor.settings());
    let in_words = |error: NativeError| error.in_words();
    keeper.vouch(route, creds).await.map_err(in_words)?;
    let mut probing = settings.clone();
    if matches!(route, Route::ContainerAddress { .. }) {
        probing.connect_timeout = probing.connect_timeout.min(BRIDGE_WAIT);
    }
    let mut name = settings.application_name.clone();
    let _ = write!(name, "-n{:016x}", rand::random::<u64>());
    let database = &creds.database;
    let session = NativeSession::connect(route, creds, database, &probing, &name).await;
    let mut session = session.map_err(in_words)?;
    let facts = facts(context);
    let asking = own_facts(&mut session, &facts);
    let own = match tokio::time::timeout(settings.connect_timeout, asking).await {
        Ok(own) => own.map_err(in_words)?,
        Err(_) => return Err("the server gave no answer".to_owned()),
    };
    let proven = |own| NativeRoute {
        route: route.clone(),
        creds: creds.clone(),
        settings: settings.clone(),
        expected: own,
        facts: facts.clone(),
        keeper: keeper.clone(),
    };
    if matches!(route, Route::ContainerSocket { .. }) && discovered(context).as_ref() == Some(&own)
    {
        session.close().await;
        return Ok(proven(own));
    }
    // As the server knows it, which shortens long names.
    let name = session.parameter("application_name").unwrap_or(&name);
    let pid = session.backend_pid().to_string();
    let select = format!(
        "select {facts}, exists (select from pg_catalog.pg_stat_activity \
         where pid = :'pid'::int and application_name = :'name') as seen"
    );
    let vars = [("pid", pid.as_str()), ("name", name)];
    let seen = query::rows::<Seen>(executor, database, "same server", &select, &vars).await;
    let seen = seen.map_err(|error| {
        let why = causes::in_words(&error);
        format!("the programs could not confirm it: {why}")
    })?;
    session.close().await;
    let theirs = seen.into_iter().next().ok_or("the programs saw no row")?;
    if theirs.facts != own || !theirs.seen {
        return Err(format!(
            "another server answers there: {}",
            difference(&theirs.facts, &own)
        ));
    }
    let known = context.server.system_identifier.as_ref();
    if known.is_some() && known != own.system_identifier.as_ref() {
        return Err("the server is not the one that was discovered".to_owned());
    }
    Ok(proven(own))
}

/// What tells two servers apart.
fn difference(expected: &Facts, found: &Facts) -> String {
    let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
    if expected.system_identifier != found.system_identifier {
        format!(
            "system identifier {}, expected {}",
            show(&found.system_identifier),
            show(&expected.system_identifier)
        )
    } else if expected.started != found.started {
        "it was started at another time".to_owned()
    } else if expected.data_directory != found.data_directory {
        format!(
            "its data directory is {}, expected {}",
            show(&found.data_directory),
            show(&expected.data_directory)
        )
    } else {
        "the programs do not see our session".to_owned()
    }
}

impl NativeRoute {
    /// Opens a session on a database of the server. Its `application_name` is the settings' with
    /// `-` and `suffix`, so that a later reap finds it. The server is looked at again.
    ///
    /// # Errors
    /// The login's refusal, [`NativeError::OtherServer`], or the connection's failure.
    pub async fn open(&self, database: &str, suffix: &str) -> Result<NativeSession, NativeError> {
        self.keeper.vouch(&self.route, &self.creds).await?;
        let (creds, settings) = (&self.creds, &self.settings);
        let name = format!("{}-{suffix}", settings.application_name);
        let session = NativeSession::connect(&self.route, creds, database, settings, &name);
        let mut session = session.await?;
        let asking = own_facts(&mut session, &self.facts);
        let found = match tokio::time::timeout(settings.connect_timeout, asking).await {
            Ok(found) => found?,
            Err(_) => {
                return Err(NativeError::Unreachable {
                    address: self.route.to_string(),
                    message: "the server logged us in and then gave no answer".to_owned(),
                });
            }
        };
        if found == self.expected {
            return Ok(session);
        }
        Err(NativeError::OtherServer {
            found: difference(&self.expected, &found),
        })
    }
}

impl NativeRoute {
    /// Waits for the answer to a session of this route for as long as the server lets others in: a
    /// paused server says nothing, as one that works, and lets nobody in. `after`: how long the
    /// server may be silent before it is looked at.
    ///
    /// # Errors
    /// Those of `work`; that of a login where the server lets nobody in any more.
    pub async fn while_there<T>(
        &self,
        database: &str,
        after: Duration,
        work: impl Future<Output = Result<T, NativeError>>,
    ) -> Result<T, NativeError> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep(after) => {
                    self.open(database, LOOK).await?.close().await;
                }
            }
        }
    }
}

/// Routes to a server whose programs run on this host, best first.
pub(crate) fn host_routes(creds: &DbCreds) -> Result<Vec<Route>, String> {
    let port = creds.port;
    let socket = |directory: &Path| Route::Socket {
        directory: directory.to_owned(),
        port,
    };
    match creds.host.as_deref() {
        None | Some("") => {
            let there = SOCKET_DIRS.iter().map(Path::new);
            let there: Vec<Route> = there
                .filter(|dir| dir.join(format!(".s.PGSQL.{port}")).exists())
                .map(socket)
                .collect();
            if there.is_empty() {
                return Err("no socket of the server is where sockets usually are".to_owned());
            }
            Ok(there)
        }
        Some(host) if host.starts_with('/') => Ok(vec![socket(Path::new(host))]),
        Some(host) if host.starts_with('@') || host.contains(',') => {
            Err(format!("host {host:?} is left to the stock programs"))
        }
        Some(host) => Ok(vec![Route::Tcp {
            host: host.to_owned(),
            port,
        }]),
    }
}

/// Routes to the server of a container, best first.
pub(crate) async fn container_candidates(
    runtime: &dyn ContainerRuntime,
    id: &str,
    creds: &DbCreds,
) -> Result<Vec<Route>, NoRoute> {
    if !runtime.is_local() {
        return Err(NoRoute::because(
            "the container engine may be on another host, where the container's addresses are",
        ));
    }
    let details = runtime.inspect(id).await;
    let details =
        details.map_err(|error| NoRoute::because(format!("inspecting the container: {error}")))?;
    let mut routes = container_routes(&details, creds).map_err(NoRoute::because)?;
    // A socket that is not there is no route; one that refuses us is one that was tried.
    routes.retain(|route| match route {
        Route::ContainerSocket {
            container,
            process,
            directory,
            port,
        } => match container_socket::open(container, *process, directory, *port) {
            Ok(_) => true,
            Err(why) => {
                tracing::debug!(%route, %why, "no way");
                false
            }
        },
        _ => true,
    });
    if routes.is_empty() {
        return Err(NoRoute::because(NO_WAY));
    }
    Ok(routes)
}

/// What a container's own description offers; nothing else is asked.
fn container_routes(details: &ContainerDetails, creds: &DbCreds) -> Result<Vec<Route>, String> {
    if details.state != ContainerState::Running {
        return Err("the container is not running".to_owned());
    }
    let host = creds.host.as_deref().unwrap_or_default();
    let inside = host.is_empty()
        || host.starts_with('/')
        || ["localhost", "127.0.0.1", "::1"].contains(&host)
        || details.addresses.iter().any(|address| address == host);
    if !inside {
        return Err(format!(
            "the programs in the container reach the server at {host:?}"
        ));
    }
    let tls = &creds.tls;
    if [&tls.root_cert, &tls.cert, &tls.key, &tls.crl]
        .iter()
        .any(|file| file.is_some())
    {
        return Err("the files for TLS are in the container".to_owned());
    }
    let port = creds.port;
    // Whoever names an address means what goes for that: its own line of pg_hba.conf, and TLS.
    let sockets: Vec<&Path> = match (details.process, host) {
        (Some(_), "") => SOCKET_DIRS.iter().map(Path::new).collect(),
        (Some(_), host) if host.starts_with('/') => vec![Path::new(host)],
        _ => Vec::new(),
    };
    let socket = |directory: &Path| Route::ContainerSocket {
        container: details.id.clone(),
        process: details.process.unwrap_or_default(),
        directory: directory.to_owned(),
        port,
    };
    let mut routes: Vec<Route> = sockets.into_iter().map(socket).collect();
    routes.extend(
        details
            .addresses
            .iter()
            .map(|address| Route::ContainerAddress {
                address: address.clone(),
                port,
            }),
    );
    if details.host_network {
        routes.push(Route::Tcp {
            host: "127.0.0.1".to_owned(),
            port,
        });
    }
    for published in &details.published {
        if published.container_port == port {
            routes.push(Route::PublishedPort {
                host: published.address.clone(),
                port: published.port,
            });
        }
    }
    if routes.is_empty() {
        return Err(NO_WAY.to_owned());
    }
    Ok(routes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::creds::TlsOptions;
    use crate::runtime::PublishedPort;

    fn creds(host: Option<&str>) -> DbCreds {
        DbCreds {
            host: host.map(str::to_owned),
            port: 5433,
            database: "d".to_owned(),
            user: "u".to_owned(),
            password: None,
            tls: TlsOptions::default(),
        }
    }

    fn details() -> ContainerDetails {
        let published = |container_port, port| PublishedPort {
            container_port,
            address: "127.0.0.1".to_owned(),
            port,
        };
        ContainerDetails {
            id: "1".repeat(64),
            name: "db".to_owned(),
            image: "postgres".to_owned(),
            image_digest: "sha256:00".to_owned(),
            labels: Default::default(),
            env: Default::default(),
            state: ContainerState::Running,
            addresses: vec!["172.20.0.2".to_owned()],
            host_network: false,
            process: Some(7),
            published: vec![published(5432, 1), published(5433, 2)],
        }
    }

    #[test]
    fn a_container_offers_its_address_and_the_published_port_of_the_server_alone() {
        let routes = container_routes(&details(), &creds(None)).expect("routes");
        let shown: Vec<String> = routes.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "the container's socket /var/run/postgresql/.s.PGSQL.5433",
                "the container's socket /tmp/.s.PGSQL.5433",
                "the container's address 172.20.0.2:5433",
                "the container's published port 127.0.0.1:2"
            ]
        );
        let mut host = details();
        host.addresses.clear();
        host.published.clear();
        host.process = None;
        assert!(container_routes(&host, &creds(None)).is_err());
        host.host_network = true;
        let routes = container_routes(&host, &creds(Some("localhost"))).expect("routes");
        assert_eq!(routes[0].to_string(), "127.0.0.1:5433");
    }

    #[test]
    fn what_is_not_the_containers_own_server_is_not_tried() {
        assert!(container_routes(&details(), &creds(Some("db.example"))).is_err());
        let mut with_files = creds(None);
        with_files.tls.root_cert = Some("/certs/ca.crt".into());
        assert!(container_routes(&details(), &with_files).is_err());
        let mut paused = details();
        paused.state = ContainerState::Paused;
        assert!(container_routes(&paused, &creds(None)).is_err());
    }

    #[test]
    fn hosts_become_sockets_or_addresses() {
        let show = |host| host_routes(&creds(Some(host))).map(|routes| routes[0].to_string());
        assert_eq!(show("/x").as_deref(), Ok("socket /x/.s.PGSQL.5433"));
        assert_eq!(show("db.example").as_deref(), Ok("db.example:5433"));
        assert!(show("a,b").is_err() && show("@abstract").is_err());
    }
}
