//! A mover: a session in the leader's snapshot that reads one unit after the other, with a thread of
//! its own, which no other task has to wait for.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use archive::UsedEncoder;
use dbexec::{NativeError, NativeRoute, NativeSession};
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};

use super::board::{Board, Part, Stopped};
use super::emit::Failure;
use super::encode::UnitWork;
use super::plan::Plan;
use super::settings;
use super::split::room;
use crate::BackupError;

/// Bytes that are read before they are compressed: somewhat more than a connection's buffer, which
/// the server fills meanwhile.
const PIECE: usize = 256 << 10;
/// Bytes by which most messages of rows go beyond that at most.
const MESSAGE: usize = 16 << 10;
/// SQLSTATE of a lock that somebody else holds.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// SQLSTATE of a server that finds no room in a file system, that of its shared memory too. Whoever
/// reads the table next meets the same, and each session that does may take the server with it.
const DISK_FULL: &str = "53100";
/// SQLSTATE of a server, a database or a role that has no connection left.
const NO_CONNECTION: &str = "53300";
/// Tables whose locks a session keeps at once at most. A table, its rows out of line and their index
/// are three locks, of which a session has 16 that take no room in the table of locks.
const HELD: u32 = 4;

/// What the sessions and the program of the engine have behind the run's name, in the dump of a
/// database of this number in the run.
pub(crate) fn suffix(number: usize) -> String {
    format!("{number}-engine")
}

/// How far the dump of a database is, for who waits for its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There are rows that no session takes up yet, or it is not known.
    Moving,
    /// The last ones are on their way.
    LastRows,
    /// It begins again, by pg_dump alone.
    Again,
    /// It is over.
    Over,
}

/// The sessions of the movers of one dump.
pub(crate) struct Sessions {
    pub(crate) route: Arc<NativeRoute>,
    pub(crate) database: String,
    /// See [`suffix`].
    pub(crate) suffix: String,
    /// Settings of a mover, as statements.
    pub(crate) settings: String,
    /// The begin of its transaction.
    pub(crate) begin: String,
}

/// What the movers of one dump share.
pub(crate) struct Shared {
    pub(crate) plan: Arc<Plan>,
    pub(crate) board: Arc<Board>,
    pub(crate) sessions: Sessions,
    stage: watch::Sender<Stage>,
    /// Movers that there is work for.
    wanted: u32,
    /// Those of them for which the server had no connection.
    refused: AtomicU32,
    /// The next unit that nobody took up.
    next: AtomicUsize,
    /// Bytes that were read and not yet told.
    moved: AtomicU64,
    /// Why the work was given up.
    failure: Mutex<Option<GaveUp>>,
}

/// Why the work was given up.
#[derive(Clone)]
pub(crate) struct GaveUp {
    reason: String,
    /// Whether pg_dump could not do it either.
    for_all: bool,
}

impl From<String> for GaveUp {
    fn from(reason: String) -> Self {
        Self {
            reason,
            for_all: false,
        }
    }
}

impl Shared {
    /// `movers`: how many there are to be, if there is work for so many. `stage`: who is told when no
    /// unit is left to be taken up.
    pub(crate) fn new(
        plan: Arc<Plan>,
        sessions: Sessions,
        movers: u32,
        stage: watch::Sender<Stage>,
    ) -> Self {
        let units = u32::try_from(plan.units.len()).unwrap_or(u32::MAX);
        if plan.units.is_empty() {
            stage.send_replace(Stage::LastRows);
        }
        Self {
            plan,
            board: Arc::new(Board::new(room(movers))),
            sessions,
            stage,
            wanted: movers.min(units),
            refused: AtomicU32::new(0),
            next: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            failure: Mutex::new(None),
        }
    }

