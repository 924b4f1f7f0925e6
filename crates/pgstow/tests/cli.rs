//! The command line without a server: usage, configuration, directories, exit codes, JSON shapes.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// A home of its own, no engine, no server in the environment.
struct Home {
    dir: tempfile::TempDir,
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// The last line of standard output, decoded.
    fn json(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

impl Home {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("the test's own files and processes work"),
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the program under test is started as a shell would"
    )]
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgstow"));
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path())
            .env("XDG_CONFIG_HOME", self.path().join("config"))
            .env("PGSTOW_DATA_DIR", self.path().join("data"))
            // Named on purpose, so that no other engine is tried.
            .env("DOCKER_HOST", format!("unix://{}/no.sock", self.path().display()));
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, &[])
    }

    fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        let Output {
            status,
            stdout,
            stderr,
        } = self
            .command(args)
            .envs(env.iter().copied())
            .output()
            .expect("the test's own files and processes work");
        Ran {
            code: status.code().expect("it was not ended by a signal"),
            stdout: String::from_utf8(stdout).expect("UTF-8"),
            stderr: String::from_utf8(stderr).expect("UTF-8"),
        }
    }

    fn configure(&self, text: &str) {
        let dir = self.path().join("config/pgstow");
        std::fs::create_dir_all(&dir).expect("the test's own files and processes work");
        std::fs::write(dir.join("config.toml"), text)
            .expect("the test's own files and processes work");
    }
}

#[test]
fn usage_errors_exit_with_2() {
    let home = Home::new();
    for args in [
        &[][..],
        &["bakcup"],
        &["backup", "--no-such-option"],
        &["backup", "--format", "tar"],
        &["backup", "nowhere"],
        &["backup", "container:"],
        &["backup", "mysql://u@h/d"],
        &["backup", "--tag", "novalue"],
        &["backup", "--jobs", "4", "--engine", "stock"],
        &["backup", "--jobs", "4", "--format", "plain"],
        &["backup", "--jobs", "0"],
        &["backup", "--engine", "parallel", "--format", "plain"],
        &["backup", "--engine", "fast"],
        &["restore", "latest", "--engine", "fast"],
        &["backup", "--lock-wait-timeout", "soon"],
        &["verify"],
        &["verify", "latest", "--level", "surely"],
        &["prune"],
        &["prune", "--keep-last", "0"],
        &["restore"],
        &["restore", "./dump"],
        &["restore", "latest", "--resume"],
        &["restore", "latest", "--as", "a", "--in-place"],
        &["restore", "latest", "--as", "a", "--keep-old", "7d"],
        &["restore", "latest", "--keep-old", "long"],
        &["restore", "latest", "--as", "a", "--yes", "a"],
        &["restore", "latest", "--as", ""],
        &["export", "latest"],
        &["show"],
    ] {
        let ran = home.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty(), "{args:?} says nothing");
        assert!(ran.stdout.is_empty(), "{args:?}: {}", ran.stdout);
    }
    assert!(
        !home.path().join("data").exists(),
        "a usage error makes no directories"
    );
}

#[test]
fn a_restore_of_a_file_without_a_place_proposes_the_command() {
    let home = Home::new();
    let ran = home.run(&["restore", "./a b'c"]);
    let proposal = r"pgstow restore './a b'\''c' --as copy";
    assert!(ran.stderr.contains(proposal), "{}", ran.stderr);
}

