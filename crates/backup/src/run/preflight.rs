//! What is checked before anything is written to the store, and what is learnt on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use archive::{ArchiveKind, WriteFormat};
use dbexec::executor::ProgramInfo;
use dbexec::{ExecError, NativeRoute, PgExecutor, PgProgram};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::queries::{self, DatabaseFacts, InsideFacts, ServerFacts};
use super::{needs, parallel, patterns};
use crate::{
    BackupError, BackupEvent, BackupOptions, DumpFormat, EngineChoice, EventSink, Repository,
    attest, records, restore,
};

/// What the dumps need to know.
pub(crate) struct Plan {
    /// The way of sessions of our own to the server, where they may be used and there is one.
    pub(crate) route: Option<Arc<NativeRoute>>,
    /// Databases in the order in which they are dumped.
    pub(crate) databases: Vec<(DatabaseFacts, InsideFacts)>,
    /// Roles of the server.
    pub(crate) roles: Vec<String>,
    /// Parameters of the server for the manifest.
    pub(crate) settings: BTreeMap<String, String>,
    /// The pg_dump that runs.
    pub(crate) pg_dump: ProgramInfo,
    /// `--compress` of pg_dump, as the manifest records it.
    pub(crate) compression: Compression,
    /// Warnings for the manifest.
    pub(crate) warnings: Vec<String>,
}

/// Compression inside pg_dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// zstd level 2: faster and smaller than every level of gzip (engine.md: 228 MB in 2.7 s
    /// where gzip 1 needs 8.4 s on the same rows).
    Zstd2,
    /// gzip level 1: pg_dump's own default, level 6, makes the compressor the bottleneck (22.8 s
    /// against 8.4 s) for a tenth less in bytes.
    Gzip1,
}

impl Compression {
    fn of(pg_dump: &ProgramInfo) -> Self {
        if pg_dump.has_zstd && pg_dump.major >= 16 {
            Self::Zstd2
        } else {
            Self::Gzip1
        }
    }

    /// Argument of pg_dump.
    pub(crate) fn argument(self) -> &'static str {
        match self {
            Self::Zstd2 => "--compress=zstd:2",
            Self::Gzip1 => "--compress=1",
        }
    }

    /// The same where the archive is written by us.
    pub(crate) fn write_format(self, kind: ArchiveKind) -> WriteFormat {
        let (compression, level) = match self {
            // What pg_dump compresses as a stream is smaller at level 2; our frames hardly ever.
            Self::Zstd2 => (archive::Compression::Zstd, WriteFormat::SAMPLED),
            Self::Gzip1 => (archive::Compression::Gzip, 1),
        };
        WriteFormat {
            kind,
            compression,
            level,
        }
    }

    /// Word of the manifest where the archive is written by us.
    pub(crate) fn of_engine(self) -> &'static str {
        match self {
            Self::Zstd2 => "zstd:1-3",
            Self::Gzip1 => "gzip:1",
        }
    }

    /// Word of the manifest.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Zstd2 => "zstd:2",
            Self::Gzip1 => "gzip:1",
        }
    }
}

/// Checks everything that can be checked before the dumps.
pub(crate) async fn preflight(
    repo: &Repository,
    executor: &Arc<dyn PgExecutor>,
    options: &BackupOptions,
    sink: &dyn EventSink,
) -> Result<Plan, BackupError> {
    // Side by side: a search in a container takes longer than every question.
    let (pg_dump, asked) = tokio::join!(
        executor.program(PgProgram::PgDump),
        ask(repo, executor, options),
    );
    let Asked {
        route,
        databases,
        server,
        mut warnings,
    } = asked?;
    let pg_dump = pg_dump.map_err(exec("looking for pg_dump"))?;
    for (database, inside) in &databases {
        needs::rights(&database.name, inside)?;
        needs::locks(
            &database.name,
            inside,
            server.lock_capacity,
            server.locks_per_transaction,
        )?;
    }
    needs::space(repo, &databases, &mut warnings).await?;
    if server.tells_of_statistics {
        needs::statistics(route.as_deref(), executor.as_ref(), &databases).await?;
    }
    parallel::refuse(executor, options, &databases).await?;
    let compression = Compression::of(&pg_dump);
    sink.emit(BackupEvent::Chosen {
        message: format!(
            "pg_dump {} ({}), {} format, {}",
            pg_dump.version,
            pg_dump.path,
            match options.format {
                DumpFormat::Custom => "custom",
                DumpFormat::Directory => "directory",
                DumpFormat::Plain => "plain",
            },
            match options.format {
                DumpFormat::Plain => "compressed here with zstd",
                _ => compression.as_str(),
            }
        ),
    });
    Ok(Plan {
        route,
        databases,
        roles: server.roles,
        settings: attest::choose_settings(&server.settings),
        pg_dump,
        compression,
        warnings,
    })
}

