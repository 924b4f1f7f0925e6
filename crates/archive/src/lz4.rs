//! LZ4 frames, decoded strictly: every frame must reach its end mark, and every checksum that is
//! there is checked. (The frame reader of `lz4_flex` takes a cut between two blocks for the end.)
//!
//! Source of facts: the LZ4 frame format description, version 1.6.

use std::hash::Hasher;

use lz4_flex::block::decompress_into_with_dict;
use twox_hash::XxHash32;

use crate::decode::{DecodeError, Output};

const MAGIC: u32 = 0x184D_2204;
/// Distance that a match may reach back, bytes.
const WINDOW: usize = 64 * 1024;

/// A decoder of any number of frames.
#[derive(Default)]
pub(crate) struct Lz4Decoder {
    state: State,
    /// Bytes collected for the part that is read now.
    part: Vec<u8>,
    frame: Frame,
    /// The last [`WINDOW`] bytes of output, for linked blocks.
    window: Vec<u8>,
    /// Output of one block.
    block: Vec<u8>,
}

/// The part that is read now.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between frames, or in the first 4 bytes of one.
    #[default]
    Magic,
    /// Flags and block descriptor (2 bytes).
    Flags,
    /// The rest of the frame's header, of so many bytes.
    Header(usize),
    /// Size of a block (4 bytes).
    BlockSize,
    /// A block of so many bytes with its checksum.
    Block { bytes: usize, compressed: bool },
    /// Checksum of the content (4 bytes).
    ContentChecksum,
}

#[derive(Default)]
struct Frame {
    linked: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_size: Option<u64>,
    block_max: usize,
    produced: u64,
    hasher: XxHash32,
}

impl Lz4Decoder {
    /// Whether the input so far ends with the end of a frame (or is empty).
    pub(crate) fn at_end(&self) -> bool {
        self.state == State::Magic && self.part.is_empty()
    }

    /// Makes ready for other data.
    pub(crate) fn restart(&mut self) {
        self.state = State::Magic;
        self.part.clear();
        self.frame = Frame::default();
        self.window.clear();
    }

    pub(crate) fn push(
        &mut self,
        mut input: &[u8],
        output: &mut Output<'_>,
    ) -> Result<(), DecodeError> {
        loop {
            let wanted = self.wanted();
            let now = (wanted - self.part.len()).min(input.len());
            self.part.extend_from_slice(&input[..now]);
            input = &input[now..];
            if self.part.len() < wanted {
                return Ok(());
            }
            let part = std::mem::take(&mut self.part);
            self.state = self.take_part(&part, output)?;
            self.part = part;
            self.part.clear();
        }
    }

    fn wanted(&self) -> usize {
        match self.state {
            State::Magic | State::BlockSize | State::ContentChecksum => 4,
            State::Flags => 2,
            State::Header(bytes) => bytes,
            State::Block { bytes, .. } => bytes + if self.frame.block_checksums { 4 } else { 0 },
        }
    }

    fn take_part(&mut self, part: &[u8], output: &mut Output<'_>) -> Result<State, DecodeError> {
        match self.state {
            State::Magic => {
                if number(part) == MAGIC {
                    Ok(State::Flags)
                } else {
                    bad("it is no LZ4 frame")
                }
            }
            State::Flags => self.flags(part),
            State::Header(_) => self.header(part),
            State::BlockSize => self.block_size(number(part)),
            State::Block { bytes, compressed } => {
                self.block(part, bytes, compressed, output)?;
                Ok(State::BlockSize)
            }
            State::ContentChecksum => {
                if self.frame.hasher.finish() == u64::from(number(part)) {
                    Ok(State::Magic)
                } else {
                    bad("the checksum of the content is wrong")
                }
            }
        }
    }

    fn flags(&mut self, part: &[u8]) -> Result<State, DecodeError> {
        let (flags, descriptor) = (part[0], part[1]);
        if flags >> 6 != 1 || flags & 0b10 != 0 || descriptor & 0b1000_1111 != 0 {
            return bad("the frame's flags are not valid");
        }
        if flags & 1 != 0 {
            return bad("the frame needs a dictionary");
        }
        let block_max = match descriptor >> 4 & 0b111 {
            4 => 64 * 1024,
            5 => 256 * 1024,
            6 => 1024 * 1024,
            7 => 4 * 1024 * 1024,
            _ => return bad("the frame's block size is not valid"),
        };
        let mut hasher = XxHash32::with_seed(0);
        hasher.write(part);
        let sized = flags & 0b1000 != 0;
        self.frame = Frame {
            linked: flags & 0b10_0000 == 0,
            block_checksums: flags & 0b1_0000 != 0,
            content_checksum: flags & 0b100 != 0,
            content_size: sized.then_some(0),
            block_max,
            produced: 0,
            hasher,
        };
        self.window.clear();
        Ok(State::Header(if sized { 9 } else { 1 }))
    }

    fn header(&mut self, part: &[u8]) -> Result<State, DecodeError> {
        let (fields, checksum) = part.split_at(part.len() - 1);
        if let Ok(size) = <[u8; 8]>::try_from(fields) {
            self.frame.content_size = Some(u64::from_le_bytes(size));
        }
        self.frame.hasher.write(fields);
        let hash = self.frame.hasher.finish().to_le_bytes();
        if hash[1] != checksum[0] {
            return bad("the checksum of the frame's header is wrong");
        }
        self.frame.hasher = XxHash32::with_seed(0);
        Ok(State::BlockSize)
    }

    fn block_size(&mut self, word: u32) -> Result<State, DecodeError> {
        if word == 0 {
            if self
                .frame
                .content_size
                .is_some_and(|size| size != self.frame.produced)
            {
                return bad("the frame holds less or more than its header says");
            }
            return Ok(if self.frame.content_checksum {
                State::ContentChecksum
            } else {
                State::Magic
            });
        }
        let bytes = usize::try_from(word & 0x7FFF_FFFF).unwrap_or(usize::MAX);
        if bytes > self.frame.block_max {
            return bad("a block is larger than the frame's header allows");
        }
        Ok(State::Block {
            bytes,
            compressed: word >> 31 == 0,
        })
    }

    fn block(
        &mut self,
        part: &[u8],
        bytes: usize,
        compressed: bool,
        output: &mut Output<'_>,
    ) -> Result<(), DecodeError> {
        let (data, checksum) = part.split_at(bytes);
        if !checksum.is_empty() {
            let mut hasher = XxHash32::with_seed(0);
            hasher.write(data);
            if hasher.finish() != u64::from(number(checksum)) {
                return bad("the checksum of a block is wrong");
            }
        }
        let made = if compressed {
            self.block.resize(self.frame.block_max, 0);
            let size = decompress_into_with_dict(data, &mut self.block, &self.window)
                .map_err(|error| DecodeError::Problem(format!("an LZ4 block: {error}")))?;
            &self.block[..size]
        } else {
            data
        };
        self.frame.produced += made.len() as u64;
        if self.frame.content_checksum {
            self.frame.hasher.write(made);
        }
        if self.frame.linked {
            if made.len() >= WINDOW {
                self.window.clear();
            } else {
                let surplus = (self.window.len() + made.len()).saturating_sub(WINDOW);
                self.window.drain(..surplus);
            }
            let tail = &made[made.len().saturating_sub(WINDOW)..];
            self.window.extend_from_slice(tail);
        }
        output(made)?;
        Ok(())
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .take(4)
        .rev()
        .fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn bad<T>(problem: &str) -> Result<T, DecodeError> {
    Err(DecodeError::Problem(format!(
        "its LZ4 data is damaged: {problem}"
    )))
}
