//! Throw-away servers, in real containers and with this host's programs.

mod engine_support;
mod leftover_support;
mod owner_support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dbexec::executor::HostPrograms;
use dbexec::runtime::{ContainerRuntime, EndpointInput, connect_runtime};
use dbexec::{
    ExecError, Invocation, PgProgram, PsqlSession, Sandbox, SandboxError, SandboxPlace,
    SandboxSpec, query, reap_sandboxes,
};
use engine_support::{containers_of, run_id};
use leftover_support::{become_gone, volume_exists, volumes};
use testkit::process::docker;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

async fn runtime() -> Arc<dyn ContainerRuntime> {
    let runtime = connect_runtime(&EndpointInput::default()).await;
    Arc::new(runtime.expect("an engine answers"))
}

fn spec(place: SandboxPlace, major: u32, run_id: &str) -> SandboxSpec {
    SandboxSpec {
        place,
        major,
        run_id: run_id.to_owned(),
        settings: BTreeMap::new(),
        env: vec![
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("POSTGRES_PASSWORD".to_owned(), "canary-secret".to_owned()),
        ],
        superuser: "postgres".to_owned(),
        memory_bytes: 512 << 20,
        cpus: 1.5,
        disk_bytes: 64 << 20,
        start_timeout: Duration::from_secs(120),
    }
}

async fn image(image: &str) -> SandboxPlace {
    SandboxPlace::Image {
        runtime: runtime().await,
        image: image.to_owned(),
    }
}

async fn start(spec: &SandboxSpec) -> Result<Sandbox, SandboxError> {
    Sandbox::start(spec, &CancellationToken::new()).await
}

/// Containers of a run, in any state.
fn containers(run: &str) -> Vec<String> {
    containers_of("sandbox", run)
}

async fn answer(sandbox: &Sandbox, database: &str, select: &str) -> Vec<serde_json::Value> {
    query::rows(sandbox.executor().as_ref(), database, "test", select, &[])
        .await
        .expect("the server answers")
}

