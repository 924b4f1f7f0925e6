//! The demo from the server programs of this host: the whole way without a container engine.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

#[expect(
    clippy::disallowed_methods,
    reason = "the program under test is started as a shell would"
)]
fn demo(home: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgstow"));
    command
        .args(["demo", "--json"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home)
        // Left over in many shells; the demo must not follow them.
        .env("PGHOST", "db.example.com")
        .env("PGPASSWORD", "canary-3141")
        .env("DOCKER_HOST", format!("unix://{}/no.sock", home.display()));
    command
}

#[test]
fn the_demo_works_without_a_container_engine() {
    let home = tempfile::tempdir().unwrap();
    let output = demo(home.path()).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let last: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["result"], "demo");
    assert_eq!(last["equal"], true);
    assert_eq!(last["before"], last["restored"]);
    let lines = &last["restored"]["tables"]["order_lines"];
    assert_eq!(lines["rows"], 120_000);
    assert!(!stdout.contains("canary-3141") && !stderr.contains("canary-3141"));
    assert!(
        !home.path().join(".local").exists(),
        "the user's own data directory is left alone"
    );
    // Nothing stays behind: its data directory was named in the result of the backup.
    let location = stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|value| value["location"].as_str().map(str::to_owned))
        .unwrap();
    assert!(
        !std::path::Path::new(&location).exists(),
        "{location} is still there"
    );
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    // While the server is made, while work runs on it, and while a program runs beside it.
    for step in ["a throw-away", "filling it", "backing it up"] {
        let home = tempfile::tempdir().unwrap();
        let scratch = home.path().join("scratch");
        // The server runs as somebody else.
        for dir in [home.path(), &scratch] {
            std::fs::create_dir_all(dir).unwrap();
            std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut child = demo(home.path())
            .env("TMPDIR", &scratch)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let reached = said
            .by_ref()
            .any(|line| line.is_ok_and(|line| line.contains(step)));
        assert!(reached, "{step} was never reached");
        std::thread::sleep(std::time::Duration::from_millis(150));
        testkit::process::run("kill", &["-INT", &child.id().to_string()]).unwrap();
        let rest: Vec<String> = said.map_while(Result::ok).collect();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(130), "{step}: {rest:#?}");
        let left: Vec<_> = std::fs::read_dir(&scratch).unwrap().collect();
        assert!(left.is_empty(), "{step}: {left:?}");
        let watch = testkit::cli::ProcessWatch::start(&scratch.display().to_string());
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(watch.finish(), Vec::<String>::new(), "{step}");
    }
}
