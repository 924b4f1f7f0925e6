//! Backups whose programs run in a sidecar.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails the test that calls it"
)]

mod support;

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{backups, cli, fill, wait_for_rows};
use testkit::process::docker;
use testkit::proxy::{Cut, Proxy};
use testkit::schema::{fingerprint, load_bar31, schema_dump};
use testkit::{Cli, PgContainer};

fn sidecar_cli() -> Cli {
    cli().env("PGSTOW_TRANSPORT", "sidecar")
}

/// How the programs of the latest backup ran.
fn transport(cli: &Cli) -> String {
    let shown = cli.run(&["show", "latest", "--json"]).expect(0);
    let shown: serde_json::Value = serde_json::from_str(shown.stdout.trim()).unwrap();
    let manifest = shown.get("manifest").unwrap_or(&shown);
    manifest["target"]["transport"].as_str().unwrap().to_owned()
}

/// Sidecars in the network of a server.
fn sidecars(server: &PgContainer) -> usize {
    let ids = docker(&["ps", "-aq", "--filter", "label=pgstow.sidecar"]).unwrap();
    let wanted = format!("container:{}", server.id());
    ids.lines()
        .filter(|id| {
            let format = "{{.HostConfig.NetworkMode}}";
            docker(&["inspect", "--format", format, id]).is_ok_and(|mode| mode.trim() == wanted)
        })
        .count()
}

fn nothing_is_left(cli: &Cli, server: &PgContainer) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while sidecars(server) > 0 || server.pgstow_sessions().unwrap() > 0 {
        assert!(Instant::now() < deadline, "a sidecar or a session is left");
        std::thread::sleep(Duration::from_millis(100));
    }
    let scratch = cli.data_dir().join("scratch");
    let left: Vec<_> = std::fs::read_dir(scratch).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn every_format(major: u32) {
    let container = PgContainer::start(major).unwrap();
    load_bar31(&container, "shop").unwrap();
    let target = container.target();
    for format in ["custom", "directory", "plain"] {
        let cli = sidecar_cli();
        let args = ["backup", &target, "--database", "shop", "--format", format];
        let run = cli.run(&[&args[..], &["--engine", "stock"]].concat());
        let run = run.expect(0);
        assert!(run.stderr.contains("run in the sidecar"), "{}", run.stderr);
        assert_eq!(transport(&cli), "sidecar", "{format}");
        nothing_is_left(&cli, &container);
        let copy = format!("copy_{format}");
        let run = cli.run(&["restore", "latest", "--to", &target, "--as", &copy]);
        assert!(matches!(run.code, Some(0 | 3)), "{format}: {run:?}");
        for compare in [
            schema_dump as fn(&PgContainer, &str) -> Result<String, String>,
            fingerprint,
        ] {
            let source = compare(&container, "shop").unwrap();
            assert_eq!(source, compare(&container, &copy).unwrap(), "{format}");
        }
    }
}

#[test]
fn bar_31_everything_comes_back_from_a_sidecar_on_15() {
    every_format(15);
}

#[test]
fn bar_31_everything_comes_back_from_a_sidecar_on_17() {
    every_format(17);
}

