//! One dump by the engine, from pg_dump's table of contents to the last byte in the store.

use std::sync::Arc;
use std::time::Duration;

use archive::{ArchiveSummary, DumpDataKind, DumpToc, WriteFormat};
use dbexec::{ExecError, NativeRoute, PgExecutor};
use tokio::sync::watch;

use super::emit::{Emitted, Failure, Files, Target, emit};
use super::facts;
use super::mover::{self, Crew, Sessions, Shared, Stage, suffix};
use super::plan::Plan;
use super::program::{Dumping, Started, read_toc};
use super::settings;
use super::split::unit_bytes;
use super::statement::CopyStatement;
use crate::attest::{Contents, Leader, Wanted};
use crate::manifest::StoredFile;
use crate::run::{Progress, chain};

/// From this version on ranges of pages are read without reading all others.
const RANGES_FROM: u32 = 140_000;
/// How long the sessions of an attempt that failed may take to end.
const REAP_WAIT: Duration = Duration::from_secs(4);
/// Table of contents of a directory archive.
const TOC: &str = "toc.dat";

/// What is to be dumped, and how.
pub(crate) struct Job<'a> {
    pub(crate) executor: &'a dyn PgExecutor,
    pub(crate) route: Arc<NativeRoute>,
    pub(crate) database: &'a str,
    /// Number of the database in the run.
    pub(crate) number: usize,
    /// pg_dump, in the leader's snapshot.
    pub(crate) program: Started,
    pub(crate) format: WriteFormat,
    pub(crate) wanted: Wanted,
    pub(crate) movers: u32,
    /// Whether the archive, one file, is read while it is stored.
    pub(crate) read_along: bool,
    pub(crate) target: Target<'a>,
    /// Who is told when the last rows are on their way.
    pub(crate) stage: &'a watch::Sender<Stage>,
}

/// A dump in the store.
pub(crate) struct Done {
    pub(crate) files: Vec<StoredFile>,
    /// What the archive holds; the rows of each table are those that the server counted.
    pub(crate) summary: ArchiveSummary,
    /// What the archive's reader saw, where it was read while it was stored.
    pub(crate) read: Option<Contents>,
    /// What pg_dump said.
    pub(crate) stderr: Vec<String>,
    /// Movers for which the server had no connection.
    pub(crate) refused: u32,
}

/// Dumps a database. After a failure nothing of it is in the store, and no session or program of it
/// is left but the leader.
pub(crate) async fn dump(
    job: Job<'_>,
    leader: &mut Leader,
    snapshot: &str,
    progress: &mut Progress<'_>,
) -> Result<Done, Failure> {
    let Job {
        executor,
        route,
        database,
        number,
        program,
        format,
        wanted,
        movers,
        read_along,
        target,
        stage,
    } = job;
    // Every frame carries a checksum of the bytes that were fingerprinted.
    let along = read_along.then(|| wanted.clone().without_fingerprints());
    let mut attempt = Attempt {
        executor,
        route,
        database,
        suffix: suffix(number),
        format,
        wanted,
        movers,
        stage,
        ending: None,
        crew: Crew::default(),
    };
    let mut files = Files::new(target, along);
    let result = attempt
        .work(program, leader, snapshot, &mut files, progress)
        .await;
    match result {
        Ok(worked) => {
            if let Some(ending) = attempt.ending.take() {
                let _ = ending.await;
            }
            Ok(Done {
                files: files.finish(),
                ..worked
            })
        }
        Err(failure) => {
            attempt.clean_up().await;
            if let Err(left) = files.remove().await {
                tracing::warn!(%left, "a partial file could not be removed");
                // What lies there would be in the way of another dump.
                if !matches!(failure, Failure::Run(_)) {
                    return Err(Failure::Run(crate::BackupError::Store {
                        operation: "removing a partial archive".to_owned(),
                        source: left,
                    }));
                }
            }
            Err(failure)
        }
    }
}