#[test]
fn without_a_restore_there_is_nothing_to_resume_or_roll_back() {
    let home = Home::new();
    let ran = home.run(&["restore", "--resume"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("nothing to resume"), "{}", ran.stderr);
    let ran = home.run(&["rollback"]);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(!home.path().join("data").exists());
}

#[test]
fn usage_errors_have_the_json_shape_too() {
    let home = Home::new();
    for args in [
        &["restore", "./file", "--json"][..],
        &["backup", "--json", "--wat"],
    ] {
        let ran = home.run(args);
        assert_eq!(ran.code, 2);
        let error = &ran.json()["error"];
        assert_eq!(error["code"], "USAGE", "{}", ran.stdout);
        assert_eq!(error["exit_code"], 2);
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
        assert!(error["causes"].is_array() && error["hints"].is_array());
    }
}

#[test]
fn help_and_version_are_results() {
    let home = Home::new();
    for args in [&["--help"][..], &["--version"], &["restore", "--help"]] {
        let ran = home.run(args);
        assert_eq!(ran.code, 0);
        assert!(!ran.stdout.is_empty() && ran.stderr.is_empty(), "{args:?}");
    }
    let help = home.run(&["--help"]).stdout;
    for word in [
        "PGSTOW_DATA_DIR",
        "TARGET_CONTAINER",
        "30 verification failed",
    ] {
        assert!(help.contains(word), "{word} is not in --help");
    }
}

#[test]
fn unknown_keys_of_the_configuration_are_refused_with_a_suggestion() {
    let home = Home::new();
    home.configure("[connection]\nlock_wait_timout = \"5s\"\n");
    let ran = home.run(&["list"]);
    assert_eq!(ran.code, 2);
    for word in [
        "connection.lock_wait_timout",
        "did you mean \"connection.lock_wait_timeout\"",
        "config.toml",
    ] {
        assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
    }
}

#[test]
fn config_show_tells_where_each_value_comes_from() {
    let home = Home::new();
    home.configure("[connection]\nlock_wait_timeout = \"5s\"\nmax_connections = 3\n");
    let extra = home.path().join("extra.toml");
    std::fs::write(&extra, "[connection]\nmax_connections = 2\n").unwrap();
    let extra = extra.to_str().unwrap();
    let env = [("PGSTOW_STALL_TIMEOUT", "90s")];
    let ran = home.run_with(&["config", "show", "--origin", "--config", extra], &env);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for (key, value, origin) in [
        (
            "connection.lock_wait_timeout",
            "\"5s\"",
            "config/pgstow/config.toml",
        ),
        ("connection.max_connections", "2", "extra.toml"),
        (
            "connection.stall_timeout",
            "\"90s\"",
            "environment variable PGSTOW_STALL_TIMEOUT",
        ),
        ("connection.connect_timeout", "\"10s\"", "built-in default"),
        ("data_dir", "", "environment variable PGSTOW_DATA_DIR"),
    ] {
        let line = ran
            .stdout
            .lines()
            .find(|line| line.starts_with(&format!("{key} = {value}")));
        assert!(
            line.is_some_and(|line| line.contains(origin)),
            "{key}: {}",
            ran.stdout
        );
    }
    let json = home
        .run_with(&["--config", extra, "config", "show", "--json"], &env)
        .json();
    assert_eq!(json["connection.max_connections"]["value"], 2);
    assert_eq!(json["connection.max_connections"]["origin"], "file");
    assert_eq!(
        json["connection.stall_timeout"]["name"],
        "PGSTOW_STALL_TIMEOUT"
    );
}

#[test]
fn a_configuration_file_that_was_named_must_be_there() {
    let home = Home::new();
    let ran = home.run(&["list", "--config", "/no/such/file.toml"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("/no/such/file.toml"), "{}", ran.stderr);
}

#[test]
fn nothing_found_exits_with_10_and_says_the_ways_out() {
    let home = Home::new();
    for args in [&["discover"][..], &["discover", "--all"], &["backup"]] {
        let ran = home.run(args);
        assert_eq!(ran.code, 10, "{args:?}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("DATABASE_NOT_FOUND"),
            "{args:?}: {}",
            ran.stderr
        );
        assert!(
            ran.stderr.contains("no.sock"),
            "the engine that was tried: {}",
            ran.stderr
        );
    }
    let ran = home.run(&["backup"]);
    for way in ["container:NAME", "POSTGRES_HOST", "pgstow.enable=true"] {
        assert!(ran.stderr.contains(way), "{way}: {}", ran.stderr);
    }
    let ran = home.run(&["discover", "--explain"]);
    for step in ["environment", "container_list", "persisted_file"] {
        assert!(ran.stdout.contains(step), "{step}: {}", ran.stdout);
    }
    let ran = home.run(&["discover", "--json"]);
    assert_eq!(ran.json()["error"]["exit_code"], 10);
    let trail: Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    assert!(
        trail["trail"]
            .as_array()
            .is_some_and(|trail| !trail.is_empty())
    );
}

#[test]
fn incomplete_settings_name_the_variables() {
    let home = Home::new();
    let ran = home.run_with(&["discover"], &[("POSTGRES_HOST", "db.example.com")]);
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert!(ran.stderr.contains("INVALID_DB_CONFIG"), "{}", ran.stderr);
    assert!(ran.stderr.contains("POSTGRES_DATABASE"), "{}", ran.stderr);
}

#[test]
fn an_unreachable_server_says_so_and_no_secret() {
    let home = Home::new();
    let url = "postgres://u:canary-2718@127.0.0.1:1/db";
    let ran = home.run(&["discover", url, "-vvv"]);
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert!(ran.stderr.contains("SERVER_UNREACHABLE"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("process list"),
        "a password in an argument: {}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("canary-2718"), "{}", ran.stderr);
    let file = home.path().join("password");
    std::fs::write(&file, "canary-2718\n").unwrap();
    let args = [
        "discover",
        "--host",
        "127.0.0.1",
        "--port",
        "1",
        "--username",
        "u",
        "--dbname",
        "d",
        "--password-file",
        file.to_str().unwrap(),
        "--json",
    ];
    let ran = home.run(&args);
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("canary-2718"));
    assert!(!ran.stderr.contains("process list"), "{}", ran.stderr);
}

#[test]
fn metrics_are_written_also_by_a_command_that_fails() {
    let home = Home::new();
    let path = home.path().join("pgstow.prom");
    let ran = home.run(&["backup", "--metrics-textfile", path.to_str().unwrap()]);
    assert_eq!(ran.code, 10);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("pgstow_run_exit_code 10\n"), "{text}");
    assert!(
        text.contains("pgstow_discovery_step_total{step=\"container_list\",outcome=\"failed\"} 1"),
        "{text}"
    );
}

#[test]
fn an_empty_data_directory_lists_nothing_and_is_not_made() {
    let home = Home::new();
    let ran = home.run(&["list"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    assert!(ran.stderr.contains("no backups"), "{}", ran.stderr);
    let ran = home.run(&["list", "--json"]);
    let json = ran.json();
    for key in ["backups", "runs", "damaged"] {
        assert_eq!(json[key], serde_json::json!([]), "{key}");
    }
    assert!(!home.path().join("data").exists());
    for args in [
        &["show", "latest"][..],
        &["verify", "latest"],
        &["export", "latest", "-o", "x"],
        &["restore", "latest", "--as", "copy"],
        &["restore", "latest"],
    ] {
        let ran = home.run(args);
        assert_eq!(ran.code, 4, "{args:?}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("BACKUP_NOT_FOUND"),
            "{args:?}: {}",
            ran.stderr
        );
    }
    assert_eq!(home.run(&["prune", "--keep-last", "3"]).code, 0);
}

#[test]
fn bar_39_unsafe_directories_are_refused() {
    let home = Home::new();
    let data = home.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let loose = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    };
    loose(&data);
    for args in [&["list"][..], &["backup"], &["prune", "--keep-last", "1"]] {
        let ran = home.run(args);
        assert_eq!(ran.code, 20, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("0777"), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("chmod 700"), "{args:?}: {}", ran.stderr);
    }
    std::fs::remove_dir(&data).unwrap();
    let elsewhere = home.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &data).unwrap();
    let ran = home.run(&["backup"]);
    assert_eq!(ran.code, 20, "{}", ran.stderr);
    assert!(ran.stderr.contains("symbolic link"), "{}", ran.stderr);
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    std::fs::remove_file(&data).unwrap();
    std::fs::create_dir(&data).unwrap();
    symlink(&elsewhere, data.join("state")).unwrap();
    let ran = home.run(&["backup"]);
    assert_eq!(ran.code, 20, "{}", ran.stderr);
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn bar_39_directories_are_made_private() {
    let home = Home::new();
    // Fails for want of a server, after the directories are there.
    assert_eq!(home.run(&["backup"]).code, 10);
    for name in ["data", "data/backups", "data/state"] {
        let mode = home
            .path()
            .join(name)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o700, "{name}");
    }
}

#[test]
fn doctor_names_what_is_bad_with_its_fix() {
    let home = Home::new();
    let ran = home.run(&["doctor"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    for word in ["ok   data directory", "ok   store", "BAD  server", "fix:"] {
        assert!(ran.stdout.contains(word), "{word}: {}", ran.stdout);
    }
    let json = home.run(&["doctor", "--json"]);
    let report: Value = serde_json::from_str(json.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(json.json()["error"]["code"], "DOCTOR_FAILED");
    let backups = home.path().join("data/backups");
    assert_eq!(
        std::fs::read_dir(backups).unwrap().count(),
        0,
        "the probe is gone"
    );
}

#[test]
fn a_password_in_a_url_is_not_repeated() {
    let home = Home::new();
    let url = "postgres://u:canary-1618@h.example/d";
    let config = format!("[target]\nname = \"{url}\"\n[targets]\nshop = \"{url}\"\n");
    home.configure(&config);
    for args in [
        &["config", "show", "--origin"][..],
        &["config", "show", "--json"],
        &["list", url],
        &["list", url, "--json"],
        &["backup", url, url],
    ] {
        let ran = home.run(args);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains("u:***@h.example"), "{args:?}: {said}");
        assert!(!said.contains("canary-1618"), "{args:?}: {said}");
    }
    // A line that is no TOML is not shown: it may hold a password.
    home.configure("[target]\npassword = \"canary-1618\n");
    let ran = home.run(&["list"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("line 2"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("canary-1618"), "{}", ran.stderr);
}

#[test]
fn the_log_is_text_or_json() {
    let home = Home::new();
    let env = [("PGSTOW_LOG", "trace"), ("PGSTOW_LOG_FORMAT", "json")];
    let ran = home.run_with(&["discover"], &env);
    let lines: Vec<Value> = ran
        .stderr
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line["level"].is_string() && line["fields"].is_object()),
        "{}",
        ran.stderr
    );
    let ran = home.run_with(&["list"], &[("PGSTOW_LOG_FORMAT", "xml")]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("PGSTOW_LOG_FORMAT"), "{}", ran.stderr);
}

#[test]
fn a_password_program_that_takes_its_time_can_be_interrupted() {
    let home = Home::new();
    let running = home.path().join("running");
    let script = format!("touch {}; exec sleep 60", running.display());
    home.configure(&format!(
        "[target]\nname = \"postgres://u@127.0.0.1:1/d\"\n\
         password = {{ command = [\"sh\", \"-c\", \"{script}\"] }}\n"
    ));
    let mut child = home.command(&["discover"]).spawn().unwrap();
    while !running.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    testkit::process::run("kill", &["-TERM", &child.id().to_string()]).unwrap();
    let since = std::time::Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(since.elapsed().as_secs() < 5, "{:?}", since.elapsed());
}

#[test]
fn colours_can_be_asked_for() {
    let home = Home::new();
    let ran = home.run(&["backup", "--color", "always"]);
    assert!(
        ran.stderr.starts_with("\u{1b}[1;31merror:"),
        "{:?}",
        ran.stderr
    );
    assert_eq!(home.run(&["backup", "--color", "sometimes"]).code, 2);
}

#[test]
fn completions_are_printed_for_each_shell() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = home.run(&["completions", shell]);
        assert_eq!(ran.code, 0, "{shell}");
        assert!(ran.stdout.contains("restore"), "{shell}");
    }
    assert_eq!(home.run(&["completions", "tcsh"]).code, 2);
}

#[test]
fn quiet_leaves_results_and_errors() {
    let home = Home::new();
    let ran = home.run(&["list", "--quiet"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let ran = home.run(&["--quiet", "backup"]);
    assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
}

#[test]
fn errors_have_no_colour_codes_without_a_terminal() {
    let home = Home::new();
    let ran = home.run(&["backup"]);
    assert!(!ran.stderr.contains('\u{1b}'), "{:?}", ran.stderr);
}
