//! Patterns of `--exclude-table-data`, as regular expressions that the server can apply.
//!
//! Source of the rules: "Patterns" in psql's manual and `processSQLNamePattern` of PostgreSQL.

use serde::Serialize;

use crate::BackupOptions;

/// One pattern: names that match `table` in schemas that match `schema`, or, without a schema, in
/// the search path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct TablePattern {
    schema: Option<String>,
    table: String,
}

/// The patterns of a run, as a JSON array for a query's variable.
pub(crate) fn all(options: &BackupOptions) -> String {
    let patterns: Vec<_> = options
        .exclude_table_data
        .iter()
        .map(|pattern| translate(pattern))
        .collect();
    serde_json::to_string(&patterns).unwrap_or_else(|_| "[]".to_owned())
}

/// Translates a pattern. Of `database.schema.table` the database is left out, as pg_dump wants it
/// to be the one that it dumps.
fn translate(pattern: &str) -> TablePattern {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        let Some(part) = parts.last_mut() else { break };
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            '*' if !quoted => part.push_str(".*"),
            '?' if !quoted => part.push('.'),
            '$' => part.push_str("\\$"),
            c if quoted && "|*+?()[]{}.^\\".contains(c) => {
                part.push('\\');
                part.push(c);
            }
            c if quoted => part.push(c),
            c => part.extend(c.to_lowercase()),
        }
    }
    let anchored = |part: String| format!("^({part})$");
    let table = parts.pop().map_or_else(String::new, anchored);
    TablePattern {
        schema: parts.pop().map(anchored),
        table,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_follow_the_rules_of_psql() {
        let check = |pattern: &str, schema: Option<&str>, table: &str| {
            let translated = translate(pattern);
            assert_eq!(translated.schema.as_deref(), schema, "{pattern}");
            assert_eq!(translated.table, table, "{pattern}");
        };
        check("Log", None, "^(log)$");
        check("a.b*", Some("^(a)$"), "^(b.*)$");
        check("db.a.b?", Some("^(a)$"), "^(b.)$");
        check("\"A.b\".\"x*\"\"y\"", Some("^(A\\.b)$"), "^(x\\*\"y)$");
        check("a$|b", None, "^(a\\$|b)$");
    }
}
