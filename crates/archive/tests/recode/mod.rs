//! An archive made from a stock one that is not compressed: its table of contents and its data, in
//! another format, in units and pieces of any size.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};

use archive::{
    ArchiveError, ArchiveKind, ArchiveSummary, CheckOptions, Compression, DataConsumer, DumpData,
    DumpDataKind, DumpToc, EntryWriter, Fingerprints, ItemHash, LargeObjectEncoder,
    LargeObjectsSummary, LargeObjectsWriter, RowsEntry, TableData, UnitEncoder, UnitSummary,
    UsedEncoder, WriteFormat, check_custom, check_directory, copy_toc, stream_custom,
};

pub(crate) const ALL: CheckOptions<'static> = CheckOptions {
    fingerprints: Fingerprints::All,
    hash: ItemHash::Xxh3,
    catalogue: archive::CatalogueDetail::Objects,
};

/// What every compression is tried with.
pub(crate) const COMPRESSIONS: [(Compression, i32); 8] = [
    (Compression::None, 0),
    (Compression::Gzip, 1),
    (Compression::Gzip, 6),
    (Compression::Gzip, -1),
    (Compression::Zstd, 1),
    (Compression::Zstd, 3),
    (Compression::Zstd, 12),
    (Compression::Lz4, 1),
];

/// Numbers that repeat, and depend on a seed alone.
#[derive(Clone)]
pub(crate) struct Sizes(u64);

impl Sizes {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 1 to `most`.
    pub(crate) fn next(&mut self, most: usize) -> usize {
        // Constants of Knuth's MMIX generator.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        1 + usize::try_from(self.0 >> 33).unwrap() % most
    }
}

/// How data is cut.
#[derive(Clone)]
pub(crate) struct Cuts {
    pub(crate) sizes: Sizes,
    /// Most bytes of a unit, roughly.
    pub(crate) unit: usize,
    /// Most bytes that are pushed at once.
    pub(crate) piece: usize,
}

/// The archive: one file called `archive`, or the files of a directory.
pub(crate) struct Recoded {
    pub(crate) format: WriteFormat,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) toc: DumpToc,
    /// What the writers said.
    pub(crate) tables: Vec<TableData>,
    pub(crate) large_objects: LargeObjectsSummary,
    /// What the encoder of the unit before left: it encodes the next one.
    used: Option<UsedEncoder>,
}

pub(crate) const ARCHIVE: &str = "archive";

/// All data of an archive.
#[derive(Default)]
pub(crate) struct Collected {
    pub(crate) rows: BTreeMap<i32, (RowsEntry, Vec<u8>, u64)>,
    pub(crate) large_objects: Vec<(u32, Vec<u8>)>,
    now: Option<RowsEntry>,
    bytes: Vec<u8>,
    oid: u32,
}

impl DataConsumer for Collected {
    fn begin_rows(&mut self, entry: &RowsEntry) -> io::Result<()> {
        assert!(self.now.replace(entry.clone()).is_none() && self.bytes.is_empty());
        Ok(())
    }

