//! What a user sees with exactly one running container, and with two. These tests run alone:
//! every other container of the machine would be a candidate too.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails the test that calls it"
)]

mod support;

use support::{backups, cli};
use testkit::PgContainer;
use testkit::process::docker;
use testkit::schema::{fingerprint, load_bar31, schema_dump};

/// Containers that are not ours would be candidates; without them the test says nothing.
fn nothing_else_runs() {
    let running = docker(&["ps", "--format", "{{.Names}} {{.Image}}"]).unwrap();
    assert_eq!(
        running.trim(),
        "",
        "other containers run; stop them for this test"
    );
}

fn backup_and_restore_without_a_word(container: &PgContainer, database: &str) {
    // The environment that started this project: it names the container's own localhost.
    let cli = cli().env("POSTGRES_HOST", "localhost");
    let run = cli.run(&["backup"]).expect(0);
    assert!(
        run.stderr.contains(container.name()),
        "what was chosen is said: {}",
        run.stderr
    );
    assert_eq!(backups(&cli).len(), 1);
    let run = cli.run(&["restore", "latest", "--as", "copy"]);
    assert!(matches!(run.code, Some(0 | 3)), "{run:?}");
    for compare in [schema_dump, fingerprint] {
        let source = compare(container, database).unwrap();
        assert_eq!(source, compare(container, "copy").unwrap());
    }
    assert!(cli.data_dir().join("state/db.env").is_file());
}

#[test]
fn alone_one_container_published_elsewhere_needs_no_words() {
    nothing_else_runs();
    for major in testkit::images::MAJORS {
        let builder = PgContainer::builder(major).publish(55_432);
        let container = builder.env("POSTGRES_DB", "shop_db").start().unwrap();
        container.psql("postgres", "drop database shop_db").unwrap();
        load_bar31(&container, "shop_db").unwrap();
        backup_and_restore_without_a_word(&container, "shop_db");
    }
}

#[test]
fn alone_an_app_image_that_says_localhost_needs_no_words() {
    nothing_else_runs();
    for major in testkit::images::MAJORS {
        let container = PgContainer::app(major).publish(55_432).start().unwrap();
        container.psql("postgres", "drop database appdb").unwrap();
        load_bar31(&container, "appdb").unwrap();
        backup_and_restore_without_a_word(&container, "appdb");
    }
}

#[test]
fn alone_nothing_and_two_candidates_are_errors_that_help() {
    nothing_else_runs();
    let cli = cli();
    let run = cli.run(&["backup"]).expect(10);
    assert!(run.stderr.contains("DATABASE_NOT_FOUND"), "{}", run.stderr);
    assert!(
        run.stderr.contains("container:"),
        "a way out is shown: {}",
        run.stderr
    );
    let first = PgContainer::start(15).unwrap();
    let second = PgContainer::start(17).unwrap();
    let run = cli.run(&["backup"]).expect(10);
    assert!(run.stderr.contains("CONTAINER_AMBIGUOUS"), "{}", run.stderr);
    for container in [&first, &second] {
        assert!(run.stderr.contains(&container.target()), "{}", run.stderr);
    }
    assert_eq!(cli.backup_dirs().len(), 0);
    let _ = cli.run(&["backup", &first.target()]).expect(0);
    let explained = cli
        .run(&["discover", &second.target(), "--explain"])
        .expect(0);
    assert!(
        explained.stdout.contains("container_probe"),
        "{}",
        explained.stdout
    );
}