    /// Gives the work up; the first reason stays.
    fn fail(&self, why: GaveUp) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(why);
        drop(failure);
        self.board.stop();
    }

    /// Whoever still waits when this is dropped is told that there is nothing to wait for.
    pub(crate) fn stop_at_the_end(&self) -> impl Drop + use<> {
        Stopping(Arc::clone(&self.board))
    }

    /// Why the work was given up.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let GaveUp { reason, for_all } = failure.clone()?;
        Some(if for_all {
            Failure::Run(BackupError::ServerFull {
                database: self.sessions.database.clone(),
                reason,
            })
        } else {
            Failure::Stock(reason)
        })
    }

    /// Bytes that were read since the last time.
    pub(crate) fn moved(&self) -> u64 {
        self.moved.swap(0, Ordering::Relaxed)
    }

    /// Movers that there is work for.
    pub(crate) fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Movers for which the server had no connection.
    pub(crate) fn refused(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }

    /// A mover has no connection. Whether others may have one.
    fn others_go_on(&self) -> bool {
        self.refused.fetch_add(1, Ordering::Relaxed) + 1 < self.wanted
    }

    fn take(&self) -> Option<usize> {
        let unit = self.next.fetch_add(1, Ordering::Relaxed);
        let units = self.plan.units.len();
        if unit + 1 == units {
            self.stage.send_replace(Stage::LastRows);
        }
        (unit < units).then_some(unit)
    }

    async fn open(&self, number: u32) -> Result<NativeSession, NativeError> {
        let Sessions {
            route,
            database,
            suffix,
            settings,
            begin,
        } = &self.sessions;
        let suffix = format!("{suffix}-m{number}");
        let mut session = route.open(database, &suffix).await?;
        session.has_its_thread();
        session.batch(settings).await?;
        session.batch(begin).await?;
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
    /// The work was given up elsewhere.
    Stopped,
    /// The session or the server. `untouched`: nothing of the unit was handed over yet.
    Server { error: NativeError, untouched: bool },
    /// Here is why, and again would be no better.
    Failed(String),
}

impl From<Stopped> for NotCopied {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<String> for NotCopied {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// What a mover needs for each unit and keeps from one to the next.
struct Room {
    /// For what is read.
    piece: Vec<u8>,
    used: Option<UsedEncoder>,
    /// Units whose locks the session still has.
    held: u32,
}

impl Room {
    fn new() -> Self {
        Self {
            piece: Vec::with_capacity(PIECE + MESSAGE),
            used: None,
            held: 0,
        }
    }
}

/// Reads one unit, encodes it and hands it over.
async fn copy(
    session: &mut NativeSession,
    shared: &Shared,
    room: &mut Room,
    unit: usize,
    lock: bool,
) -> Result<(), NotCopied> {
    let Room { piece, used, held } = room;
    let mut work = UnitWork::new(&shared.plan, unit, used)?;
    let sql = shared.plan.sql(&shared.plan.units[unit], lock)?;
    let Some(sql) = sql else {
        return hand_over(shared, unit, work.finish(0, used)?).await;
    };
    // The leader keeps its locks.
    let sql = if lock && *held >= HELD {
        *held = 0;
        format!("{}{sql}", settings::NEXT)
    } else {
        sql
    };
    *held += 1;
    let mut untouched = true;
    let server = |untouched| move |error| NotCopied::Server { error, untouched };
    let mut out = session.copy_out(&sql).await.map_err(server(untouched))?;
    loop {
        piece.clear();
        let more = out.read(piece, PIECE).await.map_err(server(untouched))?;
        shared
            .moved
            .fetch_add(piece.len() as u64, Ordering::Relaxed);
        let parts = work.push(piece)?;
        untouched &= parts.is_empty();
        hand_over(shared, unit, parts).await?;
        if !more {
            break;
        }
    }
    let rows = out.finish().await.map_err(server(untouched))?;
    hand_over(shared, unit, work.finish(rows, used)?).await
}

async fn hand_over(shared: &Shared, unit: usize, parts: Vec<Part>) -> Result<(), NotCopied> {
    for part in parts {
        shared.board.put(unit, part).await?;
    }
    Ok(())
}

/// Works until there is no unit left, or the work is given up. For a thread of its own.
fn run(shared: &Arc<Shared>, number: u32) {
    // A panic must not leave the others waiting.
    let alarm = Alarm(shared);
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return shared.fail(format!("starting a mover: {error}").into()),
    };
    let worked = runtime.block_on(async {
        tokio::select! {
            biased;
            // The session is closed as it is.
            () = shared.board.stopped() => Ok(()),
            worked = work(shared, number) => worked,
        }
    });
    match worked {
        Ok(()) => std::mem::forget(alarm),
        Err(reason) => shared.fail(reason),
    }
}

/// The movers of a dump that run.
#[derive(Default)]
pub(crate) struct Crew(Vec<oneshot::Receiver<()>>);

impl Crew {
    /// Starts a mover; it ends with the work, or when [`Board::stop`] gives it up.
    pub(crate) fn start(&mut self, shared: &Arc<Shared>, number: u32) -> std::io::Result<()> {
        let (running, ended) = oneshot::channel::<()>();
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name(format!("mover {number}"));
        thread.spawn(move || {
            run(&shared, number);
            drop((shared, running));
        })?;
        self.0.push(ended);
        Ok(())
    }

