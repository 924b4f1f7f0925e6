//! The few statements of an archive that a restore's preflight has to understand: split into
//! words, names, literals and signs.
//!
//! Only what pg_dump writes is understood; anything else gives an error, never a guess.

/// A part of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlToken {
    /// An unquoted word, as written.
    Word(String),
    /// A quoted name, without its quotes.
    Quoted(String),
    /// A string literal, unescaped.
    Literal(String),
    /// Any other character.
    Sign(char),
}

impl SqlToken {
    /// Whether this is the unquoted keyword (upper case here, any case there).
    #[must_use]
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// The name that this token stands for: quoted names as they are, words in lower case.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Word(word) => Some(word.to_lowercase()),
            Self::Quoted(name) => Some(name.clone()),
            Self::Literal(_) | Self::Sign(_) => None,
        }
    }
}

/// A statement with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlStatement {
    /// Its text, without the semicolon.
    pub text: String,
    /// Its parts.
    pub tokens: Vec<SqlToken>,
}

/// Splits statements, without comments and without commands of psql (`\restrict KEY`).
///
/// # Errors
/// What cannot be understood, in words.
pub fn split_statements(text: &str) -> Result<Vec<SqlStatement>, String> {
    let mut statements = Vec::new();
    let mut tokens = Vec::new();
    let mut begin = None;
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let offset = text.len() - rest.len();
        if character.is_whitespace() {
            rest = &rest[character.len_utf8()..];
            continue;
        }
        if rest.starts_with("--") {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        if rest.starts_with("/*") {
            return Err("a block comment".to_owned());
        }
        if character == '\\' {
            let at_line_start = text[..offset].ends_with('\n') || offset == 0;
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            let known = line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
            if !(at_line_start && tokens.is_empty() && known) {
                return Err("a backslash outside of quotes".to_owned());
            }
            rest = after;
            continue;
        }
        if character == ';' {
            if let Some(begin) = begin.take() {
                statements.push(SqlStatement {
                    text: text[begin..offset].trim().to_owned(),
                    tokens: std::mem::take(&mut tokens),
                });
            }
            rest = &rest[1..];
            continue;
        }
        begin.get_or_insert(offset);
        let (token, after) = token(rest, character)?;
        tokens.push(token);
        rest = after;
    }
    if tokens.is_empty() {
        Ok(statements)
    } else {
        Err("a statement without its semicolon".to_owned())
    }
}

fn token(rest: &str, character: char) -> Result<(SqlToken, &str), String> {
    let escapes = rest
        .strip_prefix(['e', 'E'])
        .filter(|r| r.starts_with('\''));
    if let Some(rest) = escapes {
        let (text, after) = quoted(rest, '\'', true)?;
        return Ok((SqlToken::Literal(text), after));
    }
    match character {
        '\'' => {
            let (text, after) = quoted(rest, '\'', false)?;
            Ok((SqlToken::Literal(text), after))
        }
        '"' => {
            let (text, after) = quoted(rest, '"', false)?;
            Ok((SqlToken::Quoted(text), after))
        }
        _ if is_word_start(character) => {
            let end = rest
                .find(|c: char| !(is_word_start(c) || c.is_ascii_digit() || c == '$'))
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            Ok((SqlToken::Word(word.to_owned()), after))
        }
        '$' => Err("a dollar sign outside of quotes".to_owned()),
        other => Ok((SqlToken::Sign(other), &rest[other.len_utf8()..])),
    }
}

/// The text between quotes, where a doubled quote stands for one, and what follows.
fn quoted(rest: &str, quote: char, escapes: bool) -> Result<(String, &str), String> {
    let mut text = String::new();
    let mut characters = rest[quote.len_utf8()..].char_indices();
    while let Some((at, character)) = characters.next() {
        if character == quote {
            let after = &rest[quote.len_utf8() + at + quote.len_utf8()..];
            if after.starts_with(quote) {
                text.push(quote);
                characters.next();
                continue;
            }
            return Ok((text, after));
        }
        if escapes && character == '\\' {
            // pg_dump doubles backslashes and uses no other escape.
            match characters.next() {
                Some((_, escaped @ ('\\' | '\''))) => text.push(escaped),
                _ => return Err("an escape that pg_dump does not write".to_owned()),
            }
            continue;
        }
        text.push(character);
    }
    Err("a quote that is not closed".to_owned())
}

fn is_word_start(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_' || !character.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_of_pg_dump() {
        let text = "--\n-- x; y\n--\n\nCREATE DATABASE \"a\"\"b;\" WITH ENCODING = 'UTF8';\n\
                    ALTER ROLE r SET x TO E'a\\\\b''', 'c';\n\\restrict abc\n";
        let statements = split_statements(text).unwrap();
        assert_eq!(statements.len(), 2);
        assert_eq!(
            statements[0].tokens[2],
            SqlToken::Quoted("a\"b;".to_owned())
        );
        assert_eq!(
            statements[0].text,
            "CREATE DATABASE \"a\"\"b;\" WITH ENCODING = 'UTF8'"
        );
        assert_eq!(
            statements[1].tokens[6],
            SqlToken::Literal("a\\b'".to_owned())
        );
    }

    #[test]
    fn bar_37_what_is_not_understood_is_refused() {
        for text in [
            "\\! id\n",
            "SELECT 1 \\! id\n;",
            "SELECT 'a",
            "SELECT 1",
            "$$x$$;",
        ] {
            assert!(split_statements(text).is_err(), "{text}");
        }
    }
}
