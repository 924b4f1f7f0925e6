//! Every verb against a real server: once as it should be used, once wrong.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails the test that calls it"
)]

mod support;

use std::time::{Duration, Instant};

use support::{backups, cli, fill, wait_for_rows};
use testkit::{Cli, PgContainer};

const SUM: &str = "select count(*), md5(string_agg(t::text, ',' order by id)) from orders t";

/// A server with one small table, and a backup of it.
fn backed_up() -> (PgContainer, Cli, String) {
    let container = PgContainer::start(17).unwrap();
    container.psql("postgres", "create database shop").unwrap();
    container
        .psql(
            "shop",
            "create table orders as select g as id, md5(g::text) as words \
             from generate_series(1, 2000) g; alter table orders add primary key (id)",
        )
        .unwrap();
    let cli = cli();
    let args = [
        "backup",
        &container.target(),
        "--database",
        "shop",
        "--tag",
        "reason=test",
        "--quiet",
    ];
    let run = cli.run(&args).expect(0);
    let id = run.stdout.trim().to_owned();
    assert_eq!(
        backups(&cli),
        std::slice::from_ref(&id),
        "--quiet prints the id alone"
    );
    (container, cli, id)
}

fn last_json(text: &str) -> serde_json::Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn list_and_show_tell_what_is_there() {
    let (_container, cli, id) = backed_up();
    let listed = cli.run(&["list"]).expect(0).stdout;
    for word in [
        &id,
        "shop",
        "custom",
        "read",
        "reason=test",
        "AGE",
        "VERIFIED",
    ] {
        assert!(listed.contains(word), "{word}: {listed}");
    }
    // Any unique beginning of an id works.
    let shown = cli.run(&["show", &id[..id.len() - 2]]).expect(0).stdout;
    for word in [
        &id,
        "PostgreSQL 17",
        "transport",
        "shop: ",
        " engine",
        "by hand:",
        "sha256sum -c",
    ] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let contents = cli.run(&["show", &id, "--toc"]).expect(0).stdout;
    for word in ["SCHEMA", "orders", "CONSTRAINT (", "in the dump's snapshot"] {
        assert!(contents.contains(word), "{word}: {contents}");
    }
    let json = last_json(&cli.run(&["show", &id, "--toc", "--json"]).expect(0).stdout);
    assert_eq!(json["manifest"]["id"], id.as_str());
    let shop = &json["contents"]["shop"];
    assert_eq!(shop["attested"], true);
    let tables = shop["schemas"][0]["tables"].as_array().unwrap();
    let orders = tables.iter().find(|table| table["name"] == "orders");
    assert!(orders.unwrap()["rows"].as_u64().unwrap() > 0, "{shop}");
    assert!(
        shop["objects"]["CONSTRAINT"][0]["name"].is_string(),
        "{shop}"
    );
    let wrong = cli.run(&["show", "20010101"]).expect(4);
    assert!(
        wrong.stderr.contains("BACKUP_NOT_FOUND"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn discover_explains_which_route_and_engine_a_backup_would_use() {
    let container = PgContainer::start(17).unwrap();
    let cli = Cli::new(env!("CARGO_BIN_EXE_pgstow"));
    let target = container.target();
    let told = cli
        .run(&["discover", &target, "--explain"])
        .expect(0)
        .stdout;
    for words in [
        "what a backup would use:",
        "docker exec in the server's container",
        "the container's socket",
        "parallel",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let plain = cli.run(&["discover", &target]).expect(0).stdout;
    assert!(!plain.contains("would use"), "{plain}");
    let json = last_json(
        &cli.env("PGSTOW_ENGINE", "stock")
            .run(&["discover", &target, "--explain", "--json"])
            .expect(0)
            .stdout,
    );
    let would = &json["would_use"];
    assert_eq!(would["engine"], "stock", "{would}");
    assert_eq!(would["reason"], "it was asked for", "{would}");
}

#[test]
fn diff_tells_objects_and_rows() {
    let (container, cli, first) = backed_up();
    container
        .psql(
            "shop",
            "create view cheap as select * from orders; create table more (x int);
             insert into more values (1), (2); delete from orders where id <= 500;
             alter table orders alter column words set default 'x'",
        )
        .unwrap();
    let args = [
        "backup",
        &container.target(),
        "--database",
        "shop",
        "--quiet",
    ];
    let second = cli.run(&args).expect(0).stdout.trim().to_owned();
    let told = cli.run(&["diff", &first, &second]).expect(0).stdout;
    for words in [
        "~ database shop",
        "+ VIEW public.cheap",
        "+ TABLE public.more",
        "public.orders  2,000   1,500  -500",
        "public.more    -       2      +2",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let json = last_json(
        &cli.run(&["diff", &second, &first, "--json"])
            .expect(0)
            .stdout,
    );
    let shop = &json["databases"][0];
    assert_eq!(shop["change"], "compared");
    let dropped = shop["diff"]["objects"].as_array().unwrap().iter();
    let dropped = dropped
        .filter(|object| object["change"] == "dropped")
        .count();
    assert!(dropped >= 2, "{json}");
    let same = cli.run(&["diff", &first, &first]).expect(0).stdout;
    assert!(same.contains("no difference was found"), "{same}");
    let nowhere = cli.run(&["diff", &first, &second, "--database", "nowhere"]);
    assert!(nowhere.expect(10).stderr.contains("nowhere"));
}

#[test]
fn verify_reads_without_a_server() {
    let (_container, cli, id) = backed_up();
    // No engine at all.
    let no_engine = format!("unix://{}/no.sock", cli.home().display());
    let cli = cli.env("DOCKER_HOST", &no_engine);
    let read = cli.run(&["verify", "--all", "--json"]).expect(0);
    let report = last_json(&read.stdout)["reports"][0].clone();
    assert_eq!(report["reader"], "built-in", "{report}");
    let archive = cli.backup_dirs()[0].join("0001-shop.dump");
    let bytes = std::fs::read(&archive).unwrap();
    std::fs::write(&archive, &bytes[..bytes.len() * 2 / 3]).unwrap();
    let cut = cli.run(&["verify", &id]).expect(30);
    assert!(cut.stderr.contains("0001-shop.dump"), "{}", cut.stderr);
}

#[test]
fn restore_beside_from_a_file_and_in_place() {
    let (container, cli, id) = backed_up();
    let target = container.target();
    let sum = || container.psql("shop", SUM).unwrap();
    let before = sum();

    let dry = ["restore", &id, "--as", "copy", "--to", &target, "--dry-run"];
    let plan = cli.run(&dry).expect(0);
    assert!(plan.stderr.contains("plan: "), "{}", plan.stderr);
    assert!(
        container.psql("copy", "select 1").is_err(),
        "a dry run made a database"
    );
    // Without --to: back to the container that the backup came from, whatever else runs.
    let beside = cli.run(&["restore", &id, "--as", "copy"]).expect(0);
    assert!(
        beside.stderr.contains("where the backup came from"),
        "{}",
        beside.stderr
    );
    assert_eq!(container.psql("copy", SUM).unwrap(), before);
    let again = cli.run(&["restore", &id, "--as", "copy", "--to", &target]);
    let again = again.expect(42);
    assert!(again.stderr.contains("RESTORE_REFUSED"), "{}", again.stderr);

    let out = cli.home().join("shop.dump").display().to_string();
    let _ = cli.run(&["export", &id, "-o", &out]).expect(0);
    let twice = cli.run(&["export", &id, "-o", &out]).expect(42);
    assert!(twice.stderr.contains("exists already"), "{}", twice.stderr);
    let file = ["restore", &out, "--as", "from_file", "--to", &target];
    let _ = cli.run(&file).expect(0);
    assert_eq!(container.psql("from_file", SUM).unwrap(), before);

    container
        .psql("shop", "delete from orders where id > 10")
        .unwrap();
    let in_place = ["restore", &id, "--in-place", "--to", &target];
    let silent = cli.run(&in_place).expect(42);
    assert!(silent.stderr.contains("NOT_CONFIRMED"), "{}", silent.stderr);
    assert!(silent.stderr.contains("--yes=shop"), "{}", silent.stderr);
    assert_ne!(sum(), before, "a restore without consent");
    let _ = cli
        .run(&[&in_place[..], &["--yes=shop"]].concat())
        .expect(0);
    assert_eq!(sum(), before);
}

#[test]
fn a_restore_finds_the_server_again_under_another_name() {
    let (container, cli, id) = backed_up();
    let sum = container.psql("shop", SUM).unwrap();
    let renamed = format!("{}-renamed", container.name());
    testkit::process::docker(&["rename", container.id(), &renamed]).unwrap();
    let run = cli.run(&["restore", &id, "--as", "copy"]).expect(0);
    assert!(
        run.stderr.contains(&renamed) && run.stderr.contains("same cluster"),
        "{}",
        run.stderr
    );
    assert_eq!(container.psql("copy", SUM).unwrap(), sum);
    // What exists is never changed on a server that nobody named.
    let in_place = cli.run(&["restore", &id, "--in-place", "--yes=shop"]);
    let in_place = in_place.expect(10);
    assert!(
        in_place.stderr.contains("CONTAINER_NOT_FOUND"),
        "{}",
        in_place.stderr
    );
}

#[test]
fn prune_shows_first_and_removes_only_when_told() {
    let (container, cli, first) = backed_up();
    let args = ["backup", &container.target(), "--database", "shop"];
    let _ = cli.run(&args).expect(0);
    let shown = cli.run(&["prune", "--keep-last", "1"]).expect(0);
    assert!(shown.stdout.contains(&first), "{}", shown.stdout);
    assert!(shown.stderr.contains("--apply"), "{}", shown.stderr);
    assert_eq!(backups(&cli).len(), 2);
    let done = cli.run(&["prune", "--keep-last", "1", "--apply", "--json"]);
    let done = last_json(&done.expect(0).stdout);
    assert_eq!(done["applied"], true);
    let left = backups(&cli);
    assert!(left.len() == 1 && left[0] != first, "{left:?}");
    assert_eq!(cli.backup_dirs().len(), 1);
}

#[test]
fn discover_and_doctor_tell_about_one_server() {
    let (container, cli, _) = backed_up();
    let target = container.target();
    let found = cli.run(&["discover", &target, "--json"]).expect(0);
    let found_json = last_json(&found.stdout);
    assert_eq!(found_json["mode"], "in_container", "{found_json}");
    assert_eq!(found_json["login"]["password"], true);
    assert!(!found.stdout.contains(container.password()));
    container
        .psql("shop", "create extension stowtest version '1.2'")
        .or_else(|_| container.psql("shop", "create extension pg_trgm"))
        .unwrap();
    let good = cli.run(&["doctor", &target]).expect(0);
    for line in [
        "container engine",
        "data directory",
        "store",
        "server",
        "programs",
        "connection",
        "rights and locks",
        "room",
        "extensions",
        "backups",
    ] {
        let line = format!("ok   {line}");
        assert!(good.stdout.contains(&line), "{line}: {}", good.stdout);
    }
    assert!(good.stdout.contains("shop: "), "{}", good.stdout);
    let wrong = cli
        .run(&["doctor", "container:no-such-container"])
        .expect(1);
    assert!(wrong.stdout.contains("BAD  server"), "{}", wrong.stdout);
}

#[test]
fn a_second_signal_ends_at_once() {
    let container = PgContainer::start(15).unwrap();
    fill(&container, "postgres", 60_000);
    let cli = cli();
    let mut child = cli.spawn(&["backup", &container.target(), "--engine", "stock"]);
    wait_for_rows(&container);
    // A stopped program does not end when it is asked to, so that the orderly way takes its time.
    let script = "for d in /proc/[0-9]*; do read -r c < $d/comm; \
                  [ \"$c\" = pg_dump ] && kill -STOP ${d#/proc/}; done; true";
    container.exec(&["sh", "-c", script]).unwrap();
    let pid = child.id().to_string();
    let interrupt = || testkit::process::run("kill", &["-INT", &pid]).unwrap();
    interrupt();
    std::thread::sleep(Duration::from_millis(400));
    let waiting = child.try_wait().unwrap().is_none();
    let since = Instant::now();
    if waiting {
        interrupt();
    }
    let status = child.wait().unwrap();
    let took = since.elapsed();
    assert!(waiting, "the first signal already ended it");
    assert_eq!(status.code(), Some(130));
    assert!(took < Duration::from_millis(800), "{took:?}");
    assert!(backups(&cli).is_empty());
}

#[test]
fn verify_latest_tells_of_a_newer_one_that_is_damaged() {
    let container = PgContainer::start(17).unwrap();
    fill(&container, "postgres", 50);
    let cli = cli();
    for _ in 0..2 {
        let _ = cli
            .run(&["backup", &container.target(), "--quiet"])
            .expect(0);
    }
    let newest = cli.backup_dirs().into_iter().max().unwrap();
    let file = std::fs::read_dir(&newest)
        .unwrap()
        .flatten()
        .find(|file| file.path().extension().is_some_and(|e| e == "dump"))
        .unwrap()
        .path();
    std::fs::write(&file, b"PGDMP").unwrap();
    let run = cli.run(&["verify", "latest"]).expect(30);
    let id = newest.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(run.stderr.contains(&id), "{}", run.stderr);
    assert!(run.stdout.contains(&backups(&cli)[0]), "{}", run.stdout);

    // Not "there is none" where the last one that was whole is damaged too.
    for dir in cli.backup_dirs() {
        std::fs::write(dir.join(file.file_name().unwrap()), b"PGDMP").unwrap();
    }
    let run = cli.run(&["verify", "latest"]).expect(30);
    for dir in cli.backup_dirs() {
        let id = dir.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(run.stderr.contains(&id), "{}", run.stderr);
    }
}

#[test]
fn an_engine_that_cannot_be_had_is_refused_before_anything_is_written() {
    let container = PgContainer::start(17).unwrap();
    let cli = cli();
    let target = container.target();
    let args = [
        "backup",
        &target,
        "--engine",
        "parallel",
        "--max-connections",
        "2",
    ];
    let run = cli.run(&args).expect(42);
    assert!(run.stderr.contains("needs 3"), "{}", run.stderr);
    assert!(!run.stderr.contains("dumped"), "{}", run.stderr);
    assert!(!run.stderr.contains("sidecar"), "{}", run.stderr);
    assert_eq!(cli.backup_dirs(), Vec::<std::path::PathBuf>::new());
}
