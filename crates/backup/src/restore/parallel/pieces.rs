//! Rows of COPY's text format in pieces. There every line feed ends a row, whatever the row holds,
//! so that a text can be cut behind any of them.

use std::io;

/// Bytes of rows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    /// Whether it ends where a row does; what follows else belongs to the same session.
    pub(super) ends_row: bool,
}

/// Collects bytes and gives pieces of nearly one size.
#[derive(Debug)]
pub(super) struct Pieces {
    size: usize,
    kept: Vec<u8>,
}

impl Pieces {
    /// Pieces of at most so many bytes.
    pub(super) fn new(size: usize) -> Self {
        Self {
            size: size.max(1),
            kept: Vec::new(),
        }
    }

    /// Takes bytes that were cut anywhere.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        give: &mut dyn FnMut(Piece) -> io::Result<()>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let now = bytes.len().min(self.size - self.kept.len());
            self.kept.extend_from_slice(&bytes[..now]);
            bytes = &bytes[now..];
            if self.kept.len() < self.size {
                break;
            }
            let mut piece = std::mem::take(&mut self.kept);
            let end = piece.iter().rposition(|byte| *byte == b'\n');
            // A row may be as long as 1 GB: it goes on in the next piece.
            let ends_row = end.is_some();
            if let Some(end) = end {
                self.kept.reserve(self.size);
                self.kept.extend_from_slice(&piece[end + 1..]);
                piece.truncate(end + 1);
            }
            give(Piece {
                bytes: piece,
                ends_row,
            })?;
        }
        Ok(())
    }

    /// What is left at the end of a table.
    pub(super) fn rest(&mut self) -> Option<Piece> {
        let mut bytes = std::mem::take(&mut self.kept);
        // It may wait for long, and what it holds is what is reckoned with.
        bytes.shrink_to_fit();
        (!bytes.is_empty()).then(|| Piece {
            ends_row: bytes.ends_with(b"\n"),
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(size: usize, parts: &[Vec<u8>]) -> Vec<Piece> {
        let mut pieces = Pieces::new(size);
        let mut given = Vec::new();
        for part in parts {
            pieces
                .push(part, &mut |piece| {
                    given.push(piece);
                    Ok(())
                })
                .unwrap();
        }
        given.extend(pieces.rest());
        given
    }

    #[test]
    fn a_row_longer_than_a_piece_goes_on() {
        let given = cut(4, &[b"1\n2\n34567890\n1\n".to_vec()]);
        let texts: Vec<_> = given
            .iter()
            .map(|piece| {
                (
                    String::from_utf8(piece.bytes.clone()).unwrap(),
                    piece.ends_row,
                )
            })
            .collect();
        let wanted = [
            ("1\n2\n", true),
            ("3456", false),
            ("7890", false),
            ("\n1\n", true),
        ];
        assert_eq!(texts, wanted.map(|(text, end)| (text.to_owned(), end)));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_ends_are_rows(
            size in 1_usize..40,
            parts in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..60), 0..8),
        ) {
            let given = cut(size, &parts);
            let all: Vec<u8> = given.iter().flat_map(|piece| piece.bytes.clone()).collect();
            prop_assert_eq!(all, parts.concat());
            for piece in &given {
                prop_assert!(piece.bytes.len() <= size && !piece.bytes.is_empty());
                prop_assert_eq!(piece.ends_row, piece.bytes.ends_with(b"\n"));
            }
        }
    }
}
