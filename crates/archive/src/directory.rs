//! Directory archives: `toc.dat` and a file for each table's rows and each large object.
//!
//! Source of facts: PostgreSQL's `pg_backup_directory.c` and `compress_io.c`. A data file is
//! found under the name in the table of contents, or with `.gz`, `.lz4` or `.zst` after it, in
//! this order. Lists of large objects (`blobs.toc`, `blobs_17.toc`) are never compressed.

use std::io::{self, Read};

use crate::{
    contents::{Contents, EachTable, Tables},
    custom::located,
    data::{DataSink, LargeObjectSink},
    decode::{Decoder, Wrapping},
    error::ArchiveError,
    header::{ArchiveKind, Compression},
    options::CheckOptions,
    primitives::ArchiveReader,
    summary::ArchiveSummary,
};

/// Longest line of a list of large objects that is accepted, bytes.
const LINE_LIMIT: usize = 256;
/// Endings of data files and what they say.
const ENDINGS: [(&str, Compression); 4] = [
    ("", Compression::None),
    (".gz", Compression::Gzip),
    (".lz4", Compression::Lz4),
    (".zst", Compression::Zstd),
];

/// Reads a whole directory archive: `toc` is its `toc.dat`, and `open` opens another file of the
/// same directory by its name (never with a slash in it), or says
/// [`io::ErrorKind::NotFound`]. What [`crate::check_custom`] says of flipped bits and memory
/// holds here too; gzip files carry a checksum.
///
/// # Errors
/// [`ArchiveError`].
pub fn check_directory(
    toc: impl Read,
    open: impl FnMut(&str) -> io::Result<Box<dyn Read>>,
    options: &CheckOptions<'_>,
) -> Result<ArchiveSummary, ArchiveError> {
    check_directory_each(toc, open, options, None)
}

