//! Counts the rows of COPY's text format and insists on its terminator, which every pg_dump
//! writes as `\.` and three line breaks.
//!
//! In text COPY every newline byte ends a row (newlines inside values are written `\n`), and no
//! row is `\.` alone, because a backslash inside a value is doubled.

use memchr::memchr_iter;

use crate::fingerprint::{Fingerprint, ItemHasher};

/// Line breaks after the terminator.
const BREAKS: u8 = 3;
/// The terminator's line.
const TERMINATOR: &[u8] = b"\\.";

/// Counts rows, and adds up their fingerprint, while bytes pass. Keeps no row: one that comes in
/// several pieces is hashed as it comes.
#[derive(Default)]
pub(crate) struct RowCounter {
    rows: u64,
    fingerprint: Option<Fingerprint>,
    /// The part of a line that earlier pieces held.
    line: Option<Line>,
    /// Line breaks of the terminator that were read; 0 before it.
    ended: u8,
}

/// The beginning of a line whose end has not come.
#[derive(Default)]
struct Line {
    /// Its first bytes, as many as tell it from the terminator.
    head: [u8; TERMINATOR.len() + 1],
    /// How many of them there are.
    length: usize,
    hasher: Option<ItemHasher>,
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) rows: u64,
    pub(crate) fingerprint: Option<Fingerprint>,
}

impl RowCounter {
    pub(crate) fn new(fingerprint: bool) -> Self {
        Self {
            fingerprint: fingerprint.then(Fingerprint::default),
            ..Self::default()
        }
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// What follows the terminator, when it is not empty lines.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        if self.ended > 0 {
            return self.breaks(bytes);
        }
        let mut begin = 0;
        for end in memchr_iter(b'\n', bytes) {
            let line = &bytes[begin..end];
            begin = end + 1;
            let terminator = match self.line.take() {
                Some(first) => self.joined(first, line),
                None if line == TERMINATOR => true,
                None => {
                    self.rows += 1;
                    if let Some(fingerprint) = &mut self.fingerprint {
                        fingerprint.add(line);
                    }
                    false
                }
            };
            if terminator {
                self.ended = 1;
                return self.breaks(&bytes[begin..]);
            }
        }
        if begin < bytes.len() {
            let hashed = self.fingerprint.is_some();
            self.line
                .get_or_insert_with(|| Line::new(hashed))
                .push(&bytes[begin..]);
        }
        Ok(())
    }

    /// A line of several pieces, of which `last` is the last; whether it is the terminator.
    fn joined(&mut self, mut line: Line, last: &[u8]) -> bool {
        line.push(last);
        if line.head[..line.length] == *TERMINATOR {
            return true;
        }
        self.rows += 1;
        if let (Some(fingerprint), Some(hasher)) = (&mut self.fingerprint, line.hasher) {
            fingerprint.add_hash(hasher.finish());
        }
        false
    }

    /// What follows the terminator.
    fn breaks(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        for byte in bytes {
            if *byte != b'\n' || self.ended == BREAKS {
                return Err("bytes follow the terminator of the rows");
            }
            self.ended += 1;
        }
        Ok(())
    }

    /// What was counted.
    ///
    /// # Errors
    /// When the terminator was not seen.
    pub(crate) fn finish(self) -> Result<Rows, &'static str> {
        if self.ended == BREAKS {
            Ok(Rows {
                rows: self.rows,
                fingerprint: self.fingerprint,
            })
        } else {
            Err("the rows end without their terminator (\\.)")
        }
    }
}

impl Line {
    fn new(hashed: bool) -> Self {
        Self {
            hasher: hashed.then(ItemHasher::default),
            ..Self::default()
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let now = bytes.len().min(self.head.len() - self.length);
        self.head[self.length..self.length + now].copy_from_slice(&bytes[..now]);
        self.length += now;
        if let Some(hasher) = &mut self.hasher {
            hasher.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Fingerprint, RowCounter, Rows};

    fn count(bytes: &[u8], piece: usize) -> Result<Rows, &'static str> {
        let mut counter = RowCounter::new(true);
        for piece in bytes.chunks(piece) {
            counter.push(piece)?;
        }
        counter.finish()
    }

    #[test]
    fn rows_and_terminators() {
        for (text, rows) in [
            ("\\.\n\n\n", Ok(0)),
            ("\n\\.\n\n\n", Ok(1)),
            ("a\tb\n\\\\.\n\\.x\n.\n\\.\n\n\n", Ok(4)),
            ("a\n\\.\n\n", Err(())),
            ("a\n\\.\n\n\n\n", Err(())),
            ("\\N\n\\.\n\n\n", Ok(1)),
            ("", Err(())),
            ("a\n", Err(())),
            ("a\n\\.", Err(())),
            ("a\n\\.\nb\n", Err(())),
        ] {
            for piece in [1, 2, 3, 100] {
                assert_eq!(
                    count(text.as_bytes(), piece)
                        .map(|rows| rows.rows)
                        .map_err(|_| ()),
                    rows,
                    "{text:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_matter(rows in prop::collection::vec("[a\\\\.\t]{0,4}", 0..20), piece in 1_usize..9) {
            let rows: Vec<_> = rows.into_iter().filter(|row| row != "\\.").collect();
            let mut text: String = rows.iter().flat_map(|row| [row.as_str(), "\n"]).collect();
            text.push_str("\\.\n\n\n");
            let mut fingerprint = Fingerprint::default();
            rows.iter().for_each(|row| fingerprint.add(row.as_bytes()));
            let expected = Rows { rows: rows.len() as u64, fingerprint: Some(fingerprint) };
            prop_assert_eq!(count(text.as_bytes(), piece), Ok(expected));
        }
    }
}