struct Attempt<'a> {
    executor: &'a dyn PgExecutor,
    route: Arc<NativeRoute>,
    database: &'a str,
    suffix: String,
    format: WriteFormat,
    wanted: Wanted,
    movers: u32,
    stage: &'a watch::Sender<Stage>,
    /// pg_dump on its way out.
    ending: Option<tokio::task::JoinHandle<()>>,
    crew: Crew,
}

impl<'a> Attempt<'a> {
    /// What was done, but for the files.
    async fn work(
        &mut self,
        program: Started,
        leader: &mut Leader,
        snapshot: &str,
        files: &mut Files<'a>,
        progress: &mut Progress<'_>,
    ) -> Result<Done, Failure> {
        let target = files.target;
        let custom = self.format.kind == archive::ArchiveKind::Custom;
        if let Err(failure) = files.begin((!custom).then_some(TOC)).await {
            program.end().await;
            return Err(failure);
        }
        let read = read_toc(program, self.format, &self.wanted, files);
        let (toc, dumping, stderr) = read.await?;
        let prepared = self.prepare(toc, leader, snapshot, target).await;
        // The tables are locked by the leader, or the work is given up.
        self.end_program(dumping);
        let (shared, mut summary) = prepared?;
        if !custom {
            files.commit().await?;
        }
        let emitted = self.move_rows(&shared, leader, files, progress).await?;
        // Had it been lost, another could have changed a table before a mover locked it.
        let alive = leader
            .run("look whether the snapshot is there", "select 1;")
            .await;
        alive.map_err(|error| leader_failed(target, &error))?;
        let read = files.read_along().await?;
        files.commit().await?;
        let Emitted { tables, objects } = emitted;
        let (plan, refused) = (Arc::clone(&shared.plan), shared.refused());
        drop(shared);
        summary.tables = Arc::unwrap_or_clone(plan).tables(tables);
        summary.large_objects = objects.count;
        summary.large_object_bytes = objects.bytes;
        summary.large_object_fingerprint = objects.fingerprint;
        Ok(Done {
            files: Vec::new(),
            summary,
            read,
            stderr,
            refused,
        })
    }

    fn end_program(&mut self, dumping: Dumping) {
        self.ending = Some(tokio::spawn(dumping.end()));
    }

    /// Locks the tables and makes the plan.
    async fn prepare(
        &self,
        toc: DumpToc,
        leader: &mut Leader,
        snapshot: &str,
        target: Target<'_>,
    ) -> Result<(Arc<Shared>, ArchiveSummary), Failure> {
        let encoding = usable(&toc).map_err(Failure::Stock)?;
        let version = self.executor.context().server.version_num;
        let (Some(settings), Some(begin)) = (
            settings::statements(version, &encoding),
            settings::begin(snapshot),
        ) else {
            return Err(Failure::Stock(format!(
                "encoding {encoding:?} or snapshot {snapshot:?} is not understood"
            )));
        };
        let told = |error: ExecError| leader_failed(target, &error);
        facts::lock(leader, &toc.data).await.map_err(told)?;
        let unit = unit_bytes(self.movers);
        let tables = facts::tables(leader, &toc.data, unit).await.map_err(told)?;
        if let Some(oid) = facts::rewritten(&tables) {
            return Err(Failure::Stock(format!(
                "the table with oid {oid} was rewritten or emptied since the snapshot"
            )));
        }
        if let Some(oid) = facts::no_table(&tables) {
            return Err(Failure::Stock(format!(
                "the relation with oid {oid} has rows and is no table"
            )));
        }
        let conditions = facts::conditions(leader).await.map_err(told)?;
        // Undone by the return to the savepoint.
        leader
            .run("set how rows are written", &settings)
            .await
            .map_err(told)?;
        let DumpToc { summary, data, .. } = toc;
        let plan = Plan::new(
            self.format,
            data,
            &tables,
            conditions,
            self.wanted.clone(),
            (version >= RANGES_FROM).then_some(unit),
        );
        let shared = Shared::new(
            Arc::new(plan),
            Sessions {
                route: Arc::clone(&self.route),
                database: self.database.to_owned(),
                suffix: self.suffix.clone(),
                settings,
                begin,
            },
            self.movers,
            self.stage.clone(),
        );
        Ok((Arc::new(shared), summary))
    }

