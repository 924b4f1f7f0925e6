//! An executor that plays pg_dump, pg_dumpall, pg_restore and psql from a script.
//!
//! Its archives are `PGDMP`, any bytes, `PGEND`; its pg_restore reads to the end and fails when
//! either mark is missing.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dbexec::creds::{DbCreds, TlsOptions};
use dbexec::executor::{Finished, Input, ProgramExit, ReapReport, ScratchDir};
use dbexec::{
    ConnectionSettings, ContainerIdentity, CredentialSource, DbContext, DbMode, ExecError,
    FieldSources, Invocation, PgExecutor, PgProgram, ProgramInfo, RunningProgram, ServerIdentity,
    Trail, Transport,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

/// How the fake's programs behave.
#[derive(Debug, Clone)]
pub struct Script {
    /// Databases by name, each with what is between the marks of its archive.
    pub databases: Vec<(String, Vec<u8>)>,
    /// What pg_dump does instead of ending well.
    pub dump_ends: End,
    /// Bytes of the dump after which it ends in that way; `None`: all of them.
    pub dump_stops_at: Option<usize>,
    /// Lines on standard error of pg_dump.
    pub stderr: Vec<String>,
    /// System identifier that the server tells.
    pub system_identifier: String,
    /// The same after the first dump.
    pub identifier_after_dump: Option<String>,
    /// Rights that are missing: object and remedy.
    pub missing: Vec<(String, String)>,
    /// How long a dump waits in the middle.
    pub pause: Duration,
    /// pg_restore reads nothing and fails with this line.
    pub restore_fails: Option<String>,
    /// The dump's first bytes, instead of the mark.
    pub first_bytes: Option<Vec<u8>>,
}

/// How a program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Well,
    Code(i64),
    Signal(i32),
    ExitUnknown,
    Stalled,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            databases: vec![("shop".to_owned(), vec![b'x'; 100_000])],
            dump_ends: End::Well,
            dump_stops_at: None,
            stderr: Vec::new(),
            system_identifier: "7000000000000000001".to_owned(),
            identifier_after_dump: None,
            missing: Vec::new(),
            pause: Duration::ZERO,
            restore_fails: None,
            first_bytes: None,
        }
    }
}

/// A program with its arguments and database.
pub type Started = (PgProgram, Vec<String>, Option<String>);

pub struct FakeExecutor {
    pub script: Mutex<Script>,
    context: DbContext,
    settings: ConnectionSettings,
    /// Programs that ran, with their arguments.
    pub started: Mutex<Vec<Started>>,
    /// `application_name`s that were reaped.
    pub reaped: Mutex<Vec<String>>,
    scratch: Mutex<BTreeMap<String, Vec<u8>>>,
    pub scratch_dirs: AtomicU32,
}

impl FakeExecutor {
    pub fn new(script: Script) -> Arc<Self> {
        Self::with_database(script, "shop")
    }

    pub fn with_database(script: Script, database: &str) -> Arc<Self> {
        let context = DbContext {
            mode: DbMode::InContainer,
            creds: DbCreds {
                host: None,
                port: 5432,
                database: database.to_owned(),
                user: "postgres".to_owned(),
                password: Some("canary-password".to_owned().into()),
                tls: TlsOptions::default(),
            },
            source: CredentialSource::RunningContainer,
            field_sources: FieldSources::default(),
            container: Some(ContainerIdentity {
                id: "0".repeat(64),
                name: "db".to_owned(),
                image: "postgres:17".to_owned(),
                image_digest: "sha256:0".to_owned(),
                compose: None,
            }),
            server: ServerIdentity {
                version_num: 170_004,
                version: "17.4".to_owned(),
                system_identifier: Some(script.system_identifier.clone()),
                in_recovery: false,
                is_superuser: true,
            },
            trail: Trail::default(),
        };
        Arc::new(Self {
            script: Mutex::new(script),
            context,
            settings: ConnectionSettings::new("test"),
            started: Mutex::default(),
            reaped: Mutex::default(),
            scratch: Mutex::default(),
            scratch_dirs: AtomicU32::new(0),
        })
    }

    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    fn archive_of(&self, script: &Script, database: &str) -> Vec<u8> {
        let rows = script
            .databases
            .iter()
            .find(|(name, _)| name == database)
            .map(|(_, rows)| rows.clone())
            .unwrap_or_default();
        let mut bytes = script
            .first_bytes
            .clone()
            .unwrap_or_else(|| b"PGDMP".to_vec());
        bytes.extend_from_slice(&rows);
        bytes.extend_from_slice(b"PGEND");
        bytes
    }

