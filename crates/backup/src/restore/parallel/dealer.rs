//! Deals decoded rows and large objects to the sessions. Runs on the thread that decodes.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use archive::{DataConsumer, RowsEntry};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    lane::{Queue, Room, Table, Work},
    lists::Way,
    objects::{MOST_PARTS, Part},
    pieces::{Piece, Pieces},
};

/// Size of a piece of rows, bytes.
const PIECE: usize = 1 << 20;
/// Size of a statement's large objects, bytes.
const OBJECTS: usize = 1 << 20;
/// What a message is reckoned with at least, bytes: a table and its statement take memory too.
const LEAST: usize = 4 << 10;
/// Memory for pieces on their way: some for all, and more for each session, bytes. A table that is
/// not cut fits, so that the next one begins while it is taken.
const ROOM: (usize, usize) = (8 << 20, 1 << 20);

/// Memory for what is on its way to so many sessions.
pub(super) fn room(sessions: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ROOM.0 + ROOM.1 * sessions.min(16)))
}

/// The consumer of the decoded archive.
pub(super) struct Dealer {
    pub(super) handle: Handle,
    pub(super) queues: Vec<Queue>,
    pub(super) room: Arc<Semaphore>,
    pub(super) ways: HashMap<i32, Way>,
    /// Sessions that one table is dealt to at most.
    pub(super) most: usize,
    pub(super) stop: CancellationToken,
    /// Rows of each entry, as the plan knows them.
    pub(super) known: HashMap<i32, u64>,
    /// Tables that were dealt.
    pub(super) tables: Vec<Arc<Table>>,
    pub(super) current: Option<Current>,
    pub(super) objects: Objects,
}

/// What was dealt.
pub(super) struct Dealt {
    pub(super) tables: Vec<Arc<Table>>,
    /// Large objects.
    pub(super) objects: u64,
}

/// The table whose rows come.
pub(super) struct Current {
    table: Arc<Table>,
    way: Way,
    pieces: Pieces,
    /// Sessions that take part.
    parts: Vec<usize>,
    /// The session that got the beginning of the row that goes on.
    inside: Option<usize>,
}

/// Large objects that wait to be enough for a statement.
#[derive(Default)]
pub(super) struct Objects {
    parts: Vec<Part>,
    bytes: usize,
    /// The object that comes, and the bytes of it so far.
    current: Option<(u32, u64)>,
    /// The session that got its beginning.
    inside: Option<usize>,
    /// Objects that ended.
    pub(super) seen: u64,
}

/// The table that the rows of an entry go to, quoted, where it is the one that the entry is named
/// after: those of a partition may go to its root (`--load-via-partition-root`), which puts them
/// where it thinks fit.
fn own_target(entry: &RowsEntry) -> Option<String> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let target = entry.copy_statement.strip_prefix("COPY ")?;
    for schema in [entry.schema.to_string(), quoted(&entry.schema)] {
        for name in [entry.name.to_string(), quoted(&entry.name)] {
            let own = format!("{schema}.{name}");
            let rest = target.strip_prefix(&own);
            // Behind the name come columns, or nothing: a name may hold blanks itself.
            if rest.is_some_and(|rest| rest.starts_with(" (") || rest.starts_with(" FROM stdin;")) {
                return Some(own);
            }
        }
    }
    None
}

/// A statement whose rows are frozen as they come: the table is emptied in the same transaction, so
/// that nobody else ever sees it without them. Index builds, ANALYZE and whoever reads first then
/// have no transactions to look up and no pages to write again for it.
fn frozen(entry: &RowsEntry, target: &str) -> Option<String> {
    let copy = entry.copy_statement.trim_end().strip_suffix(';')?;
    Some(format!(
        "TRUNCATE TABLE ONLY {target};\n{copy} WITH (FREEZE);"
    ))
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the sessions have ended")
}