    /// Waits until none is left.
    pub(crate) async fn gone(&mut self) {
        for ended in self.0.drain(..) {
            let _ = ended.await;
        }
    }
}

/// Dropped, it gives the work up; a reason that was told before stays.
struct Alarm<'a>(&'a Shared);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0
            .fail("a mover ended without a word".to_owned().into());
    }
}

async fn work(shared: &Arc<Shared>, number: u32) -> Result<(), GaveUp> {
    let mut session = match shared.open(number).await {
        Ok(session) => session,
        Err(error) if error.sqlstate() == Some(NO_CONNECTION) && shared.others_go_on() => {
            tracing::debug!(number, %error, "a mover less");
            return Ok(());
        }
        Err(error) => {
            return Err(format!("a session in the snapshot: {}", error.in_words()).into());
        }
    };
    let mut room = Room::new();
    while let Some(unit) = shared.take() {
        let mut again = false;
        loop {
            let (error, untouched) = match copy(&mut session, shared, &mut room, unit, true).await {
                Ok(()) => break,
                Err(NotCopied::Stopped) => {
                    return Err("the work was given up".to_owned().into());
                }
                Err(NotCopied::Failed(reason)) => return Err(reason.into()),
                Err(NotCopied::Server { error, untouched }) => (error, untouched),
            };
            if untouched && error.sqlstate() == Some(LOCK_NOT_AVAILABLE) {
                // Somebody waits for this table; the leader has its lock already.
                tracing::debug!(unit, "left to the leader");
                shared.board.leave(unit);
                // The transaction goes on from where the locks are given back.
                room.held = HELD;
                break;
            }
            let words = format!("reading {}: {}", name(shared, unit), error.in_words());
            let full = error.sqlstate() == Some(DISK_FULL);
            if full || !untouched || std::mem::replace(&mut again, true) {
                return Err(GaveUp {
                    reason: words,
                    for_all: full,
                });
            }
            tracing::warn!(%words, "the unit is read again in a new session");
            session = shared
                .open(number)
                .await
                .map_err(|error| format!("{words}; again: {}", error.in_words()))?;
            room.held = 0;
        }
    }
    session.close().await;
    Ok(())
}

/// Copies in the leader what the movers could not lock, each unit when it is its turn.
pub(crate) async fn lead(shared: &Arc<Shared>, session: &mut NativeSession) {
    let mut room = Room::new();
    while let Some(unit) = shared.board.turn().await {
        let why = match copy(session, shared, &mut room, unit, false).await {
            Ok(()) => continue,
            Err(NotCopied::Stopped) => return,
            Err(NotCopied::Failed(reason)) => reason.into(),
            Err(NotCopied::Server { error, .. }) => GaveUp {
                reason: format!("reading {}: {}", name(shared, unit), error.in_words()),
                for_all: error.sqlstate() == Some(DISK_FULL),
            },
        };
        return shared.fail(why);
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