    /// Answers a query of pgstow's own.
    fn answer(&self, script: &Script, text: &str) -> Option<String> {
        let number: i64 = script.system_identifier.parse().unwrap();
        if text.contains("pg_db_role_setting") {
            let databases: Vec<_> = script
                .databases
                .iter()
                .map(|(name, rows)| {
                    serde_json::json!({
                        "name": name, "accepts_connections": true, "may_connect": true,
                        "owner": "postgres", "encoding": "UTF8", "collate": "C", "ctype": "C",
                        "locale_provider": "libc", "locale": null, "icu_rules": null,
                        "collation_version": null, "tablespace": "pg_default",
                        "connection_limit": -1, "comment": null, "size_bytes": rows.len(),
                        "acl": null, "settings": [],
                    })
                })
                .collect();
            let row = serde_json::json!({
                "databases": databases, "roles": ["postgres"],
                "lock_capacity": 6400, "locks_per_transaction": 64,
            });
            return Some(row.to_string());
        }
        if text.contains("row_security_active") {
            let missing: Vec<_> = script
                .missing
                .iter()
                .map(|(object, remedy)| serde_json::json!({"object": object, "remedy": remedy}))
                .collect();
            let row = serde_json::json!({
                "extensions": {"plpgsql": "1.0"}, "tables": 1,
                "missing_count": missing.len(), "missing": missing,
            });
            return Some(row.to_string());
        }
        if text.contains("pg_control_system") {
            let row = serde_json::json!({
                "system_identifier": number.to_string(), "version_num": 170_004,
                "version": "17.4", "in_recovery": false, "is_superuser": true,
            });
            return Some(row.to_string());
        }
        None
    }
}

fn io_error(program: PgProgram, end: End, stderr: &[String]) -> ExecError {
    match end {
        End::Well | End::ExitUnknown => ExecError::ExitUnknown {
            program,
            reason: "scripted".to_owned(),
        },
        End::Code(code) => ExecError::Failed {
            program,
            exit: ProgramExit::Code(code),
            stderr: stderr.to_vec(),
        },
        End::Signal(signal) => ExecError::Failed {
            program,
            exit: ProgramExit::Signal(signal),
            stderr: stderr.to_vec(),
        },
        End::Stalled => ExecError::Stalled {
            program,
            idle: Duration::from_secs(60),
            diagnosis: "scripted".to_owned(),
        },
    }
}

/// Writes `bytes`, then ends in `end`; an error is the last item, as the contract wants.
fn play(
    program: PgProgram,
    bytes: Vec<u8>,
    end: End,
    pause: Duration,
    stderr: Vec<String>,
    cancel: tokio_util::sync::CancellationToken,
) -> RunningProgram {
    let (mut writer, reader) = tokio::io::duplex(64 << 10);
    let (done, finished) = tokio::sync::oneshot::channel();
    let failure: Arc<Mutex<Option<ExecError>>> = Arc::default();
    let told = Arc::clone(&failure);
    tokio::spawn(async move {
        let work = async {
            let half = bytes.len() / 2;
            writer.write_all(&bytes[..half]).await.ok();
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            writer.write_all(&bytes[half..]).await.ok();
        };
        tokio::select! {
            () = work => {
                if end == End::Well {
                    let _ = done.send(Finished { stderr, stderr_dropped: 0 });
                } else {
                    *told.lock().unwrap() = Some(io_error(program, end, &stderr));
                }
            }
            () = cancel.cancelled() => {
                *told.lock().unwrap() = Some(ExecError::Interrupted { program });
            }
        }
        drop(writer);
    });
    let reader = Ending { reader, failure };
    RunningProgram::new(Box::pin(BufReader::new(reader)), finished)
}

/// A reader whose last item is the failure, where there is one.
struct Ending {
    reader: tokio::io::DuplexStream,
    failure: Arc<Mutex<Option<ExecError>>>,
}

impl AsyncRead for Ending {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.reader).poll_read(cx, buf) {
            std::task::Poll::Ready(Ok(())) if buf.filled().len() == before => {
                match self.failure.lock().unwrap().take() {
                    Some(error) => std::task::Poll::Ready(Err(error.into_io())),
                    None => std::task::Poll::Ready(Ok(())),
                }
            }
            other => other,
        }
    }
}

