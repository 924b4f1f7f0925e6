//! A mover: a session in the leader's snapshot that reads one unit after the other.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dbexec::{NativeError, NativeRoute, NativeSession};

use super::board::Board;
use super::encode::{Encoding, Ended};
use super::plan::Plan;
use super::settings;

/// Bytes that are read before they are handed to the thread that compresses.
const PIECE: usize = 256 << 10;
/// SQLSTATE of a lock that somebody else holds.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// What the sessions and the program of the engine have behind the run's name.
pub(crate) const SUFFIX: &str = "engine";

/// What the movers of one dump share.
pub(crate) struct Shared {
    pub(crate) plan: Arc<Plan>,
    pub(crate) board: Arc<Board>,
    pub(crate) route: Arc<NativeRoute>,
    pub(crate) database: String,
    /// Settings of a mover, as statements.
    pub(crate) settings: String,
    /// The begin of its transaction.
    pub(crate) begin: String,
    /// The next unit that nobody took up.
    next: AtomicUsize,
    /// Bytes that were read and not yet told.
    moved: AtomicU64,
    /// Why the work was given up.
    failure: Mutex<Option<String>>,
}

impl Shared {
    pub(crate) fn new(
        plan: Arc<Plan>,
        route: Arc<NativeRoute>,
        database: &str,
        settings: String,
        begin: String,
    ) -> Self {
        Self {
            plan,
            board: Arc::new(Board::new()),
            route,
            database: database.to_owned(),
            settings,
            begin,
            next: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            failure: Mutex::new(None),
        }
    }

    /// Gives the work up; the first reason stays.
    pub(crate) fn fail(&self, reason: String) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(reason);
        drop(failure);
        self.board.stop();
    }

    /// Whoever still waits when this is dropped is told that there is nothing to wait for.
    pub(crate) fn stop_at_the_end(&self) -> impl Drop + use<> {
        Stopping(Arc::clone(&self.board))
    }

    /// Why the work was given up.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Bytes that were read since the last time.
    pub(crate) fn moved(&self) -> u64 {
        self.moved.swap(0, Ordering::Relaxed)
    }

    fn take(&self) -> Option<usize> {
        let unit = self.next.fetch_add(1, Ordering::Relaxed);
        (unit < self.plan.units.len()).then_some(unit)
    }

    async fn open(&self, number: u32) -> Result<NativeSession, NativeError> {
        let suffix = format!("{SUFFIX}-m{number}");
        let mut session = self.route.open(&self.database, &suffix).await?;
        session.batch(&self.settings).await?;
        session.batch(&self.begin).await?;
        Ok(session)
    }
}

struct Stopping(Arc<Board>);

