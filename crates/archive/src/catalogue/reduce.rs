//! Definitions without what the server writes differently after a restore.
//!
//! Source of facts: PostgreSQL's `ruleutils.c`. A server keeps expressions parsed. It writes
//! `CHECK (v IN ('a', 'b'))` over a `varchar` as
//! `((v)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[]))`; made from
//! this text, the same constraint is written
//! `((v)::text = ANY (ARRAY[('a'::character varying)::text, ('b'::character varying)::text]))`.

/// Types whose casts are left out, as the server writes them; longer names first.
const TEXT_TYPES: &[&str] = &[
    "character varying",
    "varchar",
    "character",
    "bpchar",
    "text",
];

/// A definition without white space (but for one space between two words), without parentheses
/// and without casts to types of text. What stands in quotes stays as it is.
pub(crate) fn reduced(definition: &str) -> String {
    let mut out = String::with_capacity(definition.len());
    let mut rest = definition;
    let mut space = false;
    while let Some(character) = rest.chars().next() {
        if character.is_whitespace() {
            space = true;
            rest = &rest[character.len_utf8()..];
            continue;
        }
        if matches!(character, '(' | ')') {
            // `f(x)` must not become the word `fx`.
            space = true;
            rest = &rest[1..];
            continue;
        }
        if let Some(after) = rest.strip_prefix("::").and_then(after_text_type) {
            rest = after;
            continue;
        }
        let length = match character {
            '\'' => quoted(rest, '\'', escapes(&out, space)),
            '"' => quoted(rest, '"', false),
            '$' if !out.ends_with(is_word) || space => {
                dollar_quoted(rest).unwrap_or(character.len_utf8())
            }
            _ if is_word(character) => word(rest),
            _ => character.len_utf8(),
        };
        let (taken, after) = rest.split_at(length);
        if space && out.ends_with(is_word) && taken.starts_with(is_word) {
            out.push(' ');
        }
        space = false;
        out.push_str(taken);
        rest = after;
    }
    out
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn word(text: &str) -> usize {
    text.find(|character| !is_word(character))
        .unwrap_or(text.len())
}

/// Whether the quote that comes next belongs to `E'…'`.
fn escapes(before: &str, space: bool) -> bool {
    let word = before
        .rsplit(|character| !is_word(character))
        .next()
        .unwrap_or_default();
    !space && matches!(word, "E" | "e")
}

/// Length of the quoted text at the start.
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if escapes && character == '\\' {
            characters.next();
        } else if character == quote {
            if characters.peek().is_some_and(|(_, next)| *next == quote) {
                characters.next();
            } else {
                return at + quote.len_utf8();
            }
        }
    }
    text.len()
}

/// Length of the dollar-quoted text at the start; `None` when it is none.
fn dollar_quoted(text: &str) -> Option<usize> {
    let tag_end = 1 + word(&text[1..]);
    let named = !text[1..].starts_with(|character: char| character.is_ascii_digit());
    if !named || !text[tag_end..].starts_with('$') {
        return None;
    }
    let tag = &text[..=tag_end];
    let body = &text[tag.len()..];
    Some(tag.len() + body.find(tag).map_or(body.len(), |at| at + tag.len()))
}

/// What follows a type of text, with its length and array brackets; `None` for other types.
fn after_text_type(text: &str) -> Option<&str> {
    let text = text.strip_prefix("pg_catalog.").unwrap_or(text);
    let mut rest = TEXT_TYPES
        .iter()
        .find_map(|name| text.strip_prefix(name))
        .filter(|rest| !rest.starts_with(is_word))?;
    if let Some(inside) = rest.strip_prefix('(') {
        let digits = inside.trim_start_matches(|character: char| character.is_ascii_digit());
        rest = digits.strip_prefix(')').unwrap_or(rest);
    }
    while let Some(after) = rest.strip_prefix("[]") {
        rest = after;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::reduced;

    #[test]
    fn what_the_server_writes_in_two_ways_is_one() {
        for (first, second) in [
            (
                "CHECK (((v)::text = ANY ((ARRAY['a'::character varying, 'b (x)'::character \
                 varying])::text[])))",
                "CHECK (((v)::text = ANY (ARRAY[('a'::character varying)::text, ('b (x)'::character \
                 varying)::text])))",
            ),
            ("a  +\n b", "(a + b)"),
            ("x::character varying(20)[]", "x"),
            ("(x)::bpchar", "x"),
        ] {
            assert_eq!(reduced(first), reduced(second), "{first}");
        }
    }

    #[test]
    fn what_differs_stays_different() {
        for (first, second) in [
            ("DEFAULT 'a b'", "DEFAULT 'ab'"),
            ("DEFAULT '(a)'", "DEFAULT 'a'"),
            ("DEFAULT 'x::text'", "DEFAULT 'x'"),
            ("DEFAULT E'a\\'::text'", "DEFAULT E'a\\''"),
            ("\"a b\" int", "\"ab\" int"),
            ("a b", "ab"),
            ("f(x)", "fx"),
            ("x::textual", "x"),
            ("x::integer", "x"),
            ("x::character varying(20)[]", "x::integer[]"),
            ("AS $$ SELECT 1 $$", "AS $$ SELECT (1) $$"),
            ("AS $_$ a  b $_$", "AS $_$ a b $_$"),
            ("v character varying(20)", "v character varying(30)"),
            ("v text", "v character varying"),
        ] {
            assert_ne!(reduced(first), reduced(second), "{first}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_reduced_once(text in "[a-eE ()'\"$_:\\\\\n1é]{0,60}") {
            let once = reduced(&text);
            prop_assert!(once.len() <= text.len());
            prop_assert_eq!(reduced(&text), once);
        }

        #[test]
        fn quoted_text_stays(text in "[^']{0,40}") {
            let literal = format!("'{text}'");
            prop_assert_eq!(reduced(&literal), literal);
        }

        #[test]
        fn parentheses_and_spaces_do_not_matter(words in prop::collection::vec("[a-d]{1,4}", 1..8)) {
            let plain = words.join(" ");
            let dressed = words.iter().map(|word| format!("( {word})\n")).collect::<String>();
            prop_assert_eq!(reduced(&plain), reduced(&dressed));
        }
    }
}