    fn rows(&mut self, piece: &[u8]) -> io::Result<()> {
        assert!(self.now.is_some() && !piece.is_empty());
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn end_rows(&mut self, rows: u64) -> io::Result<()> {
        let entry = self.now.take().unwrap();
        let bytes = std::mem::take(&mut self.bytes);
        assert!(
            self.rows
                .insert(entry.dump_id, (entry, bytes, rows))
                .is_none()
        );
        Ok(())
    }

    fn begin_large_object(&mut self, oid: u32) -> io::Result<()> {
        self.oid = oid;
        assert!(self.bytes.is_empty());
        Ok(())
    }

    fn large_object(&mut self, piece: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn end_large_object(&mut self) -> io::Result<()> {
        self.large_objects
            .push((self.oid, std::mem::take(&mut self.bytes)));
        Ok(())
    }
}

pub(crate) fn collect(archive: &[u8]) -> Result<Collected, ArchiveError> {
    let mut collected = Collected::default();
    stream_custom(Cursor::new(archive), &mut |_| true, &mut collected)?;
    Ok(collected)
}

/// Makes the archive of this format from a stock custom archive.
pub(crate) fn recode(stock: &[u8], format: WriteFormat, cuts: &Cuts) -> Recoded {
    let mut cuts = cuts.clone();
    let mut head = Vec::new();
    let toc = copy_toc(Cursor::new(stock), format, &ALL, &mut |piece| {
        assert!(piece.len() <= 64 * 1024);
        head.extend_from_slice(piece);
        Ok(())
    })
    .unwrap();
    assert_eq!(toc.bytes, head.len() as u64);
    let custom = format.kind == ArchiveKind::Custom;
    let mut recoded = Recoded {
        format,
        files: BTreeMap::from([(if custom { ARCHIVE } else { "toc.dat" }.to_owned(), head)]),
        toc,
        tables: Vec::new(),
        large_objects: LargeObjectsSummary::default(),
        used: None,
    };
    let collected = collect(stock).unwrap();
    let mut objects = &collected.large_objects[..];
    for entry in recoded.toc.data.clone() {
        match &entry.kind {
            DumpDataKind::Rows { copy_statement } => {
                let (info, rows, _) = &collected.rows[&entry.dump_id];
                assert_eq!(&info.copy_statement, copy_statement);
                recoded.rows(&entry, rows, &mut cuts);
            }
            DumpDataKind::LargeObjects { oids } => {
                let (now, rest) = objects.split_at(oids.len());
                objects = rest;
                let mut listed: Vec<_> = now.iter().map(|(oid, _)| *oid).collect();
                let mut named = oids.to_vec();
                listed.sort_unstable();
                named.sort_unstable();
                assert_eq!(listed, named);
                recoded.objects(&entry, now, &mut cuts);
            }
            DumpDataKind::Other { kind } => panic!("an entry {kind}"),
        }
    }
    assert!(objects.is_empty());
    recoded
}

impl Recoded {
    fn custom(&self) -> bool {
        self.format.kind == ArchiveKind::Custom
    }

    fn file(&mut self, name: Option<String>) -> &mut Vec<u8> {
        let name = name.unwrap_or_else(|| ARCHIVE.to_owned());
        self.files.entry(name).or_default()
    }

    fn rows(&mut self, entry: &DumpData, rows: &[u8], cuts: &mut Cuts) {
        let name = format!("{}{}", entry.file_name(), self.format.file_suffix());
        let name = (!self.custom()).then_some(name);
        let mut bytes = Vec::new();
        let mut writer = EntryWriter::begin(self.format, entry, &mut bytes).unwrap();
        let mut rest = rows;
        loop {
            // To the next row's end.
            let at = cuts.sizes.next(cuts.unit).min(rest.len());
            let more = rest[at..].iter().position(|byte| *byte == b'\n');
            let (unit, after) = rest.split_at(more.map_or(rest.len(), |more| at + more + 1));
            rest = after;
            writer.add(&self.unit(entry, unit, cuts, &mut bytes));
            if rest.is_empty() {
                break;
            }
        }
        self.tables.push(writer.finish(&mut bytes).unwrap());
        self.file(name).extend(bytes);
    }

    fn unit(
        &mut self,
        entry: &DumpData,
        rows: &[u8],
        cuts: &mut Cuts,
        output: &mut Vec<u8>,
    ) -> UnitSummary {
        let mut encoder = match self.used.take() {
            Some(used) => used.again(entry, Some(ALL.hash)).unwrap(),
            None => UnitEncoder::new(self.format, entry, Some(ALL.hash)).unwrap(),
        };
        let mut rest = rows;
        while !rest.is_empty() {
            let (now, after) = rest.split_at(cuts.sizes.next(cuts.piece).min(rest.len()));
            encoder.push(now, output).unwrap();
            rest = after;
        }
        let (summary, used) = encoder.finish_for_another(output).unwrap();
        assert_eq!(summary.bytes, rows.len() as u64);
        self.used = Some(used);
        summary
    }

    fn objects(&mut self, entry: &DumpData, objects: &[(u32, Vec<u8>)], cuts: &mut Cuts) {
        let mut frame = Vec::new();
        let mut writer = LargeObjectsWriter::begin(self.format, entry, &mut frame).unwrap();
        let custom = self.custom();
        for batch in objects.chunks(2) {
            let mut encoder = LargeObjectEncoder::new(self.format, Some(ALL.hash)).unwrap();
            for (oid, content) in batch {
                let mut bytes = Vec::new();
                encoder.begin(*oid, &mut bytes).unwrap();
                let mut rest = &content[..];
                while !rest.is_empty() {
                    let (now, after) = rest.split_at(cuts.sizes.next(cuts.piece).min(rest.len()));
                    encoder.push(now, &mut bytes).unwrap();
                    rest = after;
                }
                encoder.end(&mut bytes).unwrap();
                if custom {
                    frame.extend(bytes);
                } else {
                    let name = LargeObjectsWriter::file_name(self.format, *oid);
                    assert!(self.files.insert(name, bytes).is_none());
                    writer.list(*oid, &mut frame);
                }
            }
            writer.add(&encoder.finish());
        }
        self.large_objects.merge(&writer.finish(&mut frame));
        let name = (!custom).then(|| entry.file_name());
        self.file(name).extend(frame);
    }

    /// What the reader finds in it.
    pub(crate) fn check(&self) -> ArchiveSummary {
        if let Some(archive) = self.files.get(ARCHIVE) {
            return check_custom(Cursor::new(archive), &ALL).unwrap();
        }
        let open = |name: &str| match self.files.get(name) {
            Some(bytes) => Ok(Box::new(Cursor::new(bytes.clone())) as Box<dyn Read>),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let summary = check_directory(&self.files["toc.dat"][..], open, &ALL).unwrap();
        assert_eq!(summary.files.len(), self.files.len());
        summary
    }

    /// Asserts that the reader finds what it finds in the stock archive, and what the writers said.
    pub(crate) fn assert_equal(&self, stock: &ArchiveSummary) {
        let summary = self.check();
        assert_eq!(summary.tables, stock.tables);
        assert_eq!(summary.tables, self.tables);
        let objects = LargeObjectsSummary {
            count: stock.large_objects,
            bytes: stock.large_object_bytes,
            fingerprint: stock.large_object_fingerprint,
        };
        assert_eq!(self.large_objects, objects);
        assert_eq!(summary.large_object_fingerprint, objects.fingerprint);
        assert_eq!(summary.header, self.toc.summary.header);
        assert_eq!(summary.header.compression, self.format.compression);
        assert_eq!(summary.header.created, stock.header.created);
        let same = |summary: &ArchiveSummary| {
            (
                summary.entries,
                summary.sequences.clone(),
                summary.catalogue.clone(),
            )
        };
        assert_eq!(same(&summary), same(stock));
        assert_eq!(same(&self.toc.summary), same(stock));
    }
}
