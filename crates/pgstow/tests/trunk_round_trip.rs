//! Backup in a container, restore beside: rows, schema and properties equal, on every major, with
//! the objects of bar line 31; compared by the server and stock programs, not by pgstow.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails the test that calls it"
)]

mod support;

use support::{backups, cli};
use testkit::PgContainer;
use testkit::schema::{database_properties, fingerprint, load_bar31, schema_dump};

/// Subscriptions cannot be restored twice into one server under one slot name, and the second
/// copy of a disabled one is refused by nothing else: the names of all objects stay the same.
fn round_trip(container: &PgContainer, format: &str, place: &str) {
    let cli = cli();
    let target = container.target();
    let _ = cli
        .run(&["backup", &target, "--database", "shop", "--format", format])
        .expect(0);
    let run = cli.run(&["restore", "latest", "--to", &target, "--as", place]);
    assert!(matches!(run.code, Some(0 | 3)), "{format}: {run:?}");
    for (what, compare) in [
        (
            "schema",
            schema_dump as fn(&PgContainer, &str) -> Result<String, String>,
        ),
        ("rows", fingerprint),
        ("properties", database_properties),
    ] {
        let source = compare(container, "shop").unwrap();
        let copy = compare(container, place).unwrap();
        assert_eq!(source, copy, "{what} of {format}");
    }
    assert_eq!(backups(&cli).len(), 1);
    let _ = cli.run(&["verify", "latest", "--quiet"]).expect(0);
}

fn every_format(major: u32) {
    let container = PgContainer::start(major).unwrap();
    load_bar31(&container, "shop").unwrap();
    for format in ["custom", "directory", "plain"] {
        round_trip(&container, format, &format!("copy_{format}"));
    }
}

#[test]
fn bar_31_everything_comes_back_on_13() {
    every_format(13);
}

#[test]
fn bar_31_everything_comes_back_on_15() {
    every_format(15);
}

#[test]
fn bar_31_everything_comes_back_on_17() {
    every_format(17);
}

#[test]
fn bar_31_everything_comes_back_on_18() {
    every_format(18);
}

#[test]
fn bar_33_an_older_backup_goes_into_a_newer_server_and_not_back() {
    let old = PgContainer::start(15).unwrap();
    let new = PgContainer::start(17).unwrap();
    old.psql(
        "postgres",
        "create table t as select g, md5(g::text) from generate_series(1, 5000) g",
    )
    .unwrap();
    let cli = cli();
    let _ = cli
        .run(&["backup", &old.target(), "--database", "postgres"])
        .expect(0);
    let upgraded = ["restore", "latest", "--to", &new.target(), "--as", "copy"];
    let run = cli.run(&upgraded);
    assert!(matches!(run.code, Some(0 | 3)), "{run:?}");
    let sum = "select count(*), md5(string_agg(t::text, ',' order by g)) from t";
    assert_eq!(
        old.psql("postgres", sum).unwrap(),
        new.psql("copy", sum).unwrap()
    );
    let _ = cli
        .run(&["backup", &new.target(), "--database", "copy"])
        .expect(0);
    let back = cli
        .run(&["restore", "latest", "--to", &old.target(), "--as", "back"])
        .expect(42);
    assert!(
        back.stderr.contains("17") && back.stderr.contains("15"),
        "{}",
        back.stderr
    );
    let databases = old
        .psql("postgres", "select count(*) from pg_database")
        .unwrap();
    assert_eq!(databases.trim(), "3");
}

/// A database in a target is where the first connection goes; who took it for a choice is told.
#[test]
fn a_database_in_the_target_chooses_none_and_is_told() {
    let container = PgContainer::start(15).unwrap();
    container.psql("postgres", "create database shop").unwrap();
    let (cli, target) = (cli(), format!("{}/shop", container.target()));
    let told = "--database shop backs up that one alone";
    let all = cli.run(&["backup", &target]).expect(0);
    assert!(all.stderr.contains(told), "{}", all.stderr);
    assert!(all.stdout.contains("3 databases"), "{}", all.stdout);
    let one = cli
        .run(&["backup", &target, "--database", "shop"])
        .expect(0);
    assert!(!one.stderr.contains(told), "{}", one.stderr);
    assert!(one.stdout.contains("1 database "), "{}", one.stdout);
}

