//! The session beside a dump: it lends pg_dump its snapshot and counts in it.
//!
//! At most one table is locked at a time, in the mode of a read and only while it is counted, so
//! that nobody waits for a count and no deadlock can come of it. A proof that cannot be had is
//! told in words; it never fails the dump.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use archive::TableData;
use dbexec::{ExecError, NativeRoute, PgExecutor, PsqlSession};
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::contents::Wanted;
use super::leader::Leader;
use super::server::{self, ServerSequence, ServerSide, ServerTable};

/// Tables that are counted by one script.
const BATCH: usize = 100;
/// Tables that are named where they could not be counted.
const NAMED: usize = 5;
/// How long a session that is of no use any more may take to end.
const END_WAIT: Duration = Duration::from_secs(10);
/// SQLSTATE of a lock that did not come in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// What attesting one database has found out so far.
pub(crate) struct Attesting {
    session: Option<Leader>,
    cancel: CancellationToken,
    /// Patterns of `--exclude-table-data` as JSON.
    filters: String,
    snapshot: Option<String>,
    side: ServerSide,
    /// Tables outside of a snapshot, where there is none: only good for their sizes.
    unproven: Vec<ServerTable>,
    /// Room that large objects take on the server, bytes.
    large_object_bytes: u64,
    missing: Vec<String>,
    /// Tables that could not be counted, each with the reason.
    uncounted: Vec<String>,
    started: Duration,
}

#[derive(Deserialize)]
struct LargeObjects {
    count: u64,
    bytes: u64,
}

/// Whether a failure ends the run: the program that follows would meet the same.
fn is_fatal(error: &ExecError) -> bool {
    matches!(
        error,
        ExecError::Interrupted { .. } | ExecError::Stalled { .. }
    )
}

fn words(error: &ExecError) -> String {
    match error {
        ExecError::Query { message, .. } => message.clone(),
        error => crate::run::chain(error),
    }
}

impl Attesting {
    /// A run without a session of its own, with the reason.
    pub(crate) fn without(reason: &str, cancel: &CancellationToken) -> Self {
        Self {
            session: None,
            cancel: cancel.child_token(),
            filters: "[]".to_owned(),
            snapshot: None,
            side: ServerSide::default(),
            unproven: Vec::new(),
            large_object_bytes: 0,
            missing: vec![format!("row counts of the server: {reason}")],
            uncounted: Vec::new(),
            started: Duration::ZERO,
        }
    }

    /// Opens the session, reads the sequences and exports the snapshot, in which
    /// [`Attesting::look`] then looks around. The session is one of our own where there is a route
    /// for it, else psql.
    ///
    /// # Errors
    /// Only what would stop the dump as well: an interruption, a server that does not answer.
    pub(crate) async fn open(
        executor: &dyn PgExecutor,
        database: &str,
        route: Option<&Arc<NativeRoute>>,
        filters: String,
        cancel: &CancellationToken,
    ) -> Result<Self, ExecError> {
        let begun = Instant::now();
        let mut this = Self::without("", cancel);
        this.missing.clear();
        this.filters = filters;
        match this.begin(executor, database, route).await {
            Ok(()) => {}
            Err(error) if is_fatal(&error) => {
                this.abandon().await;
                return Err(error);
            }
            Err(error) => this.go_on_without(&error).await,
        }
        this.started = begun.elapsed();
        Ok(this)
    }

    /// Lists what there is, in the snapshot where there is one.
    ///
    /// # Errors
    /// As [`Attesting::open`]; the session is then of no use any more.
    pub(crate) async fn look(&mut self) -> Result<(), ExecError> {
        if self.snapshot.is_none() {
            return Ok(());
        }
        let begun = Instant::now();
        match self.list().await {
            Ok(()) => self.side.snapshot = true,
            Err(error) if is_fatal(&error) => return Err(error),
            Err(error) => self.go_on_without(&error).await,
        }
        self.started += begun.elapsed();
        Ok(())
    }

