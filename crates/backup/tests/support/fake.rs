//! An executor that plays pg_dump, pg_dumpall, pg_restore and psql from a script.
//!
//! Its archives are real ones with one table, `public.t`, whose one row holds the given bytes.

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
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

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
    /// The dump's first bytes, instead of the mark.
    pub first_bytes: Option<Vec<u8>>,
    /// What the server counts in `public.t`.
    pub server_rows: u64,
    /// Whether the table was rewritten before that.
    pub server_rewritten: bool,
    /// Large objects that the server counts.
    pub server_large_objects: u64,
    /// Counting `public.t` fails with this.
    pub count_fails: Option<String>,
    /// The server exports no snapshot and says this.
    pub no_snapshot: Option<String>,
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
            first_bytes: None,
            server_rows: 1,
            server_rewritten: false,
            server_large_objects: 0,
            count_fails: None,
            no_snapshot: None,
        }
    }
}

/// Oid of the one table.
const TABLE: u32 = 16_384;

/// Writes archives of format 1.16 as pg_dump does.
struct ArchiveText(Vec<u8>);

impl ArchiveText {
    /// `kind`: 1 custom, 3 directory.
    fn new(kind: u8) -> Self {
        let mut this = Self(b"PGDMP".to_vec());
        this.0.extend([1, 16, 0, 4, 8, kind, 0]);
        for part in [1, 2, 3, 4, 5, 126, 0] {
            this.int(part);
        }
        this.text("shop").text("17.4").text("17.4").int(2);
        this.entry(1, "ENCODING", "SET client_encoding = 'UTF8';\n", None, kind);
        this.entry(
            2,
            "TABLE DATA",
            "",
            Some("COPY public.t (a) FROM stdin;\n"),
            kind,
        );
        this
    }

    fn int(&mut self, value: i64) -> &mut Self {
        self.0.push(u8::from(value < 0));
        let magnitude = u32::try_from(value.unsigned_abs()).unwrap();
        self.0.extend(magnitude.to_le_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.int(i64::try_from(text.len()).unwrap());
        self.0.extend(text.as_bytes());
        self
    }

    fn entry(&mut self, id: i64, kind: &str, definition: &str, copy: Option<&str>, format: u8) {
        let oid = if copy.is_some() { TABLE } else { 0 };
        let name = if copy.is_some() { "t" } else { kind };
        self.int(id).int(i64::from(copy.is_some()));
        self.text("0").text(&oid.to_string()).text(name).text(kind);
        self.int(if copy.is_some() { 3 } else { 2 });
        self.text(definition).text("").text(copy.unwrap_or(""));
        self.text(if copy.is_some() { "public" } else { "" });
        self.int(-1).int(-1).int(0);
        self.text("postgres").text("false").int(-1);
        match (format, copy) {
            (1, _) => {
                self.0.push(if copy.is_some() { 1 } else { 3 });
                self.0.extend(0_u64.to_le_bytes());
            }
            (_, Some(_)) => {
                self.text("1.dat");
            }
            _ => {
                self.text("");
            }
        }
    }
}

/// The row that holds `bytes`, as COPY writes it, with the terminator.
fn copy_text(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in bytes {
        match byte {
            b'\n' => text.extend(b"\\n"),
            b'\\' => text.extend(b"\\\\"),
            byte => text.push(*byte),
        }
    }
    text.extend(b"\n\\.\n\n\n");
    text
}

/// A custom archive whose one row holds `bytes`.
pub fn custom_archive(bytes: &[u8]) -> Vec<u8> {
    let mut archive = ArchiveText::new(1);
    let rows = copy_text(bytes);
    archive.0.push(1);
    archive.int(2);
    archive.int(i64::try_from(rows.len()).unwrap());
    archive.0.extend(rows);
    archive.int(0);
    archive.0
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
                running: None,
            },
            trail: Trail::default(),
            programs: dbexec::SeenPrograms::default(),
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

    fn rows_of(script: &Script, database: &str) -> Vec<u8> {
        script
            .databases
            .iter()
            .find(|(name, _)| name == database)
            .map(|(_, rows)| rows.clone())
            .unwrap_or_default()
    }

