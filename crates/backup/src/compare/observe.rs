//! Observing a copy: pg_dump writes it once more, and the reader that read the backup reads that.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use archive::{ArchiveSummary, CatalogueDetail, CheckOptions, Fingerprint, Fingerprints};
use bytes::BytesMut;
use dbexec::executor::{Input, ProgramInfo};
use dbexec::{ExecError, Invocation, PgExecutor, PgProgram, Transport};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::expected::written_by;
use super::observed::{Observed, ObservedTable, Wanted};
use super::queries::{self, Contents, Table};
use crate::run::Progress;
use crate::stream::{PIECE, PieceReader};
use crate::{BackupError, EventSink};

/// Most bytes of arguments that leave out tables: a program's arguments are limited, also inside
/// a container. What does not fit is read without need.
const ARGUMENTS: usize = 64 << 10;
/// How long pg_dump may take to end when its output is of no use any more.
const END_WAIT: Duration = Duration::from_secs(10);

/// Observes a database: rows of every table, sequences, large objects, catalogue, and
/// fingerprints where they are wanted. Only tables with a wanted fingerprint are read; the rows of
/// the others are counted by the server. Nobody should write to the database meanwhile.
///
/// # Errors
/// [`BackupError::Exec`] when pg_dump or a query fails, [`BackupError::ArchiveIncomplete`] when
/// what pg_dump wrote cannot be read, [`BackupError::Interrupted`].
pub async fn observe(
    executor: &Arc<dyn PgExecutor>,
    database: &str,
    wanted: &Wanted,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<Observed, BackupError> {
    let begun = Instant::now();
    let exec = |what: &str| {
        let operation = format!("{what} database {database:?}");
        move |source| match source {
            ExecError::Interrupted { .. } => BackupError::Interrupted { operation },
            source => BackupError::Exec { operation, source },
        }
    };
    let contents = queries::contents(executor.as_ref(), database)
        .await
        .map_err(exec("looking at"))?;
    let program = executor
        .program(PgProgram::PgDump)
        .await
        .map_err(exec("looking for pg_dump to read"))?;
    let read = Read::choose(&contents, wanted);
    let mut progress = Progress::start(sink, "compare", database, None);
    let summary = dump(
        executor.as_ref(),
        database,
        arguments(executor.as_ref(), &program, &read, wanted),
        read.fingerprints,
        wanted,
        &mut progress,
        cancel,
    )
    .await?;
    progress.finish();
    let streamed = Streamed::of(&summary);
    let counted: Vec<&Table> = contents
        .tables
        .iter()
        .filter(|table| table.statement.is_some() && !streamed.rows.contains_key(&table.oid))
        .collect();
    let counts = queries::counts(executor.as_ref(), database, &counted, cancel)
        .await
        .map_err(exec("counting the rows of"))?;
    let counts: BTreeMap<u32, u64> = counted.iter().map(|table| table.oid).zip(counts).collect();
    let mut sequences = streamed.sequences.clone();
    let asked: Vec<_> = contents
        .sequences
        .iter()
        .filter(|s| !sequences.contains_key(&(s.schema.clone(), s.name.clone())))
        .collect();
    let values = queries::values(executor.as_ref(), database, &asked, cancel)
        .await
        .map_err(exec("reading the sequences of"))?;
    for (sequence, value) in asked.iter().zip(values) {
        sequences.insert((sequence.schema.clone(), sequence.name.clone()), value);
    }
    let mut observed = assemble(contents, &streamed, &counts, wanted, summary);
    observed.sequences = sequences;
    observed.seconds = begun.elapsed().as_secs_f64();
    Ok(observed)
}

fn assemble(
    contents: Contents,
    streamed: &Streamed,
    counts: &BTreeMap<u32, u64>,
    wanted: &Wanted,
    summary: ArchiveSummary,
) -> Observed {
    let mut observed = Observed {
        large_objects: contents.large_objects,
        ..Observed::default()
    };
    for table in contents.tables {
        let key = (table.schema, table.name);
        if table.statement.is_none() {
            observed.foreign.insert(key);
            continue;
        }
        let (rows, fingerprint) = match streamed.rows.get(&table.oid) {
            Some((rows, fingerprint)) => (*rows, fingerprint.map(|print| print.to_string())),
            None => (counts.get(&table.oid).copied().unwrap_or_default(), None),
        };
        observed.tables.insert(
            key,
            ObservedTable {
                rows,
                fingerprint,
                of_extension: table.of_extension,
            },
        );
    }
    if wanted.large_objects {
        observed.large_object_bytes = Some(summary.large_object_bytes);
        observed.large_object_fingerprint = summary
            .large_object_fingerprint
            .map(|print| print.to_string());
    }
    observed.written_by = written_by(&summary.header);
    observed.catalogue = summary.catalogue;
    observed
}

/// What the stream told.
struct Streamed {
    /// By oid: names in the stream are in the database's own encoding.
    rows: BTreeMap<u32, (u64, Option<Fingerprint>)>,
    /// Those whose names are certain; pg_dump writes no oid for them.
    sequences: BTreeMap<(String, String), (i64, bool)>,
}

impl Streamed {
    fn of(summary: &ArchiveSummary) -> Self {
        let mut rows: BTreeMap<u32, (u64, Option<Fingerprint>)> = BTreeMap::new();
        for table in &summary.tables {
            // Without COPY there is nothing to count; pg_dump is never asked for that.
            let Some(number) = table.rows else {
                continue;
            };
            let (sum, prints) = rows
                .entry(table.oid)
                .or_insert((0, table.fingerprint.map(|_| Fingerprint::default())));
            *sum += number;
            match (prints.as_mut(), table.fingerprint) {
                (Some(prints), Some(print)) => prints.merge(print),
                _ => *prints = None,
            }
        }
        let sequences = summary
            .sequences
            .iter()
            .filter(|sequence| !sequence.lossy)
            .map(|s| ((s.schema.clone(), s.name.clone()), (s.value, s.called)))
            .collect();
        Self { rows, sequences }
    }
}

/// Which tables pg_dump reads.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    /// Oids of the tables whose fingerprint is wanted.
    fingerprints: HashSet<u32>,
    /// Patterns of the tables that are left out.
    leave_out: Vec<String>,
}