async fn input_bytes(input: Input) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Input::Stream(mut stream) = input {
        stream.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

#[async_trait]
impl PgExecutor for FakeExecutor {
    fn context(&self) -> &DbContext {
        &self.context
    }

    fn settings(&self) -> &ConnectionSettings {
        &self.settings
    }

    fn transport(&self) -> Transport {
        Transport::Exec
    }

    async fn program(&self, program: PgProgram) -> Result<ProgramInfo, ExecError> {
        Ok(ProgramInfo {
            path: program.as_str().to_owned(),
            version: "17.4".to_owned(),
            major: 17,
            has_zstd: true,
        })
    }

    async fn start(&self, invocation: Invocation) -> Result<RunningProgram, ExecError> {
        let script = self.script.lock().unwrap().clone();
        let Invocation {
            program,
            args,
            database,
            input,
            cancel,
            ..
        } = invocation;
        self.started
            .lock()
            .unwrap()
            .push((program, args.clone(), database.clone()));
        let input = input_bytes(input)
            .await
            .map_err(|source| ExecError::Input { program, source })?;
        let well = |bytes: Vec<u8>| {
            play(
                program,
                bytes,
                End::Well,
                Duration::ZERO,
                Vec::new(),
                cancel.clone(),
            )
        };
        Ok(match program {
            PgProgram::Psql => {
                let text = format!("{} {}", args.join(" "), String::from_utf8_lossy(&input));
                match self.answer(&script, &text) {
                    Some(row) => {
                        // What the script echoes at its end.
                        let echoed = text.rsplit_once("\\echo ").map_or("", |(_, echoed)| echoed);
                        well(format!("{row}\n{}\n", echoed.trim_end()).into_bytes())
                    }
                    None => panic!("the fake knows no answer to {text}"),
                }
            }
            PgProgram::PgDumpall => {
                let text = "--\n-- PostgreSQL database cluster dump\n--\nCREATE ROLE a;\n--\n-- \
                            PostgreSQL database cluster dump complete\n--\n\n";
                well(text.as_bytes().to_vec())
            }
            PgProgram::PgDump => {
                let name = database.unwrap_or_default();
                let bytes = if args.iter().any(|arg| arg == "--format=plain") {
                    let mut text = b"--\n-- PostgreSQL database dump\n--\n\n".to_vec();
                    text.extend_from_slice(b"COPY public.t (a) FROM stdin;\n1\n\\.\n\n");
                    text.extend_from_slice(b"--\n-- PostgreSQL database dump complete\n--\n\n");
                    text
                } else {
                    self.archive_of(&script, &name)
                };
                if let Some(changed) = &script.identifier_after_dump {
                    self.script
                        .lock()
                        .unwrap()
                        .system_identifier
                        .clone_from(changed);
                }
                let directory = args.iter().find_map(|arg| arg.strip_prefix("--file="));
                if let Some(path) = directory {
                    let mut scratch = self.scratch.lock().unwrap();
                    scratch.insert(format!("{path}/toc.dat"), bytes);
                    scratch.insert(format!("{path}/1.dat.zst"), b"rows".to_vec());
                    drop(scratch);
                    play(
                        program,
                        Vec::new(),
                        script.dump_ends,
                        script.pause,
                        script.stderr,
                        cancel,
                    )
                } else {
                    let stop = script.dump_stops_at.unwrap_or(bytes.len()).min(bytes.len());
                    let bytes = bytes[..stop].to_vec();
                    play(
                        program,
                        bytes,
                        script.dump_ends,
                        script.pause,
                        script.stderr,
                        cancel,
                    )
                }
            }
            PgProgram::PgRestore => {
                let said = script.restore_fails.clone().or_else(|| {
                    let archive = match args.last() {
                        Some(path) if path.starts_with("/scratch") => {
                            let scratch = self.scratch.lock().unwrap();
                            scratch
                                .get(&format!("{path}/toc.dat"))
                                .cloned()
                                .unwrap_or_default()
                        }
                        _ => input,
                    };
                    let whole = archive.starts_with(b"PGDMP") && archive.ends_with(b"PGEND");
                    (!whole).then(|| "could not read to the end of file".to_owned())
                });
                match said {
                    None => well(Vec::new()),
                    Some(line) => play(
                        program,
                        Vec::new(),
                        End::Code(1),
                        Duration::ZERO,
                        vec![line],
                        cancel,
                    ),
                }
            }
        })
    }

    async fn scratch_create(&self) -> Result<ScratchDir, ExecError> {
        let number = self.scratch_dirs.fetch_add(1, Ordering::Relaxed);
        Ok(ScratchDir {
            path: format!("/scratch{number}"),
            local: None,
        })
    }

    async fn scratch_put(
        &self,
        dir: &ScratchDir,
        name: &str,
        size: u64,
        mut content: Pin<Box<dyn AsyncRead + Send>>,
    ) -> Result<(), ExecError> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes.len() as u64, size);
        let path = format!("{}/{name}", dir.path);
        self.scratch.lock().unwrap().insert(path, bytes);
        Ok(())
    }

    async fn scratch_tar(
        &self,
        dir: &ScratchDir,
        name: &str,
    ) -> Result<Pin<Box<dyn AsyncRead + Send>>, ExecError> {
        let mut builder = tar::Builder::new(Vec::new());
        let prefix = format!("{}/{name}/", dir.path);
        for (path, bytes) in self.scratch.lock().unwrap().iter() {
            if let Some(leaf) = path.strip_prefix(&prefix) {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o600);
                let path = format!("{name}/{leaf}");
                builder
                    .append_data(&mut header, path, bytes.as_slice())
                    .unwrap();
            }
        }
        Ok(Box::pin(std::io::Cursor::new(
            builder.into_inner().unwrap(),
        )))
    }

    async fn scratch_remove(&self, dir: &ScratchDir) -> Result<(), ExecError> {
        let prefix = format!("{}/", dir.path);
        self.scratch
            .lock()
            .unwrap()
            .retain(|path, _| !path.starts_with(&prefix));
        Ok(())
    }

    async fn reap(&self, application_name: &str) -> Result<ReapReport, ExecError> {
        self.reaped
            .lock()
            .unwrap()
            .push(application_name.to_owned());
        Ok(ReapReport {
            processes: 1,
            sessions: 1,
        })
    }
}

impl FakeExecutor {
    pub fn scratch_is_empty(&self) -> bool {
        self.scratch.lock().unwrap().is_empty()
    }
}
