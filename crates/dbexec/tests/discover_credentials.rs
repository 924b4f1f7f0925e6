//! Credentials on real servers: the environment, refusals, mixed sources, the persisted file.

mod discover_support;
mod runtime_support;

use std::os::unix::fs::PermissionsExt;

use dbexec::discover::{discover_all, read_persisted, write_persisted};
use dbexec::{CredentialSource, DbMode, TargetSpec};
use discover_support::{Scope, find, words};
use secrecy::{ExposeSecret, SecretString};
use testkit::PgContainer;

/// A server that asks for a password on every way in.
fn strict(scope: &Scope) -> PgContainer {
    scope.start(PgContainer::builder(15).env("PGSTOW_TEST_LOCAL_PASSWORD", "1"))
}

/// What the server wrote; PostgreSQL logs to standard error.
fn server_log(server: &PgContainer) -> String {
    let script = "docker logs \"$0\" 2>&1";
    testkit::process::run("sh", &["-c", script, server.id()]).expect("the log is shown")
}

#[tokio::test]
async fn a_host_elsewhere_in_the_environment_is_external() {
    let elsewhere = Scope::new().await;
    let server = strict(&elsewhere);
    let address = server.ip().unwrap();
    let scope = Scope::new().await;
    let url = format!("postgres://postgres:test-secret@{address}/postgres");
    let families: [Vec<(&str, &str)>; 3] = [
        vec![
            ("POSTGRES_HOST", &address),
            ("POSTGRES_DB", "postgres"),
            ("POSTGRES_USER", "postgres"),
            ("POSTGRES_PASSWORD", "test-secret"),
        ],
        vec![("DATABASE_URL", &url)],
        vec![
            ("PGHOST", &address),
            ("PGDATABASE", "postgres"),
            ("PGUSER", "postgres"),
            ("PGPASSWORD", "test-secret"),
        ],
    ];
    for env in families {
        let context = find(&scope.input(&env)).await.unwrap();
        assert_eq!(context.mode, DbMode::External);
        assert_eq!(context.source, CredentialSource::Env);
        assert_eq!(context.field_sources.password, Some(CredentialSource::Env));
        assert_eq!(context.server.major(), 15);
    }
    let error = find(&scope.input(&[("POSTGRES_HOST", &address)]))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "INVALID_DB_CONFIG");
    // Typed, it is explicit.
    let context = find(&scope.named(&url)).await.unwrap();
    assert_eq!(context.source, CredentialSource::Explicit);
}

#[tokio::test]
async fn a_host_elsewhere_that_does_not_answer_is_not_replaced() {
    let scope = Scope::new().await;
    let _tempting = scope.start(PgContainer::builder(15));
    let env = [
        // An address for documentation: nobody answers there.
        ("POSTGRES_HOST", "192.0.2.1"),
        ("POSTGRES_DB", "postgres"),
        ("POSTGRES_USER", "postgres"),
        ("POSTGRES_PASSWORD", "test-secret"),
    ];
    let mut input = scope.input(&env);
    input.settings.connect_timeout = std::time::Duration::from_secs(2);
    let error = find(&input).await.unwrap_err();
    assert_eq!(error.code(), "SERVER_UNREACHABLE", "{error:?}");
}

#[tokio::test]
async fn a_local_server_is_used_where_no_container_is_seen() {
    let elsewhere = Scope::new().await;
    let server = elsewhere.start(PgContainer::builder(15).publish(0));
    let port = server.host_port().unwrap().to_string();
    let scope = Scope::new().await;
    let env = [
        ("POSTGRES_HOST", "127.0.0.1"),
        ("POSTGRES_PORT", port.as_str()),
        ("POSTGRES_USER", "postgres"),
        ("POSTGRES_PASSWORD", "test-secret"),
    ];
    let context = find(&scope.input(&env)).await.unwrap();
    assert_eq!(context.mode, DbMode::External);
    assert_eq!(context.source, CredentialSource::Env);
    // The wrong password there is a refusal, not "nothing found".
    let mut wrong = env;
    wrong[3].1 = "wrong-secret";
    let error = find(&scope.input(&wrong)).await.unwrap_err();
    assert_eq!(error.code(), "CREDENTIALS_REFUSED");
}

