//! Rows hashed column by column, without regard to the order of the columns.
//!
//! A column that was added to a parent table stands behind its child's own columns; in a child that
//! was made from its dump it stands before them. The same rows are written in another order then,
//! and are still the same rows. Only tables that inherit are hashed in this way.

use memchr::memchr;

use crate::fingerprint::{ItemHasher, hash};

/// Most columns of a table of PostgreSQL.
const COLUMNS_LIMIT: usize = 1600;

/// Hashes one row of COPY's text format, in which tabs stand only between columns.
pub(crate) struct RowHasher {
    done: Vec<u128>,
    field: ItemHasher,
    columns: usize,
}

impl RowHasher {
    pub(crate) fn new(columns: usize) -> Self {
        Self {
            done: Vec::with_capacity(columns),
            field: ItemHasher::default(),
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
            self.done.push(std::mem::take(&mut self.field).finish());
            bytes = &bytes[end + 1..];
        }
        self.field.push(bytes);
    }

    /// The hash over the hashes of the columns, in this order of theirs.
    pub(crate) fn finish(mut self, order: &[usize]) -> u128 {
        self.done.push(self.field.finish());
        let mut item = Vec::with_capacity(self.done.len() * size_of::<u128>());
        for at in order {
            let field = self.done.get(*at).copied().unwrap_or_default();
            item.extend(field.to_be_bytes());
        }
        hash(&item)
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
