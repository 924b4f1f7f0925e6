//! A canary password is found nowhere but where it belongs.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use support::{cli, fill};
use testkit::PgContainer;
use testkit::cli::{ProcessWatch, files_with};
use testkit::process::docker;

const CANARY: &str = "kanarienvogel-7f3a";

/// What the engine tells of every exec of a container, asked again and again.
struct ExecWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl ExecWatch {
    fn start(container: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, container) = (Arc::clone(&stop), container.to_owned());
        let thread = std::thread::spawn(move || {
            let mut bodies = BTreeMap::new();
            while !flag.load(Ordering::Relaxed) {
                let ids = docker(&["inspect", "--format", "{{json .ExecIDs}}", &container]);
                let ids: Option<Vec<String>> =
                    serde_json::from_str(&ids.unwrap_or_default()).unwrap_or_default();
                for id in ids.unwrap_or_default() {
                    if let Ok(body) = get(&format!("/exec/{id}/json")) {
                        bodies.insert(id, body);
                    }
                }
            }
            bodies.into_values().collect()
        });
        Self { stop, thread }
    }

    fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// One request to the engine, without a client that could hide anything.
fn get(path: &str) -> std::io::Result<String> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let socket = host
        .strip_prefix("unix://")
        .unwrap_or("/var/run/docker.sock");
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: engine\r\n\r\n").as_bytes())?;
    let mut body = String::new();
    stream.read_to_string(&mut body)?;
    Ok(body)
}

#[test]
fn bar_40_a_canary_password_is_found_nowhere() {
    let container = PgContainer::builder(15)
        .env("POSTGRES_PASSWORD", CANARY)
        .password(CANARY)
        .env("PGSTOW_TEST_LOCAL_PASSWORD", "1")
        .publish(0)
        .start()
        .unwrap();
    fill(&container, "postgres", 3_000);
    let cli = cli().env("PGSTOW_LOG", "trace").env("RUST_BACKTRACE", "1");
    let target = container.target();
    let watch = ProcessWatch::start(CANARY);
    let execs = ExecWatch::start(container.id());
    let mut printed = Vec::new();
    let mut run = |args: &[&str], code: i32| {
        let run = cli.run(args).expect(code);
        printed.push(run.stdout);
        printed.push(run.stderr);
    };
    run(&["discover", &target, "--explain"], 0);
    run(&["discover", &target, "--json"], 0);
    run(&["doctor", &target], 0);
    run(&["backup", &target, "--json"], 0);
    run(
        &[
            "restore", "latest", "--as", "copy", "--to", &target, "--json",
        ],
        0,
    );
    run(&["show", "latest", "--json"], 0);
    run(&["verify", "latest"], 0);
    // Errors too: a server that refuses, and a host that does not answer.
    container
        .psql("postgres", "alter role postgres password 'another'")
        .unwrap();
    let other_home = testkit::Cli::new(env!("CARGO_BIN_EXE_pgstow")).env("PGSTOW_LOG", "trace");
    let refused = other_home.run(&["backup", &target]).expect(11);
    printed.extend([refused.stdout, refused.stderr]);
    let port = container.host_port().unwrap().to_string();
    let environment = other_home
        .env("PGHOST", "127.0.0.2")
        .env("PGPORT", &port)
        .env("PGUSER", "postgres")
        .env("PGDATABASE", "postgres")
        .env("PGPASSWORD", CANARY);
    let unreachable = environment.run(&["backup", "--host", "nowhere.invalid"]);
    assert_ne!(unreachable.code, Some(0));
    printed.extend([unreachable.stdout, unreachable.stderr]);
    assert_eq!(watch.finish(), Vec::<String>::new(), "in a process list");
    let inspected = execs.finish();
    assert!(
        inspected.iter().any(|body| body.contains("pg_dump")),
        "no exec of a dump was seen"
    );
    printed.extend(inspected);
    for text in &printed {
        assert!(!text.contains(CANARY), "printed: {text}");
    }
    // The persisted credentials are the one place it belongs to.
    let found = files_with(cli.home(), CANARY);
    assert_eq!(found, [cli.data_dir().join("state/db.env")]);
    let logs = docker(&["logs", container.id()]).unwrap();
    assert!(!logs.contains(CANARY), "in the server's log");
}