    fn archive_of(script: &Script, database: &str) -> Vec<u8> {
        let mut bytes = custom_archive(&Self::rows_of(script, database));
        if let Some(first) = &script.first_bytes {
            bytes.splice(..5, first.iter().copied());
        }
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
                "lock_capacity": 6400, "locks_per_transaction": 64, "tells_of_statistics": false,
                "settings": [{"name": "wal_level", "value": "replica", "source": "default"}],
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
                "version": "17.4", "in_recovery": false, "is_superuser": true, "started": "1",
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

/// A psql that is kept open: answers each script when its mark has come.
fn session(
    script: Script,
    input: Input,
    cancel: tokio_util::sync::CancellationToken,
    on_stderr: Option<dbexec::executor::StderrWatch>,
) -> RunningProgram {
    let (mut writer, reader) = tokio::io::duplex(64 << 10);
    let (done, finished) = tokio::sync::oneshot::channel();
    let failure: Arc<Mutex<Option<ExecError>>> = Arc::default();
    let told = Arc::clone(&failure);
    tokio::spawn(async move {
        let Input::Stream(input) = input else {
            panic!("a session has an input");
        };
        let work = async {
            let mut lines = BufReader::new(input).lines();
            let mut text = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                let mark = line
                    .strip_prefix("\\echo ")
                    .and_then(|rest| rest.strip_suffix(" :LAST_ERROR_SQLSTATE"));
                let Some(mark) = mark else {
                    text.push_str(&line);
                    text.push('\n');
                    continue;
                };
                let answer = match session_answer(&script, &std::mem::take(&mut text)) {
                    Ok(answer) => format!("{answer}{mark} 00000\n"),
                    Err(words) => {
                        if let Some(watch) = &on_stderr {
                            watch(&format!("psql:<stdin>:1: ERROR:  {words}"));
                            watch(mark);
                        }
                        format!("{mark} 55000\n")
                    }
                };
                writer.write_all(answer.as_bytes()).await.ok();
            }
        };
        tokio::select! {
            () = work => {
                let _ = done.send(Finished { stderr: Vec::new(), stderr_dropped: 0 });
            }
            () = cancel.cancelled() => {
                let program = PgProgram::Psql;
                *told.lock().unwrap() = Some(ExecError::Interrupted { program });
            }
        }
        drop(writer);
    });
    let reader = Ending { reader, failure };
    RunningProgram::new(Box::pin(BufReader::new(reader)), finished)
}

fn session_answer(script: &Script, text: &str) -> Result<String, String> {
    if text.contains("pg_export_snapshot") {
        return match &script.no_snapshot {
            Some(words) => Err(words.clone()),
            None => Ok("00000003-0000001B-1\n".to_owned()),
        };
    }
    if text.contains("pg_largeobject_metadata") {
        return Ok(format!(
            "{{\"count\":{},\"bytes\":0}}\n",
            script.server_large_objects
        ));
    }
    if text.contains("as configuration") {
        let row = serde_json::json!({
            "oid": TABLE, "schema": "public", "name": "t", "configuration": false,
            "excluded": false, "bytes": 8192,
        });
        return Ok(format!("{row}\n"));
    }
    if text.contains("from only \"public\".\"t\"") {
        if let Some(words) = &script.count_fails {
            return Ok(format!("! {TABLE} 55P03 {words}\n"));
        }
        let rewritten = if script.server_rewritten { "t" } else { "f" };
        return Ok(format!("{TABLE}|{}|{rewritten}\n", script.server_rows));
    }
    Ok(String::new())
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
            on_stderr,
            ..
        } = invocation;
        self.started
            .lock()
            .unwrap()
            .push((program, args.clone(), database.clone()));
        if args.iter().any(|arg| arg == "ON_ERROR_STOP=0") {
            return Ok(session(script, input, cancel, on_stderr));
        }
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
                    Self::archive_of(&script, &name)
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
                    let rows = copy_text(&Self::rows_of(&script, &name));
                    scratch.insert(format!("{path}/toc.dat"), ArchiveText::new(3).0);
                    scratch.insert(format!("{path}/1.dat"), rows);
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
            PgProgram::PgRestore => panic!("no run and no check needs pg_restore"),
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
