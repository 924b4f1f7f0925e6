//! What is written is what the reader reads: any rows, cut anywhere, in every format.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod made;
mod recode;

use std::io::Cursor;

use archive::{
    ArchiveError, ArchiveKind, ArchiveVersion, Compression, DumpData, DumpDataKind, UnitEncoder,
    WriteFormat, check_custom, codes, copy_toc, read_toc, toc_without_data,
};
use made::Writer;
use proptest::prelude::*;
use recode::{ALL, ARCHIVE, COMPRESSIONS, Cuts, Sizes, collect, recode};

const END: &[u8] = b"\\.\n\n\n";

fn formats(minor: u8) -> impl Iterator<Item = WriteFormat> {
    [ArchiveKind::Custom, ArchiveKind::DirectoryOrTar]
        .into_iter()
        .flat_map(move |kind| {
            COMPRESSIONS.map(|(compression, level)| WriteFormat {
                kind,
                compression,
                level,
            })
        })
        .filter(move |format| {
            let version = ArchiveVersion {
                major: 1,
                minor,
                revision: 0,
            };
            format.check(version).is_ok()
        })
}

/// An entry with a definition.
fn described<'a>(
    writer: &'a mut Writer,
    id: i64,
    kind: &str,
    name: &str,
    definition: &str,
    dependencies: &[i64],
) -> &'a mut Writer {
    writer.whole_entry(id, 1, (kind, name), definition, None, dependencies)
}

/// The rows of a table.
fn of_table<'a>(
    writer: &'a mut Writer,
    id: i64,
    oid: u32,
    name: &str,
    copy: &str,
) -> &'a mut Writer {
    writer.whole_entry(id, oid, ("TABLE DATA", name), "", Some(copy), &[])
}

/// A stock archive of these tables and large objects; the last table inherits, so that its rows are
/// hashed by columns.
fn stock(minor: u8, tables: &[Vec<u8>], objects: &[Vec<u8>]) -> Vec<u8> {
    let oids = 4_000_000_000_u32..;
    let mut writer = Writer::new(minor, 1, 0);
    let groups = minor >= 16;
    let count = if groups { 1 } else { objects.len() };
    writer.int((2 + tables.len() + count + 1) as i64);
    described(
        &mut writer,
        1,
        "ENCODING",
        "ENCODING",
        "SET client_encoding = 'UTF8';\n",
        &[],
    )
    .position(3, 0);
    described(
        &mut writer,
        2,
        "TABLE",
        "t",
        "CREATE TABLE s.t (\n)\nINHERITS (s.p);\n",
        &[],
    )
    .position(3, 0);
    for (at, _) in tables.iter().enumerate() {
        let columns = if at + 1 == tables.len() { "(b, a)" } else { "" };
        let copy = format!("COPY s.t{at} {columns} FROM stdin;\n");
        let oid = if at + 1 == tables.len() { 1 } else { 100 + at };
        of_table(
            &mut writer,
            10 + at as i64,
            oid as u32,
            &format!("t{at}"),
            &copy,
        )
        .position(1, 0);
    }
    if groups {
        let mut lines = String::new();
        for (oid, _) in oids.clone().zip(objects) {
            lines.push_str(&format!("{oid}\n"));
        }
        described(
            &mut writer,
            5000,
            "BLOB METADATA",
            "4000000000..",
            &lines,
            &[],
        )
        .position(3, 0);
    } else {
        for (at, (oid, _)) in oids.clone().zip(objects).enumerate() {
            described(
                &mut writer,
                5000 + at as i64,
                "BLOB",
                &oid.to_string(),
                "SELECT 1;\n",
                &[],
            )
            .position(3, 0);
        }
    }
    if groups {
        described(&mut writer, 9000, "BLOBS", "BLOBS", "", &[5000]);
    } else {
        writer.entry(9000, "BLOBS", "BLOBS", None);
    }
    writer.position(1, 0);
    for (at, rows) in tables.iter().enumerate() {
        writer.block(
            10 + at as i64,
            &[&rows[..], END].concat().chunks(700).collect::<Vec<_>>(),
        );
    }
    writer.bytes.push(3);
    writer.int(9000);
    for (oid, content) in oids.zip(objects) {
        writer.int(i64::from(oid.cast_signed()));
        if !content.is_empty() {
            writer.int(content.len() as i64);
            writer.bytes.extend(content);
        }
        writer.int(0);
    }
    writer.int(0);
    writer.check().unwrap();
    writer.bytes
}

