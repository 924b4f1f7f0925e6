//! Native sessions go to the discovered server, or there are none.

mod executor_support;
mod runtime_support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use dbexec::executor::HostPrograms;
use dbexec::query;
use dbexec::runtime::ContainerRuntime;
use dbexec::{
    ConnectionSettings, CredentialSource, DbContext, DbCreds, DbMode, FieldSources, NativeError,
    PgExecutor, Route, ServerIdentity, TlsOptions, Trail, open_executor,
};
use executor_support::{executor, executor_by, runtime};
use runtime_support::Lens;
use testkit::PgContainer;

#[tokio::test]
async fn bar_41_sessions_to_a_container_of_every_major() {
    for major in testkit::images::MAJORS {
        let container = PgContainer::start(major).unwrap();
        container
            .psql("postgres", "create database \"o'ther\"")
            .unwrap();
        let executor = executor(&container, major, "route").await;
        let native = executor.native().await.unwrap();
        let Route::ContainerSocket {
            container: id,
            port,
            ..
        } = native.route()
        else {
            panic!("{}", native.route());
        };
        assert_eq!((id.as_str(), *port), (container.id(), 5432));
        assert_eq!(container.pgstow_sessions().unwrap(), 0, "the probe is gone");
        assert!(Arc::ptr_eq(&native, &executor.native().await.unwrap()));
        let mut session = native.open("o'ther", "m1").await.unwrap();
        let sql = "select current_database(), current_setting('application_name')";
        let rows = session.query(sql).await.unwrap();
        let name = format!("{}-m1", executor.settings().application_name);
        assert_eq!(rows, [[Some("o'ther".to_owned()), Some(name)]]);
        let shown = format!("{native:?} {session:?}");
        assert!(!shown.contains(container.password()), "{shown}");
        // The reap of a run finds them.
        let report = executor
            .reap(&executor.settings().application_name)
            .await
            .unwrap();
        assert_eq!(report.sessions, 1);
        assert!(session.batch("select 1").await.is_err());
    }
}

#[tokio::test]
async fn whoever_waits_for_an_answer_looks_whether_the_server_is_there() {
    let container = PgContainer::start(17).unwrap();
    let executor = executor(&container, 17, "there").await;
    let native = executor.native().await.unwrap();
    let mut session = native.open("postgres", "m").await.unwrap();
    let after = Duration::from_millis(200);
    let slow = session.query("select 1 from pg_sleep(1)");
    let rows = native.while_there("postgres", after, slow).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(
        container.pgstow_sessions().unwrap(),
        1,
        "the looks are gone"
    );
    container.engine("pause").unwrap();
    let asking = native.while_there("postgres", after, session.query("select 1"));
    let ended = tokio::time::timeout(Duration::from_secs(60), asking).await;
    container.engine("unpause").unwrap();
    let error = ended.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            NativeError::Unreachable { .. } | NativeError::OtherServer { .. }
        ),
        "{error:?}"
    );
}

/// The socket of the very container, and the run of the server that the programs saw.
#[tokio::test]
async fn the_containers_own_socket_takes_no_program_where_the_server_was_discovered() {
    for (major, role) in [(13, "postgres"), (18, "postgres"), (17, "reader")] {
        let container = PgContainer::start(major).unwrap();
        let password = container.password();
        if role == "reader" {
            let sql = format!("create role reader login password '{password}'");
            container.psql("postgres", &sql).unwrap();
        }
        let asked = executor(&container, major, "asked").await;
        let mut context = asked.context().clone();
        context.creds.user = role.to_owned();
        let settings = asked.settings().clone();
        let open = async |context: &DbContext, execs: bool| {
            let engine = Arc::new(Lens {
                inner: runtime().await,
                label: None,
                mounts: None,
                addresses: true,
                processes: true,
                execs,
            });
            let (context, settings) = (context.clone(), settings.clone());
            open_executor(context, Some(engine), HostPrograms::default(), settings)
                .await
                .unwrap()
        };
        let programs = open(&context, true).await;
        context.server = query::server_identity(programs.as_ref(), "postgres")
            .await
            .unwrap();
        let native = open(&context, false).await.native().await;
        if role == "reader" {
            // It may not read what tells servers apart: the programs have to see the session.
            let none = native.unwrap_err().to_string();
            let told = "the programs could not confirm it";
            assert!(
                none.contains(told) && none.contains("not to be started here"),
                "{none}"
            );
            open(&context, true).await.native().await.unwrap();
            continue;
        }
        let native = native.unwrap();
        let is_socket = matches!(native.route(), Route::ContainerSocket { .. });
        assert!(is_socket, "{}", native.route());
        native.open("postgres", "m").await.unwrap().close().await;

        // Another run of the server since: that is for the programs to confirm.
        container.engine("restart").unwrap();
        container.wait().unwrap();
        let none = open(&context, false).await.native().await.unwrap_err();
        assert!(
            none.to_string()
                .contains("the programs could not confirm it"),
            "{none}"
        );
        open(&context, true).await.native().await.unwrap();
    }
}

