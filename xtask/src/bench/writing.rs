//! How fast units of rows are encoded, with and without fingerprints, on one core: the inner loop of
//! a parallel dump.

use std::io::{self, Cursor};

use archive::{
    ArchiveKind, CheckOptions, Compression, DataConsumer, DumpData, DumpDataKind, EntryWriter,
    ItemHash, LargeObjectEncoder, RowsEntry, UnitEncoder, WriteFormat, copy_toc, stream_custom,
};

use super::reading::cpu_seconds;

/// Bytes of a unit.
const UNIT: usize = 8 << 20;
/// Bytes that are pushed at once.
const PIECE: usize = 256 << 10;
/// Large objects and tables of the table of small ones.
const SMALL_ONES: u32 = 5000;
/// Runs of each; the fastest counts, because a busy machine only ever adds time.
const ROUNDS: usize = 3;

/// Measures with the rows of an archive that is not compressed, and prints a table.
///
/// # Errors
/// What failed.
pub(crate) fn run(stock: &[u8]) -> Result<(), String> {
    let mut rows = Rows::default();
    stream_custom(Cursor::new(stock), &mut |_| true, &mut rows).map_err(|e| e.to_string())?;
    println!(
        "\n### Encoding rows (`UnitEncoder`, units of {} MB, CPU time of one core)\n\n\
         | compression | rows MB | encoded MB | rows MB/s | rows MB/s with fingerprints |\n\
         | --- | --- | --- | --- | --- |",
        UNIT >> 20
    );
    for (compression, level) in [
        (Compression::None, 0),
        (Compression::Lz4, 0),
        (Compression::Gzip, 1),
        (Compression::Gzip, 3),
        (Compression::Zstd, 1),
        (Compression::Zstd, 2),
        (Compression::Zstd, 3),
    ] {
        let format = WriteFormat {
            kind: ArchiveKind::Custom,
            compression,
            level,
        };
        let toc = copy_toc(stock, format, &CheckOptions::default(), &mut |_| Ok(()))
            .map_err(|error| error.to_string())?;
        let is_rows = |entry: &&DumpData| matches!(entry.kind, DumpDataKind::Rows { .. });
        let entry = toc.data.iter().find(is_rows).ok_or("no table has rows")?;
        let plain = fastest(&rows.bytes, format, entry, None)?;
        let fingerprinted = fastest(&rows.bytes, format, entry, Some(ItemHash::Xxh3))?;
        let megabytes = rows.bytes.len() as f64 / 1e6;
        println!(
            "| {} {level} | {megabytes:.0} | {:.0} | {:.0} | {:.0} |",
            compression.as_str(),
            plain.1 as f64 / 1e6,
            megabytes / plain.0,
            megabytes / fingerprinted.0,
        );
    }
    println!(
        "\n### Small ones (CPU time of one core, microseconds each)\n\n\
         | compression | large object of 4 KB | table of 4 KB |\n| --- | --- | --- |"
    );
    let small = &rows.bytes[..4096.min(rows.bytes.len())];
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let format = WriteFormat {
            kind: ArchiveKind::Custom,
            compression,
            level: 2,
        };
        let toc = copy_toc(stock, format, &CheckOptions::default(), &mut |_| Ok(()))
            .map_err(|error| error.to_string())?;
        let is_rows = |entry: &&DumpData| matches!(entry.kind, DumpDataKind::Rows { .. });
        let entry = toc.data.iter().find(is_rows).ok_or("no table has rows")?;
        let begin = cpu_seconds()?;
        objects(format, small).map_err(|error| error.to_string())?;
        let middle = cpu_seconds()?;
        tables(format, entry, small).map_err(|error| error.to_string())?;
        let end = cpu_seconds()?;
        println!(
            "| {} | {:.1} | {:.1} |",
            compression.as_str(),
            (middle - begin) * 1e6 / f64::from(SMALL_ONES),
            (end - middle) * 1e6 / f64::from(SMALL_ONES),
        );
    }
    Ok(())
}

fn objects(format: WriteFormat, content: &[u8]) -> Result<(), archive::ArchiveError> {
    let mut output = Vec::new();
    let mut encoder = LargeObjectEncoder::new(format, Some(ItemHash::Xxh3))?;
    for oid in 1..=SMALL_ONES {
        encoder.encode(oid, content, &mut output)?;
        output.clear();
    }
    Ok(())
}

fn tables(format: WriteFormat, entry: &DumpData, rows: &[u8]) -> Result<(), archive::ArchiveError> {
    let end = rows
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    let mut output = Vec::new();
    for _ in 0..SMALL_ONES {
        let mut writer = EntryWriter::begin(format, entry, &mut output)?;
        let mut encoder = UnitEncoder::new(format, entry, Some(ItemHash::Xxh3))?;
        encoder.push(&rows[..end], &mut output)?;
        writer.add(&encoder.finish(&mut output)?);
        writer.finish(&mut output)?;
        output.clear();
    }
    Ok(())
}

/// CPU seconds of the fastest run, and the encoded bytes.
fn fastest(
    rows: &[u8],
    format: WriteFormat,
    entry: &DumpData,
    hash: Option<ItemHash>,
) -> Result<(f64, usize), String> {
    let mut best: Option<(f64, usize)> = None;
    for _ in 0..ROUNDS {
        let begin = cpu_seconds()?;
        let stored = encode(rows, format, entry, hash).map_err(|e| e.to_string())?;
        let took = cpu_seconds()? - begin;
        if best.is_none_or(|(seconds, _)| took < seconds) {
            best = Some((took, stored));
        }
    }
    best.ok_or_else(|| "no rounds".to_owned())
}

fn encode(
    mut rows: &[u8],
    format: WriteFormat,
    entry: &DumpData,
    hash: Option<ItemHash>,
) -> Result<usize, archive::ArchiveError> {
    let mut output = Vec::new();
    let mut stored = 0;
    while !rows.is_empty() {
        let at = UNIT.min(rows.len());
        let end = rows[at..].iter().position(|byte| *byte == b'\n');
        let (unit, rest) = rows.split_at(end.map_or(rows.len(), |end| at + end + 1));
        rows = rest;
        let mut encoder = UnitEncoder::new(format, entry, hash)?;
        for piece in unit.chunks(PIECE) {
            encoder.push(piece, &mut output)?;
        }
        encoder.finish(&mut output)?;
        stored += output.len();
        output.clear();
    }
    Ok(stored)
}

/// The rows of all tables.
#[derive(Default)]
struct Rows {
    bytes: Vec<u8>,
}

impl DataConsumer for Rows {
    fn begin_rows(&mut self, _: &RowsEntry) -> io::Result<()> {
        Ok(())
    }

    fn rows(&mut self, piece: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn end_rows(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn begin_large_object(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn large_object(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn end_large_object(&mut self) -> io::Result<()> {
        Ok(())
    }
}
