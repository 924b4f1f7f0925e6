//! Archives taken apart and written anew: no panic, and what is written is what was read.
#![no_main]

use std::io::{self, Cursor};

use archive::{
    ArchiveKind, ArchiveSummary, CheckOptions, Compression, DataConsumer, DumpDataKind,
    EntryWriter, Fingerprints, ItemHash, LargeObjectEncoder, LargeObjectsWriter, RowsEntry, UnitEncoder,
    WriteFormat, check_custom, copy_toc, read_toc, stream_custom, toc_without_data,
};
use libfuzzer_sys::fuzz_target;

const OPTIONS: CheckOptions<'static> = CheckOptions {
    fingerprints: Fingerprints::All,
    hash: ItemHash::Xxh3,
    catalogue: archive::CatalogueDetail::Objects,
};

/// All data, in the order of the file: of an entry, or of a large object.
#[derive(Default)]
struct Collected {
    rows: Vec<(i32, Vec<u8>, u64)>,
    large_objects: Vec<(u32, Vec<u8>)>,
}

impl DataConsumer for Collected {
    fn begin_rows(&mut self, entry: &RowsEntry) -> io::Result<()> {
        self.rows.push((entry.dump_id, Vec::new(), 0));
        Ok(())
    }

    fn rows(&mut self, piece: &[u8]) -> io::Result<()> {
        let rows = self.rows.last_mut().expect("an entry was begun");
        rows.1.extend_from_slice(piece);
        Ok(())
    }

    fn end_rows(&mut self, count: u64) -> io::Result<()> {
        self.rows.last_mut().expect("an entry was begun").2 = count;
        Ok(())
    }

    fn begin_large_object(&mut self, oid: u32) -> io::Result<()> {
        self.large_objects.push((oid, Vec::new()));
        Ok(())
    }

    fn large_object(&mut self, piece: &[u8]) -> io::Result<()> {
        let object = self.large_objects.last_mut().expect("one was begun");
        object.1.extend_from_slice(piece);
        Ok(())
    }

    fn end_large_object(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut alone = Vec::new();
    let cut = toc_without_data(Cursor::new(bytes), &mut |piece| {
        alone.extend_from_slice(piece);
        Ok(())
    });
    if cut.is_ok() {
        let summary = check_custom(Cursor::new(&alone), &OPTIONS).expect("no data is missing");
        assert!(summary.tables.is_empty());
    }
    for kind in [ArchiveKind::Custom, ArchiveKind::DirectoryOrTar] {
        let format = |compression| WriteFormat {
            kind,
            compression,
            level: 1,
        };
        let mut head = Vec::new();
        let copied = copy_toc(
            Cursor::new(bytes),
            format(Compression::Gzip),
            &OPTIONS,
            &mut |piece| {
                head.extend_from_slice(piece);
                Ok(())
            },
        );
        if let Ok(copied) = copied {
            let toc = read_toc(Cursor::new(&head)).expect("it was written");
            assert_eq!(toc.entries.len() as u64, copied.summary.entries);
            assert_eq!(toc.header, copied.summary.header);
        }
    }
    let mut collected = Collected::default();
    let streamed = stream_custom(Cursor::new(bytes), &mut |_| true, &mut collected);
    let checked = check_custom(Cursor::new(bytes), &OPTIONS);
    if streamed.is_ok() {
        let summary = checked.as_ref().expect("it was streamed to its end");
        assert_eq!(summary.tables.len(), collected.rows.len());
        for (table, (dump_id, rows, count)) in summary.tables.iter().zip(&collected.rows) {
            assert_eq!(table.dump_id, *dump_id);
            assert_eq!(table.rows, Some(*count));
            assert_eq!(table.bytes, rows.len() as u64 + 5);
        }
        assert_eq!(summary.large_objects, collected.large_objects.len() as u64);
        for (compression, unit) in [(Compression::None, 7), (Compression::Gzip, 100)] {
            written_anew(bytes, compression, unit, &collected, summary);
        }
    }
});

/// A custom archive of the same data, in units of about so many bytes.
fn written_anew(
    bytes: &[u8],
    compression: Compression,
    unit: usize,
    collected: &Collected,
    summary: &ArchiveSummary,
) {
    let format = WriteFormat {
        kind: ArchiveKind::Custom,
        compression,
        level: 1,
    };
    let mut archive = Vec::new();
    let Ok(toc) = copy_toc(Cursor::new(bytes), format, &OPTIONS, &mut |piece| {
        archive.extend_from_slice(piece);
        Ok(())
    }) else {
        // It is compressed.
        return;
    };
    let mut objects = &collected.large_objects[..];
    for entry in &toc.data {
        if matches!(entry.kind, DumpDataKind::LargeObjects { .. }) {
            let mut writer =
                LargeObjectsWriter::begin(format, entry, &mut archive).expect("it is of these");
            let mut encoder = LargeObjectEncoder::new(format, Some(OPTIONS.hash)).expect("the level exists");
            // Whose they are does not matter for what is in them.
            for (oid, content) in std::mem::take(&mut objects) {
                encoder
                    .encode(*oid, content, &mut archive)
                    .expect("it has an oid");
            }
            writer.add(&encoder.finish());
            let _ = writer.finish(&mut archive);
            continue;
        }
        let (_, rows, _) = collected
            .rows
            .iter()
            .find(|(dump_id, ..)| *dump_id == entry.dump_id)
            .expect("all was wanted");
        let mut writer = EntryWriter::begin(format, entry, &mut archive).expect("it holds rows");
        let mut rest = &rows[..];
        loop {
            let at = unit.min(rest.len());
            let end = rest[at..].iter().position(|byte| *byte == b'\n');
            let (now, after) = rest.split_at(end.map_or(rest.len(), |end| at + end + 1));
            rest = after;
            let mut encoder = UnitEncoder::new(format, entry, Some(OPTIONS.hash)).expect("it holds rows");
            encoder.push(now, &mut archive).expect("they are rows");
            writer.add(&encoder.finish(&mut archive).expect("they are rows"));
            if rest.is_empty() {
                break;
            }
        }
        writer.finish(&mut archive).expect("all was added");
    }
    let again = check_custom(Cursor::new(&archive), &OPTIONS).expect("it was written");
    let tables = |summary: &ArchiveSummary| {
        let mut tables = summary.tables.clone();
        tables.sort_by_key(|table| table.dump_id);
        tables
    };
    assert_eq!(tables(&again), tables(summary));
    assert_eq!(
        again.large_object_fingerprint,
        summary.large_object_fingerprint
    );
    assert_eq!(again.catalogue, summary.catalogue);
}