impl Dealer {
    fn room(&self, bytes: usize) -> io::Result<Room> {
        let wanted = u32::try_from(bytes.max(LEAST)).map_err(io::Error::other)?;
        let room = Arc::clone(&self.room);
        self.handle.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => Err(gone()),
                room = room.acquire_many_owned(wanted) => room.map_err(|_| gone()),
            }
        })
    }

    fn give(&self, queue: usize, work: Work) -> io::Result<()> {
        let given = self.queues.get(queue).is_some_and(|to| to.give(work));
        given.then_some(()).ok_or_else(gone)
    }

    /// The session with the least to do.
    fn idlest(&self) -> usize {
        let waiting = self.queues.iter().map(Queue::waiting);
        let idlest = waiting.enumerate().min_by_key(|(_, bytes)| *bytes);
        idlest.map_or(0, |(number, _)| number)
    }

    fn choose(&self, current: &Current) -> usize {
        if let Some(inside) = current.inside {
            return inside;
        }
        match (current.way, current.parts.as_slice()) {
            (Way::InOrder, _) => 0,
            (Way::Whole | Way::Frozen, [first, ..]) => *first,
            (Way::Split, parts) if parts.len() >= self.most => {
                let waiting = |part: &&usize| self.queues[**part].waiting();
                parts.iter().min_by_key(waiting).copied().unwrap_or(0)
            }
            (Way::Whole | Way::Frozen | Way::Split, _) => self.idlest(),
        }
    }

    fn deal(&self, current: &mut Current, piece: Piece) -> io::Result<()> {
        // Waiting first: meanwhile the sessions work on.
        let room = self.room(piece.bytes.len())?;
        let queue = self.choose(current);
        if !current.parts.contains(&queue) {
            self.give(queue, Work::Begin(Arc::clone(&current.table)))?;
            current.parts.push(queue);
        }
        current.inside = (!piece.ends_row).then_some(queue);
        self.give(queue, Work::Rows(piece.bytes, room))
    }

    fn deal_objects(&mut self) -> io::Result<()> {
        let parts = std::mem::take(&mut self.objects.parts);
        let bytes = std::mem::take(&mut self.objects.bytes);
        if parts.is_empty() {
            return Ok(());
        }
        // They are there once more in the format in which they are sent.
        let room = self.room((bytes + parts.len() * 64) * 2)?;
        let queue = self.objects.inside.unwrap_or_else(|| self.idlest());
        // What follows of the same object comes after it.
        self.objects.inside = self.objects.current.map(|_| queue);
        self.give(queue, Work::Objects(parts, room))
    }

    /// The archive ended: what waits goes out, and the queues end.
    pub(super) fn finish(mut self) -> io::Result<Dealt> {
        self.deal_objects()?;
        Ok(Dealt {
            tables: self.tables,
            objects: self.objects.seen,
        })
    }
}

impl DataConsumer for Dealer {
    fn begin_rows(&mut self, entry: &RowsEntry) -> io::Result<()> {
        if entry.lossy {
            return Err(io::Error::other("the table's name is not certain"));
        }
        let way = self.ways.get(&entry.dump_id).copied();
        let way = way.ok_or_else(|| io::Error::other("rows that were not asked for"))?;
        let target = own_target(entry);
        let statement = match (way, &target) {
            (Way::Frozen, Some(target)) => frozen(entry, target),
            _ => None,
        };
        self.current = Some(Current {
            table: Arc::new(Table {
                label: format!("table {}.{}", entry.schema, entry.name),
                dump_id: entry.dump_id,
                key: target.map(|_| (entry.schema.to_string(), entry.name.to_string())),
                statement: statement.unwrap_or_else(|| entry.copy_statement.to_string()),
                counted: way != Way::InOrder,
                taken: AtomicU64::new(0),
                total: std::sync::OnceLock::new(),
                ended: AtomicU64::new(0),
            }),
            way,
            pieces: Pieces::new(PIECE),
            parts: Vec::new(),
            inside: None,
        });
        Ok(())
    }

    fn rows(&mut self, piece: &[u8]) -> io::Result<()> {
        let Some(mut current) = self.current.take() else {
            return Err(io::Error::other("rows without a table"));
        };
        let mut pieces = std::mem::replace(&mut current.pieces, Pieces::new(1));
        pieces.push(piece, &mut |piece| self.deal(&mut current, piece))?;
        current.pieces = pieces;
        self.current = Some(current);
        Ok(())
    }

