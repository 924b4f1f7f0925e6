//! Assembles a plan: finds the source, reads it whole, asks the target, decides. Touches nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use dbexec::{NativeRoute, PgExecutor, PgProgram};

use super::{
    check::{Checked, check, check_stored},
    facts::{self, DatabaseFacts},
    live::{self, SwapWork},
    parallel::{self, RowsWay},
    partial,
    preflight::{Decision, Inputs, decide},
    roles,
    source::{self, Source, SourceFormat, refused},
    statistics,
    sums::sums,
    target,
};
use crate::{
    BackupError, BackupId, EngineChoice, Repository, RestorePlace, RestorePlan, RestoreRequest,
    restore,
};

/// Largest globals script that is read, bytes.
const GLOBALS_LIMIT: u64 = 64 << 20;

/// The machine's half of a plan.
#[derive(Debug, Clone)]
pub(crate) struct PlannedWork {
    pub(crate) source: Source,
    pub(crate) checked: Checked,
    pub(crate) facts: DatabaseFacts,
    pub(crate) decision: Decision,
    pub(crate) keep_owner: bool,
    /// Who moves the rows, as it was asked for.
    pub(crate) engine: EngineChoice,
    /// Major of the target.
    pub(crate) target_major: u32,
    /// Roles that exist.
    pub(crate) existing_roles: BTreeSet<String>,
    /// Of a restore that replaces a database.
    pub(crate) swap: Option<SwapWork>,
    /// The way of sessions of ours to the target, where they may be used, or why there is none.
    pub(crate) route: Option<Result<Arc<NativeRoute>, String>>,
}

/// Plans a restore. The whole source is read and checked; the target is only asked.
///
/// # Errors
/// [`BackupError::RestoreRefused`] with the reason and the way out, or the failure of source,
/// store or server.
pub async fn plan_restore(
    repo: &Repository,
    executor: &Arc<dyn PgExecutor>,
    request: &RestoreRequest,
) -> Result<RestorePlan, BackupError> {
    let source = source::resolve(repo, &request.source, request.database.as_deref()).await?;
    let program = match source.format {
        SourceFormat::Plain => PgProgram::Psql,
        SourceFormat::Custom | SourceFormat::Directory => PgProgram::PgRestore,
    };
    let name = request.place.database();
    let sessions_may = sessions_may(&source, request).await;
    let route = async {
        match sessions_may {
            true => Some(executor.native().await.map_err(|none| none.to_string())),
            false => None,
        }
    };
    // Each of them takes its time, and none needs another.
    let (checked, target, found, route) = tokio::join!(
        first_reading(&source, sessions_may),
        target::ask(executor.as_ref(), name),
        executor.program(program),
        route,
    );
    let asked = target.and_then(|target| {
        let found = found.map_err(|source| BackupError::Exec {
            operation: format!("looking for {program} for the restore"),
            source,
        })?;
        Ok((target, found))
    });
    let checked = checked?;
    let facts = match (&source.backup, &checked.toc) {
        (Some(backup), _) => facts::of_record(&backup.1),
        (None, Some(toc)) => facts::of_toc(toc),
        (None, None) => DatabaseFacts {
            notes: vec![
                "a plain dump does not say how its database was made: the new one gets the \
                 server's own encoding and locale, and no settings or privileges of its own"
                    .to_owned(),
            ],
            ..DatabaseFacts::default()
        },
    };
    // From here on the archive holds only what is restored.
    let mut checked = partial::choose(&request.contents, &request.place, &source, checked)?;
    let tells_nothing = source.backup.is_none() && checked.toc.is_none();
    let facts = match &request.place {
        RestorePlace::Swap { name, .. } if tells_nothing => {
            live::facts(executor.as_ref(), name).await?.unwrap_or(facts)
        }
        _ => facts,
    };
    let (mut target, program) = asked?;
    statistics::ask(executor.as_ref(), checked.toc.as_ref(), &mut target).await;
    let decided = |checked: &Checked| {
        decide(&Inputs {
            request,
            source: &source,
            checked,
            facts: &facts,
            target: &target,
            program: &program,
            shares_files: executor.shares_files(),
            max_connections: executor.settings().max_connections,
            cores: std::thread::available_parallelism()
                .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        })
    };
    let mut decision = decided(&checked)?;
    if !checked.decoded && matches!(decision.rows, RowsWay::Stock { .. }) {
        // pg_restore counts nothing while it reads. Never held twice: of 100,000 tables it is much.
        drop(checked);
        checked = check(&source).await?;
        decision = decided(&checked)?;
    }
    if !decision.create_roles.is_empty() {
        let made = role_statements(&source, &decision.create_roles, &target.roles).await?;
        for role in &made.superusers {
            decision.warnings.push(format!(
                "role {role:?} is created as a SUPERUSER, as in the source"
            ));
        }
        for (member, group) in &made.joins {
            decision.warnings.push(format!(
                "the new role {member:?} becomes a member of the existing role {group:?}, as in \
                 the source"
            ));
        }
    }
    let context = executor.context();
    let (mut swap, mut sessions) = (None, Vec::new());
    if let RestorePlace::Swap {
        name,
        safety_backup,
        keep_old_seconds,
    } = &request.place
    {
        restore::refuse_unfinished(repo, context, name)?;
        let id = BackupId::new(repo.clock.now());
        let options = (*safety_backup, *keep_old_seconds);
        let warnings = &mut decision.warnings;
        let (work, live) = live::plan_swap(executor.as_ref(), name, &id, options, warnings).await?;
        let (first, last) = live::steps(name, &work, &live);
        let after_source = decision.steps.len().min(1);
        decision.steps.splice(after_source..after_source, first);
        decision.steps.extend(last);
        sessions = live.sessions;
        swap = Some(work);
    }
    let source_database = match (&source.backup, &checked.toc) {
        (Some(backup), _) => Some(backup.1.name.clone()),
        (None, Some(toc)) => Some(toc.header.database.clone()),
        (None, None) => None,
    };
    if takes_all(&checked, &decision) {
        // pg_restore reads it itself, and nobody chooses among its entries: of 100,000 tables it is
        // much.
        checked.toc = None;
    }
    Ok(RestorePlan {
        source: source.label.clone(),
        source_database,
        place: request.place.clone(),
        target: format!(
            "{}, PostgreSQL {}",
            context.target_name(),
            context.server.version
        ),
        steps: std::mem::take(&mut decision.steps),
        warnings: std::mem::take(&mut decision.warnings),
        replaces: swap.as_ref().is_some_and(|swap| swap.live.is_some()),
        sessions,
        work: PlannedWork {
            source,
            checked,
            facts,
            decision,
            keep_owner: request.keep_owner,
            engine: request.engine,
            target_major: target.major(),
            existing_roles: target.roles,
            swap,
            route,
        },
    })
}