fn rows() -> impl Strategy<Value = Vec<u8>> {
    let row = prop::collection::vec(
        prop_oneof![Just(b'a'), Just(b'\t'), Just(b'.'), any::<u8>()],
        0..40,
    );
    prop::collection::vec(row, 0..60).prop_map(|rows| {
        let mut bytes = Vec::new();
        for mut row in rows {
            row.retain(|byte| !matches!(byte, b'\n' | b'\\'));
            bytes.extend(row);
            bytes.push(b'\n');
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bar_31_what_is_written_is_what_is_read(
        minor in 14_u8..=16,
        tables in prop::collection::vec(rows(), 1..4),
        objects in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..4),
        seed in any::<u64>(),
        unit in 1_usize..2000,
        piece in 1_usize..500,
    ) {
        let stock = stock(minor, &tables, &objects);
        let summary = check_custom(Cursor::new(&stock), &ALL).unwrap();
        for format in formats(minor) {
            let cuts = Cuts { sizes: Sizes::new(seed), unit, piece };
            let recoded = recode(&stock, format, &cuts);
            recoded.assert_equal(&summary);
            if let Some(archive) = recoded.files.get(ARCHIVE) {
                let collected = collect(archive).unwrap();
                for (at, rows) in tables.iter().enumerate() {
                    let (entry, read, count) = &collected.rows[&(10 + at as i32)];
                    prop_assert_eq!(&entry.name, &format!("t{at}"));
                    prop_assert_eq!(read, rows);
                    prop_assert_eq!(Some(*count), summary.tables[at].rows);
                }
                let read: Vec<_> = collected.large_objects.into_iter().map(|o| o.1).collect();
                prop_assert_eq!(&read, &objects);
            }
        }
    }
}

/// Rows that compress to about a half, over many pieces of an archive.
fn many_rows(sizes: &mut Sizes, bytes: usize) -> Vec<u8> {
    let mut rows = Vec::with_capacity(bytes + 200);
    while rows.len() < bytes {
        for _ in 0..sizes.next(4) {
            rows.extend(format!("{:x}\t", sizes.next(1 << 30)).as_bytes());
        }
        rows.extend(b"a word that comes again\n");
    }
    rows
}

#[test]
fn bar_31_large_units_are_read_back() {
    let mut sizes = Sizes::new(1);
    let tables = [
        many_rows(&mut sizes, 3_000_000),
        many_rows(&mut sizes, 200_000),
    ];
    let objects = [many_rows(&mut sizes, 700_000), b"x".to_vec(), Vec::new()];
    for minor in [14, 16] {
        let stock = stock(minor, &tables, &objects);
        let summary = check_custom(Cursor::new(&stock), &ALL).unwrap();
        for format in formats(minor) {
            for (unit, piece) in [(1 << 21, 1 << 20), (300_000, 70_000)] {
                let sizes = sizes.clone();
                let recoded = recode(&stock, format, &Cuts { sizes, unit, piece });
                recoded.assert_equal(&summary);
                let stored: usize = recoded.files.values().map(Vec::len).sum();
                let smaller = stored * 10 < stock.len() * 9;
                assert_eq!(
                    smaller,
                    format.compression != Compression::None,
                    "{format:?}"
                );
            }
        }
    }
}

fn table_entry() -> DumpData {
    let stock = stock(16, &[b"a\n".to_vec()], &[]);
    let toc = copy_toc(Cursor::new(&stock), plain(), &ALL, &mut |_| Ok(())).unwrap();
    toc.data[0].clone()
}

fn plain() -> WriteFormat {
    WriteFormat {
        kind: ArchiveKind::Custom,
        compression: Compression::None,
        level: 0,
    }
}

#[test]
fn rows_that_are_no_rows_are_refused() {
    let entry = table_entry();
    for (rows, told) in [
        (&b"a\nb"[..], "inside a row"),
        (b"a\n\\.\n", "terminator"),
        (b"\\.\nb\n", "terminator"),
    ] {
        for piece in [1, 100] {
            let mut encoder = UnitEncoder::new(plain(), &entry, None).unwrap();
            let mut pieces = rows.chunks(piece);
            let result = pieces
                .try_for_each(|piece| encoder.push(piece, &mut Vec::new()))
                .and_then(|()| encoder.finish(&mut Vec::new()).map(drop));
            let error = result.unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
            assert_eq!(error.code(), codes::ARCHIVE_DAMAGED);
        }
    }
    let mut other = entry;
    other.kind = DumpDataKind::Other {
        kind: "TABLE DATA".into(),
    };
    assert!(UnitEncoder::new(plain(), &other, Some(ALL.hash)).is_err());
}

#[test]
fn what_a_version_does_not_know_is_refused() {
    for (minor, count) in [(14, 8), (15, 16), (16, 16)] {
        assert_eq!(formats(minor).count(), count, "1.{minor}");
    }
    let stock = stock(14, &[b"a\n".to_vec()], &[]);
    for (compression, level) in [
        (Compression::Zstd, 3),
        (Compression::Lz4, 1),
        (Compression::Gzip, 0),
        (Compression::Gzip, 10),
    ] {
        let format = WriteFormat {
            compression,
            level,
            ..plain()
        };
        let mut wrote = false;
        let result = copy_toc(Cursor::new(&stock), format, &ALL, &mut |_| {
            wrote = true;
            Ok(())
        });
        assert!(matches!(result, Err(ArchiveError::Unsupported { .. })) && !wrote);
    }
    for mut bytes in [stock.clone(), stock] {
        bytes[6] = 17;
        let error = copy_toc(Cursor::new(&bytes), plain(), &ALL, &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.code(), codes::ARCHIVE_UNSUPPORTED);
    }
}

/// Texts in another encoding: their bytes stay, and what cannot be shown is said.
#[test]
fn texts_that_are_not_utf8_stay_as_they_are() {
    let mut writer = Writer::new(16, 1, 0);
    writer.int(3);
    described(
        &mut writer,
        1,
        "ENCODING",
        "ENCODING",
        "SET client_encoding = 'LATIN1';\n",
        &[],
    )
    .position(3, 0);
    of_table(&mut writer, 2, 5, "nXme", "COPY s.nXme FROM stdin;\n").position(1, 0);
    of_table(&mut writer, 3, 6, "ascii", "COPY s.ascii FROM stdin;\n").position(1, 0);
    for byte in &mut writer.bytes {
        if *byte == b'X' {
            *byte = 0xE9;
        }
    }
    let toc = writer.bytes.clone();
    let mut copy = Vec::new();
    let dump = copy_toc(Cursor::new(&toc), plain(), &ALL, &mut |piece| {
        copy.extend_from_slice(piece);
        Ok(())
    })
    .unwrap();
    assert_eq!(copy, toc);
    assert_eq!(dump.encoding.as_deref(), Some("LATIN1"));
    let lossy: Vec<_> = dump.data.iter().map(|entry| entry.lossy).collect();
    assert_eq!(lossy, [true, false]);
    let mut alone = Vec::new();
    toc_without_data(Cursor::new(&toc), &mut |piece| {
        alone.extend_from_slice(piece);
        Ok(())
    })
    .unwrap();
    assert!(alone.windows(4).any(|text| text == b"n\xE9me"));
}

#[test]
fn a_table_of_contents_alone_has_every_entry_and_no_data() {
    for minor in [12, 14, 15, 16] {
        let stock = stock(minor, &[b"a\n".to_vec(), Vec::new()], &[b"x".to_vec()]);
        let expected = read_toc(Cursor::new(&stock)).unwrap();
        let directory = WriteFormat {
            kind: ArchiveKind::DirectoryOrTar,
            ..plain()
        };
        let mut in_directory = Vec::new();
        copy_toc(Cursor::new(&stock), directory, &ALL, &mut |piece| {
            in_directory.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        for from in [&stock, &in_directory] {
            let mut alone = Vec::new();
            toc_without_data(&from[..], &mut |piece| {
                alone.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
            let summary = check_custom(Cursor::new(&alone), &ALL).unwrap();
            assert_eq!((summary.tables.len(), summary.large_objects), (0, 0));
            let toc = read_toc(Cursor::new(&alone)).unwrap();
            assert_eq!(toc.header, expected.header);
            assert_eq!(toc.entries.len(), expected.entries.len());
            for (entry, expected) in toc.entries.iter().zip(&expected.entries) {
                assert!(!entry.has_data);
                let same = archive::Entry {
                    has_data: expected.has_data,
                    position: expected.position,
                    ..entry
                };
                assert_eq!(same, expected);
            }
        }
    }
}

#[test]
fn an_output_that_fails_is_told() {
    let stock = stock(16, &[b"a\n".to_vec()], &[]);
    let result = copy_toc(Cursor::new(&stock), plain(), &ALL, &mut |_| {
        Err(std::io::Error::other("full"))
    });
    assert!(matches!(result, Err(ArchiveError::Consumer { .. })));
}
