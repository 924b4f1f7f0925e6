//! The most memory that the program itself takes at once, told by the kernel.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails the test that calls it"
)]

mod support;

use std::fs;
use std::time::Duration;

use support::cli;
use testkit::sets::{Set, Sizes};
use testkit::{Cli, PgContainer};

/// What a run may take, MiB.
const LIMIT: u64 = 64;
/// Of which the code of a release may take so much. That of the program that is tested here, which is
/// not optimised, takes twice as much, and does not count.
const CODE: u64 = 16;
/// How often the kernel is asked; it remembers the peak.
const ASK: Duration = Duration::from_millis(10);

/// Runs to a good end; the peak of its resident memory in KiB without the pages of its files.
fn peak(cli: &Cli, args: &[&str]) -> u64 {
    let mut child = cli.spawn(args);
    let status = format!("/proc/{}/status", child.id());
    let (mut peak, mut code) = (0, 0);
    let ended = loop {
        // Gone as soon as the process has ended.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let told = |name: &str| -> Option<u64> {
            let told = text.lines().find_map(|line| line.strip_prefix(name))?;
            told.trim().strip_suffix(" kB")?.parse().ok()
        };
        peak = told("VmHWM:").unwrap_or(peak);
        code = told("RssFile:").unwrap_or(code);
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(ASK);
    };
    assert!(matches!(ended.code(), Some(0 | 3)), "{args:?}: {ended}");
    assert!(peak > code, "{args:?}: no peak was seen");
    peak - code
}

#[test]
fn eight_movers_stay_below_64_mib_whatever_the_rows_are() {
    let container = PgContainer::start(17).unwrap();
    let sizes = Sizes {
        megabytes: 90,
        tables: 0,
        objects: 8_000,
        empty_tables: 0,
    };
    let sets = [Set::Big, Set::Random, Set::Toast, Set::Blobs];
    for set in sets {
        let name = set.word();
        container
            .psql("postgres", &format!("create database {name}"))
            .unwrap();
        container.psql(name, &set.sql(&sizes).unwrap()).unwrap();
    }
    let mut over = Vec::new();
    for set in sets {
        let cli = cli();
        let (name, target) = (set.word(), container.target());
        let backup = [
            "backup",
            &target,
            "--database",
            name,
            "--engine",
            "parallel",
            "--jobs",
            "8",
        ];
        let restore = [
            "restore", "latest", "--to", &target, "--as", "copy", "--engine", "parallel", "--jobs",
            "8",
        ];
        for args in [&backup[..], &restore] {
            let peak = peak(&cli, args);
            println!("{name}: {} {peak} KiB", args[0]);
            if peak >= (LIMIT - CODE) << 10 {
                over.push(format!("{} of {name}: {peak} KiB", args[0]));
            }
        }
        container.psql("postgres", "drop database copy").unwrap();
    }
    assert!(over.is_empty(), "{over:?}");
}

/// Few and many tables: the difference is what tables take. A restore took 2,030 bytes for each while
/// it held the table of contents unpacked and read every archive twice.
#[test]
fn what_a_table_takes_is_bounded() {
    // Their table of contents is larger than what is held of one (4 MiB).
    const MANY: u64 = 6_000;
    let container = PgContainer::builder(17)
        .args(&["-c", "max_locks_per_transaction=512"])
        .start()
        .unwrap();
    for name in ["few", "many"] {
        container
            .psql("postgres", &format!("create database {name}"))
            .unwrap();
    }
    let tables = |from: u64, to: u64| {
        format!(
            "do $$ begin for g in {from}..{to} loop execute
               format('create table e%s (id int primary key, words text)', g); end loop; end $$"
        )
    };
    container.psql("few", &tables(1, 10)).unwrap();
    for from in (1..=MANY).step_by(1_000) {
        container.psql("many", &tables(from, from + 999)).unwrap();
    }
    let target = container.target();
    let peaks = ["few", "many"].map(|name| {
        let cli = cli();
        let restore = |engine| {
            let copy = format!("copy_of_{name}_by_{engine}");
            let to = ["restore", "latest", "--to", &target, "--as", &copy];
            peak(&cli, &[&to[..], &["--engine", engine]].concat())
        };
        [
            peak(&cli, &["backup", &target, "--database", name]),
            // As 100,000 are restored.
            restore("stock"),
            restore("parallel"),
        ]
    });
    let [few, many] = peaks;
    // So few tables are read along while they are stored, which 100,000 are not.
    for (number, what, most) in [
        (0, "backup", 2_500),
        (1, "restore by pg_restore", 1_000),
        (2, "restore over sessions", 2_500),
    ] {
        let (few, many) = (few[number], many[number]);
        let bytes = many.saturating_sub(few) * 1024 / MANY;
        println!("{what}: {few} KiB, with {MANY} tables {many} KiB: {bytes} bytes for each");
        assert!(bytes < most, "{what}: {bytes} bytes for each table");
    }
}