#[test]
fn bar_20_where_there_can_be_none_exec_serves_and_it_is_said() {
    let container = PgContainer::start(17).unwrap();
    fill(&container, "postgres", 100);
    let only_socket = "copy (select 'local all all trust') to program \
        'cat > \"$PGDATA/pg_hba.conf\"'; select pg_reload_conf();";
    container.psql("postgres", only_socket).unwrap();
    let cli = sidecar_cli();
    let target = container.target();
    let args = ["backup", target.as_str(), "--database", "postgres"];
    let run = cli.run(&args).expect(0);
    assert!(
        run.stderr
            .contains("client programs run by docker exec: no sidecar: ")
            && run.stderr.contains("pg_hba.conf"),
        "{}",
        run.stderr
    );
    assert_eq!(transport(&cli), "exec");
    nothing_is_left(&cli, &container);
    // A database this small gains nothing.
    let cli = support::cli();
    // What a killed run left goes all the same.
    let leftover = cli.data_dir().join("scratch/pgstow-sidecar.0/work");
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&leftover)
        .unwrap();
    std::fs::write(leftover.join("rows"), "1\n").unwrap();
    let run = cli
        .run(&[&args[..], &["--engine", "stock", "-vv"]].concat())
        .expect(0);
    assert!(run.stderr.contains("are so small"), "{}", run.stderr);
    assert!(
        run.stderr.contains("leftovers of sidecars"),
        "{}",
        run.stderr
    );
    assert_eq!(transport(&cli), "exec");
}

#[test]
fn bar_08_a_signal_ends_the_sidecar_too() {
    let container = PgContainer::start(15).unwrap();
    fill(&container, "postgres", 120_000);
    for signal in ["TERM", "INT"] {
        let cli = sidecar_cli();
        let target = container.target();
        let mut child = cli.spawn(&[
            "backup",
            &target,
            "--database",
            "postgres",
            "--engine",
            "stock",
        ]);
        wait_for_rows(&container);
        assert_eq!(sidecars(&container), 1);
        kill(signal, child.id());
        let since = Instant::now();
        let status = child.wait().unwrap();
        assert!(!status.success());
        assert!(since.elapsed() < Duration::from_secs(10), "{signal}");
        assert_eq!(backups(&cli), Vec::<String>::new());
        nothing_is_left(&cli, &container);
    }
}

fn kill(signal: &str, pid: u32) {
    let args = [format!("-{signal}"), pid.to_string()];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    testkit::process::run("kill", &args).unwrap();
}

/// The engine's streams carry no rows here, but the exit status and the life line.
#[test]
fn bar_13_a_connection_to_the_engine_cut_anywhere_is_never_a_false_backup() {
    let container = PgContainer::start(15).unwrap();
    fill(&container, "postgres", 1_500);
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("engine.sock");
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let socket = host
        .strip_prefix("unix://")
        .unwrap_or("/var/run/docker.sock")
        .to_owned();
    let cli = sidecar_cli();
    let target = container.target();
    let args = [
        "backup",
        target.as_str(),
        "--database",
        "postgres",
        "--verify",
        "none",
        "--engine",
        "stock",
        "--quiet",
    ];
    let run = |limit: Option<u64>| {
        let proxy = Proxy::unix(&at, Path::new(&socket), limit, Cut::CleanEnd).unwrap();
        let output = cli
            .command(&args)
            .env("DOCKER_HOST", proxy.docker_host())
            .output()
            .unwrap();
        let passed = proxy.passed();
        let _ = std::fs::remove_file(&at);
        (output, passed)
    };
    let (whole, bytes) = run(None);
    assert!(whole.status.success(), "{whole:?}");
    assert_eq!(transport(&cli), "sidecar");
    let mut known = backups(&cli);
    let mut failed = 0;
    for point in 1..=40_u64 {
        // From the preflight to the end, where the sidecar is at work. A connection that is idle or
        // whose answer is read already is not missed.
        let limit = bytes * 44 / 100 + point * bytes * 135 / 10_000;
        let (output, _) = run(Some(limit));
        let now = backups(&cli);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            assert_eq!(now.len(), known.len() + 1, "{words}");
            let verify = ["verify", "latest", "--level", "read", "--quiet"];
            let _ = cli.run(&verify).expect(0);
        } else {
            assert_eq!(now, known, "a failed run is listed: {words}");
            failed += 1;
        }
        known = now;
    }
    assert!(failed >= 10, "{failed} of 40 cuts hurt");
    // What the cuts left, the next run takes.
    let _ = cli.run(&args).expect(0);
    nothing_is_left(&cli, &container);
}