/// Whether pg_restore alone takes every entry of the archive, in one run.
fn takes_all(checked: &Checked, decision: &Decision) -> bool {
    let early = decision.early.as_ref();
    matches!(decision.rows, RowsWay::Stock { .. })
        && checked.part.is_none()
        && decision.left_out.is_empty()
        && early.is_none_or(|early| early.schemas.is_empty())
}

/// Whether sessions of ours may fill a new database, as far as the request and the manifest tell.
async fn sessions_may(source: &Source, request: &RestoreRequest) -> bool {
    request.place.makes_database()
        && !request.contents.is_partial()
        && match request.engine {
            EngineChoice::Stock => false,
            EngineChoice::Parallel => true,
            EngineChoice::Auto => !few(source).await,
        }
}

/// Reads the source: without decoding its data where sessions of ours are going to decode it while
/// they fill a new database, and everything they must find is known from the manifest.
async fn first_reading(source: &Source, sessions_may: bool) -> Result<Checked, BackupError> {
    if sessions_may && let Some(checked) = check_stored(source).await? {
        return Ok(checked);
    }
    check(source).await
}

/// Whether the manifest says that a backup holds too few rows for sessions of ours: it is then
/// decoded at once.
async fn few(source: &Source) -> bool {
    sums(source).await.is_some_and(|sums| {
        let known = sums.bytes.zip(sums.large_objects);
        known.is_some_and(|(bytes, objects)| !parallel::may_pay(bytes, objects, sums.tables))
    })
}

/// The statements that make missing roles, from the backup's globals, whose hash is checked.
pub(crate) async fn role_statements(
    source: &Source,
    wanted: &BTreeSet<String>,
    existing: &BTreeSet<String>,
) -> Result<roles::RoleStatements, BackupError> {
    let cannot = |problem: String| {
        refused(
            format!("the missing roles cannot be created: {problem}"),
            "create them by hand, or leave ownership out with --owner none".to_owned(),
        )
    };
    let Some((manifest, _)) = source.backup.as_deref() else {
        return Err(cannot("a file holds no globals".to_owned()));
    };
    let Some(file) = &manifest.globals.file else {
        return Err(cannot("the backup was made without globals".to_owned()));
    };
    let source::SourcePlace::Stored { store, dir, .. } = &source.place else {
        return Err(cannot("a file holds no globals".to_owned()));
    };
    let globals = Source {
        label: format!("the globals of backup {}", manifest.id),
        format: SourceFormat::Plain,
        place: source::SourcePlace::Stored {
            store: Arc::clone(store),
            dir: dir.clone(),
            files: vec![file.clone()],
        },
        backup: None,
        attested: false,
    };
    check(&globals).await?;
    let text = read_script(&globals)
        .await
        .map_err(|error| cannot(format!("the globals cannot be read: {error}")))?;
    roles::statements_for(&text, wanted, existing).map_err(cannot)
}

/// A small script as text.
async fn read_script(source: &Source) -> std::io::Result<String> {
    use std::io::Read;
    let stored = source.place.open("").await?;
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let stored = tokio_util::io::SyncIoBridge::new_with_handle(stored, handle);
        let mut text = String::new();
        archive::open_plain(stored)?
            .take(GLOBALS_LIMIT)
            .read_to_string(&mut text)?;
        Ok(text)
    })
    .await
    .map_err(std::io::Error::other)?
}