#[tokio::test]
async fn a_server_of_every_major_is_there_and_then_gone() {
    for major in testkit::images::MAJORS {
        let run = run_id("sandbox");
        let spec = spec(image(&testkit::images::postgres(major)).await, major, &run);
        let sandbox = start(&spec).await.unwrap();
        let executor = sandbox.executor();
        assert_eq!(executor.context().server.major(), major);
        assert!(executor.context().server.is_superuser);
        let rows = answer(
            &sandbox,
            "pgstow_sandbox",
            "select datname, pg_encoding_to_char(encoding) as encoding from pg_database order by 1",
        )
        .await;
        let names: Vec<_> = rows
            .iter()
            .map(|row| row["datname"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["pgstow_sandbox", "template0", "template1"]);
        query::execute(
            executor.as_ref(),
            "pgstow_sandbox",
            "create",
            "create database postgres template template0;",
            &[],
            false,
        )
        .await
        .unwrap();
        for program in [PgProgram::PgDump, PgProgram::PgRestore, PgProgram::Psql] {
            assert_eq!(executor.program(program).await.unwrap().major, major);
        }
        assert!(executor.free_bytes("/var/tmp").await.unwrap().is_some());
        assert!(
            sandbox
                .describe()
                .contains(&testkit::images::postgres(major))
        );
        assert!(sandbox.image_digest().unwrap().starts_with("sha256:"));
        assert_eq!(sandbox.lost(), None);
        let found = containers(&run);
        assert_eq!(found.len(), 1);
        let kept = volumes(&found[0]);
        assert!(!kept.is_empty(), "the image declares a volume");
        let since = Instant::now();
        sandbox.remove().await.unwrap();
        assert!(since.elapsed() < Duration::from_secs(10));
        assert_eq!(containers(&run), Vec::<String>::new());
        for volume in kept {
            assert!(!volume_exists(&volume), "volume {volume} is left");
        }
    }
}

#[tokio::test]
async fn limits_and_walls_show_in_the_engines_own_words() {
    let run = run_id("walls");
    let spec = spec(image(&testkit::images::postgres(15)).await, 15, &run);
    let sandbox = start(&spec).await.unwrap();
    let id = containers(&run).remove(0);
    let shown = docker(&["inspect", &id]).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let (host, config) = (&shown[0]["HostConfig"], &shown[0]["Config"]);
    assert_eq!(host["Memory"], 512 << 20);
    assert_eq!(host["MemorySwap"], 512 << 20);
    assert_eq!(host["NanoCpus"], 1_500_000_000_u64);
    assert_eq!(host["PidsLimit"], 512);
    assert_eq!(host["NetworkMode"], "none");
    assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]));
    assert_eq!(
        host["SecurityOpt"],
        serde_json::json!(["no-new-privileges"])
    );
    assert_eq!(host["AutoRemove"], true);
    assert_eq!(host["LogConfig"]["Type"], "none");
    assert!(host["Binds"].is_null() && host["Privileged"] == false);
    assert!(
        host["PortBindings"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty)
    );
    assert_eq!(config["User"], "postgres");
    assert_eq!(config["StdinOnce"], true);
    assert_eq!(config["Labels"]["pgstow.enable"], "false");
    let env = config["Env"].to_string();
    assert!(
        env.contains("LANG=C.UTF-8") && !env.contains("canary-secret"),
        "{env}"
    );
    // No way out, and none in.
    let links = docker(&[
        "exec",
        &id,
        "sh",
        "-c",
        "cat /proc/net/dev | tail -n +3 | cut -d: -f1",
    ]);
    assert_eq!(links.unwrap().trim(), "lo");
    let listening = "select setting from pg_settings where name = 'listen_addresses'";
    assert_eq!(
        answer(&sandbox, "template1", listening).await[0]["setting"],
        ""
    );
    let status = docker(&[
        "exec",
        &id,
        "sh",
        "-c",
        "grep -E 'CapEff|NoNewPrivs' /proc/1/status",
    ])
    .unwrap();
    assert!(
        status.contains("0000000000000000") && status.contains("NoNewPrivs:\t1"),
        "{status}"
    );
    sandbox.remove().await.unwrap();
    assert!(containers(&run).is_empty());
}

