//! Client programs in sidecars beside real servers.

mod engine_support;
mod executor_support;
mod leftover_support;
mod sidecar_support;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use dbexec::executor::{HostPrograms, Input, ScratchDir, conninfo_dbname};
use dbexec::{
    ExecError, Invocation, PgExecutor, PgProgram, PsqlSession, Transport, open_executor, query,
};
use engine_support::run_id;
use executor_support::{executor, runtime};
use leftover_support::{become_gone, volume_exists, volumes};
use sidecar_support::{containers, dump, is_empty, open, read};
use testkit::PgContainer;
use testkit::process::docker;
use tokio_util::sync::CancellationToken;

const ROWS: &str = "create table t as select g, md5(g::text) m, repeat(md5(g::text), 9) r \
    from generate_series(1, 20000) g; \
    create table \"-o d\" as select g from generate_series(1, 100) g; \
    select lo_create(4711); create sequence s start 77;";

#[tokio::test]
async fn a_dump_is_that_of_exec_and_nothing_stays() {
    for major in [15, 17] {
        let container = PgContainer::start(major).unwrap();
        container.psql("postgres", ROWS).unwrap();
        let run = run_id("equal");
        let exec = executor(&container, major, &run).await;
        let scratch = tempfile::tempdir().unwrap();
        let sidecar = open(&exec, scratch.path(), &run).await.unwrap();
        assert_eq!(sidecar.transport(), Transport::Sidecar);
        assert!(!sidecar.shares_files());
        assert_eq!(sidecar.context().container, exec.context().container);
        let kept = volumes(&containers(&run)[0]);
        assert!(!kept.is_empty(), "the image declares a volume");
        let mut scripts = Vec::new();
        for executor in [exec.as_ref(), &sidecar as &dyn PgExecutor] {
            for compress in ["-Z0", "-Z1"] {
                let archive = read(executor, dump(&["-Fc", compress])).await.unwrap();
                assert!(archive.starts_with(b"PGDMP"), "major {major}");
                let list = Invocation::new(
                    PgProgram::PgRestore,
                    ["-f", "-"].map(str::to_owned).into(),
                    None,
                    Input::Stream(Box::pin(std::io::Cursor::new(archive))),
                    CancellationToken::new(),
                );
                let script = read(executor, list).await.unwrap();
                scripts.push(without_key(&script));
            }
        }
        assert!(scripts[0].len() > 5_000_000);
        for script in &scripts[1..] {
            assert!(*script == scripts[0], "major {major}: another dump");
        }
        // Its programs' own sessions, as those of exec.
        let mut session = PsqlSession::open(&sidecar, "postgres", &CancellationToken::new())
            .await
            .unwrap();
        assert_eq!(
            session.run("one", "select 1;", &[]).await.unwrap().trim(),
            "1"
        );
        let error = session
            .run("bad", "select * from none;", &[])
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("\"none\" does not exist"),
            "{error}"
        );
        session.close().await.unwrap();
        sidecar.close().await.unwrap();
        assert_eq!(containers(&run), Vec::<String>::new());
        assert!(is_empty(scratch.path()));
        assert!(kept.iter().all(|volume| !volume_exists(volume)));
    }
}

