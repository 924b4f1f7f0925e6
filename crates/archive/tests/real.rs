//! Archives that pg_dump of every major wrote: read whole, cut anywhere, with flipped bits.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read};

use archive::{
    ArchiveError, ArchiveSummary, CheckOptions, Entry, Fingerprints, ItemHash, TableData,
    check_custom, check_plain, check_tar, read_entry_data, read_toc,
};
use support::{ALL_ROWS, Corpus, ROWS, check_dir};

/// Every `PIECES`-th part of a file is cut off in turn.
const PIECES: usize = 200;

fn whole_archives(major: u32) {
    let corpus = Corpus::new(major);
    let all = CheckOptions {
        fingerprints: Fingerprints::All,
        hash: ItemHash::Xxh3,
        catalogue: archive::CatalogueDetail::Objects,
    };
    let mut found = None;
    for compression in corpus.compressions() {
        let name = format!("c{compression}").replace(':', "_");
        let seekable = corpus.dump(&name, &["-Fc", "-Z", compression]);
        let piped = corpus.piped(&format!("p{name}"), compression);
        for path in [seekable, piped] {
            let bytes = std::fs::read(&path).unwrap();
            let summary = check_custom(Cursor::new(&bytes), &CheckOptions::default()).unwrap();
            assert_eq!(summary.rows(), ALL_ROWS, "{path:?}");
            assert_eq!(summary.tables.len(), 4, "{path:?}");
            assert_eq!(
                (summary.large_objects, summary.large_object_bytes),
                (3, 50_003),
                "{path:?}"
            );
            assert_eq!(summary.stored_bytes, bytes.len() as u64);
            let toc = read_toc(Cursor::new(&bytes)).unwrap();
            assert_eq!(toc.entries.len() as u64, summary.entries);
            assert_eq!(toc.header.server_major(), Some(major));
            assert_eq!(toc.header.dump_major(), Some(major));
            let table = toc
                .entries
                .iter()
                .find(|entry| entry.kind == "TABLE" && entry.name == "t")
                .unwrap();
            assert_eq!(table.schema, Some("s"));
            assert_eq!(table.owner, Some("app"));
            // Rows, large objects and catalogue are the same however they are stored.
            let summary = check_custom(Cursor::new(&bytes), &all).unwrap();
            let now = (
                by_name(&summary),
                summary.large_object_fingerprint,
                summary.catalogue,
            );
            assert_eq!(found.get_or_insert_with(|| now.clone()), &now);
            cuts_are_found(&bytes, compression);
            flips(&bytes, compression);
        }
        let dir = corpus.dump(&format!("d{name}"), &["-Fd", "-Z", compression]);
        let summary = check_dir(&dir).unwrap();
        assert_eq!(summary.rows(), ALL_ROWS);
        assert_eq!(summary.large_objects, 3);
        let listed = std::fs::read_dir(&dir).unwrap().count();
        assert_eq!(summary.files.len(), listed, "{:?}", summary.files);
        directory_damage_is_found(&dir, &summary.files);
    }
    tar_archive(&corpus);
    let inserts = corpus.dump("inserts", &["-Fc", "--inserts"]);
    let summary = check_custom(File::open(inserts).unwrap(), &CheckOptions::default()).unwrap();
    assert!(summary.tables.iter().all(|table| table.rows.is_none()));
    let plain = std::fs::read(corpus.dump("plain.sql", &["-Fp"])).unwrap();
    let summary = check_plain(Cursor::new(&plain)).unwrap();
    assert_eq!(summary.server_major(), Some(major));
    let rows: u64 = summary.tables.iter().filter_map(|table| table.rows).sum();
    assert_eq!(rows, ALL_ROWS);
    assert!(
        summary
            .tables
            .iter()
            .any(|t| t.name == "t" && t.rows == Some(ROWS))
    );
    assert!(
        summary.controls_transactions,
        "large objects are written between BEGIN and COMMIT"
    );
    for cut in cut_points(plain.len()) {
        let result = check_plain(Cursor::new(&plain[..cut]));
        // After the closing comment only line breaks and dashes follow (and \unrestrict).
        let rest = String::from_utf8_lossy(&plain[cut..]).into_owned();
        if rest.contains("dump complete") || rest.contains("\\unrestrict") {
            assert!(result.is_err(), "cut at {cut} of {}", plain.len());
        }
    }
    let inserted = std::fs::read(corpus.dump("inserted.sql", &["-Fp", "--inserts"])).unwrap();
    check_plain(Cursor::new(&inserted)).unwrap();
}

