//! Compression of what is pushed in, into the pieces of a custom archive or the bytes of a file.
//!
//! Memory: [`PIECE`] twice, and the compressor's own: about 300 KiB for gzip, 1 MiB for LZ4, and
//! what [`super::frames`] takes for zstd.

use std::io::{self, Write};

use flate2::{Compress, Compression as GzipLevel, FlushCompress};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use crate::{
    error::ArchiveError,
    header::Compression,
    write::{WriteFormat, adler::EMPTY, frames::Frames},
};

/// Most bytes of a piece of a custom archive. pg_restore takes a buffer of the size of the largest.
const PIECE: usize = 128 * 1024;
/// Bytes before compression that are held back: what is smaller is compressed when its size is
/// known, which needs less memory and time.
const HELD: usize = 64 * 1024;
/// Bytes that compression adds to data that cannot be compressed, and then some.
const SMALL: usize = 256;
/// Window of gzip members, as a power of two.
const GZIP_WINDOW: u8 = 15;
/// Bytes before the data of a zlib stream.
const ZLIB_HEADER: usize = 2;
/// Room for the end of a zlib stream without data: an empty block and the checksum.
const ZLIB_END: usize = 64;

/// What the compressed bytes are a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Rows, whose other parts and end are written by others.
    Part,
    /// A whole stream: a large object.
    Whole,
}

/// Compresses one stream, or one part of it, and after its end the next.
pub(crate) struct Compressor {
    state: State,
    /// What compressed the stream before, for the next.
    kept: State,
    format: WriteFormat,
    role: Role,
    held: Vec<u8>,
    pieces: Pieces,
}

enum State {
    /// Nothing but what is held.
    Begin,
    None,
    Gzip(Compress),
    Zstd(Frames),
    Lz4(Box<FrameEncoder<Vec<u8>>>),
}

/// The part of the output that makes no full piece yet.
struct Pieces {
    custom: bool,
    /// Most bytes of a piece.
    limit: usize,
    buffer: Vec<u8>,
    used: usize,
}

impl Compressor {
    pub(crate) fn new(format: WriteFormat, role: Role) -> Self {
        Self {
            state: State::Begin,
            kept: State::Begin,
            format,
            role,
            held: Vec::new(),
            pieces: Pieces {
                custom: format.custom(),
                limit: PIECE,
                buffer: Vec::new(),
                used: 0,
            },
        }
    }

    pub(crate) fn push(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), ArchiveError> {
        if matches!(self.state, State::Begin) {
            if self.held.len() + input.len() <= HELD {
                self.held.extend_from_slice(input);
                return Ok(());
            }
            self.begin(None).map_err(failed)?;
        }
        let held = std::mem::take(&mut self.held);
        self.compress(&held, output)
            .and_then(|()| self.compress(input, output))
            .map_err(failed)
    }

    /// What follows is not a part of the same rows.
    ///
    /// # Errors
    /// [`ArchiveError::Compress`].
    pub(crate) fn something_else(&mut self) -> Result<(), ArchiveError> {
        match &mut self.kept {
            State::Zstd(frames) => frames.forget_level().map_err(failed),
            _ => Ok(()),
        }
    }

    /// Ends the stream or part. For gzip parts of a custom archive: the checksum of what was pushed.
    pub(crate) fn finish(&mut self, output: &mut Vec<u8>) -> Result<u32, ArchiveError> {
        let ended = self.finish_stream(output);
        self.pieces.flush(output);
        let stream = std::mem::replace(&mut self.state, State::Begin);
        // One that failed is not used again.
        if ended.is_ok() {
            self.kept = stream;
        }
        if self.role == Role::Whole {
            self.something_else()?;
        }
        ended
    }

    fn finish_stream(&mut self, output: &mut Vec<u8>) -> Result<u32, ArchiveError> {
        if matches!(self.state, State::Begin) {
            if self.held.is_empty() && self.role == Role::Part {
                return Ok(EMPTY);
            }
            self.begin(Some(self.held.len())).map_err(failed)?;
            let mut held = std::mem::take(&mut self.held);
            self.compress(&held, output).map_err(failed)?;
            held.clear();
            self.held = held;
        }
        self.end(output).map_err(failed)
    }

    /// Makes the compressor; `size` is that of what will be pushed, where it is known.
    fn begin(&mut self, size: Option<usize>) -> io::Result<()> {
        // Hardly ever are there more bytes than that; then there are two pieces.
        self.pieces.limit = size.map_or(PIECE, |size| PIECE.min(size + SMALL));
        let kept = std::mem::replace(&mut self.kept, State::Begin);
        self.state = match self.format.compression {
            Compression::None => State::None,
            Compression::Gzip => {
                let mut stream = match kept {
                    State::Gzip(mut stream) => {
                        stream.reset();
                        stream
                    }
                    _ => self.gzip(),
                };
                if self.stitched() {
                    // The stream that the parts make has the header once.
                    let made = step(&mut stream, &[], &mut [0; ZLIB_HEADER], FlushCompress::None)?;
                    if made != (0, ZLIB_HEADER) {
                        return Err(io::Error::other(
                            "the header of a zlib stream is not 2 bytes",
                        ));
                    }
                }
                State::Gzip(stream)
            }
            Compression::Zstd => State::Zstd(match kept {
                State::Zstd(frames) => frames,
                _ => Frames::new(self.format.level)?,
            }),
            // Not the one before: once it has written, it makes no frame of nothing.
            Compression::Lz4 => {
                let info = FrameInfo::new()
                    .block_mode(BlockMode::Linked)
                    .block_size(BlockSize::Max256KB)
                    .content_checksum(true);
                State::Lz4(Box::new(FrameEncoder::with_frame_info(info, Vec::new())))
            }
        };
        Ok(())
    }

