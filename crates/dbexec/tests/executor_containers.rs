//! Programs in real containers of every major: output, failure, cancellation, what stays behind.

mod executor_support;

use std::time::{Duration, Instant};

use dbexec::executor::Input;
use dbexec::{ExecError, Invocation, PgProgram, query};
use executor_support::executor;
use testkit::PgContainer;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

fn invocation(program: PgProgram, args: &[&str]) -> Invocation {
    Invocation::new(
        program,
        args.iter().map(|&arg| arg.to_owned()).collect(),
        Some("postgres".to_owned()),
        Input::Nothing,
        CancellationToken::new(),
    )
}

#[tokio::test]
async fn dump_and_query_on_every_major() {
    for major in testkit::images::MAJORS {
        let container = PgContainer::start(major).unwrap();
        container
            .psql(
                "postgres",
                "create table t as select generate_series(1, 1000) g",
            )
            .unwrap();
        let executor = executor(&container, major, "every-major").await;
        let identity = query::server_identity(executor.as_ref(), "postgres")
            .await
            .unwrap();
        assert_eq!(identity.major(), major);
        assert!(identity.system_identifier.is_some() && identity.is_superuser);
        let info = executor.program(PgProgram::PgDump).await.unwrap();
        assert_eq!(
            (info.major, info.has_zstd),
            (major, major >= 16),
            "{info:?}"
        );
        let mut running = executor
            .start(invocation(PgProgram::PgDump, &["-Fc"]))
            .await
            .unwrap();
        let mut archive = Vec::new();
        running.stdout.read_to_end(&mut archive).await.unwrap();
        assert!(archive.starts_with(b"PGDMP"), "major {major}");
        let finished = running.finish(PgProgram::PgDump).await.unwrap();
        assert_eq!(finished.stderr, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_failed_dump_is_never_an_end_of_file() {
    let container = PgContainer::start(15).unwrap();
    let executor = executor(&container, 15, "failed").await;
    let dump = invocation(PgProgram::PgDump, &["-Fc", "--table=none_such"]);
    let mut running = executor.start(dump).await.unwrap();
    let error = running
        .stdout
        .read_to_end(&mut Vec::new())
        .await
        .unwrap_err();
    let error = ExecError::from_io(error).unwrap();
    assert!(error.to_string().contains("no matching tables"), "{error}");
}

#[tokio::test]
async fn bar_08_cancelling_ends_program_and_session() {
    let container = PgContainer::start(15).unwrap();
    container
        .psql(
            "postgres",
            "create table t as select g, repeat(md5(g::text), 30) from generate_series(1, 200000) g",
        )
        .unwrap();
    let executor = executor(&container, 15, "cancel").await;
    let dump = invocation(PgProgram::PgDump, &["-Fc", "-Z0"]);
    let cancel = dump.cancel.clone();
    let mut running = executor.start(dump).await.unwrap();
    let mut some = vec![0; 100_000];
    running.stdout.read_exact(&mut some).await.unwrap();
    assert_eq!(container.pgstow_sessions().unwrap(), 1);
    let since = Instant::now();
    cancel.cancel();
    let error = running
        .stdout
        .read_to_end(&mut Vec::new())
        .await
        .unwrap_err();
    assert!(matches!(
        ExecError::from_io(error),
        Ok(ExecError::Interrupted { .. })
    ));
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(container.pgstow_sessions().unwrap(), 0);
    let processes = container.processes().unwrap();
    assert!(
        !processes.iter().any(|line| line.contains("pg_dump")),
        "{processes:?}"
    );
}

#[tokio::test]
async fn bar_11_a_paused_container_is_diagnosed_and_a_lock_is_no_stall() {
    let container = PgContainer::start(15).unwrap();
    container
        .psql(
            "postgres",
            "create table t as select generate_series(1, 10)",
        )
        .unwrap();
    let executor = executor(&container, 15, "stall").await;
    // A dump that waits for a lock for longer than the watchdog's patience.
    let id = container.id().to_owned();
    let locker = std::thread::spawn(move || {
        let sql = "begin; lock table t in access exclusive mode; select pg_sleep(6); commit";
        testkit::process::docker(&["exec", &id, "psql", "-U", "postgres", "-c", sql])
    });
    tokio::time::sleep(Duration::from_millis(800)).await;
    let mut running = executor
        .start(invocation(PgProgram::PgDump, &["-Fc"]))
        .await
        .unwrap();
    running.stdout.read_to_end(&mut Vec::new()).await.unwrap();
    locker.join().unwrap().unwrap();
    // A paused container.
    let sleep = invocation(PgProgram::Psql, &["-Xc", "select pg_sleep(600)"]);
    let mut running = executor.start(sleep).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    container.engine("pause").unwrap();
    let error = running
        .stdout
        .read_to_end(&mut Vec::new())
        .await
        .unwrap_err();
    container.engine("unpause").unwrap();
    let error = ExecError::from_io(error).unwrap();
    assert_eq!(error.code(), dbexec::codes::PROGRAM_STALLED);
    assert!(error.to_string().contains("docker unpause"), "{error}");
}

#[tokio::test]
async fn bar_10_a_killed_container_is_named() {
    let container = PgContainer::start(15).unwrap();
    let executor = executor(&container, 15, "killed").await;
    let sleep = invocation(PgProgram::Psql, &["-Xc", "select pg_sleep(600)"]);
    let mut running = executor.start(sleep).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    container.engine("kill").unwrap();
    let error = running
        .stdout
        .read_to_end(&mut Vec::new())
        .await
        .unwrap_err();
    let text = ExecError::from_io(error).unwrap().to_string();
    assert!(
        text.contains(container.name()) && text.contains("docker start"),
        "{text}"
    );
}

#[tokio::test]
async fn bar_15_reaping_ends_what_a_killed_run_left() {
    let container = PgContainer::start(15).unwrap();
    let left = executor(&container, 15, "left-behind").await;
    let sleep = invocation(PgProgram::Psql, &["-Xc", "select pg_sleep(600)"]);
    let running = left.start(sleep).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let next = executor(&container, 15, "next").await;
    let report = next.reap("pgstow-left-behind").await.unwrap();
    assert!(report.processes + report.sessions >= 1, "{report:?}");
    assert_eq!(container.pgstow_sessions().unwrap(), 0);
    drop(running);
}

#[tokio::test]
async fn scratch_files_go_in_and_out() {
    let container = PgContainer::start(15).unwrap();
    let executor = executor(&container, 15, "scratch").await;
    let dir = executor.scratch_create().await.unwrap();
    let content = vec![7_u8; 300_000];
    let reader = Box::pin(std::io::Cursor::new(content.clone()));
    executor
        .scratch_put(&dir, "below/file.dat", 300_000, reader)
        .await
        .unwrap();
    let shown = container.exec(&[
        "stat",
        "-c",
        "%s %a",
        &format!("{}/below/file.dat", dir.path),
    ]);
    assert_eq!(shown.unwrap().trim(), "300000 600");
    let short = Box::pin(std::io::Cursor::new(vec![7_u8; 10]));
    assert!(
        executor
            .scratch_put(&dir, "short", 20, short)
            .await
            .is_err()
    );
    let mut tar = executor.scratch_tar(&dir, "below").await.unwrap();
    let mut bytes = Vec::new();
    tar.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes.len() > 300_000);
    executor.scratch_remove(&dir).await.unwrap();
    assert!(container.exec(&["stat", &dir.path]).is_err());
}

#[tokio::test]
async fn bar_20_images_without_a_shell_work_and_without_programs_say_so() {
    let container = PgContainer::builder(15)
        .image(&testkit::images::shell_less())
        .start()
        .unwrap();
    let bare = executor(&container, 15, "shell-less").await;
    bare.program(PgProgram::PgDump).await.unwrap();
    let mut running = bare
        .start(invocation(PgProgram::PgDump, &["-Fc"]))
        .await
        .unwrap();
    running.stdout.read_to_end(&mut Vec::new()).await.unwrap();
    drop(container);
    let container = PgContainer::builder(15)
        .image(&testkit::images::program_less())
        .start()
        .unwrap();
    let bare = executor(&container, 15, "program-less").await;
    let error = bare.program(PgProgram::PgDump).await.unwrap_err();
    assert_eq!(error.code(), dbexec::codes::PROGRAM_MISSING, "{error}");
}

#[tokio::test]
async fn bar_18_a_recreated_container_is_another_one() {
    let name = testkit::container::unique_name("recreated");
    let container = PgContainer::builder(15).name(&name).start().unwrap();
    let executor = executor(&container, 15, "recreated").await;
    drop(container);
    let _other = PgContainer::builder(15).name(&name).start().unwrap();
    let error = query::check_same_server(None, executor.as_ref())
        .await
        .unwrap_err();
    assert_eq!(error.code(), dbexec::codes::CONTAINER_CHANGED);
    assert!(error.to_string().contains("another container"), "{error}");
}

#[tokio::test]
async fn free_space_where_the_server_keeps_its_data() {
    let container = PgContainer::start(15).unwrap();
    let executor = executor(&container, 15, "space").await;
    let shown = container
        .exec(&["df", "-B1", "--output=avail", "/var/lib/postgresql/data"])
        .unwrap();
    let shown: u64 = shown.lines().nth(1).unwrap().trim().parse().unwrap();
    let free = executor
        .free_bytes("/var/lib/postgresql/data")
        .await
        .unwrap()
        .unwrap();
    assert!(
        free.abs_diff(shown) < 4 << 30,
        "{free} is not about {shown}"
    );
    let memory = executor.free_bytes("/dev/shm").await.unwrap().unwrap();
    assert!((32 << 20..=64 << 20).contains(&memory), "{memory}");
    for nothing in ["/none such", "$(echo /)", "-k", "/etc/passwd"] {
        assert_eq!(
            executor.free_bytes(nothing).await.unwrap(),
            None,
            "{nothing}"
        );
    }
    let bare = PgContainer::builder(15)
        .image(&testkit::images::shell_less())
        .start()
        .unwrap();
    let executor = self::executor(&bare, 15, "bare-space").await;
    assert_eq!(executor.free_bytes("/srv/data").await.unwrap(), None);
}