    /// There is no snapshot to count in; tables are listed for their sizes.
    async fn go_on_without(&mut self, error: &ExecError) {
        self.snapshot = None;
        self.side = ServerSide {
            sequences: self.side.sequences.take(),
            ..ServerSide::default()
        };
        self.missing
            .push(format!("row counts of the server: {}", words(error)));
        self.unproven = self.list_without_snapshot().await.unwrap_or_default();
    }

    async fn begin(
        &mut self,
        executor: &dyn PgExecutor,
        database: &str,
        route: Option<&Arc<NativeRoute>>,
    ) -> Result<(), ExecError> {
        let native = match route {
            Some(route) => Some(Leader::native(executor, route, database, &self.cancel).await),
            None => None,
        };
        let session = match native {
            Some(Ok(session)) => session,
            Some(Err(error)) if is_fatal(&error) => return Err(error),
            other => {
                if let Some(Err(error)) = other {
                    tracing::warn!(
                        error = words(&error),
                        "psql leads in place of our own session"
                    );
                }
                Leader::psql(executor, database, &self.cancel).await?
            }
        };
        let session = self.session.insert(session);
        let before = sequences(session, &self.filters).await;
        match before {
            Ok(before) => self.side.sequences = Some((before, Vec::new())),
            Err(error @ ExecError::Query { .. }) => self
                .missing
                .push(format!("sequence values of the server: {}", words(&error))),
            Err(error) => return Err(error),
        }
        let exported = session.run("export a snapshot", server::BEGIN).await?;
        self.snapshot = Some(exported.trim().to_owned());
        Ok(())
    }

