//! The COPY of an entry: which table and columns it reads, word for word as pg_dump quoted them.

/// A statement `COPY s.t (a, b) FROM stdin;` taken apart. The parts are SQL of pg_dump's own making
/// and go into other statements as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CopyStatement<'a> {
    /// `s.t`, both quoted where they have to be.
    pub(crate) table: &'a str,
    /// `a, b` without parentheses; empty for a table without columns.
    pub(crate) columns: &'a str,
}

impl<'a> CopyStatement<'a> {
    /// `None` for anything that is not exactly such a statement.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix("COPY ")?;
        let schema = identifier(rest)?;
        let name = identifier(rest[schema..].strip_prefix('.')?)?;
        let table = &rest[..schema + 1 + name];
        let rest = rest[table.len()..].strip_prefix(' ')?;
        let (columns, rest) = match rest.strip_prefix('(') {
            Some(list) => {
                let length = columns(list)?;
                (&list[..length], &list[length + 1..])
            }
            None => ("", rest),
        };
        let end = rest.strip_prefix(" FROM stdin;")?;
        (end.is_empty() || end == "\n").then_some(Self { table, columns })
    }

    /// Copies all rows of the table itself.
    pub(crate) fn whole(&self) -> String {
        if self.columns.is_empty() {
            format!("copy {} to stdout", self.table)
        } else {
            format!("copy {} ({}) to stdout", self.table, self.columns)
        }
    }

    /// Copies the rows that a condition (`WHERE …`) leaves, as pg_dump does for the configuration
    /// tables of extensions.
    pub(crate) fn filtered(&self, condition: &str) -> String {
        let columns = if self.columns.is_empty() {
            "*"
        } else {
            self.columns
        };
        format!(
            "copy (select {columns} from {} {condition}) to stdout",
            self.table
        )
    }

    /// Copies the rows of the pages from `from` on and before `to`.
    pub(crate) fn range(&self, from: Option<u32>, to: Option<u32>) -> String {
        let from = from.map(|page| format!("ctid >= '({page},0)'"));
        let to = to.map(|page| format!("ctid < '({page},0)'"));
        let bounds: Vec<String> = from.into_iter().chain(to).collect();
        let condition = if bounds.is_empty() {
            String::new()
        } else {
            format!(" where {}", bounds.join(" and "))
        };
        format!(
            "copy (select {} from only {}{condition}) to stdout",
            self.columns, self.table
        )
    }
}

/// Length of the identifier at the start: quoted, or bare words as pg_dump leaves them.
fn identifier(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.first() == Some(&b'"') {
        let mut at = 1;
        loop {
            at += text.get(at..)?.find('"')? + 1;
            if bytes.get(at) != Some(&b'"') {
                // `""` is no name.
                return (at > 2).then_some(at);
            }
            at += 1;
        }
    }
    let length = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$'))
        .count();
    (length > 0 && !bytes[0].is_ascii_digit()).then_some(length)
}

/// Length of a list of identifiers up to the parenthesis that closes it.
fn columns(list: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        at += identifier(&list[at..])?;
        if list[at..].starts_with(')') {
            return Some(at);
        }
        if !list[at..].starts_with(", ") {
            return None;
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn statements_of_pg_dump_are_taken_apart() {
        let parse = |text| {
            let statement = CopyStatement::parse(text)?;
            Some((statement.table, statement.columns))
        };
        for (text, table, columns) in [
            ("COPY public.t (a, b) FROM stdin;\n", "public.t", "a, b"),
            ("COPY public.t  FROM stdin;\n", "public.t", ""),
            (
                "COPY \"s.(\"\" \".\"t) FROM stdin;\" (\"a, b\", \"c)\") FROM stdin;\n",
                "\"s.(\"\" \".\"t) FROM stdin;\"",
                "\"a, b\", \"c)\"",
            ),
            ("COPY _a$1.\"é\" (x) FROM stdin;", "_a$1.\"é\"", "x"),
        ] {
            assert_eq!(parse(text), Some((table, columns)), "{text}");
        }
        for text in [
            "",
            "COPY t (a) FROM stdin;\n",
            "COPY s.t (a FROM stdin;\n",
            "COPY s.t (a) FROM stdin; drop table x;\n",
            "COPY s.t (a) FROM '/etc/passwd';\n",
            "COPY s.t; select 1 (a) FROM stdin;\n",
            "COPY s.\"t (a) FROM stdin;\n",
            "COPY s.\"\" (a) FROM stdin;\n",
            "COPY s.t (a,b) FROM stdin;\n",
            "COPY s.t () FROM stdin;\n",
            "COPY s.t (f(a)) FROM stdin;\n",
            "COPY s.1t (a) FROM stdin;\n",
            "INSERT INTO s.t VALUES (1);\n",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn statements_to_the_server() {
        let two = CopyStatement {
            table: "s.t",
            columns: "a, b",
        };
        let none = CopyStatement {
            table: "s.t",
            columns: "",
        };
        assert_eq!(two.whole(), "copy s.t (a, b) to stdout");
        assert_eq!(none.whole(), "copy s.t to stdout");
        assert_eq!(
            two.filtered("WHERE a > 1"),
            "copy (select a, b from s.t WHERE a > 1) to stdout"
        );
        assert_eq!(
            two.range(Some(7), Some(9)),
            "copy (select a, b from only s.t where ctid >= '(7,0)' and ctid < '(9,0)') to stdout"
        );
        assert_eq!(
            none.range(None, Some(9)),
            "copy (select  from only s.t where ctid < '(9,0)') to stdout"
        );
        assert_eq!(
            two.range(Some(7), None),
            "copy (select a, b from only s.t where ctid >= '(7,0)') to stdout"
        );
    }

    fn quoted(name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    proptest! {
        #[test]
        fn any_name_stays_a_name(names in prop::collection::vec("[^\\x00]{1,12}", 2..6)) {
            let quoted: Vec<String> = names.iter().map(|name| quoted(name)).collect();
            let table = format!("{}.{}", quoted[0], quoted[1]);
            let columns = quoted[2..].join(", ");
            let list = if columns.is_empty() { String::new() } else { format!("({columns})") };
            let text = format!("COPY {table} {list} FROM stdin;\n");
            let parsed = CopyStatement::parse(&text);
            prop_assert_eq!(parsed, Some(CopyStatement { table: &table, columns: &columns }));
        }

        #[test]
        fn nothing_makes_it_fall_over(text in "COPY [\"a.() ,;é]{0,30} FROM stdin;") {
            if let Some(statement) = CopyStatement::parse(&text) {
                prop_assert!(text.contains(statement.table));
            }
        }
    }
}
