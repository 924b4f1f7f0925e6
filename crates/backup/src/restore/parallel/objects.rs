//! Large objects in batches: made with their owners, and filled.

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

/// Makes the table that parts of objects go to on their way: rows of COPY's binary format are taken
/// faster than literals of a statement. Values of one page and less stay in its rows.
pub(super) const PREPARE: &str = "\
CREATE TEMPORARY TABLE pgstow_parts (o pg_catalog.oid, p pg_catalog.int8, d pg_catalog.bytea) \
  WITH (toast_tuple_target = 8160);
ALTER TABLE pg_temp.pgstow_parts ALTER COLUMN d SET STORAGE EXTERNAL;";
/// Takes parts.
pub(super) const TAKE: &str = "COPY pg_temp.pgstow_parts FROM STDIN (FORMAT binary)";
/// Fills the objects with what was taken and answers how many parts.
pub(super) const FILL: &str = "\
SELECT pg_catalog.count(pg_catalog.lo_put(o, p, d)) FROM pg_temp.pgstow_parts;
TRUNCATE pg_temp.pgstow_parts";

/// Parts in COPY's binary format: signature, flags, and of each row the number of fields and the
/// fields with their lengths.
pub(super) fn binary(parts: &[Part]) -> Vec<u8> {
    const ROW: usize = 2 + 4 + 4 + 4 + 8 + 4;
    let bytes: usize = parts.iter().map(|part| part.bytes.len() + ROW).sum();
    let mut rows = Vec::with_capacity(bytes + 24);
    rows.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
    rows.extend_from_slice(&[0; 8]);
    for part in parts {
        rows.extend_from_slice(&3_u16.to_be_bytes());
        rows.extend_from_slice(&4_u32.to_be_bytes());
        rows.extend_from_slice(&part.oid.to_be_bytes());
        rows.extend_from_slice(&8_u32.to_be_bytes());
        rows.extend_from_slice(&part.at.to_be_bytes());
        // A part is a piece of a few hundred kB.
        let length = u32::try_from(part.bytes.len()).unwrap_or(u32::MAX);
        rows.extend_from_slice(&length.to_be_bytes());
        rows.extend_from_slice(&part.bytes);
    }
    rows.extend_from_slice(&(-1_i16).to_be_bytes());
    rows
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
        let mut wanted = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        wanted.extend(
            b"\0\x03\0\0\0\x04\xee\x6b\x28\0\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\x03\0\x1f\xff",
        );
        wanted.extend(b"\0\x03\0\0\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\x02\0\0\0\0\0\0\0\x01a\xff\xff");
        assert_eq!(binary(&parts), wanted);
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