impl Read {
    /// Leaves out what is not wanted, the largest first, as far as the arguments have room.
    fn choose(contents: &Contents, wanted: &Wanted) -> Self {
        let mut read = Self::default();
        let mut others: Vec<&Table> = Vec::new();
        let mut keys: BTreeSet<&(String, String)> = wanted.fingerprints.iter().collect();
        for table in contents.tables.iter().filter(|t| t.statement.is_some()) {
            if keys.remove(&(table.schema.clone(), table.name.clone())) {
                read.fingerprints.insert(table.oid);
            } else {
                others.push(table);
            }
        }
        others.sort_by_key(|table| std::cmp::Reverse(table.bytes));
        let mut room = ARGUMENTS;
        for table in others {
            // pg_dump takes patterns in the encoding of the database.
            if !(contents.utf8 || table.schema.is_ascii() && table.name.is_ascii()) {
                continue;
            }
            let pattern = format!(
                "--exclude-table-data={}.{}",
                exactly(&table.schema),
                exactly(&table.name)
            );
            if pattern.len() + 1 > room {
                break;
            }
            room -= pattern.len() + 1;
            read.leave_out.push(pattern);
        }
        read
    }
}

/// A pattern of pg_dump that matches one name alone.
fn exactly(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn arguments(
    executor: &dyn PgExecutor,
    program: &ProgramInfo,
    read: &Read,
    wanted: &Wanted,
) -> Vec<String> {
    let compression = match executor.transport() {
        // Each byte through an exec stream costs more than its compression.
        Transport::Exec if program.has_zstd && program.major >= 16 => "--compress=zstd:1",
        Transport::Exec => "--compress=1",
        Transport::Host | Transport::Sidecar => "--compress=0",
    };
    let lock_wait = executor.settings().lock_wait_timeout;
    let mut args = vec![
        "--no-password".to_owned(),
        format!("--lock-wait-timeout={}", lock_wait.as_millis()),
        "--format=custom".to_owned(),
        compression.to_owned(),
    ];
    if !wanted.large_objects {
        args.push("--no-blobs".to_owned());
    }
    args.extend(read.leave_out.iter().cloned());
    args
}

/// Runs pg_dump and reads along.
async fn dump(
    executor: &dyn PgExecutor,
    database: &str,
    args: Vec<String>,
    oids: HashSet<u32>,
    wanted: &Wanted,
    progress: &mut Progress<'_>,
    cancel: &CancellationToken,
) -> Result<ArchiveSummary, BackupError> {
    let operation = format!("reading database {database:?} to compare it");
    let exec = |source| match source {
        ExecError::Interrupted { .. } => BackupError::Interrupted {
            operation: operation.clone(),
        },
        source => BackupError::Exec {
            operation: operation.clone(),
            source,
        },
    };
    let cancel = cancel.child_token();
    let _end_program_on_return = cancel.clone().drop_guard();
    let (pieces, reader) = PieceReader::new();
    let (hash, catalogue) = (wanted.row_hash, wanted.catalogue);
    let thread = tokio::task::spawn_blocking(move || {
        let of_table = |oid: u32| oids.contains(&oid);
        let options = CheckOptions {
            // Large objects too, where pg_dump writes any.
            fingerprints: Fingerprints::Tables(&of_table),
            hash,
            catalogue: if catalogue {
                CatalogueDetail::Objects
            } else {
                CatalogueDetail::None
            },
        };
        archive::check_custom(reader, &options)
    });
    let invocation = Invocation::new(
        PgProgram::PgDump,
        args,
        Some(database.to_owned()),
        Input::Nothing,
        cancel.clone(),
    );
    let mut running = executor.start(invocation).await.map_err(exec)?;
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        let mut ended = false;
        while piece.len() < PIECE && !ended {
            let read = running.stdout.read_buf(&mut piece).await;
            ended = read.map_err(|source| {
                exec(
                    ExecError::from_io(source).unwrap_or_else(|source| ExecError::Spawn {
                        operation: "reading",
                        program: PgProgram::PgDump,
                        source,
                    }),
                )
            })? == 0;
        }
        progress.add(piece.len() as u64);
        // A reader that found a fault is gone, and says below which.
        if (!piece.is_empty() && pieces.send(piece.freeze()).await.is_err()) || ended {
            break;
        }
    }
    drop(pieces);
    let incomplete = |problem: String| BackupError::ArchiveIncomplete {
        subject: format!("the copy {database:?}"),
        problem,
    };
    match thread.await {
        Ok(Ok(summary)) => {
            running.finish(PgProgram::PgDump).await.map_err(exec)?;
            Ok(summary)
        }
        other => {
            cancel.cancel();
            let ended = tokio::time::timeout(END_WAIT, running.finish(PgProgram::PgDump)).await;
            tracing::debug!(?ended, "pg_dump was ended");
            Err(incomplete(match other {
                Ok(Err(error)) => crate::run::chain(&error),
                Ok(Ok(_)) => String::new(),
                Err(panic) => panic.to_string(),
            }))
        }
    }
}
