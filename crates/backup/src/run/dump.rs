//! One database into the store: the arguments of pg_dump, and its output on the way to disk.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dbexec::executor::{Finished, Input};
use dbexec::{ExecError, Invocation, PgExecutor, PgProgram};
use storage::Store;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use super::Progress;
use super::preflight::Compression;
use super::structure::{Along, Structure};
use crate::attest::Contents;
use crate::script::{self, Encoder};
use crate::stream::{HashedWriter, PIECE};
use crate::{BackupError, BackupOptions, DumpFormat, manifest::StoredFile};

/// First bytes of an archive in the custom format.
const CUSTOM_MAGIC: &[u8] = b"PGDMP";
/// First bytes of a script of pg_dump and pg_dumpall.
const SCRIPT_MAGIC: &[u8] = b"--";

/// How long a program that is of no use any more may take to end.
const END_WAIT: std::time::Duration = std::time::Duration::from_secs(10);

/// What a program writes, which decides how it is checked and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An archive that is stored as it comes.
    Custom,
    /// A script that is compressed on the way, with the comment that ends it.
    Script(&'static str),
}

/// A program whose output is stored as one file.
pub(crate) struct Source<'a> {
    pub(crate) program: PgProgram,
    pub(crate) args: Vec<String>,
    pub(crate) database: String,
    pub(crate) kind: Kind,
    /// How it is read along; `None` for what has no archive's structure.
    pub(crate) along: Option<Along>,
    /// Name of the file in the backup's directory.
    pub(crate) name: &'a str,
    /// What is being done, for errors.
    pub(crate) operation: &'a str,
}

/// A stream that was stored.
pub(crate) struct Stored {
    pub(crate) file: StoredFile,
    pub(crate) finished: Finished,
    /// What was read along, where its format is known.
    pub(crate) contents: Option<Contents>,
}

/// Where streams are stored, and how to stop.
pub(crate) struct Work<'a> {
    pub(crate) store: &'a Arc<dyn Store>,
    pub(crate) executor: &'a Arc<dyn PgExecutor>,
    /// Directory of the backup in the store.
    pub(crate) dir: &'a str,
    pub(crate) cancel: &'a CancellationToken,
}

/// Arguments of pg_dump that do not depend on where the output goes.
pub(crate) fn arguments(
    options: &BackupOptions,
    compression: Compression,
    lock_wait: std::time::Duration,
) -> Vec<String> {
    let mut args = Vec::new();
    match options.format {
        DumpFormat::Custom => {
            args.push("--format=custom".to_owned());
            args.push(compression.argument().to_owned());
        }
        DumpFormat::Directory => {
            args.push("--format=directory".to_owned());
            args.push(compression.argument().to_owned());
        }
        DumpFormat::Plain => args.push("--format=plain".to_owned()),
    }
    args.extend(common(options, lock_wait));
    args
}

/// Arguments that depend on no format.
pub(crate) fn common(options: &BackupOptions, lock_wait: std::time::Duration) -> Vec<String> {
    let mut args = vec![
        "--no-password".to_owned(),
        format!("--lock-wait-timeout={}", lock_wait.as_millis()),
    ];
    args.extend(filters(options));
    args
}

/// Arguments that change what is in the archive.
pub(crate) fn filters(options: &BackupOptions) -> Vec<String> {
    options
        .exclude_table_data
        .iter()
        .map(|pattern| format!("--exclude-table-data={pattern}"))
        .collect()
}

/// The executor's failure as this crate tells it; a cancelled run is an interrupted one.
pub(crate) fn exec_error(operation: String, source: ExecError) -> BackupError {
    match source {
        ExecError::Interrupted { .. } => BackupError::Interrupted { operation },
        source => BackupError::Exec { operation, source },
    }
}

/// Says so where pg_dump gave up waiting for a table: its own words speak of a statement timeout.
pub(crate) fn explain_lock(error: BackupError, waited: std::time::Duration) -> BackupError {
    match error {
        BackupError::Exec {
            operation,
            source:
                ExecError::Failed {
                    program,
                    exit,
                    stderr,
                },
        } => {
            let said = |words: &str| stderr.iter().any(|line| line.contains(words));
            let operation = if said("LOCK TABLE") && said("timeout") {
                format!(
                    "{operation} (a table stayed locked by another session for more than {} s)",
                    waited.as_secs()
                )
            } else {
                operation
            };
            BackupError::Exec {
                operation,
                source: ExecError::Failed {
                    program,
                    exit,
                    stderr,
                },
            }
        }
        error => error,
    }
}

