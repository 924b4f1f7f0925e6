//! Large objects in batches: one statement reads many, whole or in pieces, in binary COPY.

use std::fmt::Write as _;

/// Large objects of one unit.
pub(crate) const BATCH: usize = 250;
/// Bytes of a large object that the server hands over at once.
pub(crate) const PIECE: usize = 1 << 20;
/// Signature of binary COPY, with its flags and the length of its extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Reads the large objects in this order: a row for each piece, with oid, number of the piece
/// counted from 0 and content. The length of one that is longer than a piece is asked for; a hole
/// reads as zeros, as it does for everybody.
pub(crate) fn statement(oids: &[u32]) -> String {
    let mut list = String::with_capacity(oids.len() * 8);
    for oid in oids {
        let _ = write!(list, "{}{oid}", if list.is_empty() { "" } else { "," });
    }
    format!(
        "copy (select o.oid, p.piece,
  pg_catalog.lo_get(o.oid, p.piece * {PIECE}, {PIECE})
from (select u.oid,
    case when pg_catalog.octet_length(pg_catalog.lo_get(u.oid, {PIECE}, 1)) = 0 then 0
      else pg_catalog.lo_lseek64(pg_catalog.lo_open(u.oid, 262144), 0, 2) end as bytes
  from pg_catalog.unnest('{{{list}}}'::pg_catalog.oid[]) u (oid) offset 0) o
  cross join lateral pg_catalog.generate_series(
    0::pg_catalog.int8, greatest(o.bytes - 1, 0) / {PIECE}) p (piece)) to stdout (format binary)"
    )
}

/// What the stream tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A large object begins.
    Begin(u32),
    /// Some of its content.
    Content(&'a [u8]),
    /// It ends.
    End,
}

