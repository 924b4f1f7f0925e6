//! Faults between pgstow and the server: streams that are cut, containers that stop.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails the test that calls it"
)]

mod support;

use std::path::Path;

use support::{backups, below, catalog, cli, fill, wait_for_rows};
use testkit::proxy::{Cut, Proxy};
use testkit::{Cli, PgContainer};

/// Points of one run of the tests; `PGSTOW_TEST_CUTS` asks for more.
const POINTS: u64 = 200;

fn socket() -> String {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    host.strip_prefix("unix://")
        .unwrap_or("/var/run/docker.sock")
        .to_owned()
}

/// Runs a backup whose engine connection is cut after `limit` bytes; insists that what is listed
/// afterwards is what was there before, or a backup that reads to its end.
fn one_cut(cli: &Cli, args: &[&str], at: &Path, limit: u64, cut: Cut) -> bool {
    let before = backups(cli);
    let proxy = Proxy::unix(at, Path::new(&socket()), Some(limit), cut).unwrap();
    let output = cli
        .command(args)
        .env("DOCKER_HOST", proxy.docker_host())
        .output()
        .unwrap();
    let after = backups(cli);
    let new: Vec<&String> = after.iter().filter(|id| !before.contains(id)).collect();
    let context = format!(
        "cut {cut:?} after {limit} bytes: {:?}\n{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        before.iter().all(|id| after.contains(id)),
        "an earlier backup is gone; {context}"
    );
    if output.status.success() {
        assert_eq!(new.len(), 1, "{context}");
        let _ = cli
            .run(&["verify", new[0], "--level", "read", "--quiet"])
            .expect(0);
    } else {
        assert!(new.is_empty(), "a failed run is listed; {context}");
    }
    let _ = std::fs::remove_file(at);
    output.status.success()
}

#[test]
fn bar_13_a_stream_cut_anywhere_is_never_a_false_backup() {
    cut_anywhere("stock");
}

/// Rows do not travel through the container engine here, but pg_dump's table of contents and the
/// exit status do.
#[test]
fn bar_13_a_stream_cut_beside_the_parallel_engine_is_never_a_false_backup() {
    cut_anywhere("parallel");
}

fn cut_anywhere(engine: &str) {
    let container = PgContainer::start(15).unwrap();
    fill(&container, "postgres", 1_500);
    let dir = tempfile::tempdir().unwrap();
    let target = container.target();
    // Without the check after the dump, so that the dump itself must notice.
    let args = [
        "backup",
        target.as_str(),
        "--database",
        "postgres",
        "--verify",
        "none",
        "--engine",
        engine,
        "--quiet",
    ];
    let at = dir.path().join("engine.sock");
    let proxy = Proxy::unix(&at, Path::new(&socket()), None, Cut::CleanEnd).unwrap();
    let cli = cli();
    let output = cli
        .command(&args)
        .env("DOCKER_HOST", proxy.docker_host())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let whole = proxy.passed();
    let _ = std::fs::remove_file(&at);
    let asked = std::env::var("PGSTOW_TEST_CUTS")
        .ok()
        .and_then(|text| text.parse().ok());
    let usual = if engine == "stock" {
        POINTS
    } else {
        POINTS / 4
    };
    let points: u64 = asked.unwrap_or(usual);
    let mut successes = 0;
    for point in 0..points {
        let cut = [Cut::CleanEnd, Cut::ClientOnly, Cut::Gone][usize::try_from(point % 3).unwrap()];
        let at = dir.path().join(format!("engine-{point}.sock"));
        successes += u64::from(one_cut(&cli, &args, &at, below(whole), cut));
    }
    // Each cut lies before the end of a run, so nearly every run fails; what stays open beside our own
    // sessions is not always missed.
    let most = if engine == "stock" {
        points / 10
    } else {
        points * 9 / 10
    };
    assert!(successes <= most, "{successes} of {points} runs succeeded");
}

#[test]
fn bar_10_a_container_that_stops_in_mid_dump_is_a_failed_run() {
    for (verb, engine, rows) in [
        ("stop", "stock", 60_000),
        ("kill", "stock", 60_000),
        ("restart", "stock", 60_000),
        ("kill", "auto", 300_000),
    ] {
        let container = PgContainer::start(15).unwrap();
        fill(&container, "postgres", rows);
        let cli = cli();
        let target = container.target();
        let mut command = cli.command(&["backup", &target, "--engine", engine]);
        command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let child = command.spawn().unwrap();
        wait_for_rows(&container);
        container.engine(verb).unwrap();
        let run = testkit::Run::from(child.wait_with_output().unwrap());
        assert!(!matches!(run.code, Some(0 | 3) | None), "{verb}: {run:?}");
        assert!(
            run.stderr.contains(container.name()),
            "{verb}: {}",
            run.stderr
        );
        assert_eq!(backups(&cli), Vec::<String>::new(), "{verb}");
        assert_eq!(catalog(&cli)["runs"][0]["state"], "failed", "{verb}");
    }
}