/// As an engine shows its containers that lives elsewhere: their processes are not ours.
async fn elsewhere() -> Arc<dyn ContainerRuntime> {
    Arc::new(Lens {
        inner: runtime().await,
        label: None,
        mounts: None,
        addresses: true,
        processes: false,
        execs: true,
    })
}

async fn without_sockets(container: &PgContainer, major: u32, run: &str) -> Arc<dyn PgExecutor> {
    let (id, password) = (container.id(), container.password());
    executor_by(elsewhere().await, id, password, major, run).await
}

#[tokio::test]
async fn the_socket_leads_to_a_server_that_listens_on_its_own_localhost() {
    let container = PgContainer::builder(15)
        .args(&["-c", "listen_addresses=localhost"])
        .start()
        .unwrap();
    let executor = executor(&container, 15, "localhost").await;
    let native = executor.native().await.unwrap();
    let is_socket = matches!(native.route(), Route::ContainerSocket { .. });
    assert!(is_socket, "{}", native.route());
    let mut session = native.open("postgres", "m").await.unwrap();
    // As the server sees it: no address.
    let rows = session
        .query("select pg_catalog.inet_client_addr()::text")
        .await
        .unwrap();
    assert_eq!(rows, [[None]]);
}

#[tokio::test]
async fn where_no_socket_can_be_reached_the_containers_address_leads_there() {
    let container = PgContainer::start(17).unwrap();
    let executor = without_sockets(&container, 17, "address").await;
    let native = executor.native().await.unwrap();
    let expected = Route::ContainerAddress {
        address: container.ip().unwrap(),
        port: 5432,
    };
    assert_eq!(*native.route(), expected);
    assert!(native.open("postgres", "m").await.is_ok());
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_or_logged_in_to_gives_no_route() {
    // Listens on its container's localhost alone; nothing is published.
    let container = PgContainer::app(15).start().unwrap();
    let executor = without_sockets(&container, 15, "none").await;
    let none = executor.native().await.unwrap_err();
    assert_eq!(none.code(), dbexec::codes::ROUTE_UNAVAILABLE);
    assert_eq!(none.tried.len(), 1, "{none}");
    assert!(
        none.to_string().contains(&container.ip().unwrap()),
        "{none}"
    );
    assert!(!none.to_string().contains(container.password()), "{none}");
}

#[tokio::test]
async fn bar_18_a_recreated_container_is_another_server() {
    let container = PgContainer::start(17).unwrap();
    let name = container.name().to_owned();
    let executor = executor(&container, 17, "recreated").await;
    let native = executor.native().await.unwrap();
    drop(native.open("postgres", "m").await.unwrap());
    drop(container);
    // It may well get the address that became free.
    let successor = PgContainer::builder(17).name(&name).start().unwrap();
    let error = native.open("postgres", "m").await.unwrap_err();
    assert!(matches!(error, NativeError::OtherServer { .. }), "{error}");
    assert_eq!(error.code(), dbexec::codes::CONTAINER_CHANGED);
    let shown = successor.psql(
        "postgres",
        "select count(*) from pg_stat_activity where application_name like 'pgstow-recreated%'",
    );
    assert_eq!(shown.unwrap().trim(), "0");
}

#[tokio::test]
async fn a_restarted_server_is_told_from_the_one_before() {
    let container = PgContainer::start(15).unwrap();
    let executor = executor(&container, 15, "restarted").await;
    let native = executor.native().await.unwrap();
    container.engine("restart").unwrap();
    let error = loop {
        match native.open("postgres", "m").await {
            Err(NativeError::Unreachable { .. } | NativeError::Login { .. }) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            answer => break answer.unwrap_err(),
        }
    };
    assert!(matches!(error, NativeError::OtherServer { .. }), "{error}");
}

/// A port of this host that leads where it is told to, for each new connection.
fn switch(first: u16) -> (u16, Arc<AtomicU16>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its number").port();
    let to = Arc::new(AtomicU16::new(first));
    let target = Arc::clone(&to);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", target.load(Ordering::SeqCst)))
            else {
                continue;
            };
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (mut from, mut to) =
                    (from.try_clone().expect("one"), to.try_clone().expect("one"));
                std::thread::spawn(move || {
                    let mut buffer = [0; 8192];
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        if to.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    (port, to)
}

async fn at_port(port: u16, password: &str, identifier: Option<String>) -> Arc<dyn PgExecutor> {
    let context = DbContext {
        mode: DbMode::External,
        creds: DbCreds {
            host: Some("127.0.0.1".to_owned()),
            port,
            database: "postgres".to_owned(),
            user: "postgres".to_owned(),
            password: Some(password.into()),
            tls: TlsOptions::default(),
        },
        source: CredentialSource::Explicit,
        field_sources: FieldSources::default(),
        container: None,
        server: ServerIdentity {
            version_num: 150_000,
            version: "15".to_owned(),
            system_identifier: identifier,
            in_recovery: false,
            is_superuser: true,
            running: None,
        },
        trail: Trail::default(),
        programs: dbexec::SeenPrograms::default(),
    };
    let host = HostPrograms {
        bin_dir: None,
        path_dirs: vec![PathBuf::from("/usr/bin")],
        scratch_root: PathBuf::from("/tmp"),
    };
    let settings = ConnectionSettings::new("ports");
    open_executor(context, None, host, settings)
        .await
        .expect("the executor opens")
}

#[tokio::test]
async fn two_servers_on_swapped_ports_are_told_apart() {
    let first = PgContainer::builder(15).publish(0).start().unwrap();
    let second = PgContainer::builder(15).publish(0).start().unwrap();
    let (one, two) = (first.host_port().unwrap(), second.host_port().unwrap());
    let sql = "select system_identifier from pg_control_system()";
    let identifier = first.psql("postgres", sql).unwrap().trim().to_owned();
    for known in [Some(identifier), None] {
        let (port, to) = switch(one);
        let executor = at_port(port, first.password(), known.clone()).await;
        let native = executor.native().await.unwrap();
        assert_eq!(native.route().to_string(), format!("127.0.0.1:{port}"));
        native.open("postgres", "a").await.unwrap().close().await;
        // Swapped under a route that was proven.
        to.store(two, Ordering::SeqCst);
        let error = native.open("postgres", "b").await.unwrap_err();
        assert!(matches!(error, NativeError::OtherServer { .. }), "{error}");
        to.store(one, Ordering::SeqCst);
        native.open("postgres", "c").await.unwrap().close().await;
    }
    // Swapped before: it is not the one that was discovered.
    let (port, to) = switch(two);
    let known = first.psql("postgres", sql).unwrap().trim().to_owned();
    let executor = at_port(port, first.password(), Some(known)).await;
    let none = executor.native().await.unwrap_err();
    assert!(
        none.to_string().contains("not the one that was discovered"),
        "{none}"
    );
    // A refusal is not remembered.
    to.store(one, Ordering::SeqCst);
    executor.native().await.unwrap();
}

/// The first connection leads to one server, all others to another: what the programs see is not
/// what the session sees.
#[tokio::test]
async fn programs_and_sessions_on_two_servers_are_told_apart() {
    let first = PgContainer::builder(15).publish(0).start().unwrap();
    let second = PgContainer::builder(15).publish(0).start().unwrap();
    let (one, two) = (first.host_port().unwrap(), second.host_port().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let (inner, to) = switch(one);
    // Each connection turns the switch for the next.
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut server = TcpStream::connect(("127.0.0.1", inner)).expect("the switch");
            std::thread::sleep(Duration::from_millis(200));
            to.store(two, Ordering::SeqCst);
            let (mut back, mut forth) = (
                server.try_clone().expect("one"),
                client.try_clone().expect("one"),
            );
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut back, &mut forth);
                let _ = forth.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut client, &mut server);
                let _ = server.shutdown(Shutdown::Write);
            });
        }
    });
    let executor = at_port(port, first.password(), None).await;
    let none = executor.native().await.unwrap_err();
    assert!(
        none.to_string().contains("another server answers there"),
        "{none}"
    );
}

