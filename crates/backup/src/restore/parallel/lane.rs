//! A session that takes rows and large objects from its queue, in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dbexec::{NativeError, NativeSession};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    super::fill::exec,
    objects::{self, Part},
};
use crate::BackupError;

/// Rows of one entry on their way.
#[derive(Debug)]
pub(super) struct Table {
    /// `table s.t`, for messages.
    pub(super) label: String,
    /// Number of its entry.
    pub(super) dump_id: i32,
    /// Schema and name, where its rows go to that table and no other.
    pub(super) key: Option<(String, String)>,
    /// `COPY s.t (a, b) FROM stdin;`
    pub(super) statement: String,
    /// Whether the number of rows has to be the archive's: not for members of extensions, whose
    /// triggers may be there already.
    pub(super) counted: bool,
    /// Rows that sessions took so far.
    pub(super) taken: AtomicU64,
    /// Rows in the archive, and sessions that took part; known before the last one ends.
    pub(super) total: std::sync::OnceLock<(u64, u64)>,
    /// Sessions that ended their part.
    pub(super) ended: AtomicU64,
}

impl Table {
    /// A session ended its part, of which the server took so many rows. The last one compares.
    fn end(&self, rows: u64) -> Result<(), BackupError> {
        self.taken.fetch_add(rows, Ordering::AcqRel);
        let ended = self.ended.fetch_add(1, Ordering::AcqRel) + 1;
        // Read after that: others may have ended since this one's rows were added.
        let taken = self.taken.load(Ordering::Acquire);
        match self.total.get() {
            Some(&(total, parts)) if ended == parts && self.counted && taken != total => {
                Err(BackupError::ArchiveIncomplete {
                    subject: self.label.clone(),
                    problem: format!("the archive holds {total} rows, and the server took {taken}"),
                })
            }
            Some(_) => Ok(()),
            None => Err(lost("a table ended before its rows")),
        }
    }
}

/// Room in memory for what a message holds; given back when it was sent.
pub(super) type Room = OwnedSemaphorePermit;

/// What a session has to do.
#[derive(Debug)]
pub(super) enum Work {
    /// Rows of a table begin.
    Begin(Arc<Table>),
    /// Some of them.
    Rows(Vec<u8>, Room),
    /// They are all there.
    End,
    /// Parts of large objects.
    Objects(Vec<Part>, Room),
}

impl Work {
    fn bytes(&self) -> u64 {
        match self {
            Self::Begin(_) | Self::End => 0,
            Self::Rows(bytes, _) => bytes.len() as u64,
            Self::Objects(parts, _) => parts.iter().map(|part| part.bytes.len() as u64).sum(),
        }
    }
}

/// The dealer's end of a queue.
#[derive(Debug)]
pub(super) struct Queue {
    work: mpsc::UnboundedSender<Work>,
    /// Bytes that were dealt and not sent yet.
    waiting: Arc<AtomicU64>,
}

impl Queue {
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// `false`: the session is gone.
    pub(super) fn give(&self, work: Work) -> bool {
        self.waiting.fetch_add(work.bytes(), Ordering::Relaxed);
        self.work.send(work).is_ok()
    }
}

/// The session's end of a queue.
#[derive(Debug)]
pub(super) struct Lane {
    work: mpsc::UnboundedReceiver<Work>,
    waiting: Arc<AtomicU64>,
    /// Whether the session is set for large objects.
    prepared: bool,
}

/// A queue. What is in it is bounded by the [`Room`] that messages hold.
pub(super) fn queue() -> (Queue, Lane) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicU64::new(0));
    let queue = Queue {
        work: sender,
        waiting: Arc::clone(&waiting),
    };
    let lane = Lane {
        work: receiver,
        waiting,
        prepared: false,
    };
    (queue, lane)
}

/// Why a session ended early.
#[derive(Debug)]
pub(super) enum Stopped {
    /// Something else failed, or the run was cancelled.
    Elsewhere,
    /// It failed itself.
    Failed(BackupError),
}

impl Lane {
    /// Works until the queue ends; a stop from elsewhere cancels what the server is doing.
    pub(super) async fn run(
        mut self,
        mut session: NativeSession,
        stop: CancellationToken,
    ) -> Result<(), Stopped> {
        let canceller = session.canceller();
        let result = tokio::select! {
            biased;
            () = stop.cancelled() => Err(Stopped::Elsewhere),
            result = self.work(&mut session) => result,
        };
        match result {
            Ok(()) => {
                session.close().await;
                Ok(())
            }
            Err(stopped) => {
                stop.cancel();
                // A statement that waits for a lock does not see that its client is gone. When this
                // fails too, the drop of the database ends the session.
                let _ = canceller.cancel().await;
                drop(session);
                Err(stopped)
            }
        }
    }