/// Reads the answer of [`statement`], and checks that it holds these large objects, each whole, in
/// this order.
pub(crate) struct Reader<'a> {
    expected: &'a [u32],
    /// Index of the large object that is open, with the number of the next piece.
    open: Option<(usize, u64)>,
    /// Whether the last piece was shorter than a whole one: no other may follow.
    short: bool,
    waiting: Vec<u8>,
    header: bool,
    ended: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(expected: &'a [u32]) -> Self {
        Self {
            expected,
            open: None,
            short: false,
            waiting: Vec::new(),
            header: false,
            ended: false,
        }
    }

    /// Whether there is anything to be read.
    pub(crate) fn expects_any(&self) -> bool {
        !self.expected.is_empty()
    }

    /// Takes bytes of the stream, cut anywhere.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        each: &mut dyn FnMut(Event<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.extend_from_slice(bytes);
        let mut rest = waiting.as_slice();
        while let Some(length) = self.step(rest, each)? {
            rest = &rest[length..];
        }
        let done = waiting.len() - rest.len();
        waiting.drain(..done);
        self.waiting = waiting;
        Ok(())
    }

    /// Reads the header, a row or the end: how long it was, or `None` when it is not yet whole.
    fn step(
        &mut self,
        rest: &[u8],
        each: &mut dyn FnMut(Event<'_>) -> Result<(), String>,
    ) -> Result<Option<usize>, String> {
        if !self.header {
            if rest.len() < HEADER.len() {
                return Ok(None);
            }
            if !rest.starts_with(HEADER) {
                return Err("large objects came in an unknown form".to_owned());
            }
            self.header = true;
            return Ok(Some(HEADER.len()));
        }
        let mut fields = Fields { rest };
        match fields.int::<2>() {
            None => return Ok(None),
            Some(_) if self.ended => return Err("bytes follow the large objects".to_owned()),
            Some([0xff, 0xff]) => {
                self.ended = true;
                return Ok(Some(2));
            }
            Some([0, 3]) => {}
            Some(_) => return Err("a large object came with other columns".to_owned()),
        }
        let (Some(oid), Some(piece), Some(content)) =
            (fields.field()?, fields.field()?, fields.field()?)
        else {
            return Ok(None);
        };
        let (Ok(oid), Ok(piece)) = (oid.try_into(), piece.try_into()) else {
            return Err("a large object came with columns of other types".to_owned());
        };
        let read = rest.len() - fields.rest.len();
        self.row(
            u32::from_be_bytes(oid),
            u64::from_be_bytes(piece),
            content,
            each,
        )?;
        Ok(Some(read))
    }

    fn row(
        &mut self,
        oid: u32,
        piece: u64,
        content: &[u8],
        each: &mut dyn FnMut(Event<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let next = match self.open {
            Some((index, next)) if self.expected[index] == oid && next == piece => {
                if self.short {
                    return Err(format!("large object {oid} came with a gap"));
                }
                (index, next + 1)
            }
            open => {
                let index = open.map_or(0, |(index, _)| index + 1);
                if self.expected.get(index) != Some(&oid) || piece != 0 {
                    return Err(format!(
                        "piece {piece} of large object {oid} came out of its turn"
                    ));
                }
                if open.is_some() {
                    each(Event::End)?;
                }
                each(Event::Begin(oid))?;
                (index, 1)
            }
        };
        self.open = Some(next);
        self.short = content.len() < PIECE;
        if content.len() > PIECE {
            return Err(format!("a piece of large object {oid} is too long"));
        }
        each(Event::Content(content))
    }

    /// Checks that the stream came to its end and all large objects were there.
    pub(crate) fn finish(
        self,
        each: &mut dyn FnMut(Event<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let seen = self.open.map_or(0, |(index, _)| index + 1);
        if !self.ended || !self.waiting.is_empty() || seen != self.expected.len() {
            return Err(format!(
                "{seen} large objects came of {}",
                self.expected.len()
            ));
        }
        if self.open.is_some() {
            each(Event::End)?;
        }
        Ok(())
    }
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn int<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    /// `None` where it is not yet whole.
    fn field(&mut self) -> Result<Option<&'a [u8]>, String> {
        let Some(length) = self.int::<4>().map(i32::from_be_bytes) else {
            return Ok(None);
        };
        let Ok(length) = usize::try_from(length) else {
            return Err("a large object came without content".to_owned());
        };
        if length > PIECE {
            return Err("a piece of a large object is too long".to_owned());
        }
        let Some((field, rest)) = self.rest.split_at_checked(length) else {
            return Ok(None);
        };
        self.rest = rest;
        Ok(Some(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(rows: &[(u32, u64, &[u8])]) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        for (oid, piece, content) in rows {
            bytes.extend([0, 3, 0, 0, 0, 4]);
            bytes.extend(oid.to_be_bytes());
            bytes.extend([0, 0, 0, 8]);
            bytes.extend(piece.to_be_bytes());
            bytes.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
            bytes.extend(*content);
        }
        bytes.extend([0xff, 0xff]);
        bytes
    }

    fn read(expected: &[u32], bytes: &[u8], step: usize) -> Result<Vec<(u32, Vec<u8>)>, String> {
        let mut found: Vec<(u32, Vec<u8>)> = Vec::new();
        let mut open = false;
        let mut each = |event: Event<'_>| {
            match event {
                Event::Begin(oid) => {
                    assert!(!std::mem::replace(&mut open, true));
                    found.push((oid, Vec::new()));
                }
                Event::Content(bytes) => found.last_mut().unwrap().1.extend(bytes),
                Event::End => assert!(std::mem::replace(&mut open, false)),
            }
            Ok(())
        };
        let mut reader = Reader::new(expected);
        for piece in bytes.chunks(step) {
            reader.push(piece, &mut each)?;
        }
        reader.finish(&mut each)?;
        assert!(!open);
        Ok(found)
    }

    #[test]
    fn large_objects_come_whole_wherever_the_stream_is_cut() {
        let big = vec![9; PIECE];
        let rows = [
            (5, 0, &b""[..]),
            (7, 0, &big),
            (7, 1, &big),
            (7, 2, b"end"),
            (9, 0, b"\0\xff"),
        ];
        let bytes = stream(&rows);
        for step in [1 << 12, 70_001, bytes.len()] {
            let found = read(&[5, 7, 9], &bytes, step).unwrap();
            let sizes: Vec<_> = found.iter().map(|(oid, all)| (*oid, all.len())).collect();
            assert_eq!(sizes, [(5, 0), (7, 2 * PIECE + 3), (9, 2)]);
        }
        let small = stream(&[(5, 0, b"x"), (9, 0, b"yz")]);
        for step in 1..small.len() {
            let found = read(&[5, 9], &small, step).unwrap();
            assert_eq!(found[1].1, b"yz");
        }
        assert_eq!(read(&[], &stream(&[]), 3).unwrap(), []);
    }

    #[test]
    fn what_is_missing_or_out_of_order_is_an_error() {
        let whole = stream(&[(5, 0, b"x"), (9, 0, b"yz")]);
        for cut in 0..whole.len() {
            assert!(read(&[5, 9], &whole[..cut], 7).is_err(), "cut at {cut}");
        }
        let wrong: [&[(u32, u64, &[u8])]; 6] = [
            &[(9, 0, b"yz"), (5, 0, b"x")],
            &[(5, 0, b"x")],
            &[(5, 0, b"x"), (5, 1, b"x"), (9, 0, b"")],
            &[(5, 1, b"x"), (9, 0, b"")],
            &[(5, 0, b"x"), (9, 0, b""), (10, 0, b"")],
            &[(5, 0, b"x"), (8, 0, b"")],
        ];
        for rows in wrong {
            assert!(read(&[5, 9], &stream(rows), 64).is_err(), "{rows:?}");
        }
        let mut longer = whole;
        longer.extend([0, 3]);
        assert!(read(&[5, 9], &longer, 64).is_err());
        assert!(read(&[5, 9], b"PGCOPY but not so at all", 64).is_err());
    }
}
