//! `pgstow restore` in the place of a live database: under a writing load, there and back, and
//! killed at every step.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::{backups, below, cli};
use testkit::process::docker;
use testkit::{Cli, PgContainer};

/// Random points of one run of the tests; `PGSTOW_TEST_KILLS` asks for more.
const POINTS: u64 = 40;

fn last_json(text: &str) -> serde_json::Value {
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap()
}

/// Rows and sums of pgbench's tables: what was written since shows in them.
const SUM: &str = "select count(*), sum(abalance) from pgbench_accounts; \
                   select count(*), sum(bbalance) from pgbench_branches; \
                   select count(*), coalesce(sum(delta), 0) from pgbench_history";

fn databases(container: &PgContainer) -> Vec<String> {
    let list = container
        .psql("postgres", "select datname from pg_database order by 1")
        .unwrap();
    list.lines().map(str::to_owned).collect()
}

fn with_bench() -> (PgContainer, Cli, String) {
    let container = PgContainer::start(15).unwrap();
    container.psql("postgres", "create database shop").unwrap();
    container
        .exec(&["pgbench", "-U", "postgres", "-i", "-q", "-s", "2", "shop"])
        .unwrap();
    let cli = cli();
    let args = [
        "backup",
        &container.target(),
        "--database",
        "shop",
        "--quiet",
    ];
    let _ = cli.run(&args).expect(0);
    let id = backups(&cli)[0].clone();
    (container, cli, id)
}

#[test]
fn bar_23_34_swap_and_rollback_under_a_writing_load() {
    let (container, cli, id) = with_bench();
    let backed_up = container.psql("shop", SUM).unwrap();
    // New connections all the time, and again after each refusal.
    let load = "touch /tmp/load; while [ -e /tmp/load ]; do \
                pgbench -U postgres -n -C -c 4 -j 2 -T 2 shop >/dev/null 2>&1; sleep 0.05; done";
    docker(&["exec", "-d", container.id(), "sh", "-c", load]).unwrap();
    let history = |database: &str| -> u64 {
        let sql = "select count(*) from pgbench_history";
        container
            .psql(database, sql)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    };
    let writes = |from: u64| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while history("shop") <= from {
            assert!(Instant::now() < deadline, "the load does not write");
        }
    };
    writes(20);
    let silent = cli.run(&["restore", &id]).expect(42);
    assert!(silent.stderr.contains("--yes=shop"), "{}", silent.stderr);
    let other = cli.run(&["restore", &id, "--yes=postgres"]).expect(42);
    assert!(other.stderr.contains("NOT_CONFIRMED"), "{}", other.stderr);
    let dry = cli.run(&["restore", &id, "--dry-run", "--json"]).expect(0);
    let plan = last_json(&dry.stdout)["plan"].clone();
    assert_eq!(plan["place"], "swap", "{plan}");
    assert_eq!(plan["replaces"], true, "{plan}");

    let run = cli.run(&["restore", &id, "--yes=shop", "--json"]).expect(0);
    let swap = last_json(&run.stdout)["restore"]["swap"].clone();
    let outage = swap["outage_seconds"].as_f64().unwrap();
    assert!(outage > 0.0 && outage < 2.0, "outage {outage} s");
    println!("outage of the swap: {outage:.3} s");
    let kept = swap["kept"]["name"].as_str().unwrap().to_owned();
    // The load is back, and writes into the restored database.
    writes(0);
    container.exec(&["rm", "/tmp/load"]).unwrap();
    let left = "select count(*) from pg_stat_activity where application_name = 'pgbench'";
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(container.psql("postgres", left).unwrap().trim(), "0");
    // But for what the load wrote since, the rows are those of the backup.
    container
        .psql(
            "shop",
            "update pgbench_accounts a set abalance = abalance - d.sum \
               from (select aid, sum(delta) from pgbench_history group by 1) d where d.aid = a.aid; \
             update pgbench_branches b set bbalance = bbalance - d.sum \
               from (select bid, sum(delta) from pgbench_history group by 1) d where d.bid = b.bid; \
             delete from pgbench_history",
        )
        .unwrap();
    assert_eq!(container.psql("shop", SUM).unwrap(), backed_up);
    // The safety backup is there, and is not what `latest` means.
    let safety = swap["safety_backup"].as_str().unwrap();
    assert!(backups(&cli).contains(&safety.to_owned()));
    let shown = cli.run(&["show", "latest", "--json"]).expect(0);
    assert!(shown.stdout.contains(&id), "{}", shown.stdout);

    // Back: what was written before the restore is there again.
    let refused = cli.run(&["rollback"]).expect(42);
    assert!(refused.stderr.contains("--yes=shop"), "{}", refused.stderr);
    let back = cli.run(&["rollback", "--yes=shop"]).expect(0);
    assert!(back.stderr.contains("outage"), "{}", back.stderr);
    assert!(history("shop") >= 20);
    assert!(!databases(&container).contains(&kept));
    let _ = cli.run(&["rollback", "--yes=shop"]).expect(4);

    // The one that was put aside stays until its time is over.
    let pruned = cli.run(&["prune", "--keep-last", "5", "--apply"]).expect(0);
    assert!(pruned.stdout.contains("shop__undone_"), "{}", pruned.stdout);
    assert_eq!(
        databases(&container).len(),
        5,
        "{:?}",
        databases(&container)
    );
    let soon = [
        "restore",
        &id,
        "--yes=shop",
        "--keep-old",
        "1s",
        "--no-safety-backup",
    ];
    let _ = cli.run(&soon).expect(0);
    std::thread::sleep(Duration::from_millis(1100));
    let shown = cli.run(&["prune", "--keep-last", "5"]).expect(0);
    assert!(shown.stderr.contains("--apply"), "{}", shown.stderr);
    let _ = cli.run(&["prune", "--keep-last", "5", "--apply"]).expect(0);
    let left = databases(&container);
    assert!(
        !left.iter().any(|name| name.contains("__before_")),
        "{left:?}"
    );
    assert_eq!(container.psql("shop", SUM).unwrap(), backed_up);
}