    async fn next(&mut self) -> Option<Work> {
        self.work.recv().await
    }

    fn sent(&self, bytes: u64) {
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }

    async fn work(&mut self, session: &mut NativeSession) -> Result<(), Stopped> {
        while let Some(work) = self.next().await {
            let bytes = work.bytes();
            match work {
                Work::Begin(table) => {
                    self.set(session, false).await?;
                    self.table(session, &table).await?;
                }
                Work::Objects(parts, _room) => {
                    self.set(session, true).await?;
                    fill_objects(session, &parts).await?;
                    self.sent(bytes);
                }
                Work::Rows(..) | Work::End => {
                    return Err(Stopped::Failed(lost("rows came without their table")));
                }
            }
        }
        Ok(())
    }

    /// Sets the session for large objects, or for rows.
    async fn set(&mut self, session: &mut NativeSession, objects: bool) -> Result<(), Stopped> {
        if std::mem::replace(&mut self.prepared, objects) == objects {
            return Ok(());
        }
        let sql = match objects {
            true => objects::PREPARE,
            false => objects::LEAVE,
        };
        session.batch(sql).await.map_err(|source| {
            let operation = "setting a session for what it is to fill";
            Stopped::Failed(exec(operation, source.into()))
        })
    }

    async fn table(&mut self, session: &mut NativeSession, table: &Table) -> Result<(), Stopped> {
        let failed = |source: NativeError| {
            Stopped::Failed(exec(format!("filling {}", table.label), source.into()))
        };
        let mut copy = session.copy_in(&table.statement).await.map_err(failed)?;
        loop {
            match self.next().await {
                Some(Work::Rows(rows, _room)) => {
                    copy.send(&rows).await.map_err(failed)?;
                    self.sent(rows.len() as u64);
                }
                Some(Work::End) => break,
                // The dealer is gone in the middle of a table: it tells why.
                Some(Work::Begin(_) | Work::Objects(..)) | None => {
                    let _ = copy.abort("the rows ended early").await;
                    return Err(Stopped::Elsewhere);
                }
            }
        }
        let rows = copy.finish().await.map_err(failed)?;
        table.end(rows).map_err(Stopped::Failed)
    }
}

async fn fill_objects(session: &mut NativeSession, parts: &[Part]) -> Result<(), Stopped> {
    let parameters = objects::parameters(parts);
    let filled = session.query_with(objects::FILL, &parameters);
    let answer = filled.await.map_err(|source: NativeError| {
        let first = parts.first().map(|part| part.oid).unwrap_or_default();
        let operation = format!("filling large objects ({first} and following)");
        Stopped::Failed(exec(operation, source.into()))
    })?;
    match number(&answer) {
        Some(number) if number == parts.len() as u64 => Ok(()),
        other => Err(Stopped::Failed(BackupError::ArchiveIncomplete {
            subject: "the large objects".to_owned(),
            problem: format!(
                "the server filled {other:?} of {} parts of them",
                parts.len()
            ),
        })),
    }
}

/// The number that a statement answered.
pub(in crate::restore) fn number(rows: &[Vec<Option<String>>]) -> Option<u64> {
    match rows {
        [row] => row.first()?.as_deref()?.parse().ok(),
        _ => None,
    }
}

fn lost(problem: &str) -> BackupError {
    BackupError::ArchiveIncomplete {
        subject: "the rows on their way".to_owned(),
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: u64, parts: u64) -> Table {
        Table {
            label: "table s.t".to_owned(),
            dump_id: 1,
            key: None,
            statement: String::new(),
            counted: true,
            taken: AtomicU64::new(0),
            total: std::sync::OnceLock::from((rows, parts)),
            ended: AtomicU64::new(0),
        }
    }

    #[test]
    fn sessions_that_end_at_once_are_added_up() {
        for _ in 0..500 {
            let table = table(30, 4);
            let ready = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                let parts = [5, 7, 8, 10].map(|rows| {
                    let (table, ready) = (&table, &ready);
                    scope.spawn(move || {
                        ready.wait();
                        table.end(rows)
                    })
                });
                for part in parts {
                    part.join().unwrap().unwrap();
                }
            });
        }
    }

    #[test]
    fn rows_that_were_not_taken_are_an_error_of_the_last_session() {
        let table = table(30, 2);
        table.end(10).unwrap();
        let error = table.end(19).unwrap_err().to_string();
        assert!(error.contains("30") && error.contains("29"), "{error}");
    }
}
