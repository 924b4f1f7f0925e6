//! What goes wrong with sidecars: told truthfully, and nothing stays behind.

mod engine_support;
mod executor_support;
mod leftover_support;
mod owner_support;
mod sidecar_support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dbexec::{
    ExecError, PgExecutor, PgProgram, RunningProgram, SidecarPgExecutor, query, reap_sidecars,
};
use engine_support::run_id;
use executor_support::{executor, executor_of, runtime};
use leftover_support::{become_gone, volumes};
use sidecar_support::{containers, dump, is_empty, open, read};
use testkit::PgContainer;
use testkit::process::docker;
use tokio::io::AsyncReadExt;

/// More than all buffers on the way take: a dump of it goes on until it is read.
const BIG: &str = "create table t as select g, repeat(md5(g::text), 30) r \
    from generate_series(1, 40000) g";

struct Stage {
    server: PgContainer,
    exec: Arc<dyn PgExecutor>,
    sidecar: SidecarPgExecutor,
    root: tempfile::TempDir,
    run: String,
}

async fn stage(major: u32, name: &str) -> Stage {
    let server = PgContainer::start(major).expect("the stage is set");
    server.psql("postgres", BIG).expect("the stage is set");
    let run = run_id(name);
    let exec = executor(&server, major, &run).await;
    let root = tempfile::tempdir().expect("the stage is set");
    let sidecar = open(&exec, root.path(), &run)
        .await
        .expect("the stage is set");
    Stage {
        server,
        exec,
        sidecar,
        root,
        run,
    }
}

impl Stage {
    /// A dump of which the beginning was read.
    async fn begun(&self) -> RunningProgram {
        let mut running = self
            .sidecar
            .start(dump(&["-Fc", "-Z0"]))
            .await
            .expect("the stage is set");
        running
            .stdout
            .read_exact(&mut [0; 1000])
            .await
            .expect("the stage is set");
        running
    }

    /// Ends it, and looks whether something is left.
    async fn end(self) {
        self.sidecar.close().await.expect("the stage is set");
        assert_eq!(containers(&self.run), Vec::<String>::new());
        assert!(is_empty(self.root.path()));
    }