    fn end_rows(&mut self, rows: u64) -> io::Result<()> {
        let Some(mut current) = self.current.take() else {
            return Err(io::Error::other("the end of a table without its rows"));
        };
        if let Some(rest) = current.pieces.rest() {
            self.deal(&mut current, rest)?;
        }
        let known = self.known.get(&current.table.dump_id).copied();
        if known.is_some_and(|known| known != rows) {
            return Err(io::Error::other(format!(
                "{} has {rows} rows in the archive, and {} are known of it",
                current.table.label,
                known.unwrap_or_default()
            )));
        }
        if current.parts.is_empty() && rows > 0 {
            return Err(io::Error::other("a table with rows and no bytes"));
        }
        // Before the first session may see the end.
        let _ = current.table.total.set((rows, current.parts.len() as u64));
        for queue in current.parts {
            self.give(queue, Work::End)?;
        }
        self.tables.push(current.table);
        Ok(())
    }

    fn begin_large_object(&mut self, oid: u32) -> io::Result<()> {
        self.objects.current = Some((oid, 0));
        self.objects.inside = None;
        Ok(())
    }

    fn large_object(&mut self, mut piece: &[u8]) -> io::Result<()> {
        while !piece.is_empty() {
            let Some((oid, at)) = self.objects.current else {
                return Err(io::Error::other("bytes without a large object"));
            };
            let now = piece.len().min(OBJECTS - self.objects.bytes);
            let (bytes, left) = piece.split_at(now);
            piece = left;
            match self.objects.parts.last_mut() {
                Some(part) if part.oid == oid => part.bytes.extend_from_slice(bytes),
                _ => self.objects.parts.push(Part {
                    oid,
                    at,
                    bytes: bytes.to_vec(),
                }),
            }
            self.objects.bytes += now;
            self.objects.current = Some((oid, at + now as u64));
            if self.objects.bytes >= OBJECTS {
                self.deal_objects()?;
            }
        }
        Ok(())
    }

    fn end_large_object(&mut self) -> io::Result<()> {
        self.objects.current = None;
        self.objects.seen += 1;
        // The end of an object that has begun goes where its beginning went: two sessions may not
        // write to one page of it.
        if self.objects.inside.is_some() || self.objects.parts.len() >= MOST_PARTS {
            self.deal_objects()?;
        }
        self.objects.inside = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(schema: &str, name: &str, statement: &str) -> RowsEntry {
        RowsEntry {
            dump_id: 1,
            oid: 1,
            schema: schema.into(),
            name: name.into(),
            copy_statement: statement.into(),
            lossy: false,
        }
    }

    #[test]
    fn the_table_that_rows_go_to() {
        for (schema, name, statement, own) in [
            ("s", "t", "COPY s.t (a, b) FROM stdin;\n", Some("s.t")),
            ("s", "t", "COPY s.t  FROM stdin;\n", None),
            ("s", "t", "COPY s.t FROM stdin;\n", Some("s.t")),
            (
                "s",
                "User",
                "COPY s.\"User\" (a) FROM stdin;\n",
                Some("s.\"User\""),
            ),
            (
                "S",
                "a\"b",
                "COPY \"S\".\"a\"\"b\" (a) FROM stdin;\n",
                Some("\"S\".\"a\"\"b\""),
            ),
            // A partition whose rows go to its root.
            ("s", "t_1", "COPY s.t (a, b) FROM stdin;\n", None),
            ("s", "t", "COPY s.t_1 (a, b) FROM stdin;\n", None),
        ] {
            let entry = entry(schema, name, statement);
            assert_eq!(own_target(&entry).as_deref(), own, "{statement}");
        }
    }

    #[test]
    fn frozen_rows() {
        let entry = entry("s", "t", "COPY s.t (a, b) FROM stdin;\n");
        assert_eq!(
            frozen(&entry, "s.t").unwrap(),
            "TRUNCATE TABLE ONLY s.t;\nCOPY s.t (a, b) FROM stdin WITH (FREEZE);"
        );
    }
}