#[tokio::test]
async fn a_server_in_the_network_of_this_host() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let container = PgContainer::builder(17)
        .option(&["--network", "host"])
        .inner_port(port)
        .args(&["-c", "listen_addresses=127.0.0.1"])
        .start()
        .unwrap();
    let usual = executor(&container, 17, "hostnet").await;
    let mut context = usual.context().clone();
    context.creds.port = port;
    let settings = usual.settings().clone();
    let engine = Some(elsewhere().await);
    let executor = open_executor(context, engine, HostPrograms::default(), settings)
        .await
        .unwrap();
    let native = executor.native().await.unwrap();
    let host = "127.0.0.1".to_owned();
    assert_eq!(*native.route(), Route::Tcp { host, port });
    let mut session = native.open("postgres", "m").await.unwrap();
    let sql = "select current_setting('port')";
    let rows = session.query(sql).await.unwrap();
    assert_eq!(rows, [[Some(port.to_string())]]);
}

#[tokio::test]
async fn a_published_port_serves_where_there_is_no_address() {
    let container = PgContainer::builder(17).publish(0).start().unwrap();
    let usual = executor(&container, 17, "published").await;
    let (context, settings) = (usual.context().clone(), usual.settings().clone());
    let engine = Arc::new(Lens {
        inner: runtime().await,
        label: None,
        mounts: None,
        addresses: false,
        processes: false,
        execs: true,
    });
    let executor = open_executor(context, Some(engine), HostPrograms::default(), settings)
        .await
        .unwrap();
    let native = executor.native().await.unwrap();
    let expected = Route::PublishedPort {
        host: "127.0.0.1".to_owned(),
        port: container.host_port().unwrap(),
    };
    assert_eq!(*native.route(), expected);
    let mut session = native.open("postgres", "m").await.unwrap();
    session.batch("select 1").await.unwrap();
    // The container's end is seen before anything is sent.
    container.engine("stop").unwrap();
    let error = native.open("postgres", "m").await.unwrap_err();
    assert!(matches!(error, NativeError::OtherServer { .. }), "{error}");
}