/// Scripts of fixed versions hold a random word in `\restrict`.
fn without_key(script: &[u8]) -> String {
    let text = String::from_utf8_lossy(script);
    let lines = text.lines().filter(|line| !line.contains("restrict "));
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn directory_archives_with_several_jobs_through_the_spool() {
    for major in [15, 17] {
        let container = PgContainer::start(major).unwrap();
        container.psql("postgres", ROWS).unwrap();
        container.psql("postgres", "create database copy").unwrap();
        let run = run_id("jobs");
        let exec = executor(&container, major, &run).await;
        let root = tempfile::tempdir().unwrap();
        let sidecar = open(&exec, root.path(), &run).await.unwrap();
        let scratch = sidecar.scratch_create().await.unwrap();
        let local = scratch.local.clone().expect("it is seen here too");
        let file = format!("--file={}/d", scratch.path);
        let args = ["-Fd", &file, "--jobs=2", "--no-sync"];
        assert_eq!(read(&sidecar, dump(&args)).await.unwrap(), b"");
        let names: Vec<String> = std::fs::read_dir(local.join("d"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        assert!(
            names.contains(&"toc.dat".to_owned()) && names.len() >= 4,
            "{names:?}"
        );
        // Up again, as a restore does it, and restored from there.
        let upload = sidecar.scratch_create().await.unwrap();
        for name in &names {
            let bytes = std::fs::read(local.join("d").join(name)).unwrap();
            let size = bytes.len() as u64;
            let content = Box::pin(std::io::Cursor::new(bytes));
            let name = format!("archive/{name}");
            sidecar
                .scratch_put(&upload, &name, size, content)
                .await
                .unwrap();
        }
        let dbname = conninfo_dbname("copy");
        let archive = format!("{}/archive", upload.path);
        let restore = Invocation::new(
            PgProgram::PgRestore,
            ["-j2", "-d", &dbname, &archive].map(str::to_owned).into(),
            Some("copy".to_owned()),
            Input::Nothing,
            CancellationToken::new(),
        );
        read(&sidecar, restore).await.unwrap();
        let count = container
            .psql("copy", "select count(*), sum(hashtext(r)) from t")
            .unwrap();
        let expected = container.psql("postgres", "select count(*), sum(hashtext(r)) from t");
        assert_eq!(count, expected.unwrap());
        for dir in [scratch, upload] {
            sidecar.scratch_remove(&dir).await.unwrap();
            assert!(!dir.local.unwrap().exists());
        }
        let foreign = ScratchDir {
            path: "/pgstow-spool".to_owned(),
            local: Some(root.path().to_owned()),
        };
        assert!(sidecar.scratch_remove(&foreign).await.is_err());
        sidecar.close().await.unwrap();
        assert!(is_empty(root.path()));
    }
}

#[tokio::test]
async fn walls_and_no_secret_show_in_the_engines_own_words() {
    let canary = "canary-7f3a-secret";
    let container = PgContainer::builder(17)
        .env("POSTGRES_PASSWORD", canary)
        .password(canary)
        .start()
        .unwrap();
    let run = run_id("walls");
    let exec = executor(&container, 17, &run).await;
    let root = tempfile::tempdir().unwrap();
    let sidecar = open(&exec, root.path(), &run).await.unwrap();
    let spool = std::fs::read_dir(root.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mode = spool.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    let id = containers(&run).remove(0);
    let archive = read(&sidecar, dump(&["-Fc"])).await.unwrap();
    assert!(archive.starts_with(b"PGDMP"));
    let text = docker(&["inspect", &id]).unwrap();
    assert!(!text.contains(canary), "the password is in inspect");
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    let (host, config) = (&shown[0]["HostConfig"], &shown[0]["Config"]);
    assert_eq!(host["NetworkMode"], format!("container:{}", container.id()));
    assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]));
    assert_eq!(
        host["SecurityOpt"],
        serde_json::json!(["no-new-privileges"])
    );
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["AutoRemove"], true);
    assert_eq!(host["LogConfig"]["Type"], "none");
    assert_eq!(host["Privileged"], false);
    assert!(host["Binds"].is_null());
    let binds: Vec<_> = shown[0]["Mounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|mount| mount["Type"] == "bind")
        .map(|mount| mount["Source"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(binds, [spool.join("work").display().to_string()]);
    let details = docker(&["inspect", "--format", "{{.Image}}", container.id()]).unwrap();
    assert_eq!(shown[0]["Image"], details.trim(), "the same digest");
    assert_eq!(config["Labels"]["pgstow.enable"], "false");
    assert_eq!(config["Labels"]["pgstow.sidecar"], run);
    assert_ne!(config["User"], "root");
    let status = [
        "exec",
        &id,
        "sh",
        "-c",
        "grep -E 'CapEff|NoNewPrivs' /proc/1/status",
    ];
    let status = docker(&status).unwrap();
    assert!(
        status.contains("0000000000000000") && status.contains("NoNewPrivs:\t1"),
        "{status}"
    );
    // Nothing but the spool's own directories can be written.
    for place in ["/", "/var/lib", "/pgstow-spool"] {
        let script = format!("touch {place}/x");
        assert!(
            docker(&["exec", &id, "sh", "-c", &script]).is_err(),
            "{place}"
        );
    }
    sidecar.close().await.unwrap();
    sidecar.close().await.unwrap();
    assert!(is_empty(root.path()) && containers(&run).is_empty());
}

#[tokio::test]
async fn a_dropped_sidecar_goes_away() {
    let container = PgContainer::start(15).unwrap();
    let run = run_id("dropped");
    let exec = executor(&container, 15, &run).await;
    let root = tempfile::tempdir().unwrap();
    let sidecar = open(&exec, root.path(), &run).await.unwrap();
    let kept = volumes(&containers(&run)[0]);
    drop(sidecar);
    become_gone("sidecar", &run, &kept).await;
    assert!(is_empty(root.path()));
}

/// As [`executor`], of a server with another port.
async fn executor_on_port(container: &PgContainer, port: u16, run: &str) -> Arc<dyn PgExecutor> {
    let usual = executor(container, 17, run).await;
    let mut context = usual.context().clone();
    context.creds.port = port;
    let settings = usual.settings().clone();
    let opened = open_executor(
        context,
        Some(runtime().await),
        HostPrograms::default(),
        settings,
    );
    opened.await.expect("the executor opens")
}

#[tokio::test]
async fn programs_and_facts_are_those_of_the_server() {
    let container = PgContainer::builder(17).inner_port(5999).start().unwrap();
    let run = run_id("facts");
    let exec = executor_on_port(&container, 5999, &run).await;
    let root = tempfile::tempdir().unwrap();
    let sidecar = open(&exec, root.path(), &run).await.unwrap();
    let info = sidecar.program(PgProgram::PgDump).await.unwrap();
    assert_eq!((info.major, info.has_zstd), (17, true));
    let there = query::server_identity(&sidecar, "postgres").await.unwrap();
    let beside = query::server_identity(exec.as_ref(), "postgres")
        .await
        .unwrap();
    assert_eq!(there, beside);
    let free = sidecar.free_bytes("/var/lib/postgresql").await.unwrap();
    assert!(free.is_some_and(|bytes| bytes > 0));
    let reaped = sidecar.reap("pgstow-none-such").await.unwrap();
    assert_eq!((reaped.processes, reaped.sessions), (0, 0));
    sidecar.close().await.unwrap();
    let error: Result<_, ExecError> = sidecar.start(dump(&["-Fc"])).await;
    assert!(error.is_err(), "it is closed");
}

#[tokio::test]
async fn a_server_in_the_network_of_another_container() {
    let other = PgContainer::start(15).unwrap();
    let network = format!("container:{}", other.id());
    let server = PgContainer::builder(17)
        .option(&["--network", &network])
        .inner_port(5999)
        .start()
        .unwrap();
    server
        .psql("postgres", "create table of_this_server()")
        .unwrap();
    let run = run_id("joined");
    let exec = executor_on_port(&server, 5999, &run).await;
    // It has no address of its own: its socket alone leads there, and not to the other one.
    let native = exec.native().await.unwrap();
    let is_socket = matches!(native.route(), dbexec::Route::ContainerSocket { .. });
    assert!(is_socket, "{}", native.route());
    let mut session = native.open("postgres", "m").await.unwrap();
    let sql = "select pg_catalog.to_regclass('public.of_this_server')::text";
    let rows = session.query(sql).await.unwrap();
    assert_eq!(rows, [[Some("of_this_server".to_owned())]]);
    session.close().await;
    let root = tempfile::tempdir().unwrap();
    let sidecar = open(&exec, root.path(), &run).await.unwrap();
    let script = read(&sidecar, dump(&["-Fp"])).await.unwrap();
    let script = String::from_utf8(script).unwrap();
    assert!(script.contains("of_this_server"), "{script}");
    sidecar.close().await.unwrap();
    assert!(is_empty(root.path()) && containers(&run).is_empty());
}