    /// Lists large objects and tables.
    async fn list(&mut self) -> Result<(), ExecError> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        let objects: Vec<LargeObjects> = session
            .rows("count large objects", server::LARGE_OBJECTS, &[])
            .await?;
        self.side.tables = tables(session, &self.filters).await?;
        if let Some(objects) = objects.first() {
            self.side.large_objects = objects.count;
            if objects.count > 0 {
                self.large_object_bytes = objects.bytes;
            }
        }
        Ok(())
    }

    /// The tables for the budget of fingerprints, which come from the archive alone.
    async fn list_without_snapshot(&mut self) -> Result<Vec<ServerTable>, ExecError> {
        let Some(session) = &mut self.session else {
            return Ok(Vec::new());
        };
        let name = "list the tables";
        session.run(name, server::BEGIN_WITHOUT_SNAPSHOT).await?;
        let listed = tables(session, &self.filters).await;
        session.run(name, "rollback;").await?;
        listed
    }

    /// What is fingerprinted, taken off the budget.
    pub(crate) fn choose(&self, budget: &mut Budget) -> Wanted {
        let tables = match self.snapshot {
            Some(_) => &self.side.tables,
            None => &self.unproven,
        };
        Wanted::chosen(budget.choose(tables, self.large_object_bytes))
    }

    /// The snapshot that pg_dump is to use.
    pub(crate) fn snapshot(&self) -> Option<&str> {
        self.snapshot.as_deref()
    }

    /// The session and the snapshot's name, where the session is our own and may lead movers.
    pub(crate) fn leader(&mut self) -> Option<(&mut Leader, &str)> {
        let leader = self.session.as_mut().filter(|leader| leader.is_native())?;
        Some((leader, self.snapshot.as_deref()?))
    }

    /// Bytes of the largest table, and how many large objects there are.
    pub(crate) fn sizes(&self) -> (u64, u64) {
        let largest = self
            .side
            .tables
            .iter()
            .filter_map(|table| table.bytes)
            .max();
        (largest.unwrap_or(0), self.side.large_objects)
    }

    /// Whether the session and its snapshot are still good after movers failed; gives back what
    /// was locked for them.
    pub(crate) async fn recover(&mut self) -> bool {
        match &mut self.session {
            Some(session) => session.run("go on alone", server::BACK).await.is_ok(),
            None => false,
        }
    }

    /// Takes the counts that the server told while rows were moved, and counts the tables that were
    /// not: there is nothing of them in the archive.
    pub(crate) async fn counted(&mut self, moved: &[TableData]) {
        let counts = moved
            .iter()
            .filter_map(|table| Some((table.oid, table.rows?)));
        let mut counts: Vec<(u32, u64)> = counts.collect();
        counts.sort_unstable();
        for table in &mut self.side.tables {
            if let Ok(at) = counts.binary_search_by_key(&table.oid, |(oid, _)| *oid) {
                table.rows = Some(counts[at].1);
            }
        }
        if self.recover().await {
            self.count().await;
        }
    }

    /// Counts every table whose rows are dumped and that is not counted yet; runs beside the dump.
    pub(crate) async fn count(&mut self) {
        let (Some(session), true) = (&mut self.session, self.snapshot.is_some()) else {
            return;
        };
        let mut wanted: Vec<&mut ServerTable> = self
            .side
            .tables
            .iter_mut()
            .filter(|table| !table.excluded && table.rows.is_none())
            .collect();
        for at in (0..wanted.len()).step_by(BATCH) {
            let end = wanted.len().min(at + BATCH);
            let batch = &mut wanted[at..end];
            let counted = match session.script() {
                Some(psql) => count(psql, batch, &mut self.uncounted).await,
                None => count_each(session, batch, &mut self.uncounted).await,
            };
            match counted {
                Ok(()) => {}
                Err(error) => {
                    let reason = words(&error);
                    let left = wanted[at..].iter().filter(|table| table.rows.is_none());
                    self.uncounted
                        .extend(left.map(|table| named(table, &reason)));
                    return;
                }
            }
        }
    }

    /// Ends the session after a dump that went well.
    pub(crate) async fn finish(mut self) -> Attested {
        let begun = Instant::now();
        if let Some(mut session) = self.session.take() {
            if let Some((_, after)) = &mut self.side.sequences {
                let ended = match self.snapshot {
                    Some(_) => session.run("end the snapshot", "rollback;").await,
                    None => Ok(String::new()),
                };
                let read = match ended {
                    Ok(_) => sequences(&mut session, &self.filters).await,
                    Err(error) => Err(error),
                };
                match read {
                    Ok(now) => *after = now,
                    Err(error) => {
                        self.side.sequences = None;
                        self.missing
                            .push(format!("sequence values of the server: {}", words(&error)));
                    }
                }
            }
            if let Err(error) = session.close().await {
                tracing::warn!(%error, "the session beside the dump did not end well");
            }
        }
        if !self.uncounted.is_empty() {
            let count = self.uncounted.len();
            let more = count.saturating_sub(NAMED);
            self.uncounted.truncate(NAMED);
            let mut text = format!(
                "row counts of {count} tables on the server: {}",
                self.uncounted.join("; ")
            );
            if more > 0 {
                let _ = write!(text, "; and {more} more");
            }
            self.missing.push(text);
        }
        Attested {
            side: self.side,
            missing: self.missing,
            seconds: (self.started + begun.elapsed()).as_secs_f64(),
        }
    }

    /// Ends the session of a dump that failed; its program and its server session are gone
    /// afterwards.
    pub(crate) async fn abandon(mut self) {
        self.cancel.cancel();
        if let Some(session) = self.session.take() {
            let ended = tokio::time::timeout(END_WAIT, session.close()).await;
            tracing::debug!(?ended, "the session beside the dump was ended");
        }
    }
}

/// What was found out beside one dump.
#[derive(Default)]
pub(crate) struct Attested {
    pub(crate) side: ServerSide,
    /// Which proof is missing, and why.
    pub(crate) missing: Vec<String>,
    /// Seconds that it took before and after the dump.
    pub(crate) seconds: f64,
}

/// Lists the tables, in a transaction that was begun for it.
async fn tables(session: &mut Leader, filters: &str) -> Result<Vec<ServerTable>, ExecError> {
    let name = "list the tables";
    let vars = [("filters", filters)];
    let select = |look: &str, size: &str, empty: &str| {
        let text = server::TABLES.replace("LOOK", look);
        text.replace("SIZE", size).replace("EMPTY", empty)
    };
    let sized = select(server::LOOK, server::SIZE, server::EMPTY);
    let listed = session.rows(name, &sized, &vars).await;
    // Also gives back the locks and the setting.
    session.run(name, server::BACK).await?;
    match listed {
        Err(ExecError::Query { message, .. }) => {
            tracing::debug!(message, "sizes are taken from the catalogue");
            let unlocked = select("", server::SIZE_WITHOUT_LOCK, "null");
            session.rows(name, &unlocked, &vars).await
        }
        listed => listed,
    }
}