impl Work<'_> {
    /// Runs a program and stores its standard output. The stream is committed only after the
    /// program ended with 0 and what it wrote has the right beginning (and, for a script, end).
    pub(crate) async fn store_output(
        &self,
        source: Source<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<Stored, BackupError> {
        let Source {
            program,
            args,
            database,
            kind,
            along,
            name,
            operation,
        } = source;
        let stored = |source| BackupError::Store {
            operation: operation.to_owned(),
            source,
        };
        let exec = |source| exec_error(operation.to_owned(), source);
        // Its own token: when storing fails, the program is ended, not the run's caller.
        let cancel = self.cancel.child_token();
        let end_program = cancel.clone();
        let _end_program_on_return = cancel.clone().drop_guard();
        let mut running = self
            .executor
            .start(Invocation::new(
                program,
                args,
                Some(database),
                Input::Nothing,
                cancel,
            ))
            .await
            .map_err(exec)?;
        let mut sink = HashedWriter::create(self.store.as_ref(), self.dir, name)
            .await
            .map_err(stored)?;
        let copied = self
            .copy(
                &mut running.stdout,
                &mut sink,
                (kind, along),
                program,
                operation,
                progress,
            )
            .await;
        let finished = match copied {
            Ok(contents) => running
                .finish(program)
                .await
                .map(|finished| (finished, contents))
                .map_err(exec),
            Err(error) => {
                // The program and its session end before the run reports its failure.
                end_program.cancel();
                let ended = tokio::time::timeout(END_WAIT, running.finish(program)).await;
                tracing::debug!(?ended, "the program was ended");
                Err(error)
            }
        };
        match finished {
            Ok((finished, contents)) => {
                let file = sink.commit(self.store.as_ref()).await.map_err(stored)?;
                Ok(Stored {
                    file,
                    finished,
                    contents,
                })
            }
            Err(error) => {
                if let Err(left) = sink.abort().await {
                    tracing::warn!(%left, "a partial file could not be removed");
                }
                Err(error)
            }
        }
    }

    async fn copy(
        &self,
        stdout: &mut dbexec::executor::ProgramOutput,
        sink: &mut HashedWriter,
        (kind, along): (Kind, Option<Along>),
        program: PgProgram,
        operation: &str,
        progress: &mut Progress<'_>,
    ) -> Result<Option<Contents>, BackupError> {
        let stored = |source| BackupError::Store {
            operation: operation.to_owned(),
            source,
        };
        let incomplete = |problem: String| BackupError::ArchiveIncomplete {
            subject: operation.to_owned(),
            problem,
        };
        let mut encoder = match kind {
            Kind::Custom => None,
            Kind::Script(_) => Some(Encoder::start()),
        };
        let structure = along.map(Structure::start);
        let mut tail = script::Tail::default();
        let mut first = true;
        loop {
            let piece = read_piece(stdout, program)
                .await
                .map_err(|source| exec_error(operation.to_owned(), source))?;
            if std::mem::take(&mut first) {
                check_first_bytes(&piece, kind).map_err(incomplete)?;
            }
            if piece.is_empty() {
                break;
            }
            progress.add(piece.len() as u64);
            if let Some(structure) = &structure {
                structure.push(piece.clone()).await;
            }
            match &mut encoder {
                None => sink.write(piece).await.map_err(stored)?,
                Some(encoder) => {
                    tail.push(&piece);
                    if let Some(done) = encoder
                        .push(piece)
                        .await
                        .map_err(|e| incomplete(e.to_string()))?
                    {
                        sink.write(done).await.map_err(stored)?;
                    }
                }
            }
            if self.cancel.is_cancelled() {
                return Err(BackupError::Interrupted {
                    operation: operation.to_owned(),
                });
            }
        }
        // The end of a script first: it tells more plainly that a stream was cut.
        if let Kind::Script(closing) = kind {
            tail.check(closing).map_err(incomplete)?;
        }
        let contents = match structure {
            Some(structure) => structure.finish().await.map_err(incomplete)?,
            None => None,
        };
        if let Some(encoder) = encoder {
            for done in encoder
                .finish()
                .await
                .map_err(|e| incomplete(e.to_string()))?
            {
                sink.write(done).await.map_err(stored)?;
            }
        }
        Ok(contents)
    }
}

/// Reads one piece; an empty one is the clean end, which comes only after exit status 0.
async fn read_piece(
    stdout: &mut dbexec::executor::ProgramOutput,
    program: PgProgram,
) -> Result<Bytes, ExecError> {
    let mut piece = BytesMut::with_capacity(PIECE);
    while piece.len() < PIECE {
        let read = stdout.read_buf(&mut piece).await.map_err(|source| {
            ExecError::from_io(source).unwrap_or_else(|source| ExecError::Spawn {
                operation: "reading",
                program,
                source,
            })
        })?;
        if read == 0 {
            break;
        }
    }
    Ok(piece.freeze())
}

fn check_first_bytes(piece: &[u8], kind: Kind) -> Result<(), String> {
    let (magic, what) = match kind {
        Kind::Custom => (CUSTOM_MAGIC, "PGDMP, as an archive does"),
        Kind::Script(_) => (SCRIPT_MAGIC, "--, as a script of pg_dump does"),
    };
    if piece.starts_with(magic) {
        return Ok(());
    }
    if piece.is_empty() {
        return Err("the program ended well but wrote nothing".to_owned());
    }
    let start = String::from_utf8_lossy(&piece[..piece.len().min(60)]).into_owned();
    Err(format!("it does not begin with {what}, but with {start:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_36_patterns_are_single_arguments() {
        let options = BackupOptions {
            exclude_table_data: vec!["-x y; $(z)".to_owned()],
            ..BackupOptions::default()
        };
        let args = arguments(
            &options,
            Compression::Gzip1,
            std::time::Duration::from_secs(30),
        );
        assert!(args.contains(&"--exclude-table-data=-x y; $(z)".to_owned()));
        assert!(args.contains(&"--lock-wait-timeout=30000".to_owned()));
        assert!(args.iter().all(|arg| arg.starts_with("--")), "{args:?}");
    }

    #[test]
    fn bar_16_first_bytes_are_checked() {
        assert!(check_first_bytes(b"PGDMP\x01", Kind::Custom).is_ok());
        assert!(check_first_bytes(b"OCI runtime exec failed", Kind::Custom).is_err());
        assert!(check_first_bytes(b"", Kind::Custom).is_err());
        assert!(check_first_bytes(b"PGDMP", Kind::Script("x")).is_err());
    }
}