impl Drop for Stopping {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Why a unit was not copied.
pub(crate) enum NotCopied {
    /// The thread beside ended, which tells why.
    Stopped,
    /// The session or the server.
    Server(NativeError),
    /// The statement cannot be made.
    Plan(String),
}

impl From<NativeError> for NotCopied {
    fn from(error: NativeError) -> Self {
        Self::Server(error)
    }
}

/// Reads one unit.
pub(crate) async fn copy(
    session: &mut NativeSession,
    shared: &Shared,
    encoding: &Encoding,
    unit: usize,
    lock: bool,
) -> Result<(), NotCopied> {
    let stopped = |_| NotCopied::Stopped;
    let sql = shared.plan.sql(&shared.plan.units[unit], lock);
    let Some(sql) = sql.map_err(NotCopied::Plan)? else {
        return encoding.end(unit, 0).await.map_err(stopped);
    };
    // The leader keeps its locks.
    let sql = if lock {
        format!("{}{sql}", settings::NEXT)
    } else {
        sql
    };
    let mut out = session.copy_out(&sql).await?;
    loop {
        let mut piece = Vec::with_capacity(PIECE + PIECE / 4);
        let more = out.read(&mut piece, PIECE).await?;
        shared
            .moved
            .fetch_add(piece.len() as u64, Ordering::Relaxed);
        if !piece.is_empty() {
            encoding.bytes(unit, piece).await.map_err(stopped)?;
        }
        if !more {
            break;
        }
    }
    let rows = out.finish().await?;
    encoding.end(unit, rows).await.map_err(stopped)
}

/// Works until there is no unit left, or the work is given up.
pub(crate) async fn run(shared: Arc<Shared>, number: u32) {
    if let Err(reason) = work(&shared, number).await {
        shared.fail(reason);
    }
}

async fn work(shared: &Arc<Shared>, number: u32) -> Result<(), String> {
    let mut session = shared
        .open(number)
        .await
        .map_err(|error| format!("a session in the snapshot: {}", error.in_words()))?;
    let encoding = Encoding::start(Arc::clone(&shared.plan), Arc::clone(&shared.board));
    let moved = all(shared, &mut session, &encoding, number).await;
    if let Err(Some(reason)) = &moved {
        // At once: the thread may wait for room.
        shared.fail(reason.clone());
    }
    // Its own words explain why nothing more was taken.
    let ended = encoding.finish().await;
    match (moved, ended) {
        (Err(Some(reason)), _) | (_, Err(Ended::Failed(reason))) => Err(reason),
        (Err(None), _) | (_, Err(Ended::Stopped)) => Err("the work was given up".to_owned()),
        (Ok(()), Ok(())) => {
            session.close().await;
            Ok(())
        }
    }
}

/// `Err(None)`: the thread beside knows why.
async fn all(
    shared: &Arc<Shared>,
    session: &mut NativeSession,
    encoding: &Encoding,
    number: u32,
) -> Result<(), Option<String>> {
    while let Some(unit) = shared.take() {
        let mut again = false;
        loop {
            let error = match copy(session, shared, encoding, unit, true).await {
                Ok(()) => break,
                Err(NotCopied::Stopped) => return Err(None),
                Err(NotCopied::Plan(reason)) => return Err(Some(reason)),
                Err(NotCopied::Server(error)) => error,
            };
            let untouched = encoding.abandon().await;
            if untouched && error.sqlstate() == Some(LOCK_NOT_AVAILABLE) {
                // Somebody waits for this table; the leader has its lock already.
                tracing::debug!(unit, "left to the leader");
                shared.board.leave(unit);
                break;
            }
            let words = format!("reading {}: {}", name(shared, unit), error.in_words());
            if !untouched || std::mem::replace(&mut again, true) {
                return Err(Some(words));
            }
            tracing::warn!(%words, "the unit is read again in a new session");
            *session = shared
                .open(number)
                .await
                .map_err(|error| Some(format!("{words}; again: {}", error.in_words())))?;
        }
    }
    Ok(())
}

/// Copies in the leader what the movers could not lock, each unit when it is its turn.
pub(crate) async fn lead(shared: &Arc<Shared>, session: &mut NativeSession) {
    let mut encoding = None;
    let mut failed = None;
    while let Some(unit) = shared.board.turn().await {
        let encoding = encoding.get_or_insert_with(|| {
            Encoding::start(Arc::clone(&shared.plan), Arc::clone(&shared.board))
        });
        match copy(session, shared, encoding, unit, false).await {
            Ok(()) => {}
            Err(NotCopied::Stopped) => break,
            Err(NotCopied::Plan(reason)) => failed = Some(reason),
            Err(NotCopied::Server(error)) => {
                let name = name(shared, unit);
                failed = Some(format!("reading {name}: {}", error.in_words()));
            }
        }
        if failed.is_some() {
            break;
        }
    }
    let ended = match encoding {
        Some(encoding) => encoding.finish().await,
        None => Ok(()),
    };
    match (failed, ended) {
        (Some(reason), _) | (None, Err(Ended::Failed(reason))) => shared.fail(reason),
        _ => {}
    }
}

fn name(shared: &Shared, unit: usize) -> String {
    let entry = shared.plan.entry(&shared.plan.units[unit]);
    if entry.name.is_empty() || entry.schema.is_empty() {
        "large objects".to_owned()
    } else {
        format!("{}.{}", entry.schema, entry.name)
    }
}
