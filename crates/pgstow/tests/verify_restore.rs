//! `pgstow verify --level restore` as a user runs it: proofs that pass, that fail, that cannot be
//! had, and nothing that stays behind, whatever happens.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::{backups, below, catalog, cli};
use testkit::process::docker;
use testkit::{Cli, PgContainer, Run, images};

const SHOP: &str = "
create extension stowloaded;
create table orders (id int primary key, state stowloaded_state default 'cold');
insert into orders select g from generate_series(1, 500) g;
create table notes as select g as id, repeat('word ', g % 50) as note from generate_series(1, 2000) g;";

/// A server with preloaded libraries and an extension that no stock image has, and its backup.
fn backed_up(cli: &Cli) -> PgContainer {
    let container = PgContainer::builder(15)
        .image(&images::preload(15))
        .start()
        .unwrap();
    container.psql("postgres", "create database shop").unwrap();
    container.psql("shop", SHOP).unwrap();
    let target = container.target();
    let _ = cli.run(&["backup", target.as_str(), "--quiet"]).expect(0);
    container
}

/// Runs to the end; nothing of a throw-away server is left then.
fn run(cli: &Cli, args: &[&str]) -> Run {
    let mut command = cli.command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = child.id();
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!(containers(pid), Vec::<String>::new(), "{run:?}");
    run
}

/// Throw-away containers of a process.
fn containers(pid: u32) -> Vec<String> {
    let filter = format!("label=pgstow.owner.pid={pid}");
    let listed = docker(&["ps", "-aq", "--filter", &filter]).unwrap();
    listed.lines().map(str::to_owned).collect()
}

fn volumes(container: &str) -> Vec<String> {
    let format = "{{range .Mounts}}{{.Name}} {{end}}";
    let named = docker(&["inspect", "-f", format, container]).unwrap_or_default();
    named.split_whitespace().map(str::to_owned).collect()
}

fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        }
        found.insert(path);
    }
    found
}

#[test]
fn a_proof_needs_the_image_of_the_source_and_is_listed_and_shown() {
    let cli = cli();
    let _container = backed_up(&cli);
    let id = backups(&cli).remove(0);
    let before = files(cli.data_dir());

    // What cannot be had says nothing of the backup: no proof, no exit code of verification.
    let missing = [
        "verify",
        &id,
        "--level",
        "restore",
        "--image",
        "pgstow-test/none-such:1",
    ];
    let text = run(&cli, &missing).expect(1).stderr;
    assert!(text.contains("SANDBOX_UNAVAILABLE"), "{text}");
    let stock = images::postgres(15);
    let lacking = ["verify", &id, "--level", "restore", "--image", &stock];
    let text = run(&cli, &lacking).expect(1).stderr;
    assert!(
        text.contains("SANDBOX_UNAVAILABLE") && text.contains("\"stowloaded"),
        "{text}"
    );
    let text = cli
        .run(&["verify", &id, "--check", "select true"])
        .expect(2);
    assert!(text.stderr.contains("--level restore"), "{text:?}");
    assert_eq!(files(cli.data_dir()), before);

    let proven = run(&cli, &["verify", "latest", "--level", "restore", "--json"]).expect(0);
    let result: serde_json::Value =
        serde_json::from_str(proven.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(result["proofs"][0]["result"], "passed", "{result}");
    let new: Vec<_> = files(cli.data_dir()).difference(&before).cloned().collect();
    assert_eq!(new.len(), 1, "the proof alone: {new:?}");
    let catalog = catalog(&cli);
    assert_eq!(catalog["proofs"][0]["backup"], id.as_str());
    let listed = cli.run(&["list"]).expect(0).stdout;
    assert!(
        listed.contains("proven") && listed.contains("2/2 tables"),
        "{listed}"
    );
    let shown = cli.run(&["show", &id]).expect(0).stdout;
    assert!(
        shown.contains("EQUAL TABLES") && shown.contains("sha256:"),
        "{shown}"
    );
    let _ = cli.run(&["verify", &id]).expect(0);

    // The user's own checks: one that does not hold is a failed verification.
    let check = |sql: &str| run(&cli, &["verify", &id, "--level", "restore", "--check", sql]);
    let _ = check("select count(*) = 500 from orders where state = 'cold'").expect(0);
    let failed = check("select count(*) = 7 from orders").expect(30);
    assert!(failed.stderr.contains("it returned false"), "{failed:?}");
    let listed = cli.run(&["list"]).expect(0).stdout;
    assert!(listed.contains("FAILED"), "{listed}");
}

/// The archive of a later backup in place of the right one, with hashes that agree.
#[test]
fn a_replaced_archive_fails_with_the_table_that_differs() {
    let cli = cli();
    let container = backed_up(&cli);
    container
        .psql("shop", "delete from orders where id > 490")
        .unwrap();
    let target = container.target();
    let _ = cli.run(&["backup", target.as_str(), "--quiet"]).expect(0);
    let ids = backups(&cli);
    let dir = |id: &String| cli.data_dir().join("backups").join(id);
    let (newer, older) = (dir(&ids[0]), dir(&ids[1]));
    let read = |dir: &Path, name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&read(&newer, "manifest.json")).unwrap();
    let mut changed: serde_json::Value =
        serde_json::from_str(&read(&older, "manifest.json")).unwrap();
    let databases = changed["databases"].as_array_mut().unwrap();
    let at = databases.iter().position(|d| d["name"] == "shop").unwrap();
    let file = manifest["databases"][at]["archive"]["files"][0].clone();
    let name = file["name"].as_str().unwrap().to_owned();
    std::fs::copy(newer.join(&name), older.join(&name)).unwrap();
    databases[at]["archive"]["files"][0] = file;
    std::fs::write(older.join("manifest.json"), changed.to_string()).unwrap();
    // `sha256sum` knows nothing of pgstow.
    let mut sums = String::new();
    for line in read(&older, "SHA256SUMS").lines() {
        let name = line.split_once("  ").unwrap().1;
        let path = older.join(name);
        let told = testkit::process::run("sha256sum", &[path.to_str().unwrap()]).unwrap();
        let digest = told.split_whitespace().next().unwrap();
        sums.push_str(&format!("{digest}  {name}\n"));
    }
    std::fs::write(older.join("SHA256SUMS"), sums).unwrap();
    let _ = cli.run(&["verify", &ids[1], "--level", "hash"]).expect(0);
    let text = run(&cli, &["verify", &ids[1], "--level", "restore"])
        .expect(30)
        .stderr;
    assert!(text.contains("orders") && text.contains("490"), "{text}");
    let _ = run(&cli, &["verify", &ids[0], "--level", "restore"]).expect(0);
}

