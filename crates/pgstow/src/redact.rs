//! Takes passwords out of text that people typed before it is shown.

/// The text with the password of a URL (`scheme://user:password@…`) replaced; other text as it is.
pub(crate) fn url(text: &str) -> String {
    match password(text) {
        Some(password) => text.replacen(&format!(":{password}@"), ":***@", 1),
        None => text.to_owned(),
    }
}

/// A message with the passwords of all URLs among the arguments replaced.
pub(crate) fn arguments<'a>(message: &str, args: impl IntoIterator<Item = &'a str>) -> String {
    args.into_iter()
        .filter_map(password)
        .fold(message.to_owned(), |message, password| {
            message.replace(&format!(":{password}@"), ":***@")
        })
}

fn password(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    // A password may hold an unescaped `@` or `/`: too much is hidden rather than too little.
    let (login, _) = rest.rsplit_once('@')?;
    let (_, password) = login.split_once(':')?;
    (!password.is_empty()).then_some(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_urls_are_hidden_and_other_text_stays() {
        for (text, shown) in [
            ("postgres://u:pw@h:5432/d", "postgres://u:***@h:5432/d"),
            ("postgres://u:a@b:c/d@h/d", "postgres://u:***@h/d"),
            ("postgresql://:pw@h", "postgresql://:***@h"),
            ("postgres://u@h:5432/d", "postgres://u@h:5432/d"),
            ("postgres://u:@h/d", "postgres://u:@h/d"),
            ("container:shop-db-1/shop", "container:shop-db-1/shop"),
            ("a@b:c@d", "a@b:c@d"),
        ] {
            assert_eq!(url(text), shown);
        }
    }

    #[test]
    fn a_message_that_repeats_an_argument_does_not_show_its_password() {
        let args = ["list", "postgres://u:canary@h/d"];
        let message = "unexpected argument 'postgres://u:canary@h/d' found";
        assert_eq!(
            arguments(message, args),
            "unexpected argument 'postgres://u:***@h/d' found"
        );
    }
}
