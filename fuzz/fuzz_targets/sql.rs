//! The statements that a preflight understands, and patterns of names.
#![no_main]

use archive::{Fingerprint, Pattern, split_statements};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(statements) = split_statements(text) {
        for statement in statements {
            assert!(!statement.tokens.is_empty());
            assert!(text.contains(&statement.text));
        }
    }
    if let Ok(pattern) = Pattern::parse(text) {
        let _ = pattern.matches(text, text);
    }
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert_eq!(fingerprint.to_string(), text);
    }
});
