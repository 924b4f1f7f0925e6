//! Hostile and damaged tar archives, byte by byte.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

use std::io::Cursor;

use archive::{ArchiveError, ArchiveSummary, CheckOptions, check_tar};

const COPY: &str = "COPY s.t FROM stdin;\n";
const ROWS: &[u8] = b"a\nb\n\\.\n\n\n";

/// A `toc.dat` of format 1.14 with rows in `2.dat` and large objects in `blobs.toc`.
fn toc(large_objects: bool) -> Vec<u8> {
    fn int(bytes: &mut Vec<u8>, value: i32) {
        bytes.push(u8::from(value < 0));
        bytes.extend(value.unsigned_abs().to_le_bytes());
    }
    fn texts(bytes: &mut Vec<u8>, texts: &[&str]) {
        for text in texts {
            int(bytes, i32::try_from(text.len()).unwrap());
            bytes.extend(text.as_bytes());
        }
    }
    let mut bytes = b"PGDMP\x01\x0e\x00\x04\x08\x03".to_vec();
    for value in [0, 1, 2, 3, 4, 5, 126, 0] {
        int(&mut bytes, value);
    }
    texts(&mut bytes, &["db", "15.1", "15.1"]);
    let mut entries = vec![(2, "TABLE DATA", COPY)];
    if large_objects {
        entries.push((3, "BLOBS", ""));
    }
    int(&mut bytes, i32::try_from(entries.len()).unwrap());
    for (id, kind, copy) in entries {
        int(&mut bytes, id);
        int(&mut bytes, 1);
        texts(&mut bytes, &["0", "1", "t", kind]);
        int(&mut bytes, 3);
        texts(&mut bytes, &["", "", copy, "s", "", "", "owner", "false"]);
        int(&mut bytes, -1);
        texts(&mut bytes, &[&format!("{id}.dat")]);
    }
    bytes
}

/// A member as pg_dump writes it; `change` may alter the header before its checksum is made.
fn member(name: &str, content: &[u8], change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..263].copy_from_slice(b"ustar\0");
    change(&mut header);
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o} ").as_bytes());
    header.extend(content);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

fn plain(name: &str, content: &[u8]) -> Vec<u8> {
    member(name, content, |_| {})
}

fn check(members: &[Vec<u8>]) -> Result<ArchiveSummary, ArchiveError> {
    let bytes = [members.concat(), vec![0; 1024]].concat();
    check_tar(Cursor::new(bytes), &CheckOptions::default())
}

#[test]
fn lists_of_large_objects_may_come_before_or_after_them() {
    let members = [
        plain("toc.dat", &toc(true)),
        plain("2.dat", ROWS),
        plain("blobs.toc", b"7 blob_7.dat\n"),
        plain("blob_7.dat", b"content"),
        plain("restore.sql", b"-- anything"),
    ];
    for order in [[0, 1, 2, 3, 4], [0, 3, 2, 1, 4], [0, 1, 3, 2, 4]] {
        let summary = check(&order.map(|at| members[at].clone())).unwrap();
        assert_eq!(summary.rows(), 2);
        assert_eq!((summary.large_objects, summary.large_object_bytes), (1, 7));
    }
    // In base 256, as for 8 GiB and more.
    let large = member("2.dat", ROWS, |header| {
        header[124..136].fill(0);
        header[124] = 128;
        header[135] = u8::try_from(ROWS.len()).unwrap();
    });
    let mut changed = members.clone();
    changed[1] = large;
    assert_eq!(check(&changed).unwrap().rows(), 2);
    for left_out in 0..4 {
        let mut fewer = members.to_vec();
        fewer.remove(left_out);
        assert!(check(&fewer).is_err(), "without member {left_out}");
        let mut twice = members.to_vec();
        twice.insert(4, members[left_out].clone());
        assert!(check(&twice).is_err(), "member {left_out} twice");
    }
}

#[test]
fn bar_38_hostile_tar_archives_are_refused() {
    let begin = plain("toc.dat", &toc(false));
    let rows = plain("2.dat", ROWS);
    assert!(check(&[begin.clone(), rows.clone()]).is_ok());
    let linked = member("2.dat", ROWS, |header| header[156] = b'2');
    let prefixed = member("2.dat", ROWS, |header| {
        header[345..348].copy_from_slice(b"../");
    });
    let sized = |field: &'static [u8; 12]| {
        member("2.dat", ROWS, move |header| {
            header[124..136].copy_from_slice(field);
        })
    };
    let mut wrong_sum = rows.clone();
    wrong_sum[0] = b'3';
    let mut padded = rows.clone();
    *padded.last_mut().unwrap() = 1;
    for (what, second) in [
        ("a link", linked),
        ("a prefix", prefixed),
        ("a negative size", sized(b"-0000000001\0")),
        ("a huge size", sized(b"77777777777\0")),
        ("a huge binary size", sized(&[255; 12])),
        ("a size that is no number", sized(b"xxxxxxxxxxx\0")),
        ("a wrong checksum", wrong_sum),
        ("a name that leads out", plain("../2.dat", ROWS)),
        ("another name", plain("9.dat", ROWS)),
        ("a second toc.dat", plain("toc.dat", ROWS)),
        ("bytes in the padding", padded),
        ("rows without their end", plain("2.dat", b"a\n")),
        ("nothing", Vec::new()),
    ] {
        let result = check(&[begin.clone(), second]);
        assert!(result.is_err(), "{what}");
    }
    let trailing = [begin.clone(), rows.clone(), vec![0; 1024], vec![1]].concat();
    assert!(check_tar(Cursor::new(trailing), &CheckOptions::default()).is_err());
    let whole = [begin, rows, vec![0; 1024]].concat();
    for cut in 0..whole.len() - 512 {
        let result = check_tar(Cursor::new(&whole[..cut]), &CheckOptions::default());
        assert!(result.is_err(), "{cut}");
    }
}
