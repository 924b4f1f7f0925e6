//! Patterns of names as pg_dump's `--table` and `--schema` take them.
//!
//! Source of facts: "Patterns" in the documentation of psql. `*` stands for any text and `?` for
//! any character; words are in lower case; in double quotes everything is itself, and a doubled
//! quote is one. Other signs of regular expressions, which pg_dump would take, are themselves here.

/// A pattern of names, with or without a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    schema: Option<Vec<Sign>>,
    name: Vec<Sign>,
}

/// One part of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// This character.
    Is(char),
    /// Any character.
    One,
    /// Any text.
    Any,
}

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no pattern of names: {problem}")]
pub struct PatternError {
    text: String,
    problem: &'static str,
}

impl Pattern {
    /// Reads `name` or `schema.name`. Without a schema it stands for names in every schema.
    ///
    /// # Errors
    /// A quote that is not closed, an empty part, more than two parts.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (first, second) = parts(text)?;
        Ok(match second {
            Some(name) => Self {
                text: text.to_owned(),
                schema: Some(first),
                name,
            },
            None => Self {
                text: text.to_owned(),
                schema: None,
                name: first,
            },
        })
    }

    /// Reads the name of a schema, in which a dot must be quoted.
    ///
    /// # Errors
    /// As [`Pattern::parse`], and when there are two parts.
    pub fn parse_schema(text: &str) -> Result<Self, PatternError> {
        let pattern = Self::parse(text)?;
        if pattern.schema.is_some() {
            return Err(error(
                text,
                "a schema has one part; quote a dot in its name",
            ));
        }
        Ok(pattern)
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it stands for this object.
    #[must_use]
    pub fn matches(&self, schema: &str, name: &str) -> bool {
        self.schema
            .as_deref()
            .is_none_or(|signs| stands_for(signs, schema))
            && self.matches_name(name)
    }

    /// Whether its last part stands for this name.
    #[must_use]
    pub fn matches_name(&self, name: &str) -> bool {
        stands_for(&self.name, name)
    }
}

fn error(text: &str, problem: &'static str) -> PatternError {
    PatternError {
        text: text.to_owned(),
        problem,
    }
}

fn parts(text: &str) -> Result<(Vec<Sign>, Option<Vec<Sign>>), PatternError> {
    let mut parts = vec![Vec::new()];
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let doubled = quoted && character == '"' && characters.next_if_eq(&'"').is_some();
        if character == '"' && !doubled {
            quoted = !quoted;
            continue;
        }
        if character == '.' && !quoted {
            parts.push(Vec::new());
            continue;
        }
        let Some(part) = parts.last_mut() else {
            continue;
        };
        match character {
            '*' if !quoted => part.push(Sign::Any),
            '?' if !quoted => part.push(Sign::One),
            other if quoted => part.push(Sign::Is(other)),
            other => part.extend(other.to_lowercase().map(Sign::Is)),
        }
    }
    if quoted {
        return Err(error(text, "a double quote is not closed"));
    }
    if parts.iter().any(Vec::is_empty) {
        return Err(error(text, "a part of the name is empty"));
    }
    let mut parts = parts.into_iter();
    let pair = (parts.next().unwrap_or_default(), parts.next());
    if parts.next().is_some() {
        return Err(error(text, "it has more parts than schema and name"));
    }
    Ok(pair)
}

/// Whether the whole text fits. Takes time in proportion to the product of both lengths at most.
fn stands_for(signs: &[Sign], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut sign, mut at) = (0, 0);
    // Where to go on when a match after the last `*` fails.
    let mut retry = None;
    while at < text.len() {
        match signs.get(sign) {
            Some(Sign::Any) => {
                retry = Some((sign, at));
                sign += 1;
            }
            Some(Sign::One) => {
                sign += 1;
                at += 1;
            }
            Some(Sign::Is(character)) if *character == text[at] => {
                sign += 1;
                at += 1;
            }
            _ => {
                let Some((star, from)) = retry else {
                    return false;
                };
                retry = Some((star, from + 1));
                sign = star + 1;
                at = from + 1;
            }
        }
    }
    signs[sign..].iter().all(|sign| *sign == Sign::Any)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_and_what_they_stand_for() {
        for (pattern, schema, name, fits) in [
            ("t", "s", "t", true),
            ("T", "s", "t", true),
            ("\"T\"", "s", "t", false),
            ("\"T\"", "s", "T", true),
            ("s.t", "s", "t", true),
            ("s.t", "other", "t", false),
            ("s*.t?", "sales", "t1", true),
            ("s*.t?", "sales", "t", false),
            ("*", "s", "", true),
            ("a*b*c", "s", "a-b-b-c", true),
            ("a*b*c", "s", "a-b-b-d", false),
            ("\"a*\"", "s", "ab", false),
            ("\"a*\"", "s", "a*", true),
            ("\"a.b\".\"c\"\"d\"", "a.b", "c\"d", true),
            ("\"\"\"\"", "s", "\"", true),
            ("a\"B c\"d", "s", "aB cd", true),
            ("ÜBER", "s", "über", true),
            ("$(x)", "s", "$(x)", true),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(
                parsed.matches(schema, name),
                fits,
                "{pattern} {schema}.{name}"
            );
            assert_eq!(parsed.as_str(), pattern);
        }
        for pattern in ["", ".", "a.", ".a", "a.b.c", "\"a", "\"\"", "a.\"\""] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
        assert!(Pattern::parse_schema("a.b").is_err());
        assert!(
            Pattern::parse_schema("\"a.b\"")
                .unwrap()
                .matches_name("a.b")
        );
    }

    proptest! {
        #[test]
        fn a_quoted_name_stands_for_itself_alone(name in "[^\0]{1,20}", other in "[^\0]{1,20}") {
            let pattern = Pattern::parse(&format!("\"{}\"", name.replace('"', "\"\""))).unwrap();
            prop_assert!(pattern.matches("s", &name));
            prop_assert_eq!(pattern.matches("s", &other), other == name);
        }

        #[test]
        fn stars_stand_for_any_text(parts in prop::collection::vec("[a-c]{0,3}", 1..5), between in prop::collection::vec("[a-c]{0,3}", 5)) {
            let pattern = Pattern::parse(&format!("{}*", parts.join("*"))).unwrap();
            let name: String = parts.iter().zip(&between).flat_map(|(a, b)| [a.as_str(), b]).collect();
            prop_assert!(pattern.matches("s", &name), "{:?}", name);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[a-b.\"*? é]{0,20}", name in "[a-b]{0,20}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                let _ = pattern.matches("a", &name);
            }
        }
    }
}