#[tokio::test]
async fn bar_25_a_changed_password_is_refused_once_per_source_and_each_is_told() {
    let scope = Scope::new().await;
    let server = strict(&scope);
    server
        .psql(
            "postgres",
            "set log_statement = 'none'; alter role postgres password 'new-secret'",
        )
        .unwrap();
    let mut input = scope.named(&server.target());
    input.env = [
        ("POSTGRES_PASSWORD", "own-secret"),
        ("PGPASSWORD", "test-secret"),
    ]
    .into_iter()
    .collect();
    let error = find(&input).await.unwrap_err();
    assert_eq!(error.code(), "CREDENTIALS_REFUSED");
    let told = words(error.trail());
    assert_eq!(told.matches("credentials: refused").count(), 2, "{told}");
    assert!(told.contains("POSTGRES_PASSWORD of container"), "{told}");
    assert!(told.contains("password from POSTGRES_PASSWORD,"), "{told}");
    let log = server_log(&server);
    assert_eq!(
        log.matches("password authentication failed").count(),
        2,
        "{log}"
    );

    // The right one in the environment, with the container named, is found.
    input.env = [("PGPASSWORD", "new-secret")].into_iter().collect();
    let context = find(&input).await.unwrap();
    assert_eq!(context.field_sources.password, Some(CredentialSource::Env));
}

#[tokio::test]
async fn bar_41_secrets_do_not_cross_sources() {
    let scope = Scope::new().await;
    let server = strict(&scope);
    let address = server.ip().unwrap();
    // The environment's password, a host that was typed.
    let mut input = scope.named(&format!("postgres://postgres@{address}/postgres"));
    input.env = [("PGPASSWORD", "wrong-secret")].into_iter().collect();
    let error = find(&input).await.unwrap_err();
    assert_eq!(error.code(), "MIXED_SOURCES", "{error:?}");
    // The server, which writes every password that it refuses into its log, saw none.
    let log = server_log(&server);
    assert!(log.contains("ready to accept"), "{log}");
    assert!(!log.contains("password authentication failed"), "{log}");
    input.allow_mixed_sources = true;
    assert_eq!(
        find(&input).await.unwrap_err().code(),
        "CREDENTIALS_REFUSED"
    );
    assert!(server_log(&server).contains("password authentication failed"));
    input.env = [("PGPASSWORD", "test-secret")].into_iter().collect();
    assert!(find(&input).await.is_ok());
    // A typed password, a container that was only found.
    let mut input = scope.input(&[]);
    input.explicit.password = Some(SecretString::from("test-secret"));
    assert_eq!(find(&input).await.unwrap_err().code(), "MIXED_SOURCES");
    input.explicit.target = Some(TargetSpec::parse(&server.target()).unwrap());
    let context = find(&input).await.unwrap();
    assert_eq!(
        context.field_sources.password,
        Some(CredentialSource::Explicit)
    );
}

#[tokio::test]
async fn bar_39_the_persisted_file_is_written_used_and_refused() {
    let scope = Scope::new().await;
    let server = strict(&scope);
    let state = tempfile::tempdir().unwrap();
    std::fs::set_permissions(state.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let path = state.path().join("db.env");
    let context = find(&scope.input(&[])).await.unwrap();
    write_persisted(&path, &context).unwrap();
    let kept = read_persisted(&path).unwrap().unwrap();
    assert_eq!(kept.system_identifier, context.server.system_identifier);

    // The environment of a container cannot change; the password that works can. Kept: the new one.
    server
        .psql("postgres", "alter role postgres password 'new-secret'")
        .unwrap();
    let mut named = scope.named(&server.target());
    named.explicit.password = Some(SecretString::from("new-secret"));
    write_persisted(&path, &find(&named).await.unwrap()).unwrap();
    let mut input = scope.input(&[]);
    input.persisted_file = Some(path.clone());
    let context = find(&input).await.unwrap();
    assert_eq!(
        context.field_sources.password,
        Some(CredentialSource::PersistedFile)
    );
    assert_eq!(
        context.creds.password.as_ref().unwrap().expose_secret(),
        "new-secret"
    );

    // Not running: where it was is said.
    server.engine("stop").unwrap();
    let error = find(&input).await.unwrap_err();
    assert_eq!(error.code(), "DATABASE_NOT_FOUND");
    assert!(
        error
            .hints()
            .join("\n")
            .contains(&format!("docker start {}", server.name()))
    );

    // Readable by others: refused.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(
        find(&input).await.unwrap_err().code(),
        "PERSISTED_FILE_UNSAFE"
    );
}