/// What a kill may leave as the live database.
struct Rows {
    old: String,
    new: String,
}

const KILL_SUM: &str = "select count(*), sum(n) from t; select count(*) from later";

/// A database that differs from its backup, and the rows of both.
fn with_rows() -> (PgContainer, Cli, String, Rows) {
    let container = PgContainer::start(17).unwrap();
    container.psql("postgres", "create database shop").unwrap();
    container
        .psql(
            "shop",
            "create table t as select g as n, md5(g::text) as v from generate_series(1, 4000) g; \
             create table later (n int)",
        )
        .unwrap();
    let new = container.psql("shop", KILL_SUM).unwrap();
    let cli = cli();
    let args = [
        "backup",
        &container.target(),
        "--database",
        "shop",
        "--quiet",
    ];
    let _ = cli.run(&args).expect(0);
    let id = backups(&cli)[0].clone();
    container
        .psql(
            "shop",
            "delete from t where n <= 100; insert into later values (1)",
        )
        .unwrap();
    let old = container.psql("shop", KILL_SUM).unwrap();
    (container, cli, id, Rows { old, new })
}

/// Looks at the live database right after a kill, lets the next command say and finish it, and
/// goes back to the beginning. Returns what was live after the kill.
fn mend(container: &PgContainer, cli: &Cli, rows: &Rows, at: &str) -> bool {
    let live = container
        .psql("shop", KILL_SUM)
        .unwrap_or_else(|error| panic!("killed at {at}: no live database: {error}"));
    assert!(
        live == rows.old || live == rows.new,
        "killed at {at}: {live}"
    );
    let told = cli.run(&["list"]).expect(0);
    let resumed = cli.run(&["restore", "--resume"]).expect(0);
    let nothing = resumed.stderr.contains("nothing to resume");
    assert_eq!(
        nothing,
        !told.stderr.contains("stopped"),
        "killed at {at}: {} but {}",
        told.stderr,
        resumed.stderr
    );
    let quiet = cli.run(&["list"]).expect(0);
    assert!(
        !quiet.stderr.contains("stopped"),
        "killed at {at}: {}",
        quiet.stderr
    );
    let after = container.psql("shop", KILL_SUM).unwrap();
    assert!(
        after == rows.old || after == rows.new,
        "killed at {at}: {after}"
    );
    let is_new = after == rows.new;
    let names = databases(container);
    assert!(
        !names.iter().any(|name| name.contains("__restore_")),
        "killed at {at}: {names:?}"
    );
    assert_eq!(
        names.iter().any(|name| name.contains("__before_")),
        is_new,
        "killed at {at}: {names:?}"
    );
    if is_new {
        let _ = cli.run(&["rollback", "--yes=shop"]).expect(0);
    }
    assert_eq!(
        container.psql("shop", KILL_SUM).unwrap(),
        rows.old,
        "killed at {at}"
    );
    // What rollbacks keep is not what this test is about.
    for name in databases(container) {
        if name.contains("__undone_") {
            container
                .psql("postgres", &format!("drop database \"{name}\""))
                .unwrap();
        }
    }
    is_new
}

