//! Hostile archives and scripts: an error, no panic, no hang, bounded memory.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod made;

use std::io::{self, Cursor, Read};

use archive::{
    ArchiveError, CheckOptions, Fingerprint, Fingerprints, ItemHash, check_custom, check_directory,
    check_plain, codes, read_toc,
};
use made::Writer;
use proptest::prelude::*;

const COPY: Option<&str> = Some("COPY s.t FROM stdin;\n");

/// One table with its rows in one block.
fn table(minor: u8, compression: u8, pieces: &[&[u8]]) -> Writer {
    let mut writer = Writer::new(minor, 1, compression);
    writer
        .int(1)
        .entry(7, "TABLE DATA", "t", COPY)
        .position(1, 0);
    writer.block(7, pieces);
    writer
}

#[test]
fn the_writer_is_understood_in_every_version() {
    for minor in 12..=16 {
        let summary = table(minor, 0, &[b"a\nb\n", b"\\.\n\n\n"]).check().unwrap();
        assert_eq!(summary.tables[0].rows, Some(2), "1.{minor}");
    }
    for minor in [0, 11, 17, 255] {
        let error = table(minor, 0, &[b"\\.\n\n\n"]).check().unwrap_err();
        assert_eq!(error.code(), codes::ARCHIVE_UNSUPPORTED, "1.{minor}");
    }
}

#[test]
fn bar_38_contradictions_are_damage() {
    let rows: &[&[u8]] = &[b"a\n\\.\n\n\n"];
    let good = table(14, 0, rows);
    let mut unknown = good.clone();
    unknown.block(8, rows);
    let mut twice = good.clone();
    twice.block(7, rows);
    let mut trailing = good;
    trailing.bytes.push(9);
    let mut wrong_type = Writer::new(14, 1, 0);
    wrong_type
        .int(1)
        .entry(7, "BLOBS", "BLOBS", None)
        .position(1, 0);
    wrong_type.block(7, rows);
    let mut missing = Writer::new(14, 1, 0);
    missing
        .int(1)
        .entry(7, "TABLE DATA", "t", COPY)
        .position(1, 0);
    let mut elsewhere = Writer::new(14, 1, 0);
    elsewhere
        .int(1)
        .entry(7, "TABLE DATA", "t", COPY)
        .position(2, 12);
    elsewhere.block(7, rows);
    let mut negative = Writer::new(14, 1, 0);
    negative.int(-5);
    let mut duplicate = Writer::new(14, 1, 0);
    duplicate.int(2);
    for _ in 0..2 {
        duplicate.entry(7, "TABLE DATA", "t", COPY).position(1, 0);
    }
    let mut long_name = Writer::new(14, 1, 0);
    long_name.int(1).int(7).int(0).int(i64::from(i32::MAX));
    let mut negative_piece = Writer::new(14, 1, 0);
    negative_piece
        .int(1)
        .entry(7, "TABLE DATA", "t", COPY)
        .position(1, 0);
    negative_piece.bytes.push(1);
    negative_piece.int(7).int(-9);
    for (name, writer) in [
        ("unknown entry", unknown),
        ("data twice", twice),
        ("trailing bytes", trailing),
        ("wrong type", wrong_type),
        ("missing data", missing),
        ("wrong offset", elsewhere),
        ("negative count", negative),
        ("duplicate number", duplicate),
        ("long name", long_name),
        ("negative piece", negative_piece),
        ("no terminator", table(14, 0, &[b"a\n"])),
        ("after the terminator", table(14, 0, &[b"\\.\n\n\nmore\n"])),
        ("no zlib", table(14, 1, rows)),
        ("no lz4", table(16, 2, rows)),
        ("no zstd", table(16, 3, rows)),
    ] {
        assert!(writer.check().is_err(), "{name}");
    }
}

