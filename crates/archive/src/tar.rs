//! Tar archives: the files of a directory archive, one after the other.
//!
//! Source of facts: PostgreSQL's `pg_backup_tar.c`. `toc.dat` comes first; then a file for each
//! table's rows (`1234.dat`), the large objects (`blob_567.dat`, in a list `blobs.toc` or
//! `blobs_12.toc` before or after them), and `restore.sql` at the end. Nothing is compressed. Sizes
//! of 8 GiB and more are in base 256.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};

use crate::{
    data::{DataEntry, DataSink, LargeObjectSink},
    directory::{check_file_name, read_contents, read_list},
    error::ArchiveError,
    options::CheckOptions,
    primitives::ArchiveReader,
    summary::ArchiveSummary,
};

/// Size of a tar block, bytes.
const BLOCK: usize = 512;
/// Most large objects that are remembered until their list is read; a dozen bytes each.
const LARGE_OBJECTS_LIMIT: usize = 16_000_000;

/// Reads a whole tar archive to its last byte, as [`crate::check_directory`] does a directory.
/// Memory is constant but for a few dozen bytes for each table and each large object. Nothing in
/// a tar archive is compressed, so that of a flipped bit in its data only the hash of the file
/// tells.
///
/// # Errors
/// [`ArchiveError`].
pub fn check_tar(
    reader: impl Read,
    options: &CheckOptions<'_>,
) -> Result<ArchiveSummary, ArchiveError> {
    let mut reader = ArchiveReader::new(reader, "the archive");
    let first = next_member(&mut reader)?;
    let Some(first) = first.filter(|member| member.name == "toc.dat") else {
        return Err(reader.damaged("it does not begin with toc.dat"));
    };
    let mut contents = read_contents(
        MemberReader {
            archive: &mut reader,
            left: first.size,
        },
        options,
    )?;
    padding(&mut reader, first.size)?;
    let summary = &mut contents.summary;
    summary.files.push("toc.dat".to_owned());
    let mut expected = Expected::of(&contents.entries)?;
    while let Some(member) = next_member(&mut reader)? {
        if member.name != "restore.sql" {
            check_file_name(&member.name)?;
        }
        let mut data = MemberReader {
            archive: &mut reader,
            left: member.size,
        };
        expected.take(&member.name, &mut data, options, summary)?;
        if data.left > 0 {
            return Err(reader.damaged(format!("{} was not read whole", member.name)));
        }
        padding(&mut reader, member.size)?;
        summary.files.push(member.name);
    }
    end(&mut reader)?;
    let missing = expected.missing();
    if !missing.is_empty() {
        return Err(ArchiveError::DataMissing { missing });
    }
    summary.stored_bytes = reader.offset();
    Ok(contents.finish())
}

/// Files that the table of contents promises and that have not come yet.
struct Expected<'a> {
    rows: HashMap<&'a str, &'a DataEntry>,
    /// By the names that the lists have in the archive; the table of contents gives others.
    lists: HashMap<String, &'a DataEntry>,
    /// Large objects by their oids: whether a list named them, and whether they were there.
    large_objects: BTreeMap<u32, (bool, bool)>,
}

impl<'a> Expected<'a> {
    fn of(entries: &'a [DataEntry]) -> Result<Self, ArchiveError> {
        let mut expected = Self {
            rows: HashMap::new(),
            lists: HashMap::new(),
            large_objects: BTreeMap::new(),
        };
        for entry in entries {
            let name = entry.file_name().unwrap_or_default();
            check_file_name(name)?;
            if entry.is_large_objects() {
                let list = format!("blobs_{}.toc", entry.dump_id());
                expected.lists.insert(list, entry);
            } else {
                expected.rows.insert(name, entry);
            }
        }
        Ok(expected)
    }

    /// Takes the next file of the archive.
    fn take<R: Read>(
        &mut self,
        name: &str,
        data: &mut MemberReader<'_, R>,
        options: &CheckOptions<'_>,
        summary: &mut ArchiveSummary,
    ) -> Result<(), ArchiveError> {
        if name == "restore.sql" {
            return data.pieces(|_| Ok(()));
        }
        if let Some(entry) = self.rows.remove(name) {
            let mut sink = DataSink::new(entry, options);
            data.pieces(|piece| sink.push(piece))?;
            let table = sink.finish().map_err(|error| data.placed(error))?;
            summary.tables.extend(table);
            return Ok(());
        }
        if self.take_list(name) {
            let mut stored = 0;
            for (oid, file) in read_list(&mut *data, name, &mut stored)? {
                if large_object(&file) != Some(oid) {
                    return Err(data.archive.damaged(format!(
                        "{name} names the file {file} for the large object {oid}"
                    )));
                }
                self.note(oid)?.0 = true;
            }
            return Ok(());
        }
        let Some(oid) = large_object(name) else {
            return Err(data.archive.damaged(format!(
                "the file {name} is not one that the table of contents names, or it came already"
            )));
        };
        if std::mem::replace(&mut self.note(oid)?.1, true) {
            return Err(data.archive.damaged(format!("the file {name} comes twice")));
        }
        let mut sink = LargeObjectSink::new(oid, options.of_large_objects());
        data.pieces(|piece| {
            sink.push(piece);
            Ok(())
        })?;
        sink.add_to(summary);
        Ok(())
    }

    /// Whether the file is a list of large objects that is expected. Before major 17 there is one
    /// entry of large objects at most, and its list is `blobs.toc`.
    fn take_list(&mut self, name: &str) -> bool {
        if name == "blobs.toc" && self.lists.len() == 1 {
            self.lists.clear();
            return true;
        }
        self.lists.remove(name).is_some()
    }