/// Runs the program until it begins a step, and kills it there.
fn kill(cli: &Cli, args: &[&str], step: &str) -> bool {
    let mut child = cli
        .command(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let wanted = format!("\"step\":\"{step}\"");
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut met = false;
    for line in out.lines() {
        let Ok(line) = line else { break };
        if line.contains("restore_step") && line.contains(&wanted) {
            met = true;
            let _ = child.kill();
            break;
        }
    }
    let _ = child.wait();
    met
}

#[test]
fn bar_23_34_sigkill_at_every_step_of_a_swap() {
    let (container, cli, id, rows) = with_rows();
    let args = ["restore", id.as_str(), "--yes=shop", "--json"];
    for step in [
        "planned",
        "safety_backup",
        "staging_created",
        "filling",
        "comparing",
        "swapping",
        "swapped",
    ] {
        assert!(kill(&cli, &args, step), "no step {step}");
        let is_new = mend(&container, &cli, &rows, step);
        match step {
            // Finished by the next command.
            "swapping" | "swapped" => assert!(is_new, "{step}"),
            _ => assert!(!is_new, "{step}"),
        }
    }
    // Killed again while it is mended, and while it is rolled back.
    assert!(kill(&cli, &args, "swapping"));
    let _ = kill(&cli, &["restore", "--resume", "--json"], "swapped");
    mend(&container, &cli, &rows, "resume");
    for step in ["rolling_back", "rolled_back"] {
        let _ = cli.run(&args[..3]).expect(0);
        let back = ["rollback", "--yes=shop", "--json"];
        assert!(kill(&cli, &back, step), "no step {step}");
        let live = container.psql("shop", KILL_SUM).unwrap();
        assert!(live == rows.old || live == rows.new, "{step}: {live}");
        let resumed = cli.run(&["restore", "--resume"]).expect(0);
        assert_eq!(
            container.psql("shop", KILL_SUM).unwrap(),
            rows.old,
            "{step}: {resumed:?}"
        );
        mend(&container, &cli, &rows, step);
    }
    // `rollback` instead of `--resume` undoes what was killed.
    for step in ["filling", "swapping"] {
        assert!(kill(&cli, &args, step));
        let _ = cli.run(&["rollback", "--yes=shop"]).expect(0);
        assert_eq!(
            container.psql("shop", KILL_SUM).unwrap(),
            rows.old,
            "{step}"
        );
        mend(&container, &cli, &rows, step);
    }
    // And so does the next restore, where the live database was not touched yet.
    assert!(kill(&cli, &args, "comparing"));
    let again = cli.run(&args[..3]).expect(0);
    assert!(again.stderr.contains("was undone"), "{}", again.stderr);
    assert!(mend(&container, &cli, &rows, "again"));
}

#[test]
fn bar_23_34_sigkill_at_random_moments_of_a_swap() {
    let (container, cli, id, rows) = with_rows();
    let args = [
        "restore",
        id.as_str(),
        "--yes=shop",
        "--no-safety-backup",
        "--quiet",
    ];
    let since = Instant::now();
    let _ = cli.run(&args).expect(0);
    let mut whole = since.elapsed();
    assert!(mend(&container, &cli, &rows, "nothing"));
    let points = std::env::var("PGSTOW_TEST_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(POINTS);
    let (mut killed, mut new) = (0, 0);
    for point in 0..points {
        let mut child = cli.spawn(&args);
        // Every other one near the end, where the names change.
        let part = if point % 2 == 0 {
            below(1000)
        } else {
            700 + below(350)
        };
        std::thread::sleep(whole.mul_f64(part as f64 / 1000.0));
        let _ = child.kill();
        let ended = child.wait().unwrap().success();
        killed += u64::from(!ended);
        if ended && part < 950 {
            // The run that was timed was slower than the others: the machine did more beside.
            whole = whole.mul_f64(0.95);
        }
        let at = format!("point {point} ({part}/1000 of {whole:?})");
        new += u64::from(mend(&container, &cli, &rows, &at));
    }
    assert!(
        killed > points / 2,
        "only {killed} of {points} were killed in the middle"
    );
    assert!(new < points, "no kill was early enough");
}