#[tokio::test]
async fn questions_go_over_the_route_and_psql_explains_what_fails() {
    #[derive(serde::Deserialize)]
    struct Row {
        name: String,
        word: String,
    }
    let container = PgContainer::start(15).unwrap();
    let executor = executor(&container, 15, "questions").await;
    let native = executor.native().await.unwrap();
    let ask = async |route: Option<&dbexec::NativeRoute>, database: &str| {
        let select = "select current_setting('application_name') as name, :'word' as word";
        let vars = [("word", "o'ther \\")];
        query::rows_over::<Row>(route, executor.as_ref(), database, "test", select, &vars).await
    };
    let run = &executor.settings().application_name;
    let over = ask(Some(&native), "postgres").await.unwrap();
    assert_eq!(over[0].name, format!("{run}-ask"));
    let by_psql = ask(None, "postgres").await.unwrap();
    assert_eq!(&by_psql[0].name, run);
    assert_eq!(
        (&*over[0].word, &*by_psql[0].word),
        ("o'ther \\", "o'ther \\")
    );
    let Err(error) = ask(Some(&native), "nowhere").await else {
        panic!("there is no such database");
    };
    let plain = ask(None, "nowhere").await.err().unwrap();
    assert_eq!(error.to_string(), plain.to_string());
}
