//! Whether the rows of a restore go over sessions of pgstow's own. A function of its inputs; whether
//! the server can be reached by them shows only later.

use archive::{TableData, Toc};

use super::super::source::SourceFormat;
use crate::EngineChoice;

/// Sessions that are chosen where nobody chose, at most.
const MOST_SESSIONS: u32 = 8;
/// From so many bytes of rows on it pays for a container, whose pg_restore would read them from
/// `docker exec`.
const PAYS_IN_CONTAINER: u64 = 8 << 20;
/// As above, for programs that read the archive in place with several jobs.
const PAYS: u64 = 50 << 20;
/// From so many large objects on it pays everywhere.
const PAYS_OBJECTS: u64 = 1_000;

/// Who moves the rows of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RowsWay {
    /// So many sessions of pgstow's own, if the server can be reached by them.
    Sessions(u32),
    /// pg_restore or psql alone.
    Stock {
        /// Why.
        reason: String,
        /// Whether somebody may have expected the other way, so that it is said.
        told: bool,
    },
}

impl Default for RowsWay {
    fn default() -> Self {
        Self::Stock {
            reason: String::new(),
            told: false,
        }
    }
}

/// What is looked at.
pub(in crate::restore) struct Facts<'a> {
    pub(in crate::restore) engine: EngineChoice,
    pub(in crate::restore) format: SourceFormat,
    /// In one transaction of an existing database.
    pub(in crate::restore) in_place: bool,
    pub(in crate::restore) timescaledb: bool,
    pub(in crate::restore) toc: Option<&'a Toc>,
    pub(in crate::restore) tables: &'a [TableData],
    pub(in crate::restore) large_objects: u64,
    /// Whether programs read the source in place.
    pub(in crate::restore) shares_files: bool,
    /// What the user asked for.
    pub(in crate::restore) jobs: Option<u32>,
    /// Processors here.
    pub(in crate::restore) cores: u32,
    /// Sessions that may be held at once.
    pub(in crate::restore) max_connections: u32,
}

/// Chooses.
pub(in crate::restore) fn choose(facts: &Facts<'_>) -> RowsWay {
    let stock = |reason: &str, told: bool| RowsWay::Stock {
        reason: reason.to_owned(),
        told,
    };
    let toc = match (facts.engine, facts.format, facts.toc) {
        (EngineChoice::Stock, ..) => return stock("that was asked for", false),
        (_, SourceFormat::Custom | SourceFormat::Directory, Some(toc)) => toc,
        _ => return stock("a plain dump is a script, which only psql can run", false),
    };
    if facts.in_place {
        return stock("it is done in one transaction of one session", false);
    }
    if facts.timescaledb {
        return stock("timescaledb's tables are filled by one session", true);
    }
    if let Err(reason) = rows_are_copied(toc) {
        return stock(&reason, true);
    }
    let bytes: u64 = facts.tables.iter().map(|table| table.bytes).sum();
    let from = match facts.shares_files {
        true => PAYS,
        false => PAYS_IN_CONTAINER,
    };
    let pays = bytes >= from || facts.large_objects >= PAYS_OBJECTS;
    if facts.engine == EngineChoice::Auto && !pays {
        return stock("there are too few rows for it to pay", false);
    }
    let wanted = facts
        .jobs
        .unwrap_or_else(|| facts.cores.clamp(2, MOST_SESSIONS));
    RowsWay::Sessions(wanted.clamp(1, facts.max_connections.max(1)))
}

/// Whether all data of the archive is rows of COPY and large objects, with names that are certain.
fn rows_are_copied(toc: &Toc) -> Result<(), String> {
    for entry in toc.entries.iter().filter(|entry| entry.has_data) {
        let certain = |statement: &str| !entry.lossy && (toc.utf8 || statement.is_ascii());
        match (entry.kind.as_str(), entry.copy_statement.as_deref()) {
            ("TABLE DATA", Some(statement)) if certain(statement) => {}
            ("TABLE DATA", Some(_)) => {
                return Err(format!(
                    "{} has names that are not ASCII, in an encoding other than UTF-8",
                    entry.describe()
                ));
            }
            ("TABLE DATA", None) => {
                return Err(format!("{} holds INSERT statements", entry.describe()));
            }
            ("BLOBS", _) => {}
            _ => return Err(format!("{} is data of a kind of its own", entry.describe())),
        }
    }
    Ok(())
}