#[test]
fn a_zero_byte_is_damage_whether_it_is_kept_or_not() {
    let mut writer = Writer::new(14, 1, 0);
    writer.int(1).int(7).int(0).text("1259").text("1");
    writer
        .text("t")
        .text("TABLE")
        .int(2)
        .text("CREATE\0 TABLE")
        .text("");
    writer
        .null()
        .text("s")
        .null()
        .null()
        .text("owner")
        .text("false")
        .null();
    writer.position(3, 0);
    let catalogue = CheckOptions {
        catalogue: archive::CatalogueDetail::Objects,
        ..CheckOptions::default()
    };
    let bytes = &writer.bytes;
    assert!(check_custom(Cursor::new(bytes), &CheckOptions::default()).is_err());
    assert!(check_custom(Cursor::new(bytes), &catalogue).is_err());
    assert!(read_toc(Cursor::new(bytes)).is_err());
    let good = String::from_utf8_lossy(bytes).replace("CREATE\0", "CREATE ");
    let summary = check_custom(Cursor::new(good.as_bytes()), &catalogue).unwrap();
    assert_eq!(summary.catalogue.unwrap().objects.len(), 1);
}

#[test]
fn a_zstd_frame_that_ends_inside_a_block_is_damage() {
    let first = zstd::encode_all(&b"a\n"[..], 1).unwrap();
    let second = zstd::encode_all(&b"b\n\\.\n\n\n"[..], 1).unwrap();
    let joined = [first.clone(), second.clone()].concat();
    // pg_restore would silently drop the second frame.
    assert!(table(16, 3, &[&joined]).check().is_err());
    let apart = table(16, 3, &[&first, &second]).check().unwrap();
    assert_eq!(apart.tables[0].rows, Some(2));
}

#[test]
fn bar_38_bombs_stream_through() {
    // 256 MiB of rows from a few kilobytes.
    let mut rows = vec![b'x'; 1 << 20];
    rows.push(b'\n');
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    for _ in 0..256 {
        io::Write::write_all(&mut encoder, &rows).unwrap();
    }
    io::Write::write_all(&mut encoder, b"\\.\n\n\n").unwrap();
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 200_000, "{}", bomb.len());
    let summary = table(16, 3, &[&bomb]).check().unwrap();
    assert_eq!(summary.tables[0].rows, Some(256));
    assert!(peak_memory() < 200 << 20, "{} bytes", peak_memory());
}

/// Most memory that this process ever held, bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes << 10
}

#[test]
fn bar_38_huge_claims_take_no_memory() {
    for minor in [14, 16] {
        // A name of 2 GiB, of which nothing comes; a COPY statement just under the limit.
        let mut writer = Writer::new(minor, 1, 0);
        writer
            .int(i64::from(i32::MAX))
            .int(7)
            .int(0)
            .text("1")
            .text("1");
        for claim in [i64::from(i32::MAX), 3 << 20] {
            let mut claimed = writer.clone();
            claimed.int(claim);
            assert!(claimed.check().is_err());
            assert!(read_toc(Cursor::new(&claimed.bytes)).is_err());
        }
    }
}

#[test]
fn bar_38_file_names_cannot_lead_out() {
    for name in [
        "../../etc/passwd",
        "/etc/passwd",
        "a/b",
        ".hidden",
        "toc.dat",
        "a\\b",
        "x y",
    ] {
        let mut writer = Writer::new(14, 3, 0);
        writer.int(1).entry(7, "TABLE DATA", "t", COPY).text(name);
        let result = check_directory(
            Cursor::new(&writer.bytes),
            |opened| panic!("{opened} was opened"),
            &CheckOptions::default(),
        );
        assert!(
            matches!(result, Err(ArchiveError::UnsafeFileName { .. })),
            "{name}"
        );
        let mut writer = Writer::new(14, 3, 0);
        writer
            .int(1)
            .entry(7, "BLOBS", "BLOBS", None)
            .text("blobs.toc");
        let list = format!("123 {name}\n");
        let result = check_directory(
            Cursor::new(&writer.bytes),
            |opened| {
                assert_eq!(opened, "blobs.toc");
                Ok(Box::new(Cursor::new(list.clone().into_bytes())))
            },
            &CheckOptions::default(),
        );
        assert!(result.is_err(), "{name}");
    }
}

#[test]
fn a_reader_that_fails_is_told_apart_from_damage() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the program failed"))
        }
    }
    let bytes = table(14, 0, &[b"a\n\\.\n\n\n"]).bytes;
    let reader = Cursor::new(&bytes[..bytes.len() - 3]).chain(Failing);
    let error = check_custom(reader, &CheckOptions::default()).unwrap_err();
    assert_eq!(error.code(), codes::ARCHIVE_UNREADABLE);
}

