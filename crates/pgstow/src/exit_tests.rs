//! The table is complete, and `docs/errors.md` says the same.

use std::collections::BTreeMap;

use super::*;

fn every_code() -> Vec<&'static str> {
    [
        dbexec::codes::ALL,
        storage::codes::ALL,
        backup::codes::ALL,
        codes::ALL,
    ]
    .concat()
}

#[test]
fn every_code_has_a_consequence() {
    for code in every_code() {
        let found = consequence(code).unwrap_or_else(|| panic!("{code} is not in the table"));
        assert!(
            found.exit != DONE && found.exit != WARNINGS,
            "{code} must not end as done"
        );
    }
    assert_eq!(consequence("NO_SUCH_CODE"), None);
}

#[test]
fn codes_are_unique() {
    let mut codes = every_code();
    codes.sort_unstable();
    let before = codes.len();
    codes.dedup();
    assert_eq!(before, codes.len());
}

#[test]
fn exit_codes_are_those_of_the_command_line() {
    let expected = [
        (dbexec::codes::DATABASE_NOT_FOUND, 10),
        (dbexec::codes::CONTAINER_AMBIGUOUS, 10),
        (dbexec::codes::CREDENTIALS_REFUSED, 11),
        (dbexec::codes::PROGRAM_MISSING, 12),
        (dbexec::codes::PROGRAM_TOO_OLD, 12),
        (backup::codes::RIGHTS_MISSING, 13),
        (storage::codes::STORE_FULL, 20),
        (storage::codes::STORE_UNREACHABLE, 20),
        (backup::codes::TARGET_LOCKED, 21),
        (backup::codes::VERIFY_FAILED, 30),
        (backup::codes::RESTORE_FAILED, 40),
        (backup::codes::RESTORE_NEEDS_ATTENTION, 41),
        (backup::codes::RESTORE_REFUSED, 42),
        (backup::codes::BACKUP_NOT_FOUND, 4),
        (backup::codes::BACKUP_FAILED, 1),
        (dbexec::codes::INTERRUPTED, 130),
        (codes::USAGE, 2),
    ];
    for (code, exit) in expected {
        assert_eq!(consequence(code).map(|c| c.exit), Some(exit), "{code}");
    }
}

/// Rows of the page's tables: code to exit code.
fn documented() -> BTreeMap<String, String> {
    let page = include_str!("../../../docs/errors.md");
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let code = cells[0].trim_matches('`').to_owned();
        assert_eq!(cells.len(), 4, "four cells: {line}");
        assert!(cells[2].len() > 10 && cells[3].len() > 10, "{line}");
        assert!(
            rows.insert(code.clone(), cells[1].to_owned()).is_none(),
            "{code} stands twice"
        );
    }
    rows
}

#[test]
fn the_page_and_the_constants_agree_both_ways() {
    let documented = documented();
    for code in every_code() {
        let exit = consequence(code).map(|c| c.exit.to_string());
        let told = documented.get(code).cloned();
        let told = told.map(|cell| cell.split(' ').next().unwrap_or("").to_owned());
        assert_eq!(told, exit, "{code} in docs/errors.md");
    }
    for code in documented.keys() {
        assert!(
            every_code().contains(&code.as_str()),
            "docs/errors.md tells of {code}, which does not exist"
        );
    }
}
