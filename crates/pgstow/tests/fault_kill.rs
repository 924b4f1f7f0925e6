//! SIGKILL at random moments of a backup: nothing that looks like a backup, nothing that stays.

mod support;

use std::time::{Duration, Instant};

use support::{backups, below, catalog, cli, fill, ids, wait_for_rows};
use testkit::PgContainer;
use testkit::schema::fingerprint;

/// Points of one run of the tests; `PGSTOW_TEST_KILLS` asks for more.
const POINTS: u64 = 60;

fn points(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[test]
fn bar_01_sigkill_at_random_moments_leaves_no_false_backup() {
    let container = PgContainer::start(15).unwrap();
    fill(&container, "postgres", 12_000);
    let cli = cli();
    let target = container.target();
    let args = ["backup", target.as_str(), "--quiet"];
    let since = Instant::now();
    let _ = cli.run(&args).expect(0);
    let whole = since.elapsed();
    let earlier = backups(&cli);
    assert_eq!(earlier.len(), 1);
    let mut finished = Vec::new();
    let mut killed = 0;
    for point in 0..points("PGSTOW_TEST_KILLS", POINTS) {
        let mut child = cli.spawn(&args);
        let moment = whole.mul_f64(1.1 * below(1000) as f64 / 1000.0);
        std::thread::sleep(moment);
        let _ = child.kill();
        let status = child.wait().unwrap();
        killed += u64::from(!status.success());
        // Whatever is listed must be whole, and all that was there before must still be.
        let listed = backups(&cli);
        for id in &listed {
            if !earlier.contains(id) && !finished.contains(id) {
                let _ = cli
                    .run(&["verify", id, "--level", "hash", "--quiet"])
                    .expect(0);
                finished.push(id.clone());
            }
        }
        assert!(
            earlier
                .iter()
                .chain(&finished)
                .all(|id| listed.contains(id)),
            "point {point}"
        );
    }
    assert!(
        killed > POINTS / 2,
        "only {killed} runs were killed in the middle"
    );
    // The next run ends what the killed ones left, on the server and on disk.
    let _ = cli.run(&args).expect(0);
    let deadline = Instant::now() + Duration::from_secs(10);
    while container.pgstow_sessions().unwrap() > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(container.pgstow_sessions().unwrap(), 0);
    let processes = container.processes().unwrap();
    assert!(
        !processes.iter().any(|line| line.contains("pg_dump")),
        "{processes:?}"
    );
    let catalog = catalog(&cli);
    let listed = ids(&catalog["backups"]);
    assert_eq!(ids(&catalog["damaged"]), Vec::<String>::new());
    let mut on_disk: Vec<String> = cli
        .backup_dirs()
        .iter()
        .filter_map(|dir| dir.file_name()?.to_str().map(str::to_owned))
        .collect();
    on_disk.reverse();
    assert_eq!(on_disk.len(), listed.len(), "{on_disk:?} but {listed:?}");
    for id in &listed {
        let _ = cli
            .run(&["verify", id, "--level", "read", "--quiet"])
            .expect(0);
    }
}

#[test]
fn bar_08_sigterm_and_sigint_end_everything_in_time() {
    let container = PgContainer::start(15).unwrap();
    fill(&container, "postgres", 250_000);
    for (signal, code, engine) in [
        ("-INT", 130, "stock"),
        ("-TERM", 143, "stock"),
        ("-INT", 130, "auto"),
        ("-TERM", 143, "auto"),
    ] {
        let cli = cli();
        let target = container.target();
        let mut child = cli.spawn(&["backup", &target, "--engine", engine]);
        wait_for_rows(&container);
        let since = Instant::now();
        testkit::process::run("kill", &[signal, &child.id().to_string()]).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(code), "{signal}");
        assert!(
            since.elapsed() < Duration::from_secs(6),
            "{signal}: {:?}",
            since.elapsed()
        );
        assert_eq!(container.pgstow_sessions().unwrap(), 0, "{signal}");
        let processes = container.processes().unwrap();
        assert!(
            !processes.iter().any(|line| line.contains("pg_dump")),
            "{processes:?}"
        );
        assert_eq!(
            cli.backup_dirs(),
            Vec::<std::path::PathBuf>::new(),
            "{signal}"
        );
        let runs = catalog(&cli)["runs"].clone();
        assert_eq!(runs[0]["state"], "interrupted", "{runs}");
    }
}

#[test]
fn bar_01_a_killed_restore_leaves_no_database_that_looks_restored() {
    let container = PgContainer::start(17).unwrap();
    fill(&container, "postgres", 6_000);
    let cli = cli();
    let target = container.target();
    let _ = cli
        .run(&["backup", &target, "--database", "postgres", "--quiet"])
        .expect(0);
    let expected = fingerprint(&container, "postgres").unwrap();
    let args = [
        "restore",
        "latest",
        "--to",
        target.as_str(),
        "--as",
        "copy",
        "--quiet",
    ];
    let since = Instant::now();
    let _ = cli.run(&args).expect(0);
    let whole = since.elapsed();
    container
        .psql("postgres", "drop database copy with (force)")
        .unwrap();
    for _ in 0..12 {
        let mut child = cli.spawn(&args);
        std::thread::sleep(whole.mul_f64(1.1 * below(1000) as f64 / 1000.0));
        let _ = child.kill();
        let _ = child.wait();
        let there = "select count(*) from pg_database where datname = 'copy'";
        if container.psql("postgres", there).unwrap().trim() == "1" {
            assert_eq!(fingerprint(&container, "copy").unwrap(), expected);
            container
                .psql("postgres", "drop database copy with (force)")
                .unwrap();
        }
    }
    // The next restore works and tells what was left.
    let run = cli.run(&["restore", "latest", "--to", target.as_str(), "--as", "copy"]);
    assert!(matches!(run.code, Some(0 | 3)), "{run:?}");
    assert_eq!(fingerprint(&container, "copy").unwrap(), expected);
}