/// Killed or interrupted at any moment: no container, no volume, no file, and no proof.
#[test]
fn bar_01_a_killed_proof_leaves_no_server_and_no_record() {
    let cli = cli();
    let _container = backed_up(&cli);
    let args = ["verify", "latest", "--level", "restore"];
    let since = Instant::now();
    let _ = run(&cli, &args).expect(0);
    let whole = since.elapsed();
    let before = files(cli.data_dir());
    for (point, signal) in ["-KILL", "-KILL", "-INT", "-KILL", "-TERM", "-KILL"]
        .into_iter()
        .enumerate()
    {
        let mut child = cli.spawn(&args);
        let pid = child.id();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut found = containers(pid);
        while found.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            found = containers(pid);
        }
        assert!(!found.is_empty(), "point {point}: no server was started");
        let held: Vec<String> = found.iter().flat_map(|id| volumes(id)).collect();
        std::thread::sleep(whole.mul_f64(below(700) as f64 / 1000.0));
        let sent = testkit::process::run("kill", &[signal, &pid.to_string()]);
        let ended = child.wait().unwrap();
        if sent.is_ok() && signal != "-KILL" {
            assert!(
                matches!(ended.code(), Some(0 | 130 | 143)),
                "point {point}: {ended:?}"
            );
            assert_eq!(containers(pid), Vec::<String>::new(), "point {point}");
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while !containers(pid).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(containers(pid), Vec::<String>::new(), "point {point}");
        let volumes = docker(&["volume", "ls", "-q"]).unwrap();
        assert!(
            held.iter().all(|name| !volumes.contains(name.as_str())),
            "point {point}: {held:?} are left"
        );
        let new: Vec<_> = files(cli.data_dir())
            .difference(&before)
            .filter(|path| !(ended.success() && path.to_string_lossy().contains("/proof-")))
            .cloned()
            .collect();
        assert_eq!(new, Vec::<PathBuf>::new(), "point {point}");
        if ended.success() {
            for path in files(cli.data_dir()).difference(&before) {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    let _ = cli.run(&["verify", "latest"]).expect(0);
}

/// A server outside of containers is proven with server programs of this host.
#[test]
fn an_external_source_is_proven_with_programs_of_this_host() {
    // Locales of the image need not be known here.
    let container = PgContainer::builder(15)
        .env("POSTGRES_INITDB_ARGS", "--locale=C")
        .start()
        .unwrap();
    container
        .psql("postgres", "create table t as select 1 as one")
        .unwrap();
    let cli = cli().env(
        "DATABASE_URL",
        &format!(
            "postgres://postgres:{}@{}:5432/postgres",
            container.password(),
            container.ip().unwrap()
        ),
    );
    let done = run(&cli, &["backup", "--verify", "restore", "--json"]).expect(0);
    let result: serde_json::Value =
        serde_json::from_str(done.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(result["proof"]["result"], "passed", "{result}");
    let place = result["proof"]["place"].as_str().unwrap();
    assert!(place.contains("this host"), "{place}");
    // The manifest is as any other: the proof is beside it.
    assert_eq!(result["manifest"]["verified"], "read");
    let image = images::postgres(15);
    let _ = run(
        &cli,
        &["verify", "latest", "--level", "restore", "--image", &image],
    )
    .expect(0);
}