    fn gzip(&self) -> Compress {
        let level =
            u32::try_from(self.format.level).map_or_else(|_| GzipLevel::default(), GzipLevel::new);
        if self.format.custom() {
            Compress::new(level, true)
        } else {
            Compress::new_gzip(level, GZIP_WINDOW)
        }
    }

    /// Whether this is a part of a zlib stream that several make.
    fn stitched(&self) -> bool {
        self.format.custom() && self.role == Role::Part
    }

    fn compress(&mut self, mut input: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.state {
            State::Begin | State::None => self.pieces.push(input, output),
            State::Gzip(stream) => {
                while !input.is_empty() {
                    let spare = self.pieces.spare(output);
                    let (taken, made) = step(stream, input, spare, FlushCompress::None)?;
                    if (taken, made) == (0, 0) {
                        return Err(io::Error::other("zlib does not go on"));
                    }
                    self.pieces.used += made;
                    input = &input[taken..];
                }
            }
            State::Zstd(frames) => {
                let custom = self.pieces.custom;
                frames.push(input, &mut |frame| write_frame(custom, frame, output))?;
            }
            State::Lz4(stream) => {
                stream.write_all(input)?;
                self.pieces.push(stream.get_ref(), output);
                stream.get_mut().clear();
            }
        }
        Ok(())
    }

    fn end(&mut self, output: &mut Vec<u8>) -> io::Result<u32> {
        let stitched = self.stitched();
        match &mut self.state {
            State::Begin | State::None => {}
            State::Gzip(stream) => {
                // A part ends at a byte, and nothing behind it looks back over the end.
                let flush = if stitched {
                    FlushCompress::Sync
                } else {
                    FlushCompress::Finish
                };
                loop {
                    let spare = self.pieces.spare(output);
                    let room = spare.len();
                    let (_, made) = step(stream, &[], spare, flush)?;
                    self.pieces.used += made;
                    if made < room {
                        break;
                    }
                }
                if stitched {
                    let mut end = [0; ZLIB_END];
                    let (_, made) = step(stream, &[], &mut end, FlushCompress::Finish)?;
                    return end[..made]
                        .last_chunk()
                        .map(|adler| u32::from_be_bytes(*adler))
                        .ok_or_else(|| io::Error::other("a zlib stream has no checksum"));
                }
            }
            State::Zstd(frames) => {
                let custom = self.pieces.custom;
                frames.end(&mut |frame| write_frame(custom, frame, output))?;
            }
            State::Lz4(stream) => {
                stream.try_finish().map_err(io::Error::other)?;
                self.pieces.push(stream.get_ref(), output);
                stream.get_mut().clear();
            }
        }
        Ok(EMPTY)
    }
}

/// A frame ends where a piece ends: pg_restore drops what follows it in one.
fn write_frame(custom: bool, frame: &[u8], output: &mut Vec<u8>) {
    if custom {
        frame
            .chunks(PIECE)
            .for_each(|piece| write_piece(piece, output));
    } else {
        output.extend_from_slice(frame);
    }
}

/// Bytes taken and made.
fn step(
    stream: &mut Compress,
    input: &[u8],
    output: &mut [u8],
    flush: FlushCompress,
) -> io::Result<(usize, usize)> {
    let (taken, made) = (stream.total_in(), stream.total_out());
    stream
        .compress(input, output, flush)
        .map_err(io::Error::other)?;
    // Never more than the slices are long.
    let since = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(0);
    Ok((
        since(stream.total_in(), taken),
        since(stream.total_out(), made),
    ))
}

impl Pieces {
    /// Room for more, at least a byte.
    fn spare(&mut self, output: &mut Vec<u8>) -> &mut [u8] {
        if self.used == self.limit {
            self.flush(output);
        }
        self.buffer.resize(self.limit, 0);
        &mut self.buffer[self.used..]
    }

    fn push(&mut self, mut bytes: &[u8], output: &mut Vec<u8>) {
        if !self.custom {
            output.extend_from_slice(bytes);
            return;
        }
        while !bytes.is_empty() {
            if self.used == 0 && bytes.len() >= PIECE {
                let (now, rest) = bytes.split_at(PIECE);
                write_piece(now, output);
                bytes = rest;
                continue;
            }
            let spare = self.spare(output);
            let now = bytes.len().min(spare.len());
            spare[..now].copy_from_slice(&bytes[..now]);
            self.used += now;
            bytes = &bytes[now..];
        }
    }

    fn flush(&mut self, output: &mut Vec<u8>) {
        let bytes = &self.buffer[..self.used];
        if self.custom {
            write_piece(bytes, output);
        } else {
            output.extend_from_slice(bytes);
        }
        self.used = 0;
    }
}

/// What stands before the data of an entry in a custom archive; nothing, for a directory.
pub(crate) fn write_block_begin(
    format: WriteFormat,
    block: u8,
    dump_id: i32,
    output: &mut Vec<u8>,
) {
    if format.custom() {
        output.push(block);
        write_int(dump_id, output);
    }
}

/// A piece of a custom archive with its length; nothing for none, which would be an end.
pub(crate) fn write_piece(bytes: &[u8], output: &mut Vec<u8>) {
    if let Ok(length) = i32::try_from(bytes.len())
        && length > 0
    {
        write_int(length, output);
        output.extend_from_slice(bytes);
    }
}

/// An integer as archives hold it: a sign byte and the magnitude, little endian.
pub(crate) fn write_int(value: i32, output: &mut Vec<u8>) {
    output.push(u8::from(value < 0));
    output.extend_from_slice(&value.unsigned_abs().to_le_bytes());
}

fn failed(source: io::Error) -> ArchiveError {
    ArchiveError::Compress { source }
}
