//! `pgstow restore` of a part of a backup, and its refusals, against a real server.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails the test that calls it"
)]

mod support;

use support::cli;
use testkit::PgContainer;

const SHOP: &str = "
create table orders (id int primary key, words text); insert into orders select g, md5(g::text) from generate_series(1, 300) g;
create table customers (id int primary key); insert into customers values (1), (2);
alter table orders add column customer int references customers;
create schema archive; create table archive.\"Old\" as select 1 as a;";

fn databases(container: &PgContainer) -> String {
    container
        .psql(
            "postgres",
            "select string_agg(datname, ' ' order by datname) from pg_database",
        )
        .unwrap()
        .trim()
        .to_owned()
}

#[test]
fn a_part_goes_into_a_new_database_and_the_live_one_stays() {
    let container = PgContainer::start(17).unwrap();
    container.psql("postgres", "create database shop").unwrap();
    container.psql("shop", SHOP).unwrap();
    let cli = cli();
    let target = container.target();
    let _ = cli
        .run(&["backup", &target, "--database", "shop"])
        .expect(0);
    container
        .psql("shop", "update orders set words = 'lost'")
        .unwrap();
    let live = container.psql(
        "shop",
        "select md5(string_agg(t::text, ',' order by id)) from orders t",
    );

    // Shown and not done.
    let before = databases(&container);
    let restore = ["restore", "latest", "--to", &target, "--table", "orders"];
    let dry = cli.run(&[&restore[..], &["--dry-run"]].concat()).expect(0);
    assert!(
        dry.stderr.contains("a part goes into a new database")
            && dry.stderr.contains("shop__restore_")
            && dry.stderr.contains("left out")
            && dry.stderr.contains("orders_customer_fkey"),
        "{}",
        dry.stderr
    );
    assert_eq!(databases(&container), before);

    // Beside, under a name that says what it is.
    let done = cli.run(&restore).expect(0);
    assert!(
        done.stderr
            .contains("the restored part equals the backup: 1/1 tables, 1 by their content"),
        "{}",
        done.stderr
    );
    let now = databases(&container);
    let made = now
        .split(' ')
        .find(|name| name.starts_with("shop__restore_"))
        .unwrap();
    let tables = "select string_agg(relname, ' ') from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace";
    assert_eq!(container.psql(made, tables).unwrap().trim(), "orders");
    let words = "select count(*) from orders where words = md5(id::text)";
    assert_eq!(container.psql(made, words).unwrap().trim(), "300");

    // Under a chosen name, by schema with an odd name in it, and rows alone.
    let as_old = [
        "restore", "latest", "--to", &target, "--as", "old", "--schema", "archive", "--json",
    ];
    let run = cli.run(&as_old).expect(0);
    let report: serde_json::Value =
        serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(report["restore"]["rows"], 1, "{report}");
    let rows = [
        "restore",
        "latest",
        "--to",
        &target,
        "--as",
        "rows",
        "--data-only",
    ];
    let _ = cli.run(&rows).expect(0);
    let bare =
        "select count(*) from pg_indexes where schemaname = 'public'; select count(*) from orders";
    assert_eq!(container.psql("rows", bare).unwrap().trim(), "0\n300");

    // Wrong uses touch nothing.
    let before = databases(&container);
    for (more, code, words) in [
        (&["--as", "x", "--table", "nothing"][..], 42, "nothing"),
        (
            &["--as", "x", "--table", "archive.Old"],
            42,
            "does hold \"Old\"",
        ),
        (&["--as", "x", "--section", "data"], 42, "--data-only"),
        (&["--as", "shop", "--table", "orders"], 42, "exists already"),
        (&["--in-place", "--table", "orders"], 2, "--in-place"),
        (&["--yes=shop", "--table", "orders"], 2, "new one"),
        (&["--as", "x", "--section", "everything"], 2, "everything"),
    ] {
        let args = [&["restore", "latest", "--to", &target][..], more].concat();
        let run = cli.run(&args).expect(code);
        assert!(run.stderr.contains(words), "{more:?}: {}", run.stderr);
    }
    assert_eq!(databases(&container), before);
    let now = container.psql(
        "shop",
        "select md5(string_agg(t::text, ',' order by id)) from orders t",
    );
    assert_eq!(now, live);
}
