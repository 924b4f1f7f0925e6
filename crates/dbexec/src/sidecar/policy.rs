//! When a sidecar pays.

use serde::{Deserialize, Serialize};

use super::NoSidecar;
use crate::context::DbMode;

/// Size of the databases from which a sidecar pays for its start (about half a second), bytes.
pub const SIDECAR_FROM: u64 = 200 << 20;

/// What the user wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportChoice {
    /// What pays.
    #[default]
    Auto,
    /// `docker exec`, always.
    Exec,
    /// A sidecar wherever there can be one.
    Sidecar,
}

impl TransportChoice {
    /// Reads the word of a setting; `None` for anything else.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "auto" => Some(Self::Auto),
            "exec" => Some(Self::Exec),
            "sidecar" => Some(Self::Sidecar),
            _ => None,
        }
    }
}

/// What the choice depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// Where the server runs.
    pub mode: DbMode,
    /// Whether pg_dump itself writes the archive: rows then come through the transport.
    pub stock: bool,
    /// Size of the databases, bytes; `None` where the role may not ask.
    pub bytes: Option<u64>,
}

/// Whether client programs are to run in a sidecar.
///
/// # Errors
/// Why not, in words.
pub fn wants_sidecar(choice: TransportChoice, now: Situation) -> Result<(), NoSidecar> {
    let no = |reason: &str| Err(NoSidecar::new(reason));
    if now.mode == DbMode::External {
        return no("the server runs in no container");
    }
    match (choice, now.bytes) {
        (TransportChoice::Sidecar, _) => Ok(()),
        (TransportChoice::Exec, _) => no("the settings say exec"),
        (TransportChoice::Auto, _) if !now.stock => {
            no("the parallel engine moves the rows over sessions of its own")
        }
        (TransportChoice::Auto, None) => no("the size of the databases is not known"),
        (TransportChoice::Auto, Some(bytes)) if bytes < SIDECAR_FROM => {
            no("the databases are so small that its start would cost more than it gains")
        }
        (TransportChoice::Auto, Some(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_it_pays() {
        use TransportChoice::{Auto, Exec, Sidecar};
        let now = |stock, bytes| Situation {
            mode: DbMode::InContainer,
            stock,
            bytes,
        };
        let big = Some(SIDECAR_FROM);
        let table = [
            (Auto, now(true, big), None),
            (Auto, now(true, Some(SIDECAR_FROM - 1)), Some("small")),
            (Auto, now(true, None), Some("not known")),
            (Auto, now(false, big), Some("parallel engine")),
            (Exec, now(true, big), Some("settings")),
            (Sidecar, now(false, Some(0)), None),
            (Sidecar, now(true, None), None),
        ];
        for (choice, situation, why_not) in table {
            let answer = wants_sidecar(choice, situation);
            match (answer, why_not) {
                (Ok(()), None) => {}
                (Err(no), Some(word)) => assert!(no.reason.contains(word), "{no}"),
                (answer, _) => panic!("{choice:?} {situation:?}: {answer:?}"),
            }
        }
        let outside = Situation {
            mode: DbMode::External,
            ..now(true, big)
        };
        for choice in [Auto, Exec, Sidecar] {
            assert!(wants_sidecar(choice, outside).is_err());
        }
    }

    #[test]
    fn words_of_the_setting() {
        for (word, choice) in [
            ("auto", TransportChoice::Auto),
            ("exec", TransportChoice::Exec),
            ("sidecar", TransportChoice::Sidecar),
        ] {
            assert_eq!(TransportChoice::parse(word), Some(choice));
        }
        assert_eq!(TransportChoice::parse("Sidecar"), None);
    }
}