    async fn no_sessions(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.server.pgstow_sessions().expect("the stage is set") > 0 {
            assert!(Instant::now() < deadline, "a session is left");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The failure that a dump ends with.
async fn failure(mut running: RunningProgram) -> ExecError {
    let mut rest = Vec::new();
    let reading = running.stdout.read_to_end(&mut rest);
    let ended = tokio::time::timeout(Duration::from_secs(60), reading).await;
    let error = ended.expect("it ends").expect_err("it is no end of file");
    ExecError::from_io(error).expect("the program's failure")
}

#[tokio::test]
async fn bar_07_10_programs_sidecars_and_servers_that_are_killed_in_mid_dump() {
    let stage = stage(17, "killed").await;
    // A dump that cannot be made.
    let error = read(&stage.sidecar, dump(&["-Fc", "--table=none_such"]))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no matching tables"), "{error}");
    // Its program killed, as for want of memory.
    let running = stage.begun().await;
    let id = containers(&stage.run).remove(0);
    let kill = "for d in /proc/[0-9]*; do \
        if [ \"$(cat $d/comm)\" = pg_dump ]; then kill -9 ${d#/proc/}; fi; done";
    docker(&["exec", &id, "sh", "-c", kill]).unwrap();
    let error = failure(running).await;
    assert!(error.to_string().contains("signal 9"), "{error}");
    stage.no_sessions().await;
    // Its session ended by the server.
    let running = stage.begun().await;
    let end = "select pg_terminate_backend(pid) from pg_stat_activity \
        where application_name like 'pgstow-%'";
    stage.server.psql("postgres", end).unwrap();
    let error = failure(running).await;
    assert!(matches!(error, ExecError::Failed { .. }), "{error:?}");
    // Its container killed: not the server's.
    let running = stage.begun().await;
    docker(&["kill", &id]).unwrap();
    let error = failure(running).await;
    assert!(matches!(error, ExecError::SidecarLost { .. }), "{error:?}");
    assert!(error.to_string().contains(stage.sidecar.name()), "{error}");
    let error = stage.sidecar.start(dump(&["-Fc"])).await.err().unwrap();
    assert!(matches!(error, ExecError::SidecarLost { .. }), "{error:?}");
    stage.no_sessions().await;
    // The server's container serves on.
    read(stage.exec.as_ref(), dump(&["-Fc", "-Z1"]))
        .await
        .unwrap();
    stage.end().await;
}

#[tokio::test]
async fn bar_10_18_a_server_that_is_stopped_or_recreated_is_told_and_refused() {
    for major in [15, 17] {
        let stage = stage(major, "stopped").await;
        let running = stage.begun().await;
        docker(&["stop", stage.server.id()]).unwrap();
        let error = failure(running).await;
        let words = error.to_string();
        assert!(
            words.contains("is not running") || words.contains("terminat"),
            "{words}"
        );
        let error = stage.sidecar.start(dump(&["-Fc"])).await.err().unwrap();
        assert_eq!(error.code(), dbexec::codes::CONTAINER_CHANGED);
        assert!(error.to_string().contains("docker start"), "{error}");
        // Started again it has another network: no server answers in the old one.
        stage.server.engine("start").unwrap();
        let error = read(&stage.sidecar, dump(&["-Fc"])).await.unwrap_err();
        assert_eq!(error.code(), dbexec::codes::SERVER_UNREACHABLE, "{error}");
        stage.end().await;
    }
    // Another container of that name.
    let name = testkit::container::unique_name("recreated");
    let first = PgContainer::builder(15).name(&name).start().unwrap();
    let run = run_id("recreated");
    let exec = executor(&first, 15, &run).await;
    let root = tempfile::tempdir().unwrap();
    let sidecar = open(&exec, root.path(), &run).await.unwrap();
    drop(first);
    let _second = PgContainer::builder(15).name(&name).start().unwrap();
    let error = query::check_same_server(None, &sidecar).await.unwrap_err();
    assert_eq!(error.code(), dbexec::codes::CONTAINER_CHANGED);
    assert!(error.to_string().contains("another container"), "{error}");
    sidecar.close().await.unwrap();
    let no = open(&exec, root.path(), &run).await.err().unwrap();
    assert!(no.reason.contains("another container"), "{no}");
    assert!(is_empty(root.path()) && containers(&run).is_empty());
}

#[tokio::test]
async fn bar_08_a_cancelled_dump_and_one_that_nobody_reads_end_with_their_sessions() {
    let stage = stage(15, "cancelled").await;
    let wanted = dump(&["-Fc", "-Z0"]);
    let cancel = wanted.cancel.clone();
    let mut running = stage.sidecar.start(wanted).await.unwrap();
    running.stdout.read_exact(&mut [0; 1000]).await.unwrap();
    cancel.cancel();
    let error = failure(running).await;
    assert!(matches!(error, ExecError::Interrupted { .. }), "{error:?}");
    stage.no_sessions().await;
    drop(stage.begun().await);
    stage.no_sessions().await;
    let id = containers(&stage.run).remove(0);
    let shown = docker(&["top", &id, "-eo", "pid,args"]).unwrap();
    assert!(!shown.contains("pg_dump"), "{shown}");
    stage.end().await;
}

#[tokio::test]
async fn bar_11_a_paused_server_is_diagnosed() {
    let stage = stage(17, "paused").await;
    let running = stage.begun().await;
    stage.server.engine("pause").unwrap();
    let error = failure(running).await;
    stage.server.engine("unpause").unwrap();
    assert!(matches!(error, ExecError::Stalled { .. }), "{error:?}");
    assert!(error.to_string().contains("docker unpause"), "{error}");
    stage.no_sessions().await;
    stage.end().await;
}

/// Ends with the process: started by the tests below, told by its standard input what to do.
#[tokio::test]
#[ignore = "the process that other tests kill"]
async fn owner_that_is_killed() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let [run, id, root] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{line:?} says not what to do");
    };
    let exec = executor_of(id, testkit::container::PASSWORD, 15, run).await;
    let sidecar = open(&exec, Path::new(root), run).await.unwrap();
    // Rows in the spool, and a dump on its way.
    let scratch = sidecar.scratch_create().await.unwrap();
    let file = format!("--file={}/d", scratch.path);
    read(&sidecar, dump(&["-Fd", "-Z0", &file])).await.unwrap();
    let mut running = sidecar.start(dump(&["-Fc", "-Z0"])).await.unwrap();
    running.stdout.read_exact(&mut [0; 1000]).await.unwrap();
    println!("ready");
    std::future::pending::<()>().await;
}

/// Kills an owner of a sidecar after a time (`None`: in the middle of its dump).
/// Returns the volumes that its container had, where it was killed at work.
async fn kill_an_owner(run: &str, id: &str, root: &Path, after: Option<Duration>) -> Vec<String> {
    let line = format!("{run} {id} {}", root.display());
    let mut kept = Vec::new();
    owner_support::kill_an_owner(&line, after, || {
        let containers = containers(run);
        assert_eq!(containers.len(), 1);
        assert!(bytes_in(root) > 30_000_000);
        kept = volumes(&containers[0]);
    })
    .await;
    kept
}

/// Bytes of regular files below a directory.
fn bytes_in(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => bytes_in(&entry.path()),
            Ok(data) if data.is_file() => data.len(),
            _ => 0,
        })
        .sum()
}