async fn sequences(session: &mut Leader, filters: &str) -> Result<Vec<ServerSequence>, ExecError> {
    let mut found: Vec<ServerSequence> = Vec::new();
    loop {
        let after = found.last().map_or(0, |last| last.oid).to_string();
        let vars = [("filters", filters), ("after", after.as_str())];
        let page: Vec<ServerSequence> = session
            .rows("read the sequences", server::SEQUENCES, &vars)
            .await?;
        let whole = page.len() == server::PAGE;
        found.extend(page);
        if !whole {
            return Ok(found);
        }
    }
}

/// Counts a batch in one script; each lock goes with the savepoint.
async fn count(
    session: &mut PsqlSession,
    batch: &mut [&mut ServerTable],
    uncounted: &mut Vec<String>,
) -> Result<(), ExecError> {
    let mut script = String::new();
    for table in batch.iter() {
        // The error is told by a line of its own, and then forgotten.
        let _ = write!(
            script,
            "{};\n\\if :ERROR\n\\echo ! {} :LAST_ERROR_SQLSTATE :LAST_ERROR_MESSAGE\n\
             \\set LAST_ERROR_SQLSTATE 00000\n\\endif\nrollback to savepoint pgstow;\n",
            table.statement(),
            table.oid
        );
    }
    let answer = session.run("count rows", &script, &[]).await?;
    let mut waited = false;
    for line in answer.lines() {
        if let Some(failure) = line.strip_prefix("! ") {
            let mut parts = failure.splitn(3, ' ');
            let oid = parts.next().and_then(|oid| oid.parse::<u32>().ok());
            waited |= parts.next() == Some(LOCK_NOT_AVAILABLE);
            let reason = parts.next().unwrap_or("it could not be read");
            if let Some(table) = batch.iter().find(|table| Some(table.oid) == oid) {
                uncounted.push(named(table, reason));
            }
        } else if let Some((oid, _)) = line.split_once('|')
            && let Ok(oid) = oid.parse::<u32>()
            && let Some(table) = batch.iter_mut().find(|table| table.oid == oid)
        {
            take(table, line, uncounted);
        }
    }
    if waited {
        // Somebody works on the tables: the others are not waited for as long.
        session.run("count rows", server::IMPATIENT, &[]).await?;
    }
    Ok(())
}

/// Counts a batch, each table by a statement of its own.
async fn count_each(
    session: &mut Leader,
    batch: &mut [&mut ServerTable],
    uncounted: &mut Vec<String>,
) -> Result<(), ExecError> {
    let mut waited = false;
    for table in batch.iter_mut() {
        let sql = format!("{}; {}", table.statement(), server::BACK);
        match session.run("count rows", &sql).await {
            Ok(answer) => take(table, answer.trim(), uncounted),
            Err(ExecError::Query { message, .. }) => {
                waited |= message.contains("lock timeout");
                uncounted.push(named(table, &message));
                session.run("count rows", server::BACK).await?;
            }
            Err(error) => return Err(error),
        }
    }
    if waited {
        session.run("count rows", server::IMPATIENT).await?;
    }
    Ok(())
}

/// Takes the answer of a table's statement.
fn take(table: &mut ServerTable, line: &str, uncounted: &mut Vec<String>) {
    let mut columns = line.split('|').skip(1);
    let rows = columns.next().and_then(|rows| rows.parse().ok());
    // Where rows are seen all the same it was only packed.
    table.emptied = rows == Some(0) && columns.next() == Some("t");
    if table.emptied {
        uncounted.push(named(
            table,
            "it was rewritten or emptied since the snapshot",
        ));
    } else {
        table.rows = rows;
    }
}

fn named(table: &ServerTable, reason: &str) -> String {
    format!("{}.{} ({reason})", table.schema, table.name)
}