/// The tar format gives what the custom format gives.
fn tar_archive(corpus: &Corpus) {
    let all = CheckOptions {
        fingerprints: Fingerprints::All,
        hash: ItemHash::Xxh3,
        catalogue: archive::CatalogueDetail::Objects,
    };
    let path = corpus.dump("whole.tar", &["-Ft"]);
    let bytes = std::fs::read(path).unwrap();
    let summary = check_tar(Cursor::new(&bytes), &all).unwrap();
    let custom = std::fs::read(corpus.dump("whole", &["-Fc"])).unwrap();
    let other = check_custom(Cursor::new(&custom), &all).unwrap();
    assert_eq!(by_name(&summary), by_name(&other));
    assert_eq!(summary.catalogue, other.catalogue);
    assert_eq!(
        (summary.large_objects, summary.large_object_fingerprint),
        (other.large_objects, other.large_object_fingerprint)
    );
    assert_eq!(summary.stored_bytes, bytes.len() as u64);
    assert_eq!(
        summary.files.len(),
        1 + 4 + 1 + 3 + 1,
        "{:?}",
        summary.files
    );
    let all = CheckOptions::default();
    for cut in cut_points(bytes.len()) {
        let result = check_tar(Cursor::new(&bytes[..cut]), &all);
        // pg_dump ends with two empty blocks; the rest of them may be missing.
        if bytes[cut..].iter().any(|byte| *byte != 0) {
            let error = result.unwrap_err();
            assert_eq!(
                error.code(),
                archive::codes::ARCHIVE_DAMAGED,
                "{cut}: {error}"
            );
        }
        let _ = check_tar(Cursor::new(flipped(&bytes, cut)), &all);
    }
    // The data of one entry, from each format.
    let toc = read_toc(Cursor::new(&custom)).unwrap();
    let entry = |name: &str| {
        let data = |entry: &Entry<'_>| entry.kind == "TABLE DATA" && entry.name == name;
        toc.entries.iter().find(data).unwrap().dump_id
    };
    let mut odd = Vec::new();
    let mut take = |piece: &[u8]| {
        odd.extend_from_slice(piece);
        Ok(())
    };
    read_entry_data(Cursor::new(&custom), entry("odd"), &mut take).unwrap();
    let rows = "\\\\.\n\n\\N\na\\nb\n\\\\N\n\\.\n\n\n";
    assert_eq!(String::from_utf8(odd).unwrap(), rows);
    let dir = corpus.dump("entry", &["-Fd"]);
    let toc = File::open(dir.join("toc.dat")).unwrap();
    let open = |name: &str| Ok(Box::new(File::open(dir.join(name))?) as Box<dyn Read>);
    let mut length = 0;
    let mut count = |piece: &[u8]| {
        length += piece.len() as u64;
        Ok(())
    };
    archive::read_directory_entry_data(toc, open, entry("t"), &mut count).unwrap();
    let table = other.tables.iter().find(|table| table.name == "t").unwrap();
    assert_eq!(length, table.bytes);
    let mut refuse = |_: &[u8]| Err(std::io::Error::other("full"));
    let refused = read_entry_data(Cursor::new(&custom), entry("t"), &mut refuse);
    assert!(matches!(refused, Err(ArchiveError::Consumer { .. })));
    let unknown = read_entry_data(Cursor::new(&custom), 1, &mut |_| Ok(()));
    assert!(matches!(unknown, Err(ArchiveError::DataMissing { .. })));
}