/// What a failed question is told as.
fn exec(operation: &str) -> impl FnOnce(ExecError) -> BackupError {
    let operation = operation.to_owned();
    move |source| BackupError::Exec { operation, source }
}

/// What the server was asked before the dumps.
struct Asked {
    route: Option<Arc<NativeRoute>>,
    /// Databases in the order of their names.
    databases: Vec<(DatabaseFacts, InsideFacts)>,
    server: ServerFacts,
    warnings: Vec<String>,
}

/// Asks the server what there is to dump.
async fn ask(
    repo: &Repository,
    executor: &Arc<dyn PgExecutor>,
    options: &BackupOptions,
) -> Result<Asked, BackupError> {
    let found = route(executor.as_ref(), options).await;
    let route = found.as_deref();
    let filters = patterns::all(options);
    let filters = filters.as_str();
    // Very likely one of the databases that will be dumped: asked before the list is known.
    let likely = match options.databases.as_slice() {
        [only] => only.as_str(),
        _ => executor.context().creds.database.as_str(),
    };
    let same = async {
        match route {
            // It leads to the very server that the programs found.
            Some(_) => Ok(()),
            None => dbexec::query::check_same_server(None, executor.as_ref()).await,
        }
    };
    let (same, pooler, server, inside_likely) = tokio::join!(
        same,
        dbexec::query::check_no_pooler(executor.as_ref()),
        queries::server(route, executor.as_ref()),
        queries::inside(route, executor.as_ref(), likely, filters),
    );
    // What is told first is what explains the others.
    same.map_err(exec("checking that the server is the one that was found"))?;
    pooler.map_err(exec("looking for a transaction pooler in the way"))?;
    let server = server.map_err(exec("asking the server for its databases"))?;
    let mut warnings = Vec::new();
    let half_done = half_done(repo, executor.as_ref())?;
    let chosen = choose(
        &server.databases,
        &options.databases,
        &half_done,
        &mut warnings,
    )?;
    needs::connect(&chosen, &executor.context().creds.user)?;

    let names: Vec<String> = chosen.iter().map(|one| one.name.clone()).collect();
    let together = executor.settings().max_connections.max(1) as usize;
    let inside_likely = &inside_likely;
    let asking: Vec<_> = chosen
        .into_iter()
        .map(|database| async move {
            // A failure is asked for again: only then does it concern a database of this run.
            if let (true, Ok(inside)) = (database.name == likely, inside_likely) {
                return Ok((database, inside.clone()));
            }
            let inside = queries::inside(route, executor.as_ref(), &database.name, filters)
                .await
                .map_err(|source| BackupError::Exec {
                    operation: format!("asking what is in database {:?}", database.name),
                    source,
                })?;
            Ok::<_, BackupError>((database, inside))
        })
        .collect();
    let sizes = async {
        match route {
            Some(route) => queries::sizes(route, executor.as_ref(), &names).await,
            None => Ok(BTreeMap::new()),
        }
    };
    // One session is for the sizes: where there is a route, there may be two.
    let insides = stream::iter(asking)
        .buffered(together.saturating_sub(usize::from(route.is_some())).max(1))
        .try_collect();
    let (databases, sizes) = tokio::join!(insides, sizes);
    let mut databases: Vec<(DatabaseFacts, InsideFacts)> = databases?;
    let sizes = sizes.map_err(exec("asking for the sizes of the databases"))?;
    for (database, _) in &mut databases {
        database.size_bytes = sizes.get(&database.name).copied().or(database.size_bytes);
    }
    Ok(Asked {
        route: found,
        databases,
        server,
        warnings,
    })
}

/// Where sessions of our own may move rows, they ask as well.
async fn route(executor: &dyn PgExecutor, options: &BackupOptions) -> Option<Arc<NativeRoute>> {
    let may = options.engine != EngineChoice::Stock
        && options.format != DumpFormat::Plain
        && executor.settings().max_connections > 1;
    if !may {
        return None;
    }
    executor.native().await.ok()
}

