//! The smallest parts of an archive: bytes, integers, offsets and strings, read with bounds.
//!
//! No length in a file is trusted: buffers grow only as bytes arrive, up to a limit that the
//! caller gives.

use std::io::{self, BufRead, BufReader, Read};

use memchr::memchr;

use crate::error::ArchiveError;

/// Size of the read buffer, bytes.
const BUFFER: usize = 64 * 1024;
/// Most bytes of an entry that are kept to be copied; no text of a catalogue comes near it.
const COPIED_LIMIT: usize = 128 * 1024 * 1024;

/// A buffered reader that counts, and says where something went wrong.
pub(crate) struct ArchiveReader<R> {
    inner: BufReader<R>,
    offset: u64,
    subject: String,
    /// Bytes of an integer; 4 in every archive that pg_dump wrote.
    int_size: usize,
    /// Bytes of an offset.
    off_size: usize,
    /// Bytes that were consumed and not taken yet, where they are copied.
    copied: Option<Vec<u8>>,
}

impl<R: Read> ArchiveReader<R> {
    pub(crate) fn new(inner: R, subject: impl Into<String>) -> Self {
        Self {
            inner: BufReader::with_capacity(BUFFER, inner),
            offset: 0,
            subject: subject.into(),
            int_size: 4,
            off_size: 8,
            copied: None,
        }
    }

    /// Keeps what is consumed for [`ArchiveReader::take_copied`].
    pub(crate) fn copying(mut self) -> Self {
        self.copied = Some(Vec::new());
        self
    }

    /// What was consumed since the last call.
    pub(crate) fn take_copied(&mut self) -> Vec<u8> {
        self.copied.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Bytes of an offset.
    pub(crate) fn off_size(&self) -> usize {
        self.off_size
    }

    pub(crate) fn set_off_size(&mut self, off_size: usize) {
        self.off_size = off_size;
    }

    /// Bytes consumed so far.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn damaged(&self, problem: impl Into<String>) -> ArchiveError {
        ArchiveError::Damaged {
            subject: self.subject.clone(),
            offset: self.offset,
            problem: problem.into(),
        }
    }

    pub(crate) fn cut(&self, inside: impl Into<String>) -> ArchiveError {
        ArchiveError::Cut {
            subject: self.subject.clone(),
            offset: self.offset,
            inside: inside.into(),
        }
    }

    /// What is buffered; empty at the end of the file.
    pub(crate) fn fill(&mut self) -> Result<&[u8], ArchiveError> {
        if self
            .copied
            .as_ref()
            .is_some_and(|bytes| bytes.len() > COPIED_LIMIT)
        {
            return Err(ArchiveError::TooLarge {
                subject: format!("an entry of {}", self.subject),
                limit: COPIED_LIMIT as u64,
            });
        }
        loop {
            match self.inner.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(ArchiveError::Read {
                        subject: self.subject.clone(),
                        offset: self.offset,
                        source,
                    });
                }
            }
        }
        Ok(self.inner.buffer())
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        if let Some(copied) = &mut self.copied {
            copied.extend_from_slice(&self.inner.buffer()[..bytes]);
        }
        self.inner.consume(bytes);
        self.offset += bytes as u64;
    }

    /// One byte, or `None` at the end of the file.
    pub(crate) fn byte_or_end(&mut self) -> Result<Option<u8>, ArchiveError> {
        let byte = self.fill()?.first().copied();
        if byte.is_some() {
            self.consume(1);
        }
        Ok(byte)
    }

    pub(crate) fn byte(&mut self, inside: &str) -> Result<u8, ArchiveError> {
        self.byte_or_end()?.ok_or_else(|| self.cut(inside))
    }

    /// An integer: a sign byte (0 or 1) and the magnitude, little endian.
    pub(crate) fn int(&mut self, inside: &str) -> Result<i64, ArchiveError> {
        let sign = self.byte(inside)?;
        if sign > 1 {
            return Err(self.damaged(format!("the sign byte of {inside} is {sign}")));
        }
        let magnitude = self.little_endian(self.int_size, inside)?;
        let magnitude = i64::try_from(magnitude)
            .map_err(|_| self.damaged(format!("{inside} is out of range")))?;
        if magnitude > i64::from(i32::MAX) + i64::from(sign) {
            return Err(self.damaged(format!("{inside} is out of range")));
        }
        Ok(if sign == 1 { -magnitude } else { magnitude })
    }

    /// An integer that must fit `i32`.
    pub(crate) fn int32(&mut self, inside: &str) -> Result<i32, ArchiveError> {
        let value = self.int(inside)?;
        i32::try_from(value).map_err(|_| self.damaged(format!("{inside} is out of range")))
    }

    /// An object identifier, which pg_dump writes as a signed integer.
    pub(crate) fn oid(&mut self, inside: &str) -> Result<u32, ArchiveError> {
        Ok(self.int32(inside)?.cast_unsigned())
    }

    /// A file offset, little endian.
    pub(crate) fn file_offset(&mut self, inside: &str) -> Result<u64, ArchiveError> {
        self.little_endian(self.off_size, inside)
    }

    fn little_endian(&mut self, size: usize, inside: &str) -> Result<u64, ArchiveError> {
        let mut value = 0_u64;
        for position in 0..size {
            value |= u64::from(self.byte(inside)?) << (8 * position);
        }
        Ok(value)
    }

    /// Length of a string; `None` for SQL's null.
    fn string_length(&mut self, inside: &str) -> Result<Option<u64>, ArchiveError> {
        match self.int(inside)? {
            -1 => Ok(None),
            length => u64::try_from(length)
                .map(Some)
                .map_err(|_| self.damaged(format!("the length of {inside} is {length}"))),
        }
    }

    /// A string of at most `limit` bytes, as raw bytes.
    pub(crate) fn bytes(
        &mut self,
        inside: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, ArchiveError> {
        let Some(length) = self.string_length(inside)? else {
            return Ok(None);
        };
        if length > limit {
            return Err(ArchiveError::TooLarge {
                subject: format!("{inside} of {}", self.subject),
                limit,
            });
        }
        let mut bytes = Vec::new();
        self.take(length, inside, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        if bytes.contains(&0) {
            return Err(self.damaged(format!("{inside} holds a zero byte")));
        }
        Ok(Some(bytes))
    }

    /// Passes over a string; `true` when there was one that is not empty.
    pub(crate) fn skip_string(&mut self, inside: &str) -> Result<bool, ArchiveError> {
        let Some(length) = self.string_length(inside)? else {
            return Ok(false);
        };
        // What is passed over is judged like what is kept.
        let mut zero = false;
        self.take(length, inside, |piece| {
            zero |= memchr(0, piece).is_some();
            Ok(())
        })?;
        if zero {
            return Err(self.damaged(format!("{inside} holds a zero byte")));
        }
        Ok(length > 0)
    }

    /// Exactly `length` bytes, in pieces as they arrive.
    pub(crate) fn take(
        &mut self,
        length: u64,
        inside: &str,
        mut piece: impl FnMut(&[u8]) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let mut left = length;
        while left > 0 {
            let buffered = self.fill()?;
            if buffered.is_empty() {
                return Err(self.cut(inside));
            }
            let now = buffered
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            piece(&buffered[..now])?;
            self.consume(now);
            left -= now as u64;
        }
        Ok(())
    }
}
