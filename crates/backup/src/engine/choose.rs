//! Whether our own sessions move the rows, and why not.

use dbexec::Transport;

use crate::{DumpFormat, EngineChoice};

/// Below, pg_dump alone is as fast: bytes of a database.
const PAYS_FROM: u64 = 1_000_000_000;
/// A table of this size that is more than half of its database: pg_dump would use one core for it.
const BIG_TABLE: u64 = 200_000_000;
/// More large objects than that take pg_dump a round trip each.
const MANY_OBJECTS: u64 = 1_000;
/// Most movers where nobody asked for a number.
const MOST_MOVERS: usize = 8;
/// The dump's own session and the leader's.
const OTHERS: u32 = 2;

/// What is known before the first session.
#[derive(Debug, Clone)]
pub(crate) struct Before<'a> {
    pub(crate) choice: EngineChoice,
    pub(crate) format: DumpFormat,
    pub(crate) max_connections: u32,
    /// Names of the database's extensions.
    pub(crate) extensions: &'a [&'a str],
}

/// What is known once the leader has looked around.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) choice: EngineChoice,
    pub(crate) transport: Transport,
    /// Major version of pg_dump.
    pub(crate) pg_dump: u32,
    /// Bytes of the database.
    pub(crate) database: u64,
    /// Bytes of its largest table.
    pub(crate) largest: u64,
    pub(crate) large_objects: u64,
}

/// Whether the engine may be used at all; else the reason.
pub(crate) fn may(before: &Before<'_>) -> Result<(), String> {
    if before.choice == EngineChoice::Stock {
        return Err("it was asked for".to_owned());
    }
    if before.format == DumpFormat::Plain {
        return Err("plain scripts are written by pg_dump alone".to_owned());
    }
    if before.max_connections <= OTHERS {
        return Err(format!(
            "max_connections is {}, and the parallel engine needs {}",
            before.max_connections,
            OTHERS + 1
        ));
    }
    if before.extensions.contains(&"timescaledb") {
        return Err("TimescaleDB's tables are dumped by pg_dump alone".to_owned());
    }
    Ok(())
}

/// Why the parallel engine would not move the rows of a target, as far as that can be told without
/// asking its server: what was asked for, the format, the sessions that are allowed.
#[must_use]
pub fn parallel_refusal(
    choice: EngineChoice,
    format: DumpFormat,
    max_connections: u32,
) -> Option<String> {
    let extensions = &[];
    may(&Before {
        choice,
        format,
        max_connections,
        extensions,
    })
    .err()
}

/// Whether it is expected to be faster; else the reason.
pub(crate) fn pays(size: &Size) -> Result<(), String> {
    let pays = size.choice == EngineChoice::Parallel
        // Rows need not go through docker exec.
        || size.transport != Transport::Host
        // No zstd, so one core compresses at a third of the speed.
        || size.pg_dump < 16
        || size.database >= PAYS_FROM
        || (size.largest >= BIG_TABLE && size.largest > size.database / 2)
        || size.large_objects > MANY_OBJECTS;
    if pays {
        Ok(())
    } else {
        Err("for a database of this size pg_dump alone is as fast".to_owned())
    }
}

/// Whether the connections allow to begin the dump of the next database, by its leader and its
/// pg_dump, beside one with so many movers.
pub(crate) fn room_for_next(movers: u32, max_connections: u32) -> bool {
    movers + 2 * OTHERS <= max_connections
}

/// Movers: as many as were asked for, or as there are processors, but never more than the
/// connections allow.
pub(crate) fn movers(asked: Option<u32>, processors: usize, max_connections: u32) -> u32 {
    wanted(asked, processors).clamp(1, max_connections.saturating_sub(OTHERS).max(1))
}

/// Sessions that a backup with so many jobs holds at most, where it may: one for each mover, and for
/// the database that is dumped and the next one a leader and pg_dump. `None`: as many jobs as are
/// chosen where nobody asked for a number.
#[must_use]
pub fn sessions_wanted(jobs: Option<u32>) -> u32 {
    wanted(jobs, processors()).saturating_add(2 * OTHERS)
}

fn wanted(asked: Option<u32>, processors: usize) -> u32 {
    asked.unwrap_or_else(|| u32::try_from(processors.clamp(1, MOST_MOVERS)).unwrap_or(1))
}

/// Processors here.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> Before<'static> {
        Before {
            choice: EngineChoice::Auto,
            format: DumpFormat::Custom,
            max_connections: 4,
            extensions: &["plpgsql"],
        }
    }

    #[test]
    fn each_reason_not_to() {
        assert_eq!(may(&before()), Ok(()));
        let reason = |change: fn(&mut Before<'static>)| {
            let mut before = before();
            change(&mut before);
            may(&before).unwrap_err()
        };
        assert!(reason(|b| b.choice = EngineChoice::Stock).contains("asked for"));
        assert!(reason(|b| b.format = DumpFormat::Plain).contains("plain"));
        assert!(reason(|b| b.max_connections = 2).contains("max_connections is 2"));
        assert!(reason(|b| b.extensions = &["timescaledb"]).contains("TimescaleDB"));
    }

    #[test]
    fn each_reason_to() {
        let small = Size {
            choice: EngineChoice::Auto,
            transport: Transport::Host,
            pg_dump: 17,
            database: 500_000_000,
            largest: 190_000_000,
            large_objects: 1_000,
        };
        assert!(pays(&small).is_err());
        let with = |change: fn(&mut Size)| {
            let mut size = small;
            change(&mut size);
            pays(&size).is_ok()
        };
        assert!(with(|s| s.choice = EngineChoice::Parallel));
        assert!(with(|s| s.transport = Transport::Exec));
        assert!(with(|s| s.pg_dump = 15));
        assert!(with(|s| s.database = 1_000_000_000));
        assert!(with(|s| s.large_objects = 1_001));
        assert!(with(|s| s.largest = 251_000_000));
        assert!(!with(|s| s.largest = 249_000_000));
    }

    #[test]
    fn movers_fit_the_connections() {
        assert_eq!(movers(None, 2, 4), 2);
        assert_eq!(movers(None, 64, 100), 8);
        assert_eq!(movers(Some(20), 2, 100), 20);
        assert_eq!(movers(Some(20), 2, 4), 2);
        assert_eq!(movers(Some(0), 2, 3), 1);
        // Every mover that is asked for is had without another word, and the next database begins.
        for asked in [None, Some(1), Some(20)] {
            let most = sessions_wanted(asked);
            let movers = movers(asked, processors(), most);
            assert!(asked.is_none_or(|asked| asked == movers));
            assert!(room_for_next(movers, most));
        }
        assert!(!room_for_next(2, 5));
    }
}
