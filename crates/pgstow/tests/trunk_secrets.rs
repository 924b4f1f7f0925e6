//! A canary password is found nowhere but where it belongs.

mod support;

use support::{cli, fill};
use testkit::PgContainer;
use testkit::cli::{ProcessWatch, files_with};
use testkit::process::docker;

const CANARY: &str = "kanarienvogel-7f3a";

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
    for text in &printed {
        assert!(!text.contains(CANARY), "printed: {text}");
    }
    // The persisted credentials are the one place it belongs to.
    let found = files_with(cli.home(), CANARY);
    assert_eq!(found, [cli.data_dir().join("state/db.env")]);
    let logs = docker(&["logs", container.id()]).unwrap();
    assert!(!logs.contains(CANARY), "in the server's log");
}