#[tokio::test]
async fn bar_18_the_context_is_bound_to_the_container_and_the_server() {
    let scope = Scope::new().await;
    let first = strict(&scope);
    let name = first.name().to_owned();
    let before = find(&scope.input(&[])).await.unwrap();
    drop(first);
    let second = scope.start(PgContainer::builder(15).name(&name));
    let after = find(&scope.named(&second.target())).await.unwrap();
    let (before_box, after_box) = (before.container.unwrap(), after.container.unwrap());
    assert_eq!(before_box.name, after_box.name);
    assert_ne!(before_box.id, after_box.id);
    assert_ne!(
        before.server.system_identifier,
        after.server.system_identifier
    );
}

#[tokio::test]
async fn bar_21_an_engine_that_does_not_answer_is_told_and_nothing_else_is_taken() {
    let elsewhere = Scope::new().await;
    let server = elsewhere.start(PgContainer::builder(15).publish(0));
    let refused = dbexec::runtime::connect_runtime(&dbexec::runtime::EndpointInput {
        env: [("DOCKER_HOST", "unix:///nonexistent/docker.sock")]
            .into_iter()
            .collect(),
        home: None,
    })
    .await
    .unwrap_err();
    let port = server.host_port().unwrap().to_string();
    let env = [
        ("POSTGRES_HOST", "localhost"),
        ("POSTGRES_PORT", port.as_str()),
        ("POSTGRES_USER", "postgres"),
        ("POSTGRES_PASSWORD", "test-secret"),
    ];
    let scope = Scope::new().await;
    let mut input = scope.input(&env);
    input.runtime = Err(std::sync::Arc::new(refused));
    // A container was asked for: its engine's failure is the answer, although a server answers.
    input.explicit.container = Some(server.name().to_owned());
    let error = find(&input).await.unwrap_err();
    assert_eq!(error.code(), "RUNTIME_UNAVAILABLE");
    assert!(words(error.trail()).contains("/nonexistent/docker.sock"));
    assert!(!error.hints().is_empty());
    // Nothing answers at the local address either: the engine is what the error names.
    input.explicit.container = None;
    input.env = [("POSTGRES_HOST", "localhost"), ("POSTGRES_PORT", "1")]
        .into_iter()
        .collect();
    let error = find(&input).await.unwrap_err();
    assert_eq!(error.code(), "RUNTIME_UNAVAILABLE");
    assert!(words(error.trail()).contains("container_list: failed"));
}

#[tokio::test]
async fn the_listing_shows_every_container_with_its_login_or_the_reason() {
    let scope = Scope::new().await;
    let good = strict(&scope);
    let bad = strict(&scope);
    bad.psql("postgres", "alter role postgres password 'new-secret'")
        .unwrap();
    let (found, trail) = discover_all(&scope.input(&[])).await;
    assert_eq!(found.len(), 2, "{}", words(&trail));
    for item in found {
        let name = &item.container.as_ref().unwrap().name;
        match &item.login {
            Ok(login) => {
                assert_eq!(name, good.name());
                assert_eq!(login.server.major(), 15);
            }
            Err(why) => {
                assert_eq!(name, bad.name());
                assert!(why.starts_with("CREDENTIALS_REFUSED"), "{why}");
            }
        }
    }
}