/// As [`check_directory`], where `each` takes the tables as they come: the summary holds those that
/// it gives back.
///
/// # Errors
/// [`ArchiveError`].
pub fn check_directory_each(
    toc: impl Read,
    mut open: impl FnMut(&str) -> io::Result<Box<dyn Read>>,
    options: &CheckOptions<'_>,
    each: Option<&mut EachTable<'_>>,
) -> Result<ArchiveSummary, ArchiveError> {
    let mut contents = read_contents(toc, options)?;
    let mut tables = Tables::new(&contents, each);
    let summary = &mut contents.summary;
    summary.files.push("toc.dat".to_owned());
    let mut missing = Vec::new();
    for entry in &contents.entries {
        let name = entry.file_name().unwrap_or_default();
        check_file_name(name)?;
        if entry.is_large_objects() {
            match open(name) {
                Ok(list) => {
                    summary.files.push(name.to_owned());
                    for (oid, file) in read_list(list, name, &mut summary.stored_bytes)? {
                        match open_data(&mut open, &file)? {
                            Some(mut data) => {
                                let mut sink =
                                    LargeObjectSink::new(oid, options.of_large_objects());
                                summary.stored_bytes += data.decode(&mut |piece| {
                                    sink.push(piece);
                                    Ok(())
                                })?;
                                summary.files.push(data.name);
                                sink.add_to(summary);
                            }
                            None => missing.push(format!("{} ({file})", entry.describe())),
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    missing.push(format!("{} ({name})", entry.describe()));
                }
                Err(source) => return Err(unreadable(name, source)),
            }
        } else if let Some(mut data) = open_data(&mut open, name)? {
            let mut sink = DataSink::new(entry, options);
            summary.stored_bytes += data.decode(&mut |piece| sink.push(piece))?;
            summary.files.push(data.name);
            tables.add(sink.finish()?);
        } else {
            missing.push(format!("{} ({name})", entry.describe()));
        }
    }
    summary.tables = tables.kept;
    if missing.is_empty() {
        Ok(contents.finish())
    } else {
        Err(ArchiveError::DataMissing { missing })
    }
}

/// As [`crate::read_entry_data`], for a directory archive; `open` is that of [`check_directory`].
///
/// # Errors
/// Those of [`crate::read_entry_data`].
pub fn read_directory_entry_data(
    toc: impl Read,
    mut open: impl FnMut(&str) -> io::Result<Box<dyn Read>>,
    dump_id: i32,
    output: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), ArchiveError> {
    let contents = read_contents(toc, &CheckOptions::default())?;
    let name = contents.rows_of(dump_id)?.file_name().unwrap_or_default();
    let Some(mut data) = open_data(&mut open, name)? else {
        return Err(contents.no_data(dump_id));
    };
    data.decode(&mut |piece| output(piece).map_err(|source| ArchiveError::Consumer { source }))?;
    Ok(())
}

/// Reads `toc.dat` to its last byte.
pub(crate) fn read_contents(
    toc: impl Read,
    options: &CheckOptions<'_>,
) -> Result<Contents, ArchiveError> {
    let mut reader = ArchiveReader::new(toc, "toc.dat");
    let mut contents = Contents::read(&mut reader, ArchiveKind::DirectoryOrTar, options)?;
    if reader.byte_or_end()?.is_some() {
        return Err(reader.damaged("bytes follow the last entry"));
    }
    contents.summary.stored_bytes = reader.offset();
    Ok(contents)
}

/// Reads a list of large objects: `oid file` a line.
pub(crate) fn read_list(
    list: impl Read,
    name: &str,
    stored_bytes: &mut u64,
) -> Result<Vec<(u32, String)>, ArchiveError> {
    let mut reader = ArchiveReader::new(list, name);
    let mut files = Vec::new();
    let mut line = Vec::new();
    while let Some(byte) = reader.byte_or_end()? {
        if byte != b'\n' {
            line.push(byte);
            if line.len() > LINE_LIMIT {
                return Err(reader.damaged("a line is too long"));
            }
            continue;
        }
        let parsed = std::str::from_utf8(&line)
            .ok()
            .and_then(|line| line.split_once(' '))
            .and_then(|(oid, file)| Some((oid.parse::<u32>().ok()?, file)))
            .filter(|(oid, _)| *oid != 0);
        let Some((oid, file)) = parsed else {
            return Err(reader.damaged("a line is not an oid and a file name"));
        };
        check_file_name(file)?;
        files.push((oid, file.to_owned()));
        line.clear();
    }
    if !line.is_empty() {
        return Err(reader.cut("a line"));
    }
    *stored_bytes += reader.offset();
    Ok(files)
}

/// A data file that was opened.
struct DataFile {
    name: String,
    compression: Compression,
    content: Box<dyn Read>,
}

impl DataFile {
    /// Decodes the file to its end; returns its stored bytes.
    fn decode(
        &mut self,
        output: &mut dyn FnMut(&[u8]) -> Result<(), ArchiveError>,
    ) -> Result<u64, ArchiveError> {
        decode_file(&self.name, self.compression, &mut self.content, output)
    }
}

fn open_data(
    open: &mut impl FnMut(&str) -> io::Result<Box<dyn Read>>,
    name: &str,
) -> Result<Option<DataFile>, ArchiveError> {
    check_file_name(name)?;
    for (ending, compression) in ENDINGS {
        let name = format!("{name}{ending}");
        match open(&name) {
            Ok(content) => {
                return Ok(Some(DataFile {
                    name,
                    compression,
                    content,
                }));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(unreadable(&name, source)),
        }
    }
    Ok(None)
}

/// What stands behind the name of a data file that is compressed so.
pub(crate) fn ending_of(compression: Compression) -> &'static str {
    ENDINGS
        .iter()
        .find(|(_, known)| *known == compression)
        .map_or("", |(ending, _)| *ending)
}

/// What the ending of a data file's name says.
pub(crate) fn compression_of(name: &str) -> Compression {
    let ending = |(ending, _): &&(&str, _)| !ending.is_empty() && name.ends_with(ending);
    ENDINGS
        .iter()
        .find(ending)
        .map_or(Compression::None, |(_, compression)| *compression)
}

/// Decodes a stream to its end; returns its stored bytes.
pub(crate) fn decode_file(
    name: &str,
    compression: Compression,
    content: impl Read,
    output: &mut dyn FnMut(&[u8]) -> Result<(), ArchiveError>,
) -> Result<u64, ArchiveError> {
    let mut reader = ArchiveReader::new(content, name);
    let mut decoder = match Decoder::new(compression, Wrapping::File) {
        Ok(decoder) => decoder,
        Err(error) => return Err(located(&reader, error)),
    };
    loop {
        let buffered = reader.fill()?;
        let length = buffered.len();
        if length == 0 {
            break;
        }
        let decoded = decoder.push(buffered, output);
        reader.consume(length);
        if let Err(error) = decoded {
            return Err(located(&reader, error));
        }
    }
    decoder.finish().map_err(|error| located(&reader, error))?;
    Ok(reader.offset())
}

/// Letters, digits, dots, underscores and dashes, not beginning with a dot: what pg_dump writes,
/// and nothing that could lead out of the directory.
pub(crate) fn check_file_name(name: &str) -> Result<(), ArchiveError> {
    let safe = !name.is_empty()
        && name.len() <= 100
        && !name.starts_with('.')
        && name != "toc.dat"
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if safe {
        Ok(())
    } else {
        Err(ArchiveError::UnsafeFileName {
            name: name.to_owned(),
        })
    }
}

fn unreadable(name: &str, source: io::Error) -> ArchiveError {
    ArchiveError::Read {
        subject: name.to_owned(),
        offset: 0,
        source,
    }
}
