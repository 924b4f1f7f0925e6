//! Names as data: file names made from database names, and words quoted for a shell.

/// Longest part of a database name in a file name.
const MAX_STEM: usize = 40;

/// `0001-shop`: the number makes it unique, the name helps people. Every character that is not a
/// letter, digit, `_` or `-` becomes `_`.
pub(crate) fn stem(number: usize, database: &str) -> String {
    let safe: String = database
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') {
                c
            } else {
                '_'
            }
        })
        .take(MAX_STEM)
        .collect();
    format!("{number:04}-{safe}")
}

/// A word quoted for a POSIX shell; plain words stay as they are.
pub(crate) fn shell(word: &str) -> String {
    let plain = !word.is_empty()
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-./:=,+@".contains(&b))
        && !word.starts_with('-');
    if plain {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_36_plain_words_stay_and_others_are_quoted() {
        assert_eq!(shell("shop"), "shop");
        assert_eq!(shell(""), "''");
        assert_eq!(shell("-Fc"), "'-Fc'");
        assert_eq!(shell("a'b; $(x)\n`y`"), "'a'\\''b; $(x)\n`y`'");
    }

    proptest::proptest! {
        #[test]
        fn bar_36_stems_are_names_for_a_store(number in 0_usize..100_000, name in "\\PC{0,80}|.*") {
            proptest::prop_assert!(storage::check_name(&stem(number, &name)).is_ok());
        }

        #[test]
        fn bar_36_quoted_words_have_no_open_quote(word in "[^\0]{0,40}") {
            // Undo the quoting as a shell would.
            let quoted = shell(&word);
            let mut out = String::new();
            let mut chars = quoted.chars();
            let mut inside = false;
            while let Some(c) = chars.next() {
                match c {
                    '\'' => inside = !inside,
                    '\\' if !inside => out.extend(chars.next()),
                    c => out.push(c),
                }
            }
            proptest::prop_assert!(!inside);
            proptest::prop_assert_eq!(out, word);
        }
    }
}
