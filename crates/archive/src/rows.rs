//! Counts the rows of COPY's text format and insists on its terminator, which every pg_dump
//! writes as `\.` and three line breaks.
//!
//! In text COPY every newline byte ends a row (newlines inside values are written `\n`), and no
//! row is `\.` alone, because a backslash inside a value is doubled.

use memchr::memchr;

/// Line breaks after the terminator.
const BREAKS: u8 = 3;

/// Counts rows while bytes pass.
#[derive(Default)]
pub(crate) struct RowCounter {
    rows: u64,
    line: Line,
}

/// What is known of the line that is read now.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Nothing of it was read.
    #[default]
    Start,
    /// It begins with a backslash.
    Backslash,
    /// It is `\.` so far.
    Terminator,
    /// It is a row.
    Row,
    /// The terminator was read, and so many line breaks after it.
    Ended(u8),
}

impl RowCounter {
    /// Takes bytes.
    ///
    /// # Errors
    /// What follows the terminator, when it is not empty lines.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while let Some(&byte) = bytes.first() {
            match (self.line, byte) {
                (Line::Start, b'\\') => self.line = Line::Backslash,
                (Line::Backslash, b'.') => self.line = Line::Terminator,
                (Line::Terminator, b'\n') => self.line = Line::Ended(1),
                (Line::Ended(breaks @ ..BREAKS), b'\n') => self.line = Line::Ended(breaks + 1),
                (Line::Ended(_), _) => return Err("bytes follow the terminator of the rows"),
                _ => {
                    // Inside a row: on to its end in one leap.
                    if let Some(end) = memchr(b'\n', bytes) {
                        self.rows += 1;
                        self.line = Line::Start;
                        bytes = &bytes[end + 1..];
                    } else {
                        self.line = Line::Row;
                        bytes = &[];
                    }
                    continue;
                }
            }
            bytes = &bytes[1..];
        }
        Ok(())
    }

    /// The number of rows.
    ///
    /// # Errors
    /// When the terminator was not seen.
    pub(crate) fn finish(self) -> Result<u64, &'static str> {
        match self.line {
            Line::Ended(BREAKS) => Ok(self.rows),
            _ => Err("the rows end without their terminator (\\.)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::RowCounter;

    fn count(bytes: &[u8], piece: usize) -> Result<u64, &'static str> {
        let mut counter = RowCounter::default();
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
                    count(text.as_bytes(), piece).map_err(|_| ()),
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
            prop_assert_eq!(count(text.as_bytes(), piece), Ok(rows.len() as u64));
        }
    }
}
