//! What the tests of the program share.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    reason = "each test binary uses a part of it"
)]

use testkit::{Cli, PgContainer};

/// The program with a home and a data directory of its own.
pub fn cli() -> Cli {
    Cli::new(env!("CARGO_BIN_EXE_pgstow"))
}

/// `pgstow list --json`, decoded.
pub fn catalog(cli: &Cli) -> serde_json::Value {
    let run = cli.run(&["list", "--json"]);
    assert!(matches!(run.code, Some(0 | 4)), "list failed: {run:?}");
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {}", run.stdout))
}

/// Ids of the backups that `list` shows, newest first.
pub fn backups(cli: &Cli) -> Vec<String> {
    ids(&catalog(cli)["backups"])
}

/// Ids of an array of the catalogue.
pub fn ids(array: &serde_json::Value) -> Vec<String> {
    let items = array.as_array().cloned().unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item["id"].as_str().map(str::to_owned))
        .collect()
}

/// A table of `rows` rows of about 600 bytes that do not compress well.
pub fn fill(container: &PgContainer, database: &str, rows: u64) {
    let sql = format!(
        "create table filler as select g as id, \
         (select string_agg(md5((g * 31 + i)::text), '') from generate_series(1, 18) i) as t \
         from generate_series(1, {rows}) g"
    );
    container
        .psql(database, &sql)
        .expect("the table can be filled");
}

/// A random number below `limit`.
pub fn below(limit: u64) -> u64 {
    rand::random_range(0..limit.max(1))
}

/// Waits until a run moves rows, by pg_dump or by sessions of its own.
pub fn wait_for_rows(container: &PgContainer) {
    let sql = "select count(*) from pg_stat_activity \
               where application_name like 'pgstow-%' and state = 'active' \
               and query ~* 'copy .* to stdout'";
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while container
        .psql("postgres", sql)
        .expect("the server answers")
        .trim()
        == "0"
    {
        assert!(
            std::time::Instant::now() < deadline,
            "no dump began to move rows"
        );
    }
}
