//! Counts, fingerprints and compresses what a session reads, between two reads and in the same thread:
//! while a piece is worked on, the server fills the buffer of the connection, and nobody is woken.

use archive::{ArchiveKind, LargeObjectEncoder, UnitEncoder, UsedEncoder};
use bytes::Bytes;

use super::board::Part;
use super::objects::{Event, Reader};
use super::plan::{Plan, What};
use crate::run::chain;

/// Bytes of one part that is handed over.
const PART: usize = 256 << 10;

/// A unit under way.
pub(crate) struct UnitWork<'a> {
    encoder: Encoder<'a>,
    output: Output,
}

enum Encoder<'a> {
    Rows(UnitEncoder),
    Objects {
        encoder: LargeObjectEncoder,
        reader: Reader<'a>,
        /// Whether each large object is a file of its own.
        files: bool,
    },
}

/// What is ready for the board.
#[derive(Default)]
struct Output {
    ready: Vec<u8>,
    parts: Vec<Part>,
}

impl Output {
    /// Makes a part of what is there; `all` also when it is little.
    fn flush(&mut self, all: bool) {
        if self.ready.is_empty() || (!all && self.ready.len() < PART) {
            return;
        }
        // What waits takes the room that is counted for it, and not that to which it could grow.
        let bytes = std::mem::take(&mut self.ready).into_boxed_slice();
        self.parts.push(Part::Bytes(Bytes::from(bytes)));
    }
}

impl<'a> UnitWork<'a> {
    /// `used`: what the mover's last unit of rows left.
    ///
    /// # Errors
    /// In words, here and below: nothing that goes wrong can be mended.
    pub(crate) fn new(
        plan: &'a Plan,
        number: usize,
        used: &mut Option<UsedEncoder>,
    ) -> Result<Self, String> {
        let unit = &plan.units[number];
        let entry = plan.entry(unit);
        let encoder = match unit.what {
            What::Objects { .. } => Encoder::Objects {
                encoder: LargeObjectEncoder::new(plan.format, plan.wanted.large_objects())
                    .map_err(|error| chain(&error))?,
                reader: Reader::new(plan.objects(unit)),
                files: plan.format.kind != ArchiveKind::Custom,
            },
            What::Table | What::Range(_) => {
                let wanted = plan.wanted.table(entry.oid);
                let encoder = match used.take() {
                    Some(used) => used.again(entry, wanted),
                    None => UnitEncoder::new(plan.format, entry, wanted),
                };
                Encoder::Rows(encoder.map_err(|error| chain(&error))?)
            }
        };
        Ok(Self {
            encoder,
            output: Output::default(),
        })
    }

    /// Takes bytes of the session, and returns what is ready.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Part>, String> {
        let output = &mut self.output;
        match &mut self.encoder {
            Encoder::Rows(encoder) => encoder
                .push(bytes, &mut output.ready)
                .map_err(|error| chain(&error))?,
            Encoder::Objects {
                encoder,
                reader,
                files,
            } => reader.push(bytes, &mut |event| take(event, encoder, output, *files))?,
        }
        output.flush(false);
        Ok(std::mem::take(&mut output.parts))
    }

    /// The unit ended, with so many rows by the server's count. `used` takes what it leaves.
    pub(crate) fn finish(
        self,
        rows: u64,
        used: &mut Option<UsedEncoder>,
    ) -> Result<Vec<Part>, String> {
        let Self {
            encoder,
            mut output,
        } = self;
        match encoder {
            Encoder::Rows(encoder) => {
                let (summary, left) = encoder
                    .finish_for_another(&mut output.ready)
                    .map_err(|error| chain(&error))?;
                *used = Some(left);
                output.flush(true);
                output.parts.push(Part::Rows(summary, rows));
            }
            Encoder::Objects {
                mut encoder,
                reader,
                files,
            } => {
                // One without large objects read nothing.
                if reader.expects_any() {
                    reader.finish(&mut |event| take(event, &mut encoder, &mut output, files))?;
                }
                output.flush(true);
                output.parts.push(Part::Objects(encoder.finish()));
            }
        }
        Ok(output.parts)
    }
}

/// Encodes what the stream of large objects told.
fn take(
    event: Event<'_>,
    encoder: &mut LargeObjectEncoder,
    output: &mut Output,
    files: bool,
) -> Result<(), String> {
    match event {
        Event::Begin(oid) => {
            if files {
                output.parts.push(Part::Object(oid));
            }
            encoder
                .begin(oid, &mut output.ready)
                .map_err(|error| chain(&error))
        }
        Event::Content(bytes) => {
            encoder
                .push(bytes, &mut output.ready)
                .map_err(|error| chain(&error))?;
            output.flush(false);
            Ok(())
        }
        Event::End => {
            encoder
                .end(&mut output.ready)
                .map_err(|error| chain(&error))?;
            if files {
                output.flush(true);
                output.parts.push(Part::ObjectEnd);
            }
            Ok(())
        }
    }
}
