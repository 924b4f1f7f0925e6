//! Decompression in constant memory: bytes are pushed in as they are read, and come out through
//! a function. Every decoder insists on seeing the end of what it decodes.
//!
//! Memory: zlib's window of 32 KiB; at most about 8.5 MiB for LZ4; for zstd the window that the
//! frame asks for, at most 128 MiB (the limit of every zstd tool; the levels that pgstow and
//! pg_dump use by default need 2–8 MiB).

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

use crate::{error::ArchiveError, header::Compression, lz4::Lz4Decoder};

/// Size of the output buffer, bytes.
const OUTPUT: usize = 128 * 1024;
/// Largest zstd window that is accepted, as a power of two.
pub(crate) const ZSTD_WINDOW_LOG: u32 = 27;

/// How compressed data is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrapping {
    /// Blocks of a custom archive: one zlib stream; zstd frames must end at a block's end,
    /// because pg_restore drops the rest of the block without an error.
    Blocks,
    /// A file of a directory archive: gzip members, LZ4 or zstd frames, any number.
    File,
}

/// What a decoder says is wrong; the caller adds where.
pub(crate) enum DecodeError {
    /// The data contradicts its format.
    Problem(String),
    /// The consumer of the output refused it.
    Output(ArchiveError),
}

impl From<ArchiveError> for DecodeError {
    fn from(error: ArchiveError) -> Self {
        Self::Output(error)
    }
}

/// Takes decoded bytes.
pub(crate) type Output<'a> = dyn FnMut(&[u8]) -> Result<(), ArchiveError> + 'a;

/// A decoder of the data of one entry after the other.
pub(crate) struct Decoder {
    state: State,
    wrapping: Wrapping,
    /// Whether any byte was pushed.
    begun: bool,
    /// Whether the next byte is the first of a block.
    block_start: bool,
    buffer: Vec<u8>,
}

enum State {
    None,
    Deflate {
        stream: Decompress,
        ended: bool,
    },
    Lz4(Box<Lz4Decoder>),
    Zstd {
        stream: ZstdDecoder<'static>,
        ended: bool,
    },
}

impl Decoder {
    pub(crate) fn new(compression: Compression, wrapping: Wrapping) -> Result<Self, DecodeError> {
        let state = match compression {
            Compression::None => State::None,
            Compression::Gzip => State::Deflate {
                stream: deflate(wrapping),
                ended: false,
            },
            Compression::Lz4 => State::Lz4(Box::default()),
            Compression::Zstd => {
                let mut stream = ZstdDecoder::new().map_err(|error| problem("zstd", &error))?;
                stream
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
                    .map_err(|error| problem("zstd", &error))?;
                State::Zstd {
                    stream,
                    ended: true,
                }
            }
        };
        let buffer = match compression {
            Compression::Gzip | Compression::Zstd => vec![0; OUTPUT],
            Compression::None | Compression::Lz4 => Vec::new(),
        };
        Ok(Self {
            state,
            wrapping,
            begun: false,
            block_start: true,
            buffer,
        })
    }

    /// Says that a new block of a custom archive begins.
    pub(crate) fn begin_block(&mut self) {
        self.block_start = true;
    }

    /// Decodes all of `input`.
    pub(crate) fn push(
        &mut self,
        mut input: &[u8],
        output: &mut Output<'_>,
    ) -> Result<(), DecodeError> {
        self.begun |= !input.is_empty();
        match &mut self.state {
            State::None => output(input)?,
            State::Lz4(decoder) => decoder.push(input, output)?,
            State::Deflate { stream, ended } => {
                while !input.is_empty() {
                    if *ended {
                        if self.wrapping == Wrapping::Blocks {
                            return Err(DecodeError::Problem(
                                "bytes follow the end of the compressed data".to_owned(),
                            ));
                        }
                        *stream = deflate(self.wrapping);
                        *ended = false;
                    }
                    let (consumed, produced) = (stream.total_in(), stream.total_out());
                    let status = stream
                        .decompress(input, &mut self.buffer, FlushDecompress::None)
                        .map_err(|error| problem("gzip", &error))?;
                    let taken = usize::try_from(stream.total_in() - consumed).unwrap_or(0);
                    let made = usize::try_from(stream.total_out() - produced).unwrap_or(0);
                    output(&self.buffer[..made])?;
                    input = &input[taken..];
                    *ended = status == Status::StreamEnd;
                    if taken == 0 && made == 0 && !*ended {
                        return Err(DecodeError::Problem(
                            "the gzip data does not go on".to_owned(),
                        ));
                    }
                }
                // The window may still hold output that did not fit the buffer.
                while !*ended {
                    let produced = stream.total_out();
                    let status = stream
                        .decompress(&[], &mut self.buffer, FlushDecompress::None)
                        .map_err(|error| problem("gzip", &error))?;
                    let made = usize::try_from(stream.total_out() - produced).unwrap_or(0);
                    output(&self.buffer[..made])?;
                    *ended = status == Status::StreamEnd;
                    if made == 0 {
                        break;
                    }
                }
            }
            State::Zstd { stream, ended } => {
                let mut source = InBuffer::around(input);
                loop {
                    if source.pos() == input.len() && *ended {
                        break;
                    }
                    if *ended && self.wrapping == Wrapping::Blocks && !self.block_start {
                        return Err(DecodeError::Problem(
                            "a zstd frame ends inside a block; pg_restore would drop the rest \
                             of the block"
                                .to_owned(),
                        ));
                    }
                    let mut made = OutBuffer::around(&mut self.buffer[..]);
                    let before = source.pos();
                    let hint = stream
                        .run(&mut source, &mut made)
                        .map_err(|error| problem("zstd", &error))?;
                    let produced = made.pos();
                    output(&self.buffer[..produced])?;
                    *ended = hint == 0;
                    self.block_start = false;
                    if !*ended && source.pos() == input.len() && produced < self.buffer.len() {
                        break;
                    }
                    if source.pos() == before && produced == 0 {
                        return Err(DecodeError::Problem(
                            "the zstd data does not go on".to_owned(),
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Says that no more input comes, and makes ready for the next entry.
    pub(crate) fn finish(&mut self) -> Result<(), DecodeError> {
        let ended = match &self.state {
            State::None => true,
            State::Deflate { ended, .. } => {
                *ended || (!self.begun && self.wrapping == Wrapping::Blocks)
            }
            State::Lz4(decoder) => decoder.at_end(),
            // An empty large object of a directory archive is an empty file.
            State::Zstd { ended, .. } => *ended,
        };
        if !ended {
            return Err(DecodeError::Problem(
                "the compressed data is not complete".to_owned(),
            ));
        }
        self.begun = false;
        self.block_start = true;
        match &mut self.state {
            State::None => {}
            State::Deflate { stream, ended } => {
                match self.wrapping {
                    Wrapping::Blocks => stream.reset(true),
                    Wrapping::File => *stream = deflate(self.wrapping),
                }
                *ended = false;
            }
            State::Lz4(decoder) => decoder.restart(),
            State::Zstd { stream, ended } => {
                stream.reinit().map_err(|error| problem("zstd", &error))?;
                *ended = true;
            }
        }
        Ok(())
    }
}

fn deflate(wrapping: Wrapping) -> Decompress {
    const WINDOW_BITS: u8 = 15;
    match wrapping {
        Wrapping::Blocks => Decompress::new(true),
        Wrapping::File => Decompress::new_gzip(WINDOW_BITS),
    }
}

fn problem(method: &str, error: &dyn std::error::Error) -> DecodeError {
    DecodeError::Problem(format!("its {method} data is damaged: {error}"))
}
