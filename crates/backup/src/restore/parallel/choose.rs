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
/// With so many tables it pays everywhere, however few rows they have: pg_restore alone makes keys
/// and indexes one after the other where it reads a stream, and empties each table before it fills
/// it where it has several jobs. Beyond that the table of contents, which is held in memory while it
/// is put next to the server, would be all that is large about the restore.
const PAYS_TABLES: std::ops::RangeInclusive<usize> = 1_000..=20_000;

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

/// Whether sessions may pay for so many bytes of rows, large objects or tables, on any server.
pub(in crate::restore) fn may_pay(bytes: u64, large_objects: u64, tables: usize) -> bool {
    bytes >= PAYS.min(PAYS_IN_CONTAINER)
        || large_objects >= PAYS_OBJECTS
        || PAYS_TABLES.contains(&tables)
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
    let pays = bytes >= from
        || facts.large_objects >= PAYS_OBJECTS
        || PAYS_TABLES.contains(&facts.tables.len());
    if facts.engine == EngineChoice::Auto && !pays {
        return stock("there are too few rows for it to pay", false);
    }
    let wanted = facts
        .jobs
        .unwrap_or_else(|| facts.cores.clamp(2, MOST_SESSIONS));
    // They are there already while pg_restore makes the tables.
    let most = facts.max_connections.saturating_sub(1).max(1);
    RowsWay::Sessions(wanted.clamp(1, most))
}

/// Whether all data of the archive is rows of COPY and large objects, with names that are certain.
fn rows_are_copied(toc: &Toc) -> Result<(), String> {
    for entry in toc.entries.iter().filter(|entry| entry.has_data) {
        let certain = |statement: &str| !entry.lossy && (toc.utf8 || statement.is_ascii());
        match (entry.kind, entry.copy_statement) {
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

#[cfg(test)]
mod tests {
    use archive::{Section, TocEntry};

    use super::*;

    fn entry(kind: &str, statement: Option<&str>) -> TocEntry {
        TocEntry {
            has_data: true,
            copy_statement: statement.map(Into::into),
            ..super::super::lists::tests::entry(1, kind, "t", Section::Data)
        }
    }

    fn toc(entries: Vec<TocEntry>, utf8: bool) -> Toc {
        Toc {
            header: super::super::lists::tests::header(),
            entries: entries.into_iter().collect(),
            utf8,
        }
    }

    fn rows(bytes: u64) -> TableData {
        super::super::lists::tests::rows(1, bytes)
    }

    fn with<'a>(toc: &'a Toc, tables: &'a [TableData]) -> Facts<'a> {
        Facts {
            engine: EngineChoice::Auto,
            format: SourceFormat::Custom,
            in_place: false,
            timescaledb: false,
            toc: Some(toc),
            tables,
            large_objects: 0,
            shares_files: false,
            jobs: None,
            cores: 2,
            max_connections: 4,
        }
    }

    /// Whether it is said; `None` for sessions.
    fn stock(facts: &Facts<'_>) -> Option<bool> {
        match choose(facts) {
            RowsWay::Stock { told, .. } => Some(told),
            RowsWay::Sessions(_) => None,
        }
    }

    #[test]
    fn the_way_of_the_rows() {
        let copied = toc(
            vec![entry("TABLE DATA", Some("COPY s.t FROM stdin;\n"))],
            true,
        );
        let (few, some, many) = ([rows(1 << 20)], [rows(9 << 20)], [rows(60 << 20)]);
        assert_eq!(choose(&with(&copied, &some)), RowsWay::Sessions(2));
        // Where it pays.
        assert_eq!(stock(&with(&copied, &few)), Some(false));
        let mut on_host = with(&copied, &some);
        on_host.shares_files = true;
        assert_eq!(stock(&on_host), Some(false));
        on_host.tables = &many;
        assert_eq!(stock(&on_host), None);
        on_host.tables = &few;
        on_host.large_objects = 1000;
        assert_eq!(stock(&on_host), None);
        // Tables with next to no rows.
        for shares_files in [false, true] {
            for (number, wanted) in [
                (999, Some(false)),
                (1000, None),
                (20_000, None),
                (20_001, Some(false)),
            ] {
                let tables: Vec<_> = (0..number).map(|_| rows(10)).collect();
                let mut small = with(&copied, &tables);
                small.shares_files = shares_files;
                assert_eq!(stock(&small), wanted, "{number} {shares_files}");
            }
        }
        // Where somebody chose.
        let mut chosen = with(&copied, &few);
        chosen.engine = EngineChoice::Parallel;
        assert_eq!(stock(&chosen), None);
        chosen.tables = &many;
        chosen.engine = EngineChoice::Stock;
        assert_eq!(stock(&chosen), Some(false));
        // Where it cannot be done.
        let mut in_place = with(&copied, &many);
        in_place.in_place = true;
        assert_eq!(stock(&in_place), Some(false));
        let mut plain = with(&copied, &many);
        (plain.format, plain.toc) = (SourceFormat::Plain, None);
        assert_eq!(stock(&plain), Some(false));
        let mut timescaledb = with(&copied, &many);
        timescaledb.timescaledb = true;
        assert_eq!(stock(&timescaledb), Some(true));
    }

    #[test]
    fn data_that_is_no_copy_is_left_to_pg_restore() {
        let many = [rows(60 << 20)];
        let way = |entry: TocEntry, utf8| choose(&with(&toc(vec![entry], utf8), &many));
        let odd = entry("TABLE DATA", Some("COPY s.\"\u{e4}\" FROM stdin;\n"));
        assert_eq!(way(odd.clone(), true), RowsWay::Sessions(2));
        let mut lossy = odd.clone();
        lossy.lossy = true;
        for (entry, utf8) in [
            (entry("TABLE DATA", None), true),
            (entry("BLOB COMMENTS", None), true),
            (odd, false),
            (lossy, true),
        ] {
            let way = way(entry, utf8);
            assert!(matches!(way, RowsWay::Stock { told: true, .. }), "{way:?}");
        }
    }

    #[test]
    fn sessions_stay_within_what_may_be_held() {
        let copied = toc(vec![entry("BLOBS", None)], true);
        let many = [rows(60 << 20)];
        for (jobs, cores, max_connections, wanted) in [
            (None, 1, 4, 2),
            (None, 64, 100, 8),
            (None, 64, 4, 3),
            (Some(20), 2, 30, 20),
            (Some(0), 2, 4, 1),
            (Some(5), 2, 1, 1),
        ] {
            let mut facts = with(&copied, &many);
            (facts.jobs, facts.cores, facts.max_connections) = (jobs, cores, max_connections);
            assert_eq!(choose(&facts), RowsWay::Sessions(wanted));
        }
    }
}
