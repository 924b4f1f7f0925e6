//! Rows hashed column by column, without regard to the order of the columns.
//!
//! A column that was added to a parent table stands behind its child's own columns; in a child that
//! was made from its dump it stands before them. The same rows are written in another order then,
//! and are still the same rows. Only tables that inherit are hashed in this way.

use memchr::memchr;

use crate::fingerprint::{ItemHash, ItemHasher};

/// Most columns of a table of PostgreSQL.
const COLUMNS_LIMIT: usize = 1600;

/// The hash of a row of COPY's text format, in which tabs stand only between columns: the hash over
/// the hashes of the columns, in this order of theirs.
pub(crate) fn hash_by_columns(hash: ItemHash, row: &[u8], order: &[usize]) -> u128 {
    // What is too much for the columns belongs to the last, as below.
    let fields = row.splitn(order.len(), |byte| *byte == b'\t');
    hash_in_order(
        hash,
        &fields.map(|field| hash.of(field)).collect::<Vec<_>>(),
        order,
    )
}

fn hash_in_order(hash: ItemHash, fields: &[u128], order: &[usize]) -> u128 {
    let mut item = Vec::with_capacity(order.len() * size_of::<u128>());
    for at in order {
        let field = fields.get(*at).copied().unwrap_or_default();
        item.extend(field.to_be_bytes());
    }
    hash.of(&item)
}

/// As [`hash_by_columns`], of a row that comes in pieces.
pub(crate) struct RowHasher {
    hash: ItemHash,
    done: Vec<u128>,
    field: ItemHasher,
    columns: usize,
}

impl RowHasher {
    pub(crate) fn new(hash: ItemHash, columns: usize) -> Self {
        Self {
            hash,
            done: Vec::with_capacity(columns),
            field: ItemHasher::new(hash),
            columns,
        }
    }

    /// Takes bytes of the row.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        // What is too much for the columns belongs to the last, so that memory stays bounded.
        while self.done.len() + 1 < self.columns
            && let Some(end) = memchr(b'\t', bytes)
        {
            self.field.push(&bytes[..end]);
            let field = std::mem::replace(&mut self.field, ItemHasher::new(self.hash));
            self.done.push(field.finish());
            bytes = &bytes[end + 1..];
        }
        self.field.push(bytes);
    }

    /// The hash over the hashes of the columns, in this order of theirs.
    pub(crate) fn finish(mut self, order: &[usize]) -> u128 {
        self.done.push(self.field.finish());
        hash_in_order(self.hash, &self.done, order)
    }
}

/// Places of the columns of `COPY s.t (b, a) FROM stdin;` in the order of their names; `None` when
/// it names none.
pub(crate) fn order_of_columns(statement: &str) -> Option<Vec<usize>> {
    let mut names = vec![String::new()];
    let (mut quoted, mut inside) = (false, false);
    for character in statement.chars() {
        quoted ^= character == '"';
        match character {
            '(' if !quoted && !inside => inside = true,
            ')' if !quoted && inside => break,
            ',' if !quoted && inside => names.push(String::new()),
            other if inside => names.last_mut()?.push(other),
            _ => {}
        }
    }
    if !inside || names.len() > COLUMNS_LIMIT {
        return None;
    }
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|at| names[*at].trim());
    Some(order)
}

/// Whether the definition of a table says that it inherits.
pub(crate) fn inherits(definition: &str) -> bool {
    definition.contains(")\nINHERITS (")
}

#[cfg(test)]
mod tests {
    use super::order_of_columns;

    #[test]
    fn columns_in_the_order_of_their_names() {
        for (statement, order) in [
            ("COPY s.t (b, c, a) FROM stdin;\n", Some(vec![2, 0, 1])),
            ("COPY s.t (a) FROM stdin;\n", Some(vec![0])),
            ("COPY s.t  FROM stdin;\n", None),
            (
                "COPY \"s (x\".\"t, y\" (b, \"a, \"\"(z\", c) FROM stdin;\n",
                Some(vec![1, 0, 2]),
            ),
        ] {
            assert_eq!(order_of_columns(statement), order, "{statement}");
        }
    }
}