    /// Moves all rows and large objects into the store.
    async fn move_rows(
        &mut self,
        shared: &Arc<Shared>,
        leader: &mut Leader,
        files: &mut Files<'a>,
        progress: &mut Progress<'_>,
    ) -> Result<Emitted, Failure> {
        let Some(session) = leader.session() else {
            return Err(Failure::Stock("the leader is psql".to_owned()));
        };
        // Also when this future is dropped: threads may wait for room.
        let _guard = shared.stop_at_the_end();
        for number in 1..=shared.wanted() {
            let started = self.crew.start(shared, number);
            started.map_err(|error| Failure::Stock(format!("a thread for a mover: {error}")))?;
        }
        let emitted = {
            let emitting = emit(shared, self.executor, files, progress);
            let leading = mover::lead(shared, session);
            tokio::pin!(emitting, leading);
            tokio::select! {
                emitted = &mut emitting => {
                    if emitted.is_ok() {
                        leading.await;
                    }
                    emitted
                }
                () = &mut leading => emitting.await,
            }
        };
        match emitted {
            Ok(emitted) => {
                self.crew.gone().await;
                let window_peak = shared.board.peak() as u64;
                tracing::debug!(window_peak, "bytes of finished units that waited at most");
                shared.failure().map_or(Ok(emitted), Err)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Ends pg_dump and the movers' sessions, on the server too.
    async fn clean_up(&mut self) {
        self.crew.gone().await;
        let name = &self.executor.settings().application_name;
        let name = format!("{name}-{}", self.suffix);
        let reap = tokio::time::timeout(REAP_WAIT, self.executor.reap(&name));
        let ending = async {
            if let Some(ending) = self.ending.take() {
                let _ = ending.await;
            }
        };
        let (reaped, ()) = tokio::join!(reap, ending);
        tracing::debug!(?reaped, "sessions of the engine were ended");
    }
}

fn leader_failed(target: Target<'_>, error: &ExecError) -> Failure {
    match error {
        ExecError::Interrupted { .. } => target.interrupted(),
        error => Failure::Stock(format!("the session that leads: {}", words(error))),
    }
}

fn words(error: &ExecError) -> String {
    match error {
        ExecError::Query { message, .. } => message.clone(),
        error => chain(error),
    }
}

/// Whether every entry can be moved; the archive's encoding.
fn usable(toc: &DumpToc) -> Result<String, String> {
    let Some(encoding) = toc.encoding.clone() else {
        return Err("the archive does not tell its encoding".to_owned());
    };
    for entry in &toc.data {
        match &entry.kind {
            DumpDataKind::LargeObjects { .. } => {}
            DumpDataKind::Other { kind } => {
                return Err(format!("the archive holds data of kind {kind}"));
            }
            DumpDataKind::Rows { copy_statement } => {
                let in_utf8 = encoding == "UTF8";
                if entry.lossy || !(in_utf8 || copy_statement.is_ascii()) {
                    return Err(format!(
                        "a name in table {}.{} is not ASCII, and the encoding is {encoding}",
                        entry.schema, entry.name
                    ));
                }
                if CopyStatement::parse(copy_statement).is_none() {
                    return Err(format!(
                        "the statement {copy_statement:?} is not understood"
                    ));
                }
                if entry.oid == 0 {
                    return Err(format!(
                        "table {}.{} has no oid in the archive",
                        entry.schema, entry.name
                    ));
                }
            }
        }
    }
    Ok(encoding)
}