const DUMP: &str = "--\n-- PostgreSQL database dump\n--\n\n\\restrict Abc1\n\n\
    -- Dumped from database version 15.1\n\nSET client_encoding = 'UTF8';\n\
    SET standard_conforming_strings = on;\n\
    CREATE FUNCTION s.f() RETURNS text LANGUAGE sql AS $_$ SELECT '\\! x' $_$;\n\
    COMMENT ON TABLE s.t IS E'a\\\\''; b';\n/* \\! in a comment /* nested */ */\n\
    CREATE FUNCTION s.g() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;\n\
    COPY s.t (a, \"b;\") FROM stdin;\n1\t\\\\! x\n\\N\t\\.x\n\\.\n\n\n\
    --\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict Abc1\n\n";

#[test]
fn a_plain_dump_is_understood() {
    let summary = check_plain(Cursor::new(DUMP)).unwrap();
    assert_eq!(summary.tables[0].rows, Some(2));
    assert_eq!(
        (
            summary.tables[0].schema.as_str(),
            summary.tables[0].name.as_str()
        ),
        ("s", "t")
    );
    assert_eq!(summary.server_major(), Some(15));
    assert_eq!(summary.restrict_lines.len(), 2);
    for range in &summary.restrict_lines {
        let line = &DUMP[range.start as usize..range.end as usize];
        assert!(
            line.starts_with('\\') && line.ends_with("restrict Abc1\n"),
            "{line:?}"
        );
    }
}

#[test]
fn bar_37_hostile_scripts_are_refused() {
    let place = "COPY s.t (a";
    for attack in [
        "\\! id\n",
        "SELECT 1 \\! id\n;\n",
        "\\unrestrict Wrong\n",
        "\\unrestrict Abc1\n\\! id\n",
        "\\restrict Other\n",
        "\\connect postgres\n",
        "\\c postgres\n",
        "\\copy s.t from program 'id'\n",
        "\\g |id\n",
        "\\set x `id`\n",
        "COPY s.t FROM PROGRAM 'id';\n",
        "COPY s.t TO '/tmp/x';\n",
        "COPY s.t FROM stdin; SELECT 1;\n",
        "SELECT E'a'\n'\\' \\! id\n';\n",
        "SELECT 1e'\\' \\! id --';\n",
        "-- x\r\\! id\n",
        "SET standard_conforming_strings = off;\n",
        "SELECT set_config('standard_conforming_strings', 'off', false);\n",
        "SET client_encoding = 'SJIS';\n",
        "SELECT 1 AS \0x;\n",
        // A function named begin makes psql wait for its end; what follows is no COPY then.
        "CREATE FUNCTION begin() RETURNS int AS 'x';\nCOPY s.t FROM stdin;\n\\! id\n\\.\nend;\n",
        "SELECT (\nCOPY s.t FROM stdin;\n\\! id\n\\.\n);\n",
    ] {
        let script = DUMP.replacen(place, &format!("{attack}{place}"), 1);
        let result = check_plain(Cursor::new(script));
        assert!(
            matches!(result, Err(ArchiveError::UnsafeScript { .. })),
            "{attack:?}: {result:?}"
        );
    }
}

