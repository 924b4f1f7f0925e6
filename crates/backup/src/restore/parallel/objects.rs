//! Large objects in batches: made with their owners, and filled.

use dbexec::native::Parameter;

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

/// Before objects are filled. Their pages are compressed by the server as they are written, which
/// is half of its work with pglz: LZ4, where the server has it and nobody chose another method.
/// Whatever it is, every server that is built with LZ4 reads it.
pub(super) const PREPARE: &str = "\
SELECT pg_catalog.set_config(name, 'lz4', false) FROM pg_catalog.pg_settings \
  WHERE name = 'default_toast_compression' AND source = 'default' AND 'lz4' = ANY (enumvals)";
/// Before a table's rows come, which are compressed as the server has it. A parameter that an old
/// server does not know is not touched.
pub(super) const LEAVE: &str = "\
SELECT pg_catalog.set_config(name, boot_val, false) FROM pg_catalog.pg_settings \
  WHERE name = 'default_toast_compression' AND source = 'session'";
/// Fills objects and answers how many parts were taken. Parameters of the binary format are taken
/// as they are; literals would be read and unescaped byte by byte.
pub(super) const FILL: &str = "\
SELECT pg_catalog.count(pg_catalog.lo_put(u.o, u.p, u.d)) FROM \
  (SELECT pg_catalog.unnest($1) AS o, pg_catalog.unnest($2) AS p, pg_catalog.unnest($3) AS d) AS u";

/// Oids of types, which every server knows them by (`pg_type.dat`).
const OID: (u32, u32) = (26, 1028);
const INT8: (u32, u32) = (20, 1016);
const BYTEA: (u32, u32) = (17, 1001);

/// Parts as the parameters of [`FILL`]: arrays of oids, places and bytes.
pub(super) fn parameters(parts: &[Part]) -> [Parameter; 3] {
    [
        array(OID, parts, |part, to| {
            to.extend_from_slice(&part.oid.to_be_bytes());
        }),
        array(INT8, parts, |part, to| {
            to.extend_from_slice(&part.at.to_be_bytes());
        }),
        array(BYTEA, parts, |part, to| to.extend_from_slice(&part.bytes)),
    ]
}

/// An array of one dimension in the binary format (`array_recv`): number of dimensions, whether a
/// null is in it, type, length, first index, and of each element its length and its bytes.
fn array(
    (element, kind): (u32, u32),
    parts: &[Part],
    mut put: impl FnMut(&Part, &mut Vec<u8>),
) -> Parameter {
    let bytes: usize = match element {
        element if element == BYTEA.0 => parts.iter().map(|part| part.bytes.len()).sum(),
        _ => parts.len() * 8,
    };
    let mut value = Vec::with_capacity(20 + bytes + parts.len() * 4);
    // A statement has at most so many parts as it takes, and a part is 1 MB at most.
    let length = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    for number in [1, 0, element, length, 1] {
        value.extend_from_slice(&number.to_be_bytes());
    }
    for part in parts {
        let at = value.len();
        value.extend_from_slice(&[0; 4]);
        put(part, &mut value);
        let length = u32::try_from(value.len() - at - 4).unwrap_or(u32::MAX);
        value[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
    Parameter { kind, value }
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
        let [oids, places, bytes] = parameters(&parts);
        assert_eq!((oids.kind, places.kind, bytes.kind), (1028, 1016, 1001));
        let begin = |element: u8| {
            [
                0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, element, 0, 0, 0, 2, 0, 0, 0, 1,
            ]
        };
        let mut wanted = begin(26).to_vec();
        wanted.extend(b"\0\0\0\x04\xee\x6b\x28\0\0\0\0\x04\0\0\0\x01");
        assert_eq!(oids.value, wanted);
        let mut wanted = begin(20).to_vec();
        wanted.extend(b"\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\x08\0\0\0\x02\0\0\0\0");
        assert_eq!(places.value, wanted);
        let mut wanted = begin(17).to_vec();
        wanted.extend(b"\0\0\0\x03\0\x1f\xff\0\0\0\x01a");
        assert_eq!(bytes.value, wanted);
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