fn by_name(summary: &ArchiveSummary) -> BTreeMap<String, TableData> {
    let tables = summary.tables.iter().cloned();
    tables
        .map(|table| (table.name.to_string(), table))
        .collect()
}

#[test]
fn bar_13_whole_and_cut_archives_of_13() {
    whole_archives(13);
}

#[test]
fn bar_13_whole_and_cut_archives_of_15() {
    whole_archives(15);
}

#[test]
fn bar_13_whole_and_cut_archives_of_17() {
    whole_archives(17);
}

#[test]
fn bar_13_whole_and_cut_archives_of_18() {
    whole_archives(18);
}

/// Regular points, and every byte near the end.
fn cut_points(length: usize) -> Vec<usize> {
    let step = length.div_ceil(PIECES).max(1);
    let mut points: Vec<_> = (0..length).step_by(step).collect();
    points.extend(length.saturating_sub(64)..length);
    points
}

fn cuts_are_found(bytes: &[u8], compression: &str) {
    for cut in cut_points(bytes.len()) {
        assert!(
            check_custom(Cursor::new(&bytes[..cut]), &CheckOptions::default()).is_err(),
            "compression {compression}: cut at {cut} of {} was not found",
            bytes.len()
        );
    }
    let longer = [bytes, b"\0"].concat();
    assert!(
        check_custom(Cursor::new(longer), &CheckOptions::default()).is_err(),
        "a byte after the end"
    );
}

/// Flips one bit at many places. In the rows of the big table gzip's checksum finds every flip that
/// changes what is decoded (a few bits of a deflate stream may differ without any effect); LZ4,
/// zstd (pg_dump writes no checksums) and no compression leave that to the hash of the file.
/// Nowhere may a flip crash or hang.
fn flips(bytes: &[u8], compression: &str) {
    for at in cut_points(bytes.len()) {
        // Any answer will do, as long as there is one.
        let _ = check_custom(Cursor::new(flipped(bytes, at)), &CheckOptions::default());
    }
    // The rows of the big table are most of the file; large objects are at its end.
    let rows = bytes.len() / 3..bytes.len() * 2 / 3;
    let places: Vec<_> = rows.step_by(37).collect();
    let found = places
        .iter()
        .filter(|at| {
            check_custom(Cursor::new(flipped(bytes, **at)), &CheckOptions::default()).is_err()
        })
        .count();
    assert!(places.len() > 100);
    if matches!(compression, "1" | "gzip:1") {
        assert!(
            found * 100 >= places.len() * 98,
            "compression {compression}"
        );
    }
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    damaged[at] ^= 1 << (at % 8);
    damaged
}

fn directory_damage_is_found(dir: &std::path::Path, files: &[String]) {
    for file in files {
        let path = dir.join(file);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        if file != "toc.dat" {
            assert!(check_dir(dir).is_err(), "{file} is gone");
        }
        // A list of large objects is lines without an end mark; uncompressed large objects and
        // empty LZ4 files have none either: only the manifest's size and hash tell.
        let unmarked =
            file.starts_with("blob") && (file.ends_with(".toc") || file.ends_with(".dat"));
        for cut in cut_points(bytes.len()) {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            if unmarked || (cut == 0 && file.starts_with("blob")) {
                continue;
            }
            assert!(
                check_dir(dir).is_err(),
                "{file} cut at {cut} of {}",
                bytes.len()
            );
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    check_dir(dir).unwrap();
}

#[test]
fn statistics_and_other_new_entries_of_18_are_read() {
    let corpus = Corpus::new(18);
    corpus.psql("ANALYZE");
    let path = corpus.dump("statistics", &["-Fc", "--statistics"]);
    let bytes = std::fs::read(path).unwrap();
    let toc = read_toc(Cursor::new(&bytes)).unwrap();
    assert!(
        toc.entries
            .iter()
            .any(|entry| entry.kind == "STATISTICS DATA")
    );
    assert_eq!(
        check_custom(Cursor::new(&bytes), &CheckOptions::default())
            .unwrap()
            .rows(),
        ALL_ROWS
    );
}