#[test]
fn bar_13_cut_scripts_are_incomplete() {
    for cut in 0..DUMP.len() - 1 {
        assert!(
            check_plain(Cursor::new(&DUMP[..cut])).is_err() || DUMP[cut..].trim().is_empty(),
            "{cut}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn bar_38_random_bytes_are_no_archive(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = check_custom(Cursor::new(&bytes), &CheckOptions::default());
        let _ = check_plain(Cursor::new(&bytes));
        let headed = [Writer::new(16, 1, 3).bytes, bytes].concat();
        prop_assert!(check_custom(Cursor::new(&headed), &CheckOptions::default()).is_err() || headed.len() < 80);
    }

    #[test]
    fn bar_38_mutated_archives_do_not_panic(
        minor in 12_u8..=16,
        compression in 0_u8..=3,
        at in any::<prop::sample::Index>(),
        with in prop::collection::vec(any::<u8>(), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let zstd = zstd::encode_all(&b"a\nb\n\\.\n\n\n"[..], 1).unwrap();
        let data: &[u8] = if compression == 3 { &zstd } else { b"a\nb\n\\.\n\n\n" };
        let compression = if minor < 15 { 0 } else { compression };
        let mut bytes = table(minor, compression, &[data]).bytes;
        let start = at.index(bytes.len());
        for (offset, byte) in with.into_iter().enumerate() {
            if let Some(slot) = bytes.get_mut(start + offset) {
                *slot = byte;
            }
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        let _ = check_custom(Cursor::new(&bytes), &CheckOptions::default());
        let _ = read_toc(Cursor::new(&bytes));
        let _ = check_directory(Cursor::new(&bytes), |_| Ok(Box::new(io::empty())), &CheckOptions::default());
    }

    #[test]
    fn names_and_numbers_round_trip(
        name in "[^\0]{0,80}",
        id in 1_i64..=i64::from(i32::MAX),
        rows in 0_u64..50,
    ) {
        let mut writer = Writer::new(16, 1, 0);
        writer.int(1).entry(id, "TABLE DATA", &name, COPY).position(1, 0);
        let mut data = b"x\ty\n".repeat(rows as usize);
        data.extend(b"\\.\n\n\n");
        writer.block(id, &[&data]);
        let summary = writer.check().unwrap();
        prop_assert_eq!(&summary.tables[0].name, &name);
        prop_assert_eq!(i64::from(summary.tables[0].dump_id), id);
        prop_assert_eq!(summary.tables[0].rows, Some(rows));
        let toc = read_toc(Cursor::new(&writer.bytes)).unwrap();
        prop_assert_eq!(toc.entries.get(0).map(|entry| entry.name), Some(name.as_str()));
    }

    /// The fingerprint is that of the rows, whatever their order, their pieces and their
    /// compression.
    #[test]
    fn fingerprints_are_of_rows_alone(
        rows in prop::collection::vec("[a-z\\\\\t]{0,200}", 0..40),
        piece in 1_usize..300,
        compression in prop::sample::select(vec![0_u8, 1, 3]),
        hash in prop::sample::select(vec![ItemHash::Sha256, ItemHash::Xxh3]),
    ) {
        let rows: Vec<_> = rows.into_iter().filter(|row| row != "\\.").collect();
        let mut expected = Fingerprint::default();
        rows.iter().for_each(|row| expected.add(hash, row.as_bytes()));
        let mut text: String = rows.iter().rev().flat_map(|row| [row, "\n"]).collect();
        text.push_str("\\.\n\n\n");
        let data = match compression {
            1 => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
                encoder.finish().unwrap()
            }
            3 => zstd::encode_all(text.as_bytes(), 1).unwrap(),
            _ => text.into_bytes(),
        };
        let pieces: Vec<_> = data.chunks(piece).collect();
        let writer = table(16, compression, &pieces);
        let all = CheckOptions { fingerprints: Fingerprints::All, hash, catalogue: archive::CatalogueDetail::None };
        let summary = check_custom(Cursor::new(&writer.bytes), &all).unwrap();
        prop_assert_eq!(summary.tables[0].fingerprint, Some(expected));
        prop_assert_eq!(summary.tables[0].oid, 1);
        for wanted in [true, false] {
            let only = |oid: u32| (oid == 1) == wanted;
            let some = CheckOptions { fingerprints: Fingerprints::Tables(&only), hash, catalogue: archive::CatalogueDetail::None };
            let summary = check_custom(Cursor::new(&writer.bytes), &some).unwrap();
            prop_assert_eq!(summary.tables[0].fingerprint, wanted.then_some(expected));
        }
    }

    #[test]
    fn bar_38_mutated_scripts_do_not_panic(at in any::<prop::sample::Index>(), piece in "[\\\\$'\"/*;a-eE\n -]{1,6}") {
        let at = at.index(DUMP.len());
        let script = format!("{}{piece}{}", &DUMP[..at], &DUMP[at..]);
        let _ = check_plain(Cursor::new(script));
    }
}
