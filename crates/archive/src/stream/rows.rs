//! Rows without their terminator.

use crate::{
    error::ArchiveError,
    rows::{END, RowCounter},
    stream::{DataConsumer, RowsEntry},
    toc::describe,
};

/// Counts rows and hands them on, but for the terminator: a piece's end that may be the begin of it
/// is held back until it is known what follows.
pub(crate) struct RowStream<'a> {
    entry: &'a RowsEntry,
    consumer: &'a mut dyn DataConsumer,
    counter: RowCounter,
    /// Bytes of the terminator that are held back.
    held: usize,
}

impl<'a> RowStream<'a> {
    pub(crate) fn begin(
        entry: &'a RowsEntry,
        consumer: &'a mut dyn DataConsumer,
    ) -> Result<Self, ArchiveError> {
        consumer.begin_rows(entry).map_err(refused)?;
        Ok(Self {
            entry,
            consumer,
            counter: RowCounter::new(None, None),
            held: 0,
        })
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<(), ArchiveError> {
        self.counter
            .push(bytes)
            .map_err(|problem| self.damaged(problem))?;
        if self.held > 0 {
            let goes_on = END[self.held..]
                .iter()
                .zip(bytes)
                .take_while(|(expected, byte)| expected == byte)
                .count();
            if goes_on == bytes.len() {
                self.held += goes_on;
                return Ok(());
            }
            // Something else follows, so what was held is of a row. What of `bytes` looked like the
            // terminator cannot be the begin of another one, whose first byte stands there once.
            let held = std::mem::take(&mut self.held);
            self.consumer.rows(&END[..held]).map_err(refused)?;
        }
        self.held = (1..=END.len())
            .rev()
            .find(|length| bytes.ends_with(&END[..*length]))
            .unwrap_or(0);
        bytes = &bytes[..bytes.len() - self.held];
        if bytes.is_empty() {
            return Ok(());
        }
        self.consumer.rows(bytes).map_err(refused)
    }

    pub(crate) fn finish(self) -> Result<(), ArchiveError> {
        let Self {
            entry,
            consumer,
            counter,
            ..
        } = self;
        let rows = counter
            .finish()
            .map_err(|problem| damaged(entry, problem))?;
        consumer.end_rows(rows.rows).map_err(refused)
    }

    fn damaged(&self, problem: &str) -> ArchiveError {
        damaged(self.entry, problem)
    }
}

/// An offset of 0: whoever knows the place in the file puts it in.
fn damaged(entry: &RowsEntry, problem: &str) -> ArchiveError {
    ArchiveError::Damaged {
        subject: format!(
            "the data of {}",
            describe("TABLE DATA", Some(&entry.schema), &entry.name)
        ),
        offset: 0,
        problem: problem.to_owned(),
    }
}

pub(crate) fn refused(source: std::io::Error) -> ArchiveError {
    ArchiveError::Consumer { source }
}

#[cfg(test)]
mod tests {
    use std::io;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Taken {
        rows: Vec<u8>,
        count: Option<u64>,
    }

    impl DataConsumer for Taken {
        fn begin_rows(&mut self, _: &RowsEntry) -> io::Result<()> {
            Ok(())
        }
        fn rows(&mut self, piece: &[u8]) -> io::Result<()> {
            assert!(!piece.is_empty());
            self.rows.extend_from_slice(piece);
            Ok(())
        }
        fn end_rows(&mut self, rows: u64) -> io::Result<()> {
            self.count = Some(rows);
            Ok(())
        }
        fn begin_large_object(&mut self, _: u32) -> io::Result<()> {
            Err(io::Error::other("rows are no large objects"))
        }
        fn large_object(&mut self, _: &[u8]) -> io::Result<()> {
            Err(io::Error::other("rows are no large objects"))
        }
        fn end_large_object(&mut self) -> io::Result<()> {
            Err(io::Error::other("rows are no large objects"))
        }
    }

    proptest! {
        #[test]
        fn the_terminator_alone_is_left_out(
            rows in prop::collection::vec(r"[a\\.]{0,4}", 0..12),
            pieces in prop::collection::vec(1_usize..7, 1..8),
        ) {
            let rows: Vec<_> = rows.into_iter().filter(|row| row != "\\.").collect();
            let text: String = rows.iter().flat_map(|row| [row.as_str(), "\n"]).collect();
            let all = [text.as_bytes(), END].concat();
            let entry = RowsEntry {
                dump_id: 1,
                oid: 2,
                schema: "s".into(),
                name: "t".into(),
                copy_statement: "".into(),
                lossy: false,
            };
            let mut taken = Taken::default();
            let mut stream = RowStream::begin(&entry, &mut taken).unwrap();
            let mut rest = &all[..];
            for piece in pieces.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, after) = rest.split_at((*piece).min(rest.len()));
                stream.push(now).unwrap();
                rest = after;
            }
            stream.finish().unwrap();
            prop_assert_eq!(String::from_utf8(taken.rows).unwrap(), text);
            prop_assert_eq!(taken.count, Some(rows.len() as u64));
        }
    }
}
