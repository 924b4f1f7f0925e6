//! Names that many entries share.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A name of an object: a text that costs nothing to copy, so that one schema's name is held once
/// for 100,000 tables.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Name {
    fn default() -> Self {
        Self(Arc::from(""))
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self(Arc::from(text))
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl PartialEq<Name> for &str {
    fn eq(&self, other: &Name) -> bool {
        *self == &*other.0
    }
}

impl PartialEq<String> for Name {
    fn eq(&self, other: &String) -> bool {
        &*self.0 == other.as_str()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Gives the same name out again while it stays the same, as schemas mostly do from one entry to the
/// next.
#[derive(Debug, Default)]
pub struct LastName(Option<Name>);

impl LastName {
    /// The name, shared with the last one where it is the same.
    pub fn share(&mut self, text: &str) -> Name {
        match &self.0 {
            Some(last) if last == text => last.clone(),
            _ => self.0.insert(Name::from(text)).clone(),
        }
    }
}

/// Gives names out again that it has seen, for texts of which there are few: kinds, schemas, owners.
#[derive(Debug, Default)]
pub(crate) struct SharedNames(HashSet<Name>);

/// Names that are remembered at most.
const REMEMBERED: usize = 4096;

impl SharedNames {
    /// The name, shared with all others that are the same, unless there are too many to remember.
    pub(crate) fn share(&mut self, text: &str) -> Name {
        if let Some(name) = self.0.get(text) {
            return name.clone();
        }
        let name = Name::from(text);
        if self.0.len() < REMEMBERED {
            self.0.insert(name.clone());
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_held_once() {
        let mut last = LastName::default();
        let [first, second, other] = ["a", "a", "b"].map(|text| last.share(text));
        assert!(Arc::ptr_eq(&first.0, &second.0));
        assert_eq!((&*first, &*other), ("a", "b"));
        assert!(first == "a" && first != other);
        assert_eq!(format!("{first} {first:?}"), "a \"a\"");
    }

    #[test]
    fn names_that_are_seen_again_are_shared_within_bounds() {
        let mut names = SharedNames::default();
        let first = names.share("a");
        for number in 0..2 * REMEMBERED {
            assert_eq!(&*names.share(&number.to_string()), number.to_string());
        }
        assert!(Arc::ptr_eq(&first.0, &names.share("a").0));
        assert_eq!(names.0.len(), REMEMBERED);
    }
}