    fn note(&mut self, oid: u32) -> Result<&mut (bool, bool), ArchiveError> {
        if self.large_objects.len() >= LARGE_OBJECTS_LIMIT {
            return Err(ArchiveError::TooLarge {
                subject: "the list of large objects".to_owned(),
                limit: LARGE_OBJECTS_LIMIT as u64,
            });
        }
        Ok(self.large_objects.entry(oid).or_default())
    }

    /// What did not come, in words.
    fn missing(&self) -> Vec<String> {
        let lists = self
            .lists
            .iter()
            .map(|(name, entry)| (name.as_str(), entry));
        let rows = self.rows.iter().map(|(name, entry)| (*name, entry));
        let mut missing: Vec<_> = lists
            .chain(rows)
            .map(|(name, entry)| format!("{} ({name})", entry.describe()))
            .collect();
        missing.sort();
        for (oid, state) in &self.large_objects {
            match state {
                (true, true) => {}
                (true, false) => missing.push(format!("large object {oid}")),
                (false, _) => missing.push(format!("large object {oid} in the list of them")),
            }
        }
        missing
    }
}

/// The oid in the name of a large object's file.
fn large_object(name: &str) -> Option<u32> {
    name.strip_prefix("blob_")?
        .strip_suffix(".dat")?
        .parse()
        .ok()
        .filter(|oid| *oid != 0)
}

/// One file of the archive.
struct Member {
    name: String,
    size: u64,
}

/// Reads the next header; `None` at the first block of the end.
fn next_member<R: Read>(reader: &mut ArchiveReader<R>) -> Result<Option<Member>, ArchiveError> {
    let mut block = Vec::with_capacity(BLOCK);
    reader.take(BLOCK as u64, "a header of the tar format", |piece| {
        block.extend_from_slice(piece);
        Ok(())
    })?;
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    // The checksum counts its own field as spaces.
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            let own = (148..156).contains(&at);
            u64::from(if own { b' ' } else { *byte })
        })
        .sum();
    if octal(&block[148..156]) != Some(sum) {
        return Err(reader.damaged("the checksum of a header of the tar format is wrong"));
    }
    if !matches!(block[156], b'0' | 0) {
        return Err(reader.damaged("a member of the tar format is no ordinary file"));
    }
    let end = block[..100].iter().position(|byte| *byte == 0);
    let name = String::from_utf8_lossy(&block[..end.unwrap_or(100)]).into_owned();
    // pg_dump leaves the prefix empty; a name could hide in it.
    if block[345..500].iter().any(|byte| *byte != 0) {
        return Err(ArchiveError::UnsafeFileName { name });
    }
    let Some(size) = size(&block[124..136]) else {
        return Err(reader.damaged(format!("the size of {name:?} cannot be read")));
    };
    Ok(Some(Member { name, size }))
}

/// A number in octal digits, which may end with spaces or zero bytes.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let text = text.trim_matches([' ', '\0']);
    u64::from_str_radix(text, 8).ok()
}

/// A size: octal, or 11 bytes in base 256 after a byte of 128.
fn size(field: &[u8]) -> Option<u64> {
    let Some((128, bytes)) = field.split_first() else {
        return octal(field);
    };
    let (high, low) = bytes.split_at(bytes.len() - size_of::<u64>());
    let value = low
        .iter()
        .fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    (high.iter().all(|byte| *byte == 0) && value < 1 << 62).then_some(value)
}

/// The zero bytes that fill the last block of a file.
fn padding<R: Read>(reader: &mut ArchiveReader<R>, size: u64) -> Result<(), ArchiveError> {
    let length = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    zeros(reader, length)
}

fn zeros<R: Read>(reader: &mut ArchiveReader<R>, length: u64) -> Result<(), ArchiveError> {
    let mut clean = true;
    reader.take(length, "the padding of the tar format", |piece| {
        clean &= piece.iter().all(|byte| *byte == 0);
        Ok(())
    })?;
    if clean {
        Ok(())
    } else {
        Err(reader.damaged("the padding of the tar format is not empty"))
    }
}

/// The second block of the end; nothing but zero bytes may follow.
fn end<R: Read>(reader: &mut ArchiveReader<R>) -> Result<(), ArchiveError> {
    zeros(reader, BLOCK as u64)?;
    loop {
        let buffered = reader.fill()?;
        let length = buffered.len();
        if length == 0 {
            return Ok(());
        }
        if buffered.iter().any(|byte| *byte != 0) {
            return Err(reader.damaged("bytes follow the end of the archive"));
        }
        reader.consume(length);
    }
}

/// The content of one file.
struct MemberReader<'a, R> {
    archive: &'a mut ArchiveReader<R>,
    left: u64,
}

impl<R: Read> MemberReader<'_, R> {
    /// Hands over all that is left.
    fn pieces(
        &mut self,
        piece: impl FnMut(&[u8]) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let left = std::mem::take(&mut self.left);
        let taken = self.archive.take(left, "a file of the tar format", piece);
        taken.map_err(|error| self.placed(error))
    }

    fn placed(&self, error: ArchiveError) -> ArchiveError {
        match error {
            ArchiveError::Damaged {
                subject,
                problem,
                offset: 0,
            } => ArchiveError::Damaged {
                subject,
                offset: self.archive.offset(),
                problem,
            },
            error => error,
        }
    }
}

impl<R: Read> Read for MemberReader<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buf.is_empty() {
            return Ok(0);
        }
        let buffered = self.archive.fill().map_err(io::Error::other)?;
        // At a cut this is 0 with bytes left, which the caller of the file's reader finds.
        let room = buf.len().min(buffered.len());
        let now = room.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        buf[..now].copy_from_slice(&buffered[..now]);
        self.archive.consume(now);
        self.left -= now as u64;
        Ok(now)
    }
}
