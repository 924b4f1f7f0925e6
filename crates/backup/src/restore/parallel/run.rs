//! Carries a parallel restore out, pass by pass.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dbexec::{NativeError, NativeRoute, NativeSession, PgExecutor, executor::ScratchDir};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        analyze,
        check::in_words,
        early,
        fill::{Beside, Filled, Filling, exec},
        plan::PlannedWork,
        source::refused,
    },
    choose::RowsWay,
    dealer::{Dealer, Dealt, Objects, room},
    lane::{Lane, Stopped, number, queue},
    lists::{Lists, Way, sort},
    objects, settings,
    source::{Contents, Stored},
};
use crate::{BackupError, BackupEvent, EngineChoice};

/// A table with so many bytes of rows is cut, or frozen.
const LARGE_FROM: u64 = 8 << 20;
/// With so many sessions a table cannot be cut, and its rows are frozen.
const FEW_SESSIONS: usize = 1;
/// Sessions that fill one table side by side at most: before PostgreSQL 16 more get into each
/// other's way while the table grows.
const MOST_BEFORE_16: usize = 4;
/// Name of the table of contents next to the server.
const CONTENTS: &str = "contents";
/// How often progress is told.
const TICK: Duration = Duration::from_millis(250);

/// Sessions that are ready.
pub(in crate::restore) struct Prepared {
    sessions: Vec<NativeSession>,
    contents: Contents,
}

/// The way of sessions to the server, where rows are to go over them; else why there is none.
pub(in crate::restore) async fn route(
    executor: &dyn PgExecutor,
    work: &PlannedWork,
) -> Result<Arc<NativeRoute>, String> {
    match &work.decision.rows {
        RowsWay::Sessions(_) => match &work.route {
            Some(route) => route.clone(),
            None => executor.native().await.map_err(|none| none.to_string()),
        },
        RowsWay::Stock { reason, .. } => Err(reason.clone()),
    }
}

/// Gets everything ready for a parallel restore. `None`: pg_restore does it alone. Nothing on the
/// server was touched.
///
/// # Errors
/// When the user wants it and it cannot be done, or the source fails.
pub(in crate::restore) async fn prepare(
    filling: &Filling<'_>,
) -> Result<Option<Prepared>, BackupError> {
    let wanted = match &filling.work.decision.rows {
        RowsWay::Sessions(wanted) => *wanted,
        RowsWay::Stock { reason, told } => {
            if *told {
                tell(filling, reason);
            }
            return Ok(None);
        }
    };
    let ready = tokio::try_join!(open(filling, wanted), contents(filling));
    match ready {
        Ok(((sessions, route), contents)) => {
            filling.sink.emit(BackupEvent::Chosen {
                message: format!(
                    "the rows go over {} sessions of pgstow's own, through {route}",
                    sessions.len()
                ),
            });
            Ok(Some(Prepared { sessions, contents }))
        }
        Err(reason) if filling.work.engine == EngineChoice::Parallel => Err(refused(
            format!("the rows cannot go over sessions of pgstow's own: {reason}"),
            "restore with --engine auto or stock".to_owned(),
        )),
        Err(reason) => {
            tell(filling, &reason);
            Ok(None)
        }
    }
}

fn tell(filling: &Filling<'_>, reason: &str) {
    filling.sink.emit(BackupEvent::Chosen {
        message: format!("pg_restore fills the database alone: {reason}"),
    });
}

/// Opens the sessions; the error is the reason why not.
async fn open(filling: &Filling<'_>, wanted: u32) -> Result<(Vec<NativeSession>, String), String> {
    let Some(toc) = &filling.work.checked.toc else {
        return Err("there is no table of contents".to_owned());
    };
    let settings =
        settings::of_session(toc, filling.work.target_major).map_err(|error| in_words(&error))?;
    let route = filling.route.as_ref().map_err(String::clone)?;
    let opening = (1..=wanted).map(async |number| {
        let name = format!("fill-{number}");
        let mut session = route.open(filling.destination.database, &name).await?;
        session.batch(&settings).await?;
        Ok(session)
    });
    let opened = futures_util::future::try_join_all(opening).await;
    let sessions = opened.map_err(|error: NativeError| error.in_words())?;
    Ok((sessions, route.route().to_string()))
}

