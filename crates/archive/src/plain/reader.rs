//! A plain dump as psql is to get it: decompressed, and without its `\restrict` lines.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;

use flate2::bufread::MultiGzDecoder;

use crate::decode::ZSTD_WINDOW_LOG;

/// Size of the read buffer, bytes.
const BUFFER: usize = 64 * 1024;

/// Decompresses a plain dump by what its first bytes say: zstd, gzip, or nothing. A cut stream is
/// an error, not an end.
///
/// # Errors
/// The reader's failure.
pub fn open_plain<'a>(inner: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut inner = BufReader::with_capacity(BUFFER, inner);
    let start = inner.fill_buf()?;
    if start.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(inner)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        Ok(Box::new(decoder))
    } else if start.starts_with(&[0x1F, 0x8B]) {
        Ok(Box::new(MultiGzDecoder::new(inner)))
    } else {
        Ok(Box::new(inner))
    }
}

/// Leaves out ranges of a stream.
pub struct WithoutRanges<R> {
    inner: R,
    offset: u64,
    ranges: VecDeque<Range<u64>>,
}

impl<R: Read> WithoutRanges<R> {
    /// `ranges` are in order and do not overlap.
    #[must_use]
    pub fn new(inner: R, ranges: Vec<Range<u64>>) -> Self {
        Self {
            inner,
            offset: 0,
            ranges: ranges.into(),
        }
    }
}

impl<R: Read> Read for WithoutRanges<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(range) = self.ranges.front() else {
                return self.inner.read(buf);
            };
            let room = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(buf.len());
            if self.offset < range.start {
                let wanted = room(range.start - self.offset);
                let read = self.inner.read(&mut buf[..wanted])?;
                self.offset += read as u64;
                return Ok(read);
            }
            if self.offset >= range.end {
                self.ranges.pop_front();
                continue;
            }
            let wanted = room(range.end - self.offset);
            let read = self.inner.read(&mut buf[..wanted])?;
            if read == 0 {
                return Ok(0);
            }
            self.offset += read as u64;
        }
    }
}
