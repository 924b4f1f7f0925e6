//! Counts the rows of COPY's text format and insists on its terminator, which every pg_dump
//! writes as `\.` and three line breaks.
//!
//! In text COPY every newline byte ends a row (newlines inside values are written `\n`), and no
//! row is `\.` alone, because a backslash inside a value is doubled.

use memchr::memchr_iter;

use crate::{
    columns::{RowHasher, hash_by_columns},
    fingerprint::{Fingerprint, ItemHash, ItemHasher},
};

/// What ends the rows: the terminator with all that follows it.
pub(crate) const END: &[u8] = b"\\.\n\n\n";
/// Line breaks after the terminator.
const BREAKS: u8 = 3;
/// The terminator's line.
const TERMINATOR: &[u8] = b"\\.";

/// Counts rows, and adds up their fingerprint, while bytes pass. Keeps no row: one that comes in
/// several pieces is hashed as it comes.
#[derive(Default)]
pub(crate) struct RowCounter {
    rows: u64,
    fingerprint: Option<(ItemHash, Fingerprint)>,
    /// For rows that are hashed column by column: the order of their columns.
    columns: Option<Vec<usize>>,
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
    hasher: Option<LineHasher>,
}

/// Hashes a line that comes in pieces.
enum LineHasher {
    Whole(ItemHasher),
    ByColumns(RowHasher),
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) rows: u64,
    pub(crate) fingerprint: Option<Fingerprint>,
}

impl RowCounter {
    pub(crate) fn new(hash: Option<ItemHash>, columns: Option<Vec<usize>>) -> Self {
        Self {
            fingerprint: hash.map(|hash| (hash, Fingerprint::default())),
            columns,
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
                    match (&mut self.fingerprint, &self.columns) {
                        (Some((hash, fingerprint)), None) => fingerprint.add(*hash, line),
                        (Some((hash, fingerprint)), Some(order)) => {
                            fingerprint.add_hash(hash_by_columns(*hash, line, order));
                        }
                        (None, _) => {}
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
            let hasher = || match (&self.fingerprint, &self.columns) {
                (Some((hash, _)), Some(order)) => {
                    Some(LineHasher::ByColumns(RowHasher::new(*hash, order.len())))
                }
                (Some((hash, _)), None) => Some(LineHasher::Whole(ItemHasher::new(*hash))),
                (None, _) => None,
            };
            self.line
                .get_or_insert_with(|| Line {
                    hasher: hasher(),
                    ..Line::default()
                })
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
        if let (Some((_, fingerprint)), Some(hasher)) = (&mut self.fingerprint, line.hasher) {
            fingerprint.add_hash(match hasher {
                LineHasher::Whole(hasher) => hasher.finish(),
                LineHasher::ByColumns(hasher) => {
                    hasher.finish(self.columns.as_deref().unwrap_or_default())
                }
            });
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

    /// What was counted of rows that have no terminator yet.
    ///
    /// # Errors
    /// When there was one, and when the last row has no end.
    pub(crate) fn finish_part(self) -> Result<Rows, &'static str> {
        if self.ended > 0 {
            Err("a row is the terminator (\\.)")
        } else if self.line.is_some() {
            Err("the rows end inside a row")
        } else {
            Ok(Rows {
                rows: self.rows,
                fingerprint: self.fingerprint.map(|(_, fingerprint)| fingerprint),
            })
        }
    }

    /// What was counted.
    ///
    /// # Errors
    /// When the terminator was not seen.
    pub(crate) fn finish(self) -> Result<Rows, &'static str> {
        if self.ended == BREAKS {
            Ok(Rows {
                rows: self.rows,
                fingerprint: self.fingerprint.map(|(_, fingerprint)| fingerprint),
            })
        } else {
            Err("the rows end without their terminator (\\.)")
        }
    }
}

impl Line {
    fn push(&mut self, bytes: &[u8]) {
        let now = bytes.len().min(self.head.len() - self.length);
        self.head[self.length..self.length + now].copy_from_slice(&bytes[..now]);
        self.length += now;
        match &mut self.hasher {
            Some(LineHasher::Whole(hasher)) => hasher.push(bytes),
            Some(LineHasher::ByColumns(hasher)) => hasher.push(bytes),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Fingerprint, ItemHash, RowCounter, Rows};

    fn hashes() -> impl Strategy<Value = ItemHash> {
        prop::sample::select(vec![ItemHash::Sha256, ItemHash::Xxh3])
    }

    fn count(hash: ItemHash, bytes: &[u8], piece: usize) -> Result<Rows, &'static str> {
        count_by(hash, None, bytes, piece)
    }

    fn count_by(
        hash: ItemHash,
        columns: Option<Vec<usize>>,
        bytes: &[u8],
        piece: usize,
    ) -> Result<Rows, &'static str> {
        let mut counter = RowCounter::new(Some(hash), columns);
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
                    count(ItemHash::Xxh3, text.as_bytes(), piece)
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
        fn the_pieces_do_not_matter(
            hash in hashes(),
            rows in prop::collection::vec("[a\\\\.\t]{0,4}", 0..20),
            piece in 1_usize..9,
        ) {
            let rows: Vec<_> = rows.into_iter().filter(|row| row != "\\.").collect();
            let mut text: String = rows.iter().flat_map(|row| [row.as_str(), "\n"]).collect();
            text.push_str("\\.\n\n\n");
            let mut fingerprint = Fingerprint::default();
            rows.iter().for_each(|row| fingerprint.add(hash, row.as_bytes()));
            let expected = Rows { rows: rows.len() as u64, fingerprint: Some(fingerprint) };
            prop_assert_eq!(count(hash, text.as_bytes(), piece), Ok(expected));
        }

        #[test]
        fn the_order_of_columns_does_not_matter(
            hash in hashes(),
            rows in prop::collection::vec(("[a-c]{0,4}", "[a-c]{1,4}", "[a-c]{0,4}"), 1..10),
            piece in 1_usize..9,
            at in any::<prop::sample::Index>(),
        ) {
            let text = |rows: &[(String, String, String)], turned: bool| {
                let mut text = String::new();
                for (a, b, c) in rows {
                    let row = if turned { [c, a, b] } else { [a, b, c] };
                    text.push_str(&format!("{}\t{}\t{}\n", row[0], row[1], row[2]));
                }
                text.push_str("\\.\n\n\n");
                text
            };
            let straight = count_by(hash, Some(vec![0, 1, 2]), text(&rows, false).as_bytes(), piece);
            let turned = count_by(hash, Some(vec![1, 2, 0]), text(&rows, true).as_bytes(), 1000);
            prop_assert_eq!(straight, turned);
            prop_assert_eq!(straight, count_by(hash, Some(vec![0, 1, 2]), text(&rows, false).as_bytes(), 1000));
            let mut changed = rows.clone();
            let row = &mut changed[at.index(rows.len())];
            (row.0, row.1) = (format!("{}{}", row.0, row.1), String::new());
            prop_assert_ne!(straight, count_by(hash, Some(vec![0, 1, 2]), text(&changed, false).as_bytes(), piece));
        }
    }
}
