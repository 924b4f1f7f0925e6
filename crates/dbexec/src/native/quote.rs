//! Values in statements: psql's `:'name'` and `:"name"`, so that the same texts serve both.

use super::NativeError;

/// Replaces `:'name'` by a literal and `:"name"` by an identifier, outside of quotes and comments.
/// Names that are not in `vars` stay as they are, as in psql.
pub(super) fn substitute(sql: &str, vars: &[(&str, &str)]) -> Result<String, NativeError> {
    let mut result = String::with_capacity(sql.len() + 64);
    let mut rest = sql;
    while !rest.is_empty() {
        if let Some((quoted, after)) = variable(rest, vars)? {
            result.push_str(&quoted);
            rest = after;
            continue;
        }
        let length = verbatim(rest);
        result.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    Ok(result)
}

/// A variable at the start of `rest`.
fn variable<'a>(
    rest: &'a str,
    vars: &[(&str, &str)],
) -> Result<Option<(String, &'a str)>, NativeError> {
    let Some(after) = rest.strip_prefix(':') else {
        return Ok(None);
    };
    for (mark, literal) in [('\'', true), ('"', false)] {
        let Some(inside) = after.strip_prefix(mark) else {
            continue;
        };
        let found = inside
            .split_once(mark)
            .and_then(|(name, after)| Some((vars.iter().find(|(key, _)| *key == name)?.1, after)));
        if let Some((value, after)) = found {
            if value.contains('\0') {
                return Err(NativeError::unsupported("a value that holds a zero byte"));
            }
            let quoted = if literal {
                quote_literal(value)
            } else {
                quote_identifier(value)
            };
            return Ok(Some((quoted, after)));
        }
    }
    Ok(None)
}

/// A value as a literal, whatever `standard_conforming_strings` says.
pub(super) fn quote_literal(value: &str) -> String {
    let quoted = value.replace('\'', "''");
    if quoted.contains('\\') {
        // The blank keeps a word before it apart.
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// A name as an identifier.
pub(super) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Length of what is copied as it is: a comment, a quoted text, `::`, a word, or one character.
fn verbatim(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let until = |end: Option<usize>, more: usize| end.map_or(rest.len(), |at| at + more);
    match bytes {
        [b'-', b'-', ..] => until(rest.find('\n'), 1),
        [b'/', b'*', ..] => comment(bytes),
        [b':', b':', ..] => 2,
        [b'\'', ..] => 1 + until_in(&rest[1..], '\''),
        [b'"', ..] => 1 + until_in(&rest[1..], '"'),
        [b'e' | b'E', b'\'', ..] => 2 + escaped(&bytes[2..]),
        [b'$', ..] => dollar(rest),
        [first, ..] if first.is_ascii_alphanumeric() || *first == b'_' || *first >= 0x80 => {
            // A word as a whole: its last letter is no prefix of a quoted text, and a `$` inside
            // it begins none.
            rest.find(|letter: char| !(letter.is_alphanumeric() || "_$".contains(letter)))
                .unwrap_or(rest.len())
                .max(rest.chars().next().map_or(1, char::len_utf8))
        }
        _ => 1,
    }
}

/// Length up to and with the mark; a doubled one begins a new quoted text, which is as good.
fn until_in(rest: &str, mark: char) -> usize {
    rest.find(mark).map_or(rest.len(), |at| at + 1)
}

fn escaped(bytes: &[u8]) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'\'' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn comment(bytes: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_u32);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                at += 2;
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A dollar-quoted text, or one character.
fn dollar(rest: &str) -> usize {
    let Some(end) = rest[1..].find('$') else {
        return 1;
    };
    let tag = &rest[..end + 2];
    let name = &tag[1..=end];
    let plain = name
        .chars()
        .all(|letter| letter.is_alphanumeric() || letter == '_');
    if !plain || name.starts_with(|first: char| first.is_ascii_digit()) {
        return 1;
    }
    let body = &rest[tag.len()..];
    body.find(tag)
        .map_or(rest.len(), |at| tag.len() + at + tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_data() {
        let vars = [("t", "o'b\\x"), ("n", "a\"b"), ("s", "plain")];
        let sql = "select :'t', :\"n\" , x::text, a[1:2], ':''t''', $$:'t'$$, e'\\':\\'t' -- :'t'\n\
                   /* :'t' /* */ :'t' */ from t where a=:'s' and :'none'";
        let expected = "select  E'o''b\\\\x', \"a\"\"b\" , x::text, a[1:2], ':''t''', $$:'t'$$, \
                        e'\\':\\'t' -- :'t'\n/* :'t' /* */ :'t' */ from t where a='plain' and \
                        :'none'";
        assert_eq!(substitute(sql, &vars).expect("text"), expected);
        assert!(substitute("select :'z'", &[("z", "a\0b")]).is_err());
        assert_eq!(
            substitute("sélect:'s'é", &vars).expect("text"),
            "sélect'plain'é"
        );
    }
}
