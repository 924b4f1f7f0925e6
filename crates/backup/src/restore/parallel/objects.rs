//! Large objects in batches: made with their owners, and filled.

use std::fmt::Write as _;

/// Objects of one statement that makes them.
const MADE_AT_ONCE: usize = 5_000;
/// Parts of one statement that fills objects.
pub(super) const MOST_PARTS: usize = 1_000;

/// Bytes of a large object.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) oid: u32,
    /// Where they go, bytes from the object's beginning.
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
}

/// A statement that makes objects and answers how many.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Making {
    pub(super) sql: String,
    pub(super) objects: u64,
}

/// Statements that make the objects of an owner; `None`: of the role that restores.
pub(super) fn making(owner: Option<&str>, oids: &[u32]) -> Vec<Making> {
    let role = owner.map(|owner| format!("SET ROLE \"{}\";\n", owner.replace('"', "\"\"")));
    let batches = oids.chunks(MADE_AT_ONCE).map(|batch| {
        let list: Vec<_> = batch.iter().map(u32::to_string).collect();
        // The role that makes an object owns it: one catalogue entry less to change than with
        // ALTER LARGE OBJECT, and it takes the same right.
        let sql = format!(
            "{}SELECT pg_catalog.count(pg_catalog.lo_create(o)) \
             FROM pg_catalog.unnest('{{{}}}'::pg_catalog.oid[]) AS o;\n{}",
            role.as_deref().unwrap_or_default(),
            list.join(","),
            role.as_deref().map_or("", |_| "RESET ROLE;\n"),
        );
        Making {
            sql,
            objects: batch.len() as u64,
        }
    });
    batches.collect()
}

/// A statement that fills parts of objects and answers how many.
pub(super) fn filling(parts: &[Part]) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes: usize = parts.iter().map(|part| part.bytes.len()).sum();
    let mut sql = String::with_capacity(bytes * 2 + parts.len() * 64 + 200);
    sql.push_str("SELECT pg_catalog.count(pg_catalog.lo_put(o, p, d)) FROM (VALUES ");
    for (number, part) in parts.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        // Writing into a String does not fail.
        let _ = write!(
            sql,
            "{comma}('{}'::pg_catalog.oid,'{}'::pg_catalog.int8,'\\x",
            part.oid, part.at
        );
        for byte in &part.bytes {
            sql.push(char::from(HEX[usize::from(byte >> 4)]));
            sql.push(char::from(HEX[usize::from(byte & 15)]));
        }
        sql.push_str("'::pg_catalog.bytea)");
    }
    sql.push_str(") AS v (o, p, d)");
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements() {
        let parts = [
            Part {
                oid: 4_000_000_000,
                at: 0,
                bytes: vec![0, 0x1f, 0xff],
            },
            Part {
                oid: 1,
                at: 1 << 33,
                bytes: b"a".to_vec(),
            },
        ];
        assert_eq!(
            filling(&parts),
            "SELECT pg_catalog.count(pg_catalog.lo_put(o, p, d)) FROM (VALUES \
             ('4000000000'::pg_catalog.oid,'0'::pg_catalog.int8,'\\x001fff'::pg_catalog.bytea),\
             ('1'::pg_catalog.oid,'8589934592'::pg_catalog.int8,'\\x61'::pg_catalog.bytea)) \
             AS v (o, p, d)"
        );
        let made = making(Some("a\"b"), &[1, 2]);
        assert_eq!(made.len(), 1);
        assert!(made[0].sql.starts_with("SET ROLE \"a\"\"b\";\n"));
        assert!(made[0].sql.contains("'{1,2}'") && made[0].sql.ends_with("RESET ROLE;\n"));
        let oids: Vec<u32> = (1..=12_000).collect();
        let made = making(None, &oids);
        assert_eq!(made.iter().map(|one| one.objects).sum::<u64>(), 12_000);
        assert!(made.iter().all(|one| !one.sql.contains("ROLE")));
    }
}