#[test]
fn bar_11_a_paused_container_is_given_up_and_named() {
    let container = PgContainer::start(15).unwrap();
    // A gigabyte of text in a few pages: pg_dump compresses it for seconds, and is not done when the
    // container is frozen at last.
    let sql = "create table long as select g as id, repeat(md5(g::text), 300) as t \
               from generate_series(1, 100000) g";
    container.psql("postgres", sql).unwrap();
    let cli = cli();
    let target = container.target();
    let mut command = cli.command(&[
        "backup",
        &target,
        "--stall-timeout",
        "2s",
        "--engine",
        "stock",
    ]);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for_rows(&container);
    container.engine("pause").unwrap();
    let run = testkit::Run::from(child.wait_with_output().unwrap());
    container.engine("unpause").unwrap();
    assert!(
        run.code == Some(1) && run.stderr.contains("docker unpause"),
        "{run:?}"
    );
    assert_eq!(backups(&cli), Vec::<String>::new());
}

/// What workers of parallel queries share lies in /dev/shm, which has 64 MB in a container unless
/// somebody gives it more, and the server's statistics of very many tables fill it.
#[test]
fn bar_28_a_full_shared_memory_of_the_container_stops_no_dump() {
    let container = PgContainer::start(17).unwrap();
    fill(&container, "postgres", 2_000);
    container
        .psql(
            "postgres",
            "alter system set debug_parallel_query = on; select pg_reload_conf()",
        )
        .unwrap();
    let fill_up = "cat /dev/zero > /dev/shm/full 2> /dev/null; true";
    container.exec(&["sh", "-c", fill_up]).unwrap();
    let parallel = container.psql("postgres", "select count(*) from filler");
    assert!(parallel.unwrap_err().contains("No space left on device"));
    let (cli, target) = (cli(), container.target());
    for engine in ["stock", "parallel"] {
        let args = [
            "backup",
            &target,
            "--database",
            "postgres",
            "--engine",
            engine,
        ];
        let _ = cli.run(&args).expect(0);
    }
    assert_eq!(backups(&cli).len(), 2);
}

/// A server has statistics of a table from its first use on, and none after a crash: a dump uses every
/// table. Where /dev/shm is full by then, a server was seen to crash.
#[test]
fn bar_28_a_dump_that_shared_memory_has_no_room_for_is_refused() {
    // The function that tells of it has changed.
    for major in [15, 17, 18] {
        refused_for_statistics(major);
    }
}

fn refused_for_statistics(major: u32) {
    let container = PgContainer::builder(major)
        .option(&["--shm-size", "8m"])
        .args(&["-c", "max_locks_per_transaction=256"])
        .start()
        .unwrap();
    let make = "do $$ begin for i in 1..5000 loop \
                execute format('create table t%s (id int)', i); end loop; end $$; checkpoint";
    let _ = container.psql("postgres", make).unwrap();
    container.engine("kill").unwrap();
    container.engine("start").unwrap();
    container.wait().unwrap();
    let fill_up = [
        "sh",
        "-c",
        "cat /dev/zero > /dev/shm/full 2> /dev/null; true",
    ];
    container.exec(&fill_up).unwrap();
    let (cli, target) = (cli(), container.target());
    for engine in ["stock", "auto"] {
        let refused = cli.run(&["backup", &target, "--engine", engine]).expect(42);
        for words in ["5000 of them", "0 bytes are free", "--shm-size=128m"] {
            assert!(refused.stderr.contains(words), "{words}: {refused:?}");
        }
    }
    assert_eq!(backups(&cli), Vec::<String>::new());
    // With room it is no refusal, and once they are there neither.
    container.exec(&["rm", "/dev/shm/full"]).unwrap();
    let _ = cli.run(&["backup", &target]).expect(0);
    container.exec(&fill_up).unwrap();
    let _ = cli.run(&["backup", &target]).expect(0);
    assert_eq!(backups(&cli).len(), 2);
}

#[test]
fn bar_07_a_killed_pg_dump_is_a_failed_run_that_names_the_signal() {
    let container = PgContainer::start(15).unwrap();
    fill(&container, "postgres", 60_000);
    let cli = cli();
    let target = container.target();
    let mut command = cli.command(&["backup", &target, "--engine", "stock"]);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for_rows(&container);
    let script = "for d in /proc/[0-9]*; do read -r c < $d/comm; \
                  [ \"$c\" = pg_dump ] && kill -KILL ${d#/proc/}; done; true";
    container.exec(&["sh", "-c", script]).unwrap();
    let run = testkit::Run::from(child.wait_with_output().unwrap());
    assert!(
        run.code == Some(1) && run.stderr.contains("signal 9"),
        "{run:?}"
    );
    assert_eq!(backups(&cli), Vec::<String>::new());
}