#[tokio::test]
async fn images_of_other_makers_and_settings_of_the_source() {
    for image_name in [
        testkit::images::bitnami(),
        testkit::images::kartoza(),
        testkit::images::app(15),
    ] {
        let run = run_id("other");
        let mut spec = spec(image(&image_name).await, 15, &run);
        spec.superuser = "o'wner \"x\"".to_owned();
        spec.settings = [
            (
                "shared_preload_libraries",
                "pg_stat_statements,auto_explain",
            ),
            ("max_locks_per_transaction", "222"),
            ("bytea_output", "escape"),
            ("listen_addresses", "*"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let sandbox = start(&spec).await.unwrap();
        let select = "select current_user as who, current_setting('shared_preload_libraries') as libraries, \
            current_setting('max_locks_per_transaction') as locks, \
            current_setting('listen_addresses') as addresses";
        let row = &answer(&sandbox, "template1", select).await[0];
        assert_eq!(row["who"], "o'wner \"x\"");
        assert_eq!(row["libraries"], "pg_stat_statements,auto_explain");
        assert_eq!(row["locks"], "222");
        assert_eq!(row["addresses"], "");
        sandbox.remove().await.unwrap();
        assert!(containers(&run).is_empty());
    }
}

#[tokio::test]
async fn an_extension_that_needs_its_library_at_the_start() {
    let run = run_id("preload");
    let mut spec = spec(image(&testkit::images::preload(15)).await, 15, &run);
    // More processors than any machine has are no limit.
    spec.cpus = 512.0;
    let create = async |spec: &SandboxSpec| {
        let sandbox = start(spec).await.unwrap();
        let script = "create extension stowloaded; create extension timescaledb;";
        let executor = sandbox.executor();
        let created = query::execute(
            executor.as_ref(),
            "template1",
            "extension",
            script,
            &[],
            true,
        )
        .await;
        sandbox.remove().await.unwrap();
        created
    };
    let libraries = "auto_explain,pg_stat_statements".to_owned();
    let error = create(&spec).await.unwrap_err();
    assert!(
        error.to_string().contains("shared_preload_libraries"),
        "{error}"
    );
    spec.settings
        .insert("shared_preload_libraries".to_owned(), libraries);
    create(&spec).await.unwrap();
    assert!(containers(&run).is_empty());
}

#[tokio::test]
async fn what_is_missing_is_told_and_nothing_is_left() {
    let run = run_id("missing");
    let refusal = async |spec: SandboxSpec| {
        let error = start(&spec).await.err().expect("it cannot start");
        assert_eq!(containers(&run), Vec::<String>::new(), "{error}");
        error
    };
    let error = refusal(spec(image("pgstow-test/none-such:1").await, 15, &run)).await;
    assert_eq!(error.code(), "SANDBOX_UNAVAILABLE");
    assert!(
        error
            .to_string()
            .contains("docker pull pgstow-test/none-such:1"),
        "{error}"
    );
    let error = refusal(spec(image(&testkit::images::shell_less()).await, 15, &run)).await;
    assert!(matches!(error, SandboxError::NoShell { .. }), "{error:?}");
    let error = refusal(spec(image(&testkit::images::postgres(15)).await, 17, &run)).await;
    assert!(
        matches!(error, SandboxError::ProgramsMissing { major: 17, .. }),
        "{error:?}"
    );
    let mut wanted = spec(image(&testkit::images::postgres(15)).await, 15, &run);
    wanted.disk_bytes = 1 << 50;
    let error = refusal(wanted).await;
    assert_eq!(error.code(), "SANDBOX_UNAVAILABLE");
    assert!(
        error.to_string().contains("needs 1073741824 MiB"),
        "{error}"
    );
    let mut wanted = spec(image(&testkit::images::postgres(15)).await, 15, &run);
    let setting = (
        "shared_preload_libraries".to_owned(),
        "none_such".to_owned(),
    );
    wanted.settings.extend([setting]);
    let error = refusal(wanted).await;
    assert_eq!(error.code(), "SANDBOX_FAILED");
    assert!(
        error
            .to_string()
            .contains("could not access file \"none_such\""),
        "{error}"
    );
    let mut wanted = spec(image(&testkit::images::postgres(15)).await, 15, &run);
    wanted.superuser = "pg_evil".to_owned();
    let error = refusal(wanted).await;
    assert!(error.to_string().contains("pg_evil"), "{error}");
    // Cancelled while it starts.
    let wanted = spec(image(&testkit::images::postgres(15)).await, 15, &run);
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(900)).await;
        stop.cancel();
    });
    let error = Sandbox::start(&wanted, &cancel).await.err().unwrap();
    assert_eq!(error.code(), "INTERRUPTED");
    assert!(containers(&run).is_empty());
    let mut wanted = spec(image(&testkit::images::postgres(15)).await, 15, &run);
    wanted.start_timeout = Duration::from_millis(300);
    let error = refusal(wanted).await;
    assert!(matches!(error, SandboxError::TooSlow { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_is_stopped_before_the_disk_is_full() {
    // The script by itself, with a floor that no disk reaches.
    let script = concat!(
        include_str!("../src/sandbox/line.sh"),
        include_str!("../src/sandbox/server.sh")
    );
    let name = run_id("floor");
    let image = testkit::images::postgres(15);
    let mut command = tokio::process::Command::new("docker");
    command
        .args([
            "run",
            "-i",
            "--rm",
            "--network",
            "none",
            "--user",
            "postgres",
            "--name",
            &name,
        ])
        .args(["--entrypoint", "sh", &image, "-c", script, "pgstow-sandbox"])
        .args(["15", "postgres", "1000", "1099511627776", "60", "", ""])
        .args(["-c", "listen_addresses="])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let held = child.stdin.take().unwrap();
    let mut said = String::new();
    let mut output = child.stdout.take().unwrap();
    let reading = output.read_to_string(&mut said);
    tokio::time::timeout(Duration::from_secs(60), reading)
        .await
        .expect("it ends by itself")
        .unwrap();
    let words: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split('\t').nth(1))
        .collect();
    assert_eq!(words, ["ready", "full"], "{said}");
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
    assert!(docker(&["inspect", &name]).is_err());
    drop(held);
}

#[tokio::test]
async fn a_dropped_sandbox_goes_away_and_a_killed_one_is_told() {
    let run = run_id("dropped");
    let spec = spec(image(&testkit::images::postgres(17)).await, 17, &run);
    let sandbox = start(&spec).await.unwrap();
    let kept = volumes(&containers(&run)[0]);
    drop(sandbox);
    become_gone("sandbox", &run, &kept).await;
    let sandbox = start(&spec).await.unwrap();
    docker(&["kill", &containers(&run)[0]]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while sandbox.lost().is_none() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(sandbox.lost().unwrap().contains("from outside"));
    sandbox.remove().await.unwrap();
    assert!(containers(&run).is_empty());
    // The server alone ends: the rest follows.
    let sandbox = start(&spec).await.unwrap();
    let kill = Invocation::new(
        PgProgram::Psql,
        [
            "-Xc",
            "copy (select 1) to program 'kill -9 $(head -n 1 postmaster.pid)'",
        ]
        .map(str::to_owned)
        .to_vec(),
        Some("template1".to_owned()),
        dbexec::executor::Input::Nothing,
        CancellationToken::new(),
    );
    let program = sandbox.executor().start(kill).await.unwrap();
    let ended: Result<_, ExecError> = program.finish(PgProgram::Psql).await;
    drop(ended);
    let deadline = Instant::now() + Duration::from_secs(10);
    while sandbox.lost().is_none() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        sandbox.lost().as_deref(),
        Some("the server ended by itself")
    );
    sandbox.remove().await.unwrap();
    assert!(containers(&run).is_empty());
}

#[tokio::test]
async fn a_container_whose_owner_died_before_its_start_is_reaped() {
    let run = run_id("orphan");
    let read = |path: &str| std::fs::read_to_string(path).unwrap().trim().to_owned();
    let space = std::fs::read_link("/proc/self/ns/pid").unwrap();
    // A process that is there no more.
    let mut child = tokio::process::Command::new("true").spawn().unwrap();
    let pid = child.id().unwrap();
    child.wait().await.unwrap();
    let labels = |pid: u32| {
        [
            format!("pgstow.sandbox={run}"),
            "pgstow.enable=false".to_owned(),
            format!("pgstow.owner.host={}", read("/proc/sys/kernel/hostname")),
            format!(
                "pgstow.owner.boot={}",
                read("/proc/sys/kernel/random/boot_id")
            ),
            format!("pgstow.owner.pidns={}", space.display()),
            format!("pgstow.owner.pid={pid}"),
            "pgstow.owner.start=1".to_owned(),
        ]
    };
    let create = |labels: &[String]| {
        let mut args = vec!["create"];
        for label in labels {
            args.extend(["--label", label]);
        }
        let image = testkit::images::postgres(15);
        args.push(&image);
        docker(&args).unwrap().trim().to_owned()
    };
    let orphan = create(&labels(pid));
    let kept = volumes(&orphan);
    let foreign = create(&labels(pid)[..1]);
    let spec = spec(image(&testkit::images::postgres(15)).await, 15, &run);
    let living = start(&spec).await.unwrap();
    let count = reap_sandboxes(runtime().await.as_ref()).await.unwrap();
    assert!(count >= 1);
    let left = containers(&run);
    docker(&["rm", "-f", "-v", &foreign]).unwrap();
    assert!(
        !left.contains(&orphan) && left.contains(&foreign),
        "{left:?}"
    );
    assert_eq!(left.len(), 2, "the living one stays");
    assert!(kept.iter().all(|volume| !volume_exists(volume)));
    living.remove().await.unwrap();
}

fn host_programs(scratch: &std::path::Path) -> HostPrograms {
    HostPrograms {
        bin_dir: None,
        path_dirs: vec!["/usr/bin".into(), "/bin".into()],
        scratch_root: scratch.to_owned(),
    }
}

#[tokio::test]
async fn a_server_of_this_hosts_programs() {
    testkit::engine::install(&["postgresql-15"], "pg_dump", &|_| {}).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let programs = host_programs(scratch.path());
    let spec = spec(SandboxPlace::Host { programs }, 15, &run_id("host"));
    let sandbox = start(&spec).await.unwrap();
    let executor = sandbox.executor();
    assert_eq!(executor.context().server.major(), 15);
    assert_eq!(sandbox.image_digest(), None);
    assert!(
        sandbox.describe().contains("/usr/lib/postgresql/15/bin"),
        "{}",
        sandbox.describe()
    );
    let row = answer(
        &sandbox,
        "pgstow_sandbox",
        "select current_setting('data_directory') as dir",
    )
    .await;
    let data = std::path::PathBuf::from(row[0]["dir"].as_str().unwrap());
    assert!(data.is_dir());
    let free = executor
        .free_bytes(&data.display().to_string())
        .await
        .unwrap();
    assert!(free.is_some_and(|free| free > 1 << 20));
    // A kept-open psql of this host: its answers and its errors come through two pipes.
    let cancel = CancellationToken::new();
    let mut session = PsqlSession::open(executor.as_ref(), "template1", &cancel)
        .await
        .unwrap();
    for number in 0..50 {
        let error = session
            .run("bad", "select * from none_such;", &[])
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("\"none_such\" does not exist"),
            "{error}"
        );
        let text = number.to_string();
        let answer = session
            .run("good", "select :'v';", &[("v", &text)])
            .await
            .unwrap();
        assert_eq!(answer.trim(), text);
    }
    let waiting = session.run("wait", "select pg_sleep(600);", &[]);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), waiting)
            .await
            .is_err()
    );
    drop(session);
    let count = "select count(*) as sessions from pg_stat_activity where application_name like '%-s_' or application_name like '%-s__'";
    let deadline = Instant::now() + Duration::from_secs(5);
    while answer(&sandbox, "template1", count).await[0]["sessions"] != 0 {
        assert!(
            Instant::now() < deadline,
            "the dropped session is still there"
        );
    }
    sandbox.remove().await.unwrap();
    assert!(!data.parent().unwrap().exists());
    // Dropped.
    let sandbox = start(&spec).await.unwrap();
    let row = answer(
        &sandbox,
        "pgstow_sandbox",
        "select current_setting('data_directory') as dir",
    )
    .await;
    let data = std::path::PathBuf::from(row[0]["dir"].as_str().unwrap());
    drop(sandbox);
    let deadline = Instant::now() + Duration::from_secs(10);
    while data.parent().unwrap().exists() {
        assert!(Instant::now() < deadline, "{data:?} is left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut none = spec.clone();
    none.major = 99;
    let error = start(&none).await.err().unwrap();
    assert!(
        error
            .to_string()
            .contains("this host has no server programs"),
        "{error}"
    );
}

/// Ends with the process: started by the tests below, told by its standard input what to start.
#[tokio::test]
#[ignore = "the process that other tests kill"]
async fn owner_that_is_killed() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let (run, scratch) = line.trim().split_once(' ').unwrap();
    let place = if scratch.is_empty() || scratch == "-" {
        image(&testkit::images::postgres(15)).await
    } else {
        let programs = host_programs(std::path::Path::new(scratch));
        SandboxPlace::Host { programs }
    };
    let sandbox = start(&spec(place, 15, run)).await.unwrap();
    println!("ready");
    std::future::pending::<()>().await;
    drop(sandbox);
}