#[test]
fn bar_26_a_role_that_may_not_read_all_is_refused_before_the_dump() {
    let container = PgContainer::start(17).unwrap();
    container
        .psql(
            "postgres",
            "create role poor login password 'poor'; create table hidden (a int); \
             create table shown (a int); grant select on shown to poor",
        )
        .unwrap();
    let cli = cli();
    let file = cli.home().join("password");
    std::fs::write(&file, "poor\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let file = file.display().to_string();
    let args = [
        "backup",
        &container.target(),
        "--username",
        "poor",
        "--password-file",
        &file,
    ];
    let run = cli.run(&args).expect(13);
    assert!(
        run.stderr.contains("GRANT") && run.stderr.contains("hidden"),
        "{}",
        run.stderr
    );
    assert_eq!(cli.backup_dirs().len(), 0);
}

#[test]
fn bar_27_a_locked_table_is_given_up_in_time() {
    let container = PgContainer::start(15).unwrap();
    container
        .psql("postgres", "create table t (a int)")
        .unwrap();
    let id = container.id().to_owned();
    let locker = std::thread::spawn(move || {
        let sql = "begin; lock table t in access exclusive mode; select pg_sleep(12)";
        testkit::process::docker(&["exec", &id, "psql", "-U", "postgres", "-c", sql])
    });
    std::thread::sleep(std::time::Duration::from_millis(1000));
    let cli = cli();
    let run = cli
        .run(&["backup", &container.target(), "--lock-wait-timeout", "1s"])
        .expect(1);
    assert!(
        run.stderr.contains("locked by another session"),
        "{}",
        run.stderr
    );
    locker.join().unwrap().unwrap();
}

#[test]
fn bar_42_a_second_run_of_a_target_leaves_with_its_own_code() {
    let container = PgContainer::start(15).unwrap();
    support::fill(&container, "postgres", 60_000);
    let cli = cli();
    let target = container.target();
    let mut first = cli.spawn(&["backup", &target, "--engine", "stock"]);
    support::wait_for_rows(&container);
    let second = cli.run(&["backup", &target]).expect(21);
    assert!(second.stderr.contains("another run"), "{}", second.stderr);
    assert!(first.wait().unwrap().success());
    assert_eq!(backups(&cli).len(), 1);
}

#[test]
fn bar_44_a_flipped_bit_in_any_file_is_found_and_named() {
    let container = PgContainer::start(17).unwrap();
    support::fill(&container, "postgres", 200);
    let cli = cli();
    let _ = cli
        .run(&["backup", &container.target(), "--quiet"])
        .expect(0);
    let _ = cli
        .run(&["backup", &container.target(), "--quiet"])
        .expect(0);
    let dirs = cli.backup_dirs();
    for file in std::fs::read_dir(&dirs[0]).unwrap().flatten() {
        let good = std::fs::read(file.path()).unwrap();
        let mut bad = good.clone();
        let at = usize::try_from(support::below(bad.len() as u64)).unwrap();
        bad[at] ^= 1 << support::below(8);
        std::fs::write(file.path(), &bad).unwrap();
        let id = dirs[0].file_name().unwrap().to_str().unwrap().to_owned();
        let run = cli.run(&["verify", &id, "--level", "hash"]);
        assert_eq!(run.code, Some(30), "{:?} byte {at}: {run:?}", file.path());
        let name = file.file_name().to_string_lossy().into_owned();
        assert!(
            format!("{}{}", run.stdout, run.stderr).contains(&name),
            "{name}: {run:?}"
        );
        // The other backup is not affected.
        let other = dirs[1].file_name().unwrap().to_str().unwrap().to_owned();
        let _ = cli.run(&["verify", &other, "--level", "hash"]).expect(0);
        std::fs::write(file.path(), &good).unwrap();
    }
    let _ = cli.run(&["verify", "--all"]).expect(0);
}