#[tokio::test]
async fn bar_15_a_killed_owner_leaves_no_container_volume_session_or_rows() {
    let server = PgContainer::start(15).unwrap();
    server.psql("postgres", BIG).unwrap();
    let root = tempfile::tempdir().unwrap();
    let run = run_id("owner");
    let runtime = runtime().await;
    let kept = kill_an_owner(&run, server.id(), root.path(), None).await;
    assert!(!kept.is_empty());
    // Without anybody's help up to the empty directories.
    become_gone("sidecar", &run, &kept).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left = (bytes_in(root.path()), server.pgstow_sessions().unwrap());
        if left == (0, 0) {
            break;
        }
        assert!(Instant::now() < deadline, "bytes and sessions: {left:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The next run takes those too.
    assert!(reap_sidecars(runtime.as_ref(), root.path()).await.unwrap() >= 1);
    assert!(is_empty(root.path()));
    // At any moment; a container that never ran is found by the next run.
    for round in 0..8 {
        let time = Duration::from_millis(30 + round * 130);
        kill_an_owner(&run, server.id(), root.path(), Some(time)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        reap_sidecars(runtime.as_ref(), root.path()).await.unwrap();
        become_gone("sidecar", &run, &[]).await;
        reap_sidecars(runtime.as_ref(), root.path()).await.unwrap();
        assert!(is_empty(root.path()), "killed after {time:?}");
    }
    // One that lives stays.
    let exec = executor(&server, 15, &run).await;
    let sidecar = open(&exec, root.path(), &run).await.unwrap();
    reap_sidecars(runtime.as_ref(), root.path()).await.unwrap();
    assert_eq!(containers(&run).len(), 1);
    read(&sidecar, dump(&["-Fc", "-Z1"])).await.unwrap();
    sidecar.close().await.unwrap();
    assert!(is_empty(root.path()));
}

#[tokio::test]
async fn programs_end_with_the_sidecar_that_is_closed_under_them() {
    let stage = stage(15, "closed").await;
    let running = stage.begun().await;
    stage.sidecar.close().await.unwrap();
    let error = failure(running).await;
    assert!(matches!(error, ExecError::SidecarLost { .. }), "{error:?}");
    stage.no_sessions().await;
    let after = stage.sidecar.program(PgProgram::PgRestore).await;
    assert!(after.is_ok(), "what was found before is known");
    stage.end().await;
}
