use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::fakes::{account, container, input, official, servers, with_runtime};
use crate::{
    CredentialSource, DbContext, DbMode, DiscoverError, RuntimeError, TargetSpec,
    discover::{DiscoverInput, entry::discover_with},
    runtime::ContainerState,
    trail::{Outcome, Trail},
};

use super::fakes::FakeServers;

async fn find(input: &DiscoverInput, servers: &FakeServers) -> Result<DbContext, DiscoverError> {
    let result = discover_with(input, servers).await;
    // Whatever happens, no secret is in the words.
    let words = match &result {
        Ok(context) => format!("{context:?}"),
        Err(error) => format!("{error} {error:?} {:?}", error.hints()),
    };
    assert!(!words.contains("canary"), "a secret is in {words}");
    result
}

fn step<'a>(trail: &'a Trail, step: &str) -> Vec<(Outcome, &'a str)> {
    trail
        .entries
        .iter()
        .filter(|entry| entry.step == step)
        .map(|entry| (entry.outcome, entry.reason.as_str()))
        .collect()
}

fn password(context: &DbContext) -> Option<&str> {
    context
        .creds
        .password
        .as_ref()
        .map(ExposeSecret::expose_secret)
}

/// The bug that started the project: a random published port, and a container whose own
/// environment says `POSTGRES_HOST=localhost`.
#[tokio::test]
async fn a_container_that_says_localhost_is_reached_inside_it() {
    let mut db = official("app");
    db.image = "shop/app:3";
    db.env = vec![
        ("POSTGRES_HOST", "localhost"),
        ("POSTGRES_DATABASE", "shop"),
        ("POSTGRES_USERNAME", "shop"),
        ("POSTGRES_PASSWORD", "canary-container"),
        ("POSTGRES_PORT", "55432"),
    ];
    let (input, engine) = input(vec![db, container("web")], &[]);
    let servers = servers(vec![account("app", "shop", Some("canary-container"))]);
    let context = find(&input, &servers).await.unwrap();
    assert_eq!(context.mode, DbMode::InContainer);
    assert_eq!(context.source, CredentialSource::RunningContainer);
    assert_eq!(context.creds.host, None);
    assert_eq!(context.creds.port, 5432);
    assert_eq!(context.creds.database, "shop");
    assert_eq!(password(&context), Some("canary-container"));
    assert_eq!(
        context.field_sources.password,
        Some(CredentialSource::RunningContainer)
    );
    assert_eq!(context.container.unwrap().name, "app");
    assert_eq!(
        engine.execs.lock().unwrap().len(),
        1,
        "one look, into the one that shows signs"
    );
    assert_eq!(servers.attempts.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_environment_that_says_localhost_means_a_container_here() {
    let env = [("POSTGRES_HOST", "localhost"), ("POSTGRES_PORT", "5432")];
    let (input, _) = input(vec![official("db")], &env);
    let servers = servers(vec![
        account("db", "shop", Some("canary-container")),
        account("localhost:5432", "postgres", None),
    ]);
    let context = find(&input, &servers).await.unwrap();
    assert_eq!(context.mode, DbMode::InContainer);
    assert!(
        step(&context.trail, "environment")[0]
            .1
            .contains("means here")
    );
}

#[tokio::test]
async fn a_remote_host_in_the_environment_decides() {
    let env = [
        ("POSTGRES_HOST", "db.example"),
        ("POSTGRES_DB", "shop"),
        ("POSTGRES_USER", "shop"),
        ("POSTGRES_PASSWORD", "canary-env"),
        ("PGHOST", "other.example"),
        ("PGPASSWORD", "canary-other"),
    ];
    let (input, engine) = input(vec![official("db")], &env);
    let servers = servers(vec![account("db.example:5432", "shop", Some("canary-env"))]);
    let context = find(&input, &servers).await.unwrap();
    assert_eq!(context.mode, DbMode::External);
    assert_eq!(context.source, CredentialSource::Env);
    assert_eq!(context.creds.host.as_deref(), Some("db.example"));
    assert!(engine.execs.lock().unwrap().is_empty());
    assert!(
        step(&context.trail, "environment")[0]
            .1
            .contains("PGHOST names another server")
    );
}

#[tokio::test]
async fn a_remote_host_that_cannot_be_used_is_not_replaced_by_a_container() {
    let env = [
        ("POSTGRES_HOST", "db.example"),
        ("POSTGRES_DB", "shop"),
        ("POSTGRES_USER", "shop"),
    ];
    let (input, _) = input(vec![official("db")], &env);
    let servers = servers(vec![account("db", "shop", Some("canary-container"))]);
    let error = find(&input, &servers).await.unwrap_err();
    assert_eq!(error.code(), "SERVER_UNREACHABLE");
}

#[tokio::test]
async fn a_remote_host_without_database_or_user_names_the_variables() {
    for (env, words) in [
        (
            vec![("POSTGRES_HOST", "db.example"), ("POSTGRES_USER", "u")],
            "POSTGRES_DATABASE",
        ),
        (
            vec![("PGHOST", "db.example"), ("PGDATABASE", "d")],
            "POSTGRES_USERNAME",
        ),
        (
            vec![("DATABASE_URL", "postgres://db.example")],
            "DATABASE_URL",
        ),
    ] {
        let (input, _) = input(vec![official("db")], &env);
        let error = find(&input, &servers(Vec::new())).await.unwrap_err();
        assert_eq!(error.code(), "INVALID_DB_CONFIG");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn bar_19_two_containers_are_refused_with_their_names() {
    let mut second = official("db2");
    second.labels = vec![
        ("com.docker.compose.project", "shop"),
        ("com.docker.compose.service", "db"),
    ];
    let (input, _) = input(vec![official("db1"), second], &[]);
    let servers = servers(vec![
        account("db1", "shop", None),
        account("db2", "shop", None),
    ]);
    let error = find(&input, &servers).await.unwrap_err();
    assert_eq!(error.code(), "CONTAINER_AMBIGUOUS");
    let hints = error.hints().join("\n");
    assert!(
        hints.contains("container:db1") && hints.contains("shop/db"),
        "{hints}"
    );
    assert!(hints.contains("55432->5432"), "{hints}");
    assert!(
        servers.attempts.lock().unwrap().is_empty(),
        "no login is tried on a guess"
    );
}

#[tokio::test]
async fn bar_19_containers_of_a_scaled_service_are_told_apart_by_name() {
    let scaled = |name: &'static str, number: &'static str| {
        let mut db = official(name);
        db.labels = vec![
            ("com.docker.compose.project", "shop"),
            ("com.docker.compose.service", "db"),
            ("com.docker.compose.container-number", number),
        ];
        db
    };
    let (mut input, _) = input(
        vec![scaled("shop-db-1", "1"), scaled("shop-db-2", "2")],
        &[],
    );
    for target in [None, Some("shop/db")] {
        input.explicit.target = target.map(|target| TargetSpec::parse(target).unwrap());
        let error = find(&input, &servers(Vec::new())).await.unwrap_err();
        let DiscoverError::Ambiguous { candidates, .. } = error else {
            panic!("{error}")
        };
        let targets: Vec<&str> = candidates.iter().map(|c| c.target.as_str()).collect();
        assert_eq!(targets, ["container:shop-db-1", "container:shop-db-2"]);
    }
}

#[tokio::test]
async fn a_typed_user_does_not_get_the_password_of_another() {
    let env = [
        ("POSTGRES_HOST", "db.example"),
        ("POSTGRES_DB", "shop"),
        ("POSTGRES_USER", "alice"),
        ("POSTGRES_PASSWORD", "canary-alice"),
        ("POSTGRES_SSLMODE", "verify-full"),
    ];
    let (mut input, _) = input(Vec::new(), &env);
    input.explicit.user = Some("bob".to_owned());
    let servers = servers(vec![account("db.example:5432", "bob", Some("canary-bob"))]);
    let error = find(&input, &servers).await.unwrap_err();
    assert_eq!(error.code(), "CREDENTIALS_REFUSED");
    assert!(
        servers
            .attempts
            .lock()
            .unwrap()
            .iter()
            .all(|a| a.3.is_none())
    );
}

#[tokio::test]
async fn tls_options_of_the_environment_hold_for_a_typed_host() {
    let env = [
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", "/ca"),
        ("PGDATABASE", "gone"),
    ];
    let (mut input, _) = input(Vec::new(), &env);
    input.explicit.target = Some(TargetSpec::parse("postgres://u:p@h?sslmode=require").unwrap());
    let context = find(&input, &servers(vec![account("h:5432", "u", None)]))
        .await
        .unwrap();
    assert_eq!(
        context.creds.tls.mode.unwrap().as_str(),
        "require",
        "what was typed wins"
    );
    assert_eq!(context.creds.tls.root_cert.unwrap().to_str(), Some("/ca"));
    assert_eq!(
        context.creds.database, "postgres",
        "a suggestion that is not there is passed over"
    );
}

#[tokio::test]
async fn bar_19_a_name_a_label_or_a_published_port_decide_between_two() {
    let both = || vec![official("db1"), official("db2")];
    let accept = || {
        servers(vec![
            account("db1", "shop", None),
            account("db2", "shop", None),
        ])
    };
    let name = |context: DbContext| context.container.unwrap().name;

    let (mut named, _) = input(both(), &[]);
    named.explicit.target = Some(TargetSpec::parse("container:db2").unwrap());
    let context = find(&named, &accept()).await.unwrap();
    assert_eq!(context.source, CredentialSource::Explicit);
    assert_eq!(name(context), "db2");

    let (variable, _) = input(both(), &[("TARGET_CONTAINER", "db1")]);
    assert_eq!(name(find(&variable, &accept()).await.unwrap()), "db1");

    let mut boxes = both();
    boxes[1].labels = vec![("pgstow.enable", "true")];
    let (labelled, _) = input(boxes, &[]);
    assert_eq!(name(find(&labelled, &accept()).await.unwrap()), "db2");

    let mut boxes = both();
    boxes[1].labels = vec![("pgstow.enable", "false")];
    let (kept, _) = input(boxes, &[]);
    let context = find(&kept, &accept()).await.unwrap();
    assert!(
        step(&context.trail, "container_probe")
            .iter()
            .any(|(outcome, reason)| {
                *outcome == Outcome::Skipped && reason.contains("pgstow.enable=false")
            })
    );
    assert_eq!(name(context), "db1");

    let mut boxes = both();
    boxes[1].ports = vec!["0.0.0.0:55433->5432/tcp", "[::]:55433->5432/tcp"];
    let env = [("POSTGRES_HOST", "localhost"), ("POSTGRES_PORT", "55433")];
    let (published, _) = input(boxes, &env);
    assert_eq!(name(find(&published, &accept()).await.unwrap()), "db2");

    let mut boxes = both();
    boxes[1].image = "registry.example/postgis:16";
    let (mut pattern, _) = input(boxes, &[("POSTGRES_HOST", "db.example")]);
    pattern.explicit.image_pattern = Some("*/postgis:*".to_owned());
    assert_eq!(name(find(&pattern, &accept()).await.unwrap()), "db2");
}

#[tokio::test]
async fn a_named_container_that_cannot_be_used_says_why_and_what_to_do() {
    let mut paused = official("paused");
    paused.state = ContainerState::Paused;
    let mut stopped = official("stopped");
    stopped.state = ContainerState::NotRunning;
    let boxes = vec![paused, stopped, container("web"), official("db")];
    for (wanted, words) in [
        ("container:paused", "docker unpause paused"),
        ("container:stopped", "docker start stopped"),
        ("container:gone", "running: db, paused, web"),
        ("container:web", "no PostgreSQL server runs inside"),
        ("shop/db", "compose"),
    ] {
        let (mut input, _) = input(boxes.clone(), &[]);
        input.explicit.target = Some(TargetSpec::parse(wanted).unwrap());
        let error = find(&input, &servers(Vec::new())).await.unwrap_err();
        assert_eq!(error.code(), "CONTAINER_NOT_FOUND", "{wanted}");
        assert!(error.to_string().contains(words), "{wanted}: {error}");
    }
}

#[tokio::test]
async fn an_app_container_leads_to_its_sibling_or_to_a_remote_host() {
    let mut app = container("app");
    app.env = vec![
        ("POSTGRES_HOST", "db"),
        ("POSTGRES_DATABASE", "shop"),
        ("POSTGRES_USERNAME", "app"),
        ("POSTGRES_PASSWORD", "canary-app"),
    ];
    // The sibling is one candidate, not two, and the application's login is tried after its own.
    let (with_sibling, _) = input(vec![app.clone(), official("db")], &[]);
    let servers_one = servers(vec![account("db", "app", Some("canary-app"))]);
    let context = find(&with_sibling, &servers_one).await.unwrap();
    assert_eq!(context.mode, DbMode::InContainer);
    assert_eq!(context.container.as_ref().unwrap().name, "db");
    assert_eq!(context.creds.user, "app");
    assert_eq!(servers_one.attempts.lock().unwrap().len(), 2);

    // Named, it leads there too.
    let (mut named, _) = input(vec![app.clone(), official("db")], &[]);
    named.explicit.target = Some(TargetSpec::parse("container:app").unwrap());
    let servers_two = servers(vec![account("db", "app", Some("canary-app"))]);
    assert_eq!(
        find(&named, &servers_two)
            .await
            .unwrap()
            .container
            .unwrap()
            .name,
        "db"
    );

    app.env[0].1 = "db.example";
    let (remote, _) = input(vec![app], &[]);
    let servers_three = servers(vec![account("db.example:5432", "app", Some("canary-app"))]);
    let context = find(&remote, &servers_three).await.unwrap();
    assert_eq!(context.mode, DbMode::External);
    assert_eq!(context.source, CredentialSource::RunningContainer);
    assert_eq!(context.container.unwrap().name, "app");
}

#[tokio::test]
async fn the_engines_name_for_this_host_is_this_host() {
    let mut app = container("app");
    app.env = vec![
        ("POSTGRES_HOST", "host.docker.internal"),
        ("POSTGRES_DATABASE", "shop"),
        ("POSTGRES_USERNAME", "app"),
    ];
    let (input, _) = input(vec![app], &[]);
    let servers = servers(vec![account("localhost:5432", "app", None)]);
    let context = find(&input, &servers).await.unwrap();
    assert_eq!(context.creds.host.as_deref(), Some("localhost"));
    assert_eq!(context.mode, DbMode::External);
}

#[tokio::test]
async fn credentials_are_read_in_every_spelling() {
    type Pairs = Vec<(&'static str, &'static str)>;
    let rows: Vec<(Pairs, Pairs, &str, &str)> = vec![
        (
            vec![("POSTGRES_PASSWORD", "canary-1")],
            vec![],
            "postgres",
            "canary-1",
        ),
        (
            vec![
                ("POSTGRESQL_USERNAME", "u"),
                ("POSTGRESQL_PASSWORD", "canary-2"),
                ("POSTGRESQL_DATABASE", "shop"),
            ],
            vec![],
            "u",
            "canary-2",
        ),
        (
            vec![
                ("POSTGRESQL_USERNAME", "u"),
                ("POSTGRESQL_PASSWORD", "canary-2"),
                ("POSTGRESQL_POSTGRES_PASSWORD", "canary-3"),
            ],
            vec![],
            "postgres",
            "canary-3",
        ),
        (
            vec![
                ("POSTGRES_USER", "gis"),
                ("POSTGRES_PASS", "canary-4"),
                ("POSTGRES_DBNAME", "shop,raster"),
            ],
            vec![],
            "gis",
            "canary-4",
        ),
        (
            vec![
                ("POSTGRES_USER_FILE", "/run/secrets/u"),
                ("POSTGRES_PASSWORD_FILE", "/run/secrets/p"),
            ],
            vec![
                ("/run/secrets/u", "secret\n"),
                ("/run/secrets/p", "canary-5 $ ' \"\n\n"),
            ],
            "secret",
            "canary-5 $ ' \"",
        ),
    ];
    for (env, files, user, secret) in rows {
        for shell in [true, false] {
            let mut db = container("db");
            db.image = "postgres:x";
            db.env = env.clone();
            db.files = files.clone();
            db.server = Some(5432);
            db.shell = shell;
            let (input, _) = input(vec![db], &[]);
            let mut only = account("db", user, Some(secret));
            only.databases = vec!["shop", "postgres"];
            let context = find(&input, &servers(vec![only])).await.unwrap();
            assert_eq!(context.creds.user, user);
            assert_eq!(password(&context), Some(secret), "shell {shell}");
        }
    }
}

#[tokio::test]
async fn peer_on_the_socket_leads_to_tcp_and_a_dropped_database_to_another() {
    let mut db = official("db");
    db.env.retain(|(name, _)| *name != "POSTGRES_DB");
    db.env.push(("POSTGRES_DB", "dropped"));
    let (input, _) = input(vec![db], &[]);
    let mut servers = servers(vec![account("db", "shop", Some("canary-container"))]);
    servers.peer = vec!["db"];
    let context = find(&input, &servers).await.unwrap();
    assert_eq!(context.creds.host.as_deref(), Some("127.0.0.1"));
    assert_eq!(context.creds.database, "postgres");
    assert_eq!(
        context.field_sources.database, None,
        "a default has no source"
    );
}

#[tokio::test]
async fn bar_25_each_password_is_tried_once_and_each_refusal_is_told() {
    let mut db = official("db");
    db.env.push(("PGPASSWORD", "canary-second"));
    db.env
        .push(("DATABASE_URL", "postgres://shop:canary-container@/shop"));
    let (mut input, _) = input(
        vec![db],
        &[("PGPASSWORD", "canary-third"), ("PGUSER", "shop")],
    );
    input.explicit.target = Some(TargetSpec::parse("container:db").unwrap());
    let servers = servers(vec![account("db", "shop", Some("canary-right"))]);
    let error = find(&input, &servers).await.unwrap_err();
    assert_eq!(error.code(), "CREDENTIALS_REFUSED");
    let attempts = servers.attempts.lock().unwrap();
    let passwords: Vec<_> = attempts.iter().map(|a| a.3.as_deref().unwrap()).collect();
    assert_eq!(
        passwords,
        ["canary-container", "canary-second", "canary-third"]
    );
    let told = step(error.trail(), "credentials");
    assert_eq!(told.len(), 3);
    assert!(
        told[0].1.contains("POSTGRES_PASSWORD of container db"),
        "{told:?}"
    );
    assert!(told[1].1.contains("PGPASSWORD of container db"), "{told:?}");
    assert!(told[2].1.contains("from PGPASSWORD"), "{told:?}");
}

#[tokio::test]
async fn bar_41_a_password_of_the_environment_is_not_sent_to_a_host_that_was_typed() {
    let env = [("PGPASSWORD", "canary-env"), ("PGUSER", "shop")];
    for target in ["postgres://db.example/shop", "postgres://localhost/shop"] {
        let (mut input, _) = input(Vec::new(), &env);
        input.explicit.target = Some(TargetSpec::parse(target).unwrap());
        let servers = servers(vec![
            account("db.example:5432", "shop", Some("canary-env")),
            account("localhost:5432", "shop", Some("canary-env")),
        ]);
        let error = find(&input, &servers).await.unwrap_err();
        assert_eq!(error.code(), "MIXED_SOURCES");
        assert!(
            error.to_string().contains("--allow-mixed-sources"),
            "{error}"
        );
        assert!(
            servers
                .attempts
                .lock()
                .unwrap()
                .iter()
                .all(|a| a.3.is_none())
        );

        input.allow_mixed_sources = true;
        let context = find(&input, &servers).await.unwrap();
        assert_eq!(context.field_sources.password, Some(CredentialSource::Env));
        assert_eq!(context.field_sources.host, Some(CredentialSource::Explicit));
    }
}

#[tokio::test]
async fn bar_41_the_same_host_in_both_is_no_mixture() {
    let env = [
        ("PGHOST", "db.example"),
        ("PGPASSWORD", "canary-env"),
        ("PGUSER", "shop"),
    ];
    let (mut input, _) = input(Vec::new(), &env);
    input.explicit.host = Some("DB.example".to_owned());
    let servers = servers(vec![account("DB.example:5432", "shop", Some("canary-env"))]);
    assert!(find(&input, &servers).await.is_ok());
    // Another port is another server.
    input.explicit.port = Some(5433);
    let error = find(&input, &servers).await.unwrap_err();
    assert_eq!(error.code(), "SERVER_UNREACHABLE");
    assert!(
        servers
            .attempts
            .lock()
            .unwrap()
            .iter()
            .all(|a| a.0 == "DB.example:5432" || a.3.is_none())
    );
}

#[tokio::test]
async fn bar_41_a_typed_password_goes_to_a_named_container_only() {
    let (mut input, _) = input(vec![official("db")], &[]);
    input.explicit.password = Some(SecretString::from("canary-typed"));
    let servers = servers(vec![account("db", "shop", Some("canary-typed"))]);
    let error = find(&input, &servers).await.unwrap_err();
    assert_eq!(error.code(), "MIXED_SOURCES");
    assert!(servers.attempts.lock().unwrap().is_empty());
    input.explicit.container = Some("db".to_owned());
    let context = find(&input, &servers).await.unwrap();
    assert_eq!(
        context.field_sources.password,
        Some(CredentialSource::Explicit)
    );
}

#[tokio::test]
async fn bar_41_the_environments_password_does_not_reach_a_container_that_was_only_found() {
    let env = [
        ("POSTGRES_HOST", "localhost"),
        ("POSTGRES_PASSWORD", "canary-env"),
        ("POSTGRES_USER", "shop"),
    ];
    let (input, _) = input(vec![official("db")], &env);
    let servers = servers(vec![account("db", "shop", Some("canary-env"))]);
    let error = find(&input, &servers).await.unwrap_err();
    assert_eq!(error.code(), "CREDENTIALS_REFUSED");
    assert!(
        servers
            .attempts
            .lock()
            .unwrap()
            .iter()
            .all(|a| a.3.as_deref() != Some("canary-env"))
    );
}

fn denied() -> Arc<RuntimeError> {
    Arc::new(RuntimeError::Unavailable {
        tried: vec!["unix:///var/run/docker.sock: permission denied (os error 13)".to_owned()],
    })
}

#[tokio::test]
async fn bar_21_without_the_socket_the_refusal_and_the_fix_are_told() {
    for env in [
        vec![("POSTGRES_HOST", "localhost"), ("POSTGRES_USER", "shop")],
        vec![],
    ] {
        let input = with_runtime(Err(denied()), &env);
        let error = find(&input, &servers(Vec::new())).await.unwrap_err();
        assert_eq!(error.code(), "RUNTIME_UNAVAILABLE");
        let hints = error.hints().join("\n");
        assert!(hints.contains("usermod -aG docker"), "{hints}");
        let list = step(error.trail(), "container_list");
        assert_eq!(list[0].0, Outcome::Failed);
        assert!(list[0].1.contains("permission denied"), "{list:?}");
    }
}

#[tokio::test]
async fn bar_21_a_named_container_is_never_replaced_by_a_local_server() {
    let env = [("POSTGRES_HOST", "localhost"), ("POSTGRES_USER", "shop")];
    let mut input = with_runtime(Err(denied()), &env);
    input.explicit.container = Some("db".to_owned());
    let servers = servers(vec![account("localhost:5432", "shop", None)]);
    let error = find(&input, &servers).await.unwrap_err();
    assert_eq!(error.code(), "RUNTIME_UNAVAILABLE");
    assert!(servers.attempts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_local_server_is_found_where_no_container_matches() {
    let env = [
        ("POSTGRES_HOST", "localhost"),
        ("POSTGRES_PORT", "5433"),
        ("POSTGRES_USER", "shop"),
        ("POSTGRES_PASSWORD", "canary-env"),
    ];
    let (input, _) = input(vec![container("web")], &env);
    let servers = servers(vec![account("localhost:5433", "shop", Some("canary-env"))]);
    let context = find(&input, &servers).await.unwrap();
    assert_eq!(context.mode, DbMode::External);
    assert_eq!(context.source, CredentialSource::Env);
    assert_eq!(context.creds.port, 5433);
}

#[tokio::test]
async fn nothing_found_lists_every_step_and_the_three_ways_out() {
    let (input, _) = input(vec![container("web")], &[]);
    let error = find(&input, &servers(Vec::new())).await.unwrap_err();
    assert_eq!(error.code(), "DATABASE_NOT_FOUND");
    for name in [
        "explicit",
        "environment",
        "container_list",
        "container_probe",
        "container",
        "local_server",
        "persisted_file",
    ] {
        assert_eq!(step(error.trail(), name).len(), 1, "{name}");
    }
    let hints = error.hints().join("\n");
    for words in ["container:NAME", "POSTGRES_HOST", "pgstow.enable=true"] {
        assert!(hints.contains(words), "{hints}");
    }
}