/// The table of contents for pg_restore; the error is the reason why not.
async fn contents(filling: &Filling<'_>) -> Result<Contents, String> {
    // What is read here is read again for the rows, and compared then.
    let stored = Stored::of(filling.work, &Arc::default(), filling.cancel);
    let made = tokio::task::spawn_blocking(move || stored.contents()).await;
    match made {
        Ok(made) => made.map_err(|error| in_words(&error)),
        Err(panic) => Err(panic.to_string()),
    }
}

impl Filling<'_> {
    /// Fills the database in passes.
    pub(in crate::restore) async fn parallel(
        &self,
        prepared: Prepared,
        scratch: &ScratchDir,
    ) -> Result<Filled, BackupError> {
        let mut filled = Filled::default();
        let lists = self.sorted(prepared.sessions.len());
        // Side by side: each of them starts a program next to the server.
        let (contents, before) = tokio::try_join!(
            self.put(scratch, CONTENTS, prepared.contents),
            self.list_of(scratch, "before", &lists.before),
        )?;
        let mut beside = Beside {
            contents: Some(contents),
            ..Beside::default()
        };
        let database = self.destination.database;
        if let Some(early) = &self.work.decision.early {
            let ids: Vec<_> = early.schemas.iter().copied().collect();
            let schemas = self.list_of(scratch, "schemas", &ids).await?;
            self.pass_of(&mut beside, schemas, 1, &mut filled).await?;
            early::create(self.executor, database, early)
                .await
                .map_err(|source| exec("creating the extensions", source))?;
        }
        // What comes after the rows is got ready while pg_restore makes what they need. Whatever
        // fails, pg_restore is waited for.
        let (made, rest, after) = tokio::join!(
            self.pass_of(&mut beside, before, 1, &mut filled),
            self.list_of(scratch, "rest", &lists.rest),
            self.list_of(scratch, "after", &lists.after),
        );
        made?;
        let (rest, after) = (rest?, after?);
        self.go_on()?;
        let mut sessions = prepared.sessions;
        make_objects(&mut sessions, &lists).await?;
        let jobs = u32::try_from(sessions.len()).unwrap_or(1);
        filled.sessions = jobs;
        filled.taken = self.rows(sessions, &lists).await?;
        let most = self.executor.settings().max_connections;
        let jobs = jobs.min(most.saturating_sub(1)).max(1);
        // Sessions of pg_restore, and one of ours.
        let (enough, stop) = (CancellationToken::new(), self.cancel.child_token());
        let pays = after.is_some() && most > jobs + 1 && !self.brings_statistics();
        let analyzing = async {
            match pays {
                true => analyze::beside(self.route, database, &enough, &stop).await,
                false => BTreeSet::new(),
            }
        };
        let passes = async {
            let mut said = Filled::default();
            let ended = async {
                self.pass_of(&mut beside, rest, 1, &mut said).await?;
                self.pass_of(&mut beside, after, jobs, &mut said).await
            };
            let ended = ended.await;
            enough.cancel();
            if ended.is_err() {
                stop.cancel();
            }
            ended.map(|()| said.stderr)
        };
        let (analyzed, said) = tokio::join!(analyzing, passes);
        filled.stderr.extend(said?);
        filled.analyzed = analyzed;
        if let Some(early) = &self.work.decision.early {
            early::finish(self.executor, database, early)
                .await
                .map_err(|source| exec("telling the extensions that all rows are there", source))?;
        }
        Ok(filled)
    }

    /// Whether the archive holds statistics, which would be put over those that are gathered.
    fn brings_statistics(&self) -> bool {
        let toc = self.work.checked.toc.iter();
        toc.flat_map(|toc| &toc.entries)
            .any(|entry| entry.kind == "STATISTICS DATA")
    }

    fn sorted(&self, sessions: usize) -> Lists {
        let work = self.work;
        let large = match sessions {
            ..=FEW_SESSIONS => Way::Frozen,
            _ => Way::Split,
        };
        let chosen: Option<HashSet<i32>> = self.chosen().map(|ids| ids.into_iter().collect());
        let chosen = move |id: i32| chosen.as_ref().is_none_or(|chosen| chosen.contains(&id));
        match &work.checked.toc {
            Some(toc) => sort(
                toc,
                &work.checked.tables,
                &chosen,
                work.keep_owner,
                (LARGE_FROM, large),
            ),
            None => Lists::default(),
        }
    }

    /// The list of entries for a run of pg_restore; `None` where there is nothing for it to do.
    async fn list_of(
        &self,
        scratch: &ScratchDir,
        name: &str,
        ids: &[i32],
    ) -> Result<Option<String>, BackupError> {
        if ids.is_empty() {
            return Ok(None);
        }
        self.go_on()?;
        let name = format!("{name}.list");
        self.list(Some(scratch), &name, ids).await.map(Some)
    }

    /// One run of pg_restore over the table of contents, unless there is nothing for it to do.
    async fn pass_of(
        &self,
        beside: &mut Beside,
        list: Option<String>,
        jobs: u32,
        filled: &mut Filled,
    ) -> Result<(), BackupError> {
        if list.is_none() {
            return Ok(());
        }
        self.go_on()?;
        beside.list = list;
        let said = self.pass(beside, jobs, &Arc::default()).await?;
        filled.stderr.extend(said.stderr);
        Ok(())
    }

    async fn put(
        &self,
        scratch: &ScratchDir,
        name: &str,
        content: Contents,
    ) -> Result<String, BackupError> {
        let stored = Stored::of(self.work, &Arc::default(), self.cancel);
        let (size, content, made) = stored.reader(content);
        self.executor
            .scratch_put(scratch, name, size, content)
            .await
            .map_err(|source| exec("putting the table of contents next to the server", source))?;
        made.await
            .map_err(|problem| BackupError::ArchiveIncomplete {
                subject: self.work.source.label.clone(),
                problem,
            })?;
        Ok(format!("{}/{name}", scratch.path))
    }

    /// Streams the source and fills tables and large objects.
    /// Returns the rows that the server took, by table.
    async fn rows(
        &self,
        sessions: Vec<NativeSession>,
        lists: &Lists,
    ) -> Result<BTreeMap<(String, String), u64>, BackupError> {
        let wanted: HashSet<i32> = lists.rows.keys().chain(&lists.contents).copied().collect();
        if wanted.is_empty() {
            for session in sessions {
                session.close().await;
            }
            return Ok(BTreeMap::new());
        }
        let stop = self.cancel.child_token();
        let most = match self.work.target_major {
            ..16 => MOST_BEFORE_16,
            _ => usize::MAX,
        };
        let (queues, lanes): (Vec<_>, Vec<_>) = sessions.iter().map(|_| queue()).unzip();
        let dealer = Dealer {
            handle: tokio::runtime::Handle::current(),
            room: room(queues.len()),
            queues,
            ways: lists.rows.clone(),
            most,
            stop: stop.clone(),
            known: self.known_rows(),
            tables: Vec::new(),
            current: None,
            objects: Objects::default(),
        };
        let stored = Stored::of(self.work, &self.progress, &stop);
        let decoding = tokio::task::spawn_blocking(move || stored.decode(&wanted, dealer));
        let moving = move_rows(sessions.into_iter().zip(lanes), decoding, &stop);
        let result = self.telling(moving).await;
        if self.cancel.is_cancelled() {
            self.go_on()?;
        }
        let failed = |problem| BackupError::ArchiveIncomplete {
            subject: self.work.source.label.clone(),
            problem,
        };
        let dealt = match result? {
            Decoded::All(dealt) => dealt,
            Decoded::Failed(problem) => return Err(failed(problem)),
        };
        let known = self.work.checked.large_objects;
        if let (false, Some(known)) = (lists.contents.is_empty(), known)
            && known != dealt.objects
        {
            return Err(failed(format!(
                "it holds {} large objects, and {known} are known of it",
                dealt.objects
            )));
        }
        Ok(taken(&dealt))
    }

    /// Rows of each entry, as the plan knows them.
    fn known_rows(&self) -> HashMap<i32, u64> {
        let tables = self.work.checked.tables.iter();
        let rows = tables.filter_map(|table| Some((table.dump_id, table.rows?)));
        rows.collect()
    }

    /// Tells the progress while something is done.
    async fn telling<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let mut tick = tokio::time::interval(TICK);
        let mut told = 0;
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = tick.tick() => {
                    let bytes = self.progress.load(Ordering::Relaxed);
                    if bytes != told {
                        told = bytes;
                        self.sink.emit(BackupEvent::Progress {
                            phase: "restore",
                            subject: self.destination.database.to_owned(),
                            bytes,
                        });
                    }
                }
            }
        }
    }
}