/// Kills an owner after a time (`None`: when its server answers).
async fn kill_an_owner(run: &str, scratch: &str, after: Option<Duration>) {
    owner_support::kill_an_owner(&format!("{run} {scratch}"), after, || {}).await;
}

#[tokio::test]
async fn bar_15_a_killed_owner_leaves_no_container_and_no_volume() {
    let before = all_volumes();
    let run = run_id("killed");
    kill_an_owner(&run, "-", None).await;
    become_gone("sandbox", &run, &[]).await;
    // Without anybody's help up to here; a container that never ran is found by the next run.
    for round in 0..12 {
        let time = Duration::from_millis(30 + round * 170);
        kill_an_owner(&run, "-", Some(time)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        reap_sandboxes(runtime().await.as_ref()).await.unwrap();
        become_gone("sandbox", &run, &[]).await;
    }
    // Volumes of other tests come and go: one of ours would stay.
    let mut left: Vec<String> = all_volumes();
    left.retain(|name| !before.contains(name));
    let deadline = Instant::now() + Duration::from_secs(60);
    while left.iter().any(|name| is_unused(name)) {
        assert!(Instant::now() < deadline, "unused volumes: {left:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        left.retain(|name| volume_exists(name));
    }
}

fn all_volumes() -> Vec<String> {
    let shown = docker(&["volume", "ls", "-q"]).expect("the engine answers");
    shown.lines().map(str::to_owned).collect()
}

/// Whether a volume is there and no container has it.
fn is_unused(name: &str) -> bool {
    let filter = format!("volume={name}");
    volume_exists(name)
        && docker(&["ps", "-aq", "--filter", &filter]).is_ok_and(|ids| ids.trim().is_empty())
}

#[tokio::test]
async fn bar_15_a_killed_owner_leaves_no_process_and_no_directory_on_this_host() {
    testkit::engine::install(&["postgresql-15"], "pg_dump", &|_| {}).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    // Where the tests run as root, the server's user has to get in.
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let place = scratch.path().display().to_string();
    let times = (0..8).map(|round| Some(Duration::from_millis(40 + round * 220)));
    for time in [None].into_iter().chain(times) {
        kill_an_owner("host-killed", &place, time).await;
        let deadline = Instant::now() + Duration::from_secs(15);
        let is_left = || {
            std::fs::read_dir(scratch.path()).unwrap().next().is_some()
                || processes_with(&place) > 0
        };
        while is_left() {
            assert!(
                Instant::now() < deadline,
                "killed after {time:?}: something is left"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A program that a shell starts beside itself begins with SIGQUIT ignored: an owner that goes
/// before the server handles the signal must not leave the server behind.
#[tokio::test]
async fn bar_15_an_owner_that_goes_while_the_server_starts_leaves_nothing() {
    testkit::engine::install(&["postgresql-15"], "pg_dump", &|_| {}).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let slow = tempfile::tempdir().unwrap();
    for dir in [&scratch, &slow] {
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    for program in ["initdb", "postgres"] {
        let text = format!(
            "#!/bin/sh\nif [ \"$(basename \"$0\")$1\" = postgres-D ]; then sleep 1; fi\n\
             exec /usr/lib/postgresql/15/bin/{program} \"$@\"\n"
        );
        let path = slow.path().join(program);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut programs = host_programs(scratch.path());
    programs.bin_dir = Some(slow.path().to_owned());
    let spec = spec(SandboxPlace::Host { programs }, 15, &run_id("host-slow"));
    let starting = format!("{}/postgres\0-D", slow.path().display());
    let place = scratch.path().display().to_string();
    let begun = async {
        while processes_with(&starting) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        started = start(&spec) => panic!("it was to be slow: {}", started.is_ok()),
        () = begun => {}
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while processes_with(&place) > 0 || std::fs::read_dir(&place).unwrap().next().is_some() {
        assert!(Instant::now() < deadline, "something is left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Processes of this host whose arguments hold a word; not this one.
fn processes_with(word: &str) -> usize {
    let all = std::fs::read_dir("/proc").expect("Linux");
    all.flatten()
        .filter(|entry| {
            std::fs::read(entry.path().join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
        })
        .count()
}
