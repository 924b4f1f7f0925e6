//! What a session that moves rows sets: whatever pg_dump sets, so that rows are written the same.

/// How the movers read: the statements before the transaction begins.
///
/// `None` for a name of an encoding that is no such name.
pub(crate) fn statements(version_num: u32, encoding: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if encoding.is_empty() || !encoding.bytes().all(plain) {
        return None;
    }
    let mut text = format!(
        "set client_encoding to '{encoding}';
set datestyle to 'ISO';
set intervalstyle to 'postgres';
set extra_float_digits to 3;
set synchronize_seqscans to off;
set row_security to off;
set timezone to 'UTC';
set statement_timeout to 0;
set lock_timeout to 0;
set idle_in_transaction_session_timeout to 0;
set jit to off;
set max_parallel_workers_per_gather to 0;
set enable_seqscan to off;
set enable_tidscan to on;
"
    );
    if version_num >= 140_000 {
        text.push_str("set idle_session_timeout to 0;\n");
    }
    if version_num >= 170_000 {
        text.push_str("set transaction_timeout to 0;\n");
    }
    // Last: names of settings and functions are found all the same. The second one is there in
    // minor versions from August 2024 on; pg_dump asks in the same way.
    text.push_str(
        "select pg_catalog.set_config('search_path', '', false);
select pg_catalog.set_config(name, 'view, foreign-table', false) from pg_catalog.pg_settings
where name = 'restrict_nonsystem_relation_kind';
",
    );
    Some(text)
}

/// Begins the transaction in the leader's snapshot. `None` for what is no name of a snapshot.
pub(crate) fn begin(snapshot: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    (!snapshot.is_empty() && snapshot.bytes().all(plain)).then(|| {
        format!(
            "begin isolation level repeatable read read only;
set transaction snapshot '{snapshot}';
savepoint pgstow_unit;"
        )
    })
}

/// Gives back the locks of the units before.
pub(crate) const NEXT: &str = "rollback to savepoint pgstow_unit;\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_follow_the_version() {
        let old = statements(130_004, "UTF8").unwrap();
        assert!(
            !old.contains("idle_session_timeout")
                && !old.contains("transaction_timeout to 0;\nset t")
        );
        let new = statements(180_000, "LATIN1").unwrap();
        assert!(new.contains("set transaction_timeout to 0;"));
        assert!(new.starts_with("set client_encoding to 'LATIN1';"));
        for bad in ["", "UTF8'; drop", "a b"] {
            assert_eq!(statements(150_000, bad), None, "{bad}");
        }
        assert!(
            begin("00000003-0000001B-1")
                .unwrap()
                .contains("'00000003-0000001B-1'")
        );
        for bad in ["", "x", "1'; --"] {
            assert_eq!(begin(bad), None, "{bad}");
        }
    }
}