/// How the decoding ended.
enum Decoded {
    All(Dealt),
    /// In words.
    Failed(String),
}

type Decoding = tokio::task::JoinHandle<Result<Dealt, archive::ArchiveError>>;

/// The rows that the server took, of tables that our sessions alone wrote to. One without rows is
/// left out: no statement was sent for it.
fn taken(dealt: &Dealt) -> BTreeMap<(String, String), u64> {
    let mut taken = BTreeMap::new();
    for table in dealt.tables.iter().filter(|table| table.counted) {
        let rows = table.taken.load(Ordering::Acquire);
        if let (Some(key), true) = (&table.key, rows > 0) {
            *taken.entry(key.clone()).or_default() += rows;
        }
    }
    taken
}

/// Waits for the sessions and the decoding. What a session says goes before what the decoding
/// does: that ends when a session is gone.
async fn move_rows(
    lanes: impl Iterator<Item = (NativeSession, Lane)>,
    decoding: Decoding,
    stop: &CancellationToken,
) -> Result<Decoded, BackupError> {
    // Whatever happens, also when this future is dropped, nobody goes on.
    let _guard = stop.clone().drop_guard();
    let mut running = JoinSet::new();
    for (session, lane) in lanes {
        running.spawn(lane.run(session, stop.clone()));
    }
    let (mut failed, mut stopped_early) = (None, false);
    while let Some(ended) = running.join_next().await {
        let stopped = match ended {
            Ok(Ok(())) => continue,
            Ok(Err(Stopped::Elsewhere)) => None,
            Ok(Err(Stopped::Failed(error))) => Some(error),
            Err(panic) => Some(BackupError::ArchiveIncomplete {
                subject: "the rows on their way".to_owned(),
                problem: panic.to_string(),
            }),
        };
        stop.cancel();
        stopped_early = true;
        failed = failed.or(stopped);
    }
    let decoded = decoding.await;
    if let Some(error) = failed {
        return Err(error);
    }
    Ok(match decoded {
        Ok(Ok(_)) if stopped_early => Decoded::Failed("a session ended early".to_owned()),
        Ok(Ok(dealt)) => Decoded::All(dealt),
        Ok(Err(error)) => Decoded::Failed(in_words(&error)),
        Err(panic) => Decoded::Failed(panic.to_string()),
    })
}

/// Makes the large objects that pg_restore was not asked to make, over all sessions.
async fn make_objects(sessions: &mut [NativeSession], lists: &Lists) -> Result<(), BackupError> {
    let batches = lists.make.iter();
    let batches = batches.flat_map(|(owner, oids)| objects::making(owner.as_deref(), oids));
    let batches = Mutex::new(batches);
    let next = || {
        batches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next()
    };
    let making = sessions.iter_mut().map(async |session| {
        while let Some(making) = next() {
            make(session, &making).await?;
        }
        Ok(())
    });
    futures_util::future::try_join_all(making).await?;
    Ok(())
}

async fn make(session: &mut NativeSession, making: &objects::Making) -> Result<(), BackupError> {
    let failed = |source: NativeError| exec("making the large objects", source.into());
    let answer = session.query(&making.sql).await.map_err(failed)?;
    if number(&answer) == Some(making.objects) {
        return Ok(());
    }
    Err(BackupError::ArchiveIncomplete {
        subject: "the large objects".to_owned(),
        problem: format!(
            "{} were to be made, and the server answers {answer:?}",
            making.objects
        ),
    })
}
