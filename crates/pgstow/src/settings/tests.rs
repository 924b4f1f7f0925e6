//! Layers, origins and refusals of the configuration.

use clap::Parser;

use super::layers::{Layers, Origin, Value};
use super::*;
use crate::args::Cli;

fn resolve(toml: &str, env: &[(&str, &str)], line: &[&str]) -> Result<Settings, CommandError> {
    let cli = Cli::try_parse_from([&["pgstow", "--data-dir", "/d"], line].concat()).unwrap();
    let env: EnvSnapshot = env.iter().copied().collect();
    let mut layers = Layers::default();
    layers.add_toml(DEFAULTS, &Origin::Default)?;
    layers.add_toml(toml, &Origin::File(PathBuf::from("/etc/test.toml")))?;
    Settings::from_layers(layers, &cli.global, &cli.command, &env)
}

#[test]
fn every_key_stands_in_the_default_file() {
    for key in keys::KEYS {
        let (section, name) = key.name.split_once('.').unwrap_or(("", key.name));
        let mut inside = "";
        let found = DEFAULTS.lines().any(|line| {
            if let Some(head) = line.strip_prefix('[') {
                inside = head.trim_end_matches(']');
            }
            let line = line.trim_start_matches("# ");
            inside == section && line.starts_with(&format!("{name} = "))
        });
        assert!(found, "{} is not in config/default.toml", key.name);
    }
}

fn is_example(text: &str) -> bool {
    text.split_once(" = ")
        .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
}

#[test]
fn the_commented_examples_are_valid() {
    let text: String = DEFAULTS
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(example) if is_example(example) => example,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let mut layers = Layers::default();
    layers.add_toml(&text, &Origin::Default).unwrap();
    assert_eq!(layers.number("target.port"), Some(5432));
    assert!(layers.secret("target.password").is_some());
}

#[test]
fn a_later_layer_wins_and_keeps_its_origin() {
    let toml =
        "[connection]\nlock_wait_timeout = \"5s\"\nconnect_timeout = \"3s\"\nmax_connections = 2\n";
    let env = [
        ("PGSTOW_LOCK_WAIT_TIMEOUT", "6s"),
        ("PGSTOW_CONNECT_TIMEOUT", "4s"),
    ];
    let settings = resolve(toml, &env, &["backup", "--lock-wait-timeout", "7s"]).unwrap();
    let connection = settings.connection("run");
    assert_eq!(connection.lock_wait_timeout.as_secs(), 7);
    assert_eq!(connection.connect_timeout.as_secs(), 4);
    assert_eq!(connection.max_connections, 2);
    assert_eq!(connection.statement_timeout.as_secs(), 60);
    let origin = |key| settings.layers.origin(key).cloned();
    assert_eq!(
        origin("connection.lock_wait_timeout"),
        Some(Origin::Argument("--lock-wait-timeout"))
    );
    assert_eq!(
        origin("connection.connect_timeout"),
        Some(Origin::Environment("PGSTOW_CONNECT_TIMEOUT"))
    );
    assert_eq!(
        origin("connection.max_connections"),
        Some(Origin::File(PathBuf::from("/etc/test.toml")))
    );
    assert_eq!(
        origin("connection.statement_timeout"),
        Some(Origin::Default)
    );
}

#[test]
fn every_job_that_was_asked_for_has_its_session() {
    let most = |toml, line: &[&str]| {
        let settings = resolve(toml, &[], line).unwrap();
        settings.connection("run").max_connections
    };
    let usual = most("", &["backup"]);
    assert!((5..=12).contains(&usual), "{usual}");
    assert_eq!(most("", &["backup", "--jobs", "20"]), 24);
    assert_eq!(most("[backup]\njobs = 3\n", &["backup"]), 7);
    assert_eq!(most("", &["restore", "latest", "--jobs", "9"]), 13);
    // The jobs of a backup are not those of a restore.
    assert_eq!(most("[backup]\njobs = 30\n", &["restore", "latest"]), usual);
    let said = ["backup", "--jobs", "20", "--max-connections", "4"];
    assert_eq!(most("", &said), 4);
}

#[test]
fn wrong_values_are_refused_with_their_place() {
    for (toml, words) in [
        (
            "[connection]\nlock_wait_timeout = 5",
            "lock_wait_timeout in /etc/test.toml",
        ),
        (
            "[connection]\nmax_connections = 0",
            "0 is not between 1 and 1000",
        ),
        ("[connection]\nconnect_timeout = \"fast\"", "is no time"),
        (
            "[backup]\nformat = \"tar\"",
            "not one of custom, directory, plain",
        ),
        (
            "[target]\npassword = \"secret\"",
            "a secret is not written here",
        ),
        ("[target]\npassword = { vault = \"x\" }", "write { env"),
        ("[target\n", "is not TOML"),
        ("[targets]\n\"a/b\" = \"container:x\"", "holds no /"),
    ] {
        let error = resolve(toml, &[], &["list"]).unwrap_err();
        assert_eq!((error.code, error.exit), ("INVALID_CONFIG", 2));
        assert!(
            error.messages[0].contains(words),
            "{words}: {:?}",
            error.messages
        );
        assert!(
            !error.messages.join(" ").contains("secret\""),
            "{:?}",
            error.messages
        );
    }
    let error = resolve("", &[("PGSTOW_MAX_CONNECTIONS", "many")], &["list"]).unwrap_err();
    assert!(
        error.messages[0].starts_with("PGSTOW_MAX_CONNECTIONS:"),
        "{:?}",
        error.messages
    );
    let error = resolve("", &[], &["backup", "--stall-timeout", "soon"]).unwrap_err();
    assert_eq!((error.code, error.exit), ("USAGE", 2));
}

