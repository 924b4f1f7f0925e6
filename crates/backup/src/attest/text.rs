//! Names and fingerprints as JSON, each held once and as small as it can be: an attestation of
//! 100,000 tables is in memory while it is written and read.

use std::cell::{Cell, RefCell};

use archive::{LastName, Name};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serializer};

use super::model::AttestedTable;

pub(super) fn serialize<S: Serializer>(name: &Name, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(name)
}

/// A name that is its own.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Name, D::Error> {
    String::deserialize(from).map(Name::from)
}

/// A name that neighbours mostly share: that of a schema.
pub(super) mod shared {
    use archive::Name;
    use serde::{Deserialize, Deserializer};

    pub(in super::super) use super::serialize;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Name, D::Error> {
        let name = String::deserialize(from)?;
        Ok(super::SCHEMA.with_borrow_mut(|last| last.share(&name)))
    }
}

/// A fingerprint as 32 hex digits, where there is one.
pub(super) mod optional {
    use archive::Fingerprint;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        fingerprint: &Option<Fingerprint>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match fingerprint {
            Some(fingerprint) => to.collect_str(fingerprint),
            None => to.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Fingerprint>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(Error::custom))
            .transpose()
    }
}

/// A hash of rows by its name.
pub(super) mod hash {
    use archive::ItemHash;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// That of manifests that do not name one.
    pub(in super::super) fn unnamed() -> ItemHash {
        ItemHash::Sha256
    }

    pub(in super::super) fn serialize<S: Serializer>(
        hash: &ItemHash,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(hash.as_str())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<ItemHash, D::Error> {
        let name = String::deserialize(from)?;
        name.parse().map_err(Error::custom)
    }
}

thread_local! {
    /// The last name of a schema that was read on this thread.
    static SCHEMA: RefCell<LastName> = RefCell::default();
    /// Whether tables are passed over on this thread.
    static LEFT_OUT: Cell<bool> = const { Cell::new(false) };
}

/// Reads something on this thread with attestations that have no tables: whoever looks for a backup
/// needs none of 100,000 in each.
pub(crate) fn without_tables<T>(read: impl FnOnce() -> T) -> T {
    struct Back(bool);
    impl Drop for Back {
        fn drop(&mut self) {
            LEFT_OUT.set(self.0);
        }
    }
    let _back = Back(LEFT_OUT.replace(true));
    read()
}

/// Tables, where they are wanted.
pub(super) fn tables<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<AttestedTable>, D::Error> {
    if LEFT_OUT.get() {
        return IgnoredAny::deserialize(from).map(|_| Vec::new());
    }
    Vec::deserialize(from)
}