/// Staging databases of restores of this target that were killed: nobody's data, until
/// `restore --resume` or `rollback` has decided about them.
fn half_done(
    repo: &Repository,
    executor: &dyn PgExecutor,
) -> Result<BTreeSet<String>, BackupError> {
    let context = executor.context();
    let identifier = context.server.system_identifier.as_deref();
    let key = records::lock_key(identifier, &context.target_name());
    // A restore that is at work holds the lock that this run has now.
    let journals = restore::replacing_restores(&repo.state_dir)?.into_iter();
    Ok(journals
        .filter(|journal| journal.lock_key == key && journal.step.unfinished())
        .map(|journal| journal.staging)
        .collect())
}

/// Every database that accepts connections and is not half done, or those that were named.
fn choose(
    all: &[DatabaseFacts],
    wanted: &[String],
    half_done: &BTreeSet<String>,
    warnings: &mut Vec<String>,
) -> Result<Vec<DatabaseFacts>, BackupError> {
    let open = || {
        let names: Vec<_> = all
            .iter()
            .filter(|database| database.accepts_connections)
            .map(|database| format!("{:?}", database.name))
            .collect();
        format!("databases that accept connections: {}", names.join(", "))
    };
    let refuse = |name: &str, reason: String| {
        Err(BackupError::NoSuchDatabase {
            name: name.to_owned(),
            reason,
        })
    };
    if wanted.is_empty() {
        let (left, chosen): (Vec<_>, Vec<_>) = all
            .iter()
            .filter(|database| database.accepts_connections)
            .cloned()
            .partition(|database| half_done.contains(&database.name));
        warnings.extend(left.iter().map(|database| {
            format!(
                "database {:?} is what a restore that was killed has left, and is not backed up; \
                 `pgstow rollback` removes it",
                database.name
            )
        }));
        return Ok(chosen);
    }
    let mut chosen: Vec<DatabaseFacts> = Vec::new();
    for name in wanted {
        match all.iter().find(|database| database.name == *name) {
            None => return refuse(name, format!("it does not exist; {}", open())),
            Some(database) if !database.accepts_connections => {
                return refuse(name, format!("it accepts no connections; {}", open()));
            }
            Some(database) => {
                if !chosen.iter().any(|other| other.name == *name) {
                    chosen.push(database.clone());
                }
            }
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(name: &str, accepts_connections: bool) -> DatabaseFacts {
        DatabaseFacts {
            name: name.to_owned(),
            accepts_connections,
            may_connect: true,
            owner: "o".to_owned(),
            encoding: "UTF8".to_owned(),
            collate: "C".to_owned(),
            ctype: "C".to_owned(),
            locale_provider: "libc".to_owned(),
            locale: None,
            icu_rules: None,
            collation_version: None,
            tablespace: "pg_default".to_owned(),
            connection_limit: -1,
            comment: None,
            size_bytes: Some(1),
            acl: None,
            settings: Vec::new(),
        }
    }

    fn all_of(all: &[DatabaseFacts], wanted: &[String]) -> Result<Vec<DatabaseFacts>, BackupError> {
        choose(all, wanted, &BTreeSet::new(), &mut Vec::new())
    }

    #[test]
    fn bar_01_what_a_killed_restore_left_is_no_database_of_the_target() {
        let all = [facts("a", true), facts("a__restore_x", true)];
        let half_done = BTreeSet::from(["a__restore_x".to_owned()]);
        let mut warnings = Vec::new();
        let chosen = choose(&all, &[], &half_done, &mut warnings).unwrap();
        assert_eq!(chosen.len(), 1);
        assert_eq!(chosen[0].name, "a");
        assert!(warnings[0].contains("a__restore_x"), "{warnings:?}");
        // Whoever names it gets it.
        let named = ["a__restore_x".to_owned()];
        let chosen = choose(&all, &named, &half_done, &mut Vec::new()).unwrap();
        assert_eq!(chosen[0].name, "a__restore_x");
    }

    #[test]
    fn every_database_that_accepts_connections_is_chosen() {
        let all = [
            facts("a", true),
            facts("template0", false),
            facts("b", true),
        ];
        let names: Vec<_> = all_of(&all, &[])
            .unwrap()
            .into_iter()
            .map(|d| d.name)
            .collect();
        assert_eq!(names, ["a", "b"]);
        let twice = ["b".to_owned(), "b".to_owned()];
        assert_eq!(all_of(&all, &twice).unwrap().len(), 1);
        let error = all_of(&all, &["c".to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("does not exist") && error.contains("\"a\", \"b\""),
            "{error}"
        );
        let error = all_of(&all, &["template0".to_owned()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("accepts no connections"), "{error}");
    }
}