#[test]
fn unknown_keys_come_with_a_suggestion() {
    for (toml, near) in [
        (
            "[connection]\nlock_timeout = \"5s\"",
            "connection.lock_wait_timeout",
        ),
        ("[backup]\nfromat = \"plain\"", "backup.format"),
        ("lock_wait_timeout = \"5s\"", "connection.lock_wait_timeout"),
    ] {
        let error = resolve(toml, &[], &["list"]).unwrap_err();
        assert!(
            error.messages[0].contains("unknown key"),
            "{:?}",
            error.messages
        );
        assert!(error.hints[0].contains(near), "{near}: {:?}", error.hints);
    }
}

const FILE: &str = "[target]\nname = \"postgres://file/db\"\nusername = \"u\"\n\
                    password = { env = \"X\" }\n[targets]\nshop = \"container:shop-1\"\n";

#[test]
fn a_typed_target_leaves_no_login_of_the_file() {
    let settings = resolve(FILE, &[], &["backup", "postgres://typed/db"]).unwrap();
    let target = &settings.target;
    assert_eq!(target.name.as_deref(), Some("postgres://typed/db"));
    assert!(target.username.is_none() && target.password.is_none());
    assert!(target.name_typed && target.named);
}

#[test]
fn a_server_of_the_environment_leaves_no_target_of_the_file() {
    let env = [("POSTGRES_HOST", "db.example.com")];
    let settings = resolve(FILE, &env, &["backup"]).unwrap();
    assert!(settings.target.name.is_none() && settings.target.password.is_none());
    assert!(settings.target.named);
    let settings = resolve(FILE, &[], &["backup", "--username", "v"]).unwrap();
    assert_eq!(settings.target.name.as_deref(), Some("postgres://file/db"));
    assert_eq!(settings.target.username.as_deref(), Some("v"));
}

#[test]
fn names_of_the_configuration_stand_for_targets() {
    let settings = resolve(FILE, &[], &["backup", "shop"]).unwrap();
    assert_eq!(settings.target.name.as_deref(), Some("container:shop-1"));
    let error = resolve(FILE, &[], &["backup", "shpo"]).unwrap_err();
    assert_eq!(error.exit, 2);
    assert!(
        error.messages[0].contains("names shop"),
        "{:?}",
        error.messages
    );
    assert!(
        error.hints[0].contains("container:shpo"),
        "{:?}",
        error.hints
    );
}

#[test]
fn verbose_wins_over_the_filter_of_the_file() {
    let settings = resolve("log = \"error\"", &[], &["list"]).unwrap();
    assert_eq!(settings.log, "error");
    let settings = resolve("log = \"error\"", &[], &["list", "-vvv"]).unwrap();
    assert_eq!(settings.log, "trace");
}

#[test]
fn values_are_shown_as_they_would_be_written() {
    for (value, text) in [
        (Value::Text("a\"b".to_owned()), r#""a\"b""#),
        (Value::List(vec!["x".to_owned()]), r#"["x"]"#),
        (
            Value::Secret(SecretRef::Env("X".to_owned())),
            r#"{ env = "X" }"#,
        ),
    ] {
        assert_eq!(value.to_string(), text);
    }
}

#[test]
fn sizes_are_bytes_with_decimal_and_binary_units() {
    for (text, bytes) in [
        ("0", 0),
        ("17", 17),
        ("2GB", 2_000_000_000),
        (" 500 MiB ", 500 << 20),
        ("1tib", 1 << 40),
    ] {
        assert_eq!(layers::parse_size(text), Ok(bytes), "{text}");
    }
    for text in ["", "GB", "-1", "1.5GB", "2 XB", "99999999999TB"] {
        assert!(layers::parse_size(text).is_err(), "{text}");
    }
}

#[test]
fn backup_and_restore_have_an_engine_each() {
    let env = [
        ("PGSTOW_ENGINE", "parallel"),
        ("PGSTOW_RESTORE_ENGINE", "stock"),
    ];
    let settings = resolve("", &[], &["backup"]).unwrap();
    assert_eq!(settings.engine, EngineChoice::Auto);
    let settings = resolve("[backup]\nengine = \"stock\"", &env, &["backup"]).unwrap();
    assert_eq!(settings.engine, EngineChoice::Parallel);
    assert_eq!(settings.restore_engine, EngineChoice::Stock);
    let line = ["restore", "latest", "--engine", "auto"];
    let settings = resolve("", &env, &line).unwrap();
    assert_eq!(settings.engine, EngineChoice::Parallel);
    assert_eq!(settings.restore_engine, EngineChoice::Auto);
    let wrong = resolve("", &[("PGSTOW_ENGINE", "fast")], &["backup"]);
    assert!(wrong.is_err());
}

#[test]
fn the_transport_of_a_backup_is_set_in_files_and_environment() {
    use dbexec::sidecar::TransportChoice;
    let with = |text: &str, env: &[(&str, &str)]| resolve(text, env, &["backup"]);
    let none = with("", &[]).unwrap();
    assert_eq!(none.transport, TransportChoice::Auto);
    let file = "[backup]\ntransport = \"exec\"";
    assert_eq!(with(file, &[]).unwrap().transport, TransportChoice::Exec);
    let env = [("PGSTOW_TRANSPORT", "sidecar")];
    assert_eq!(
        with(file, &env).unwrap().transport,
        TransportChoice::Sidecar
    );
    assert!(with("", &[("PGSTOW_TRANSPORT", "pigeon")]).is_err());
}
