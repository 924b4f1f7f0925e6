//! Step 3 in the flow, and the listing of everything.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::fakes::{FakeServers, account, container, input, official, servers};
use crate::{
    CredentialSource, DbContext, DbMode, DiscoverError, TargetSpec,
    discover::{DiscoverInput, all::all_with, entry::discover_with, write_persisted},
    runtime::ContainerState,
    trail::Outcome,
};

/// A state directory with the file that a backup of `container` or of db.example left there.
async fn state(mode: DbMode) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let path = dir.path().join("db.env");
    let (mut earlier, _) = input(vec![official("db")], &[]);
    if mode == DbMode::External {
        let url = "postgres://shop:canary-kept@db.example/shop";
        earlier.explicit.target = Some(TargetSpec::parse(url).unwrap());
    }
    let accounts = servers(vec![
        account("db", "shop", Some("canary-container")),
        account("db.example:5432", "shop", Some("canary-kept")),
    ]);
    let context = discover_with(&earlier, &accounts).await.unwrap();
    write_persisted(&path, &context).unwrap();
    (dir, path)
}

async fn find(input: &DiscoverInput, servers: &FakeServers) -> Result<DbContext, DiscoverError> {
    discover_with(input, servers).await
}

#[tokio::test]
async fn a_container_that_does_not_run_is_named_in_the_error() {
    let (_dir, path) = state(DbMode::InContainer).await;
    let mut stopped = official("db");
    stopped.state = ContainerState::NotRunning;
    let (mut input, _) = input(vec![stopped], &[]);
    input.persisted_file = Some(path);
    let error = find(&input, &servers(Vec::new())).await.unwrap_err();
    assert_eq!(error.code(), "DATABASE_NOT_FOUND");
    let hints = error.hints().join("\n");
    assert!(
        hints.contains("container db") && hints.contains("docker start db"),
        "{hints}"
    );
}

#[tokio::test]
async fn an_external_server_is_reached_again() {
    let (_dir, path) = state(DbMode::External).await;
    let (mut input, _) = input(vec![container("web")], &[]);
    input.persisted_file = Some(path);
    let accepts = servers(vec![account(
        "db.example:5432",
        "shop",
        Some("canary-kept"),
    )]);
    let context = find(&input, &accepts).await.unwrap();
    assert_eq!(context.source, CredentialSource::PersistedFile);
    assert_eq!(context.mode, DbMode::External);

    // Another server at the same address is not the one that was kept.
    let mut other = account("db.example:5432", "shop", Some("canary-kept"));
    other.system_identifier = "7000000000000000002";
    let error = find(&input, &servers(vec![other])).await.unwrap_err();
    assert_eq!(error.code(), "CONTAINER_CHANGED");

    // An environment that means "here" is not answered with a host elsewhere.
    input.env = [("POSTGRES_HOST", "localhost")].into_iter().collect();
    let error = find(&input, &accepts).await.unwrap_err();
    assert_eq!(error.code(), "DATABASE_NOT_FOUND");
}

#[tokio::test]
async fn bar_39_an_unsafe_file_ends_the_search_and_is_not_used_for_passwords() {
    let (_dir, path) = state(DbMode::External).await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let (mut nothing, _) = input(vec![], &[]);
    nothing.persisted_file = Some(path.clone());
    let servers = servers(vec![account(
        "db.example:5432",
        "shop",
        Some("canary-kept"),
    )]);
    let error = find(&nothing, &servers).await.unwrap_err();
    assert_eq!(error.code(), "PERSISTED_FILE_UNSAFE");
    assert!(error.to_string().contains("chmod 600"), "{error}");
    assert!(servers.attempts.lock().unwrap().is_empty());
    let refused = error
        .trail()
        .entries
        .iter()
        .any(|e| e.step == "persisted_file" && e.outcome == Outcome::Refused);
    assert!(refused);
}

/// The environment of a container shows the initial password; ours is the one that worked last.
#[tokio::test]
async fn a_changed_password_is_found_in_the_file_of_the_same_container() {
    let (_dir, path) = state(DbMode::InContainer).await;
    let mut recreated = official("db");
    recreated
        .env
        .retain(|(name, _)| *name != "POSTGRES_PASSWORD");
    recreated.env.push(("POSTGRES_PASSWORD", "canary-initial"));
    let (mut same, _) = input(vec![recreated], &[]);
    same.persisted_file = Some(path.clone());
    let right = servers(vec![account("db", "shop", Some("canary-container"))]);
    let context = find(&same, &right).await.unwrap();
    assert_eq!(
        context.field_sources.password,
        Some(CredentialSource::PersistedFile)
    );
    assert_eq!(right.attempts.lock().unwrap().len(), 2);

    // Another server accepts it: that is not the one it was kept for.
    let mut other = account("db", "shop", Some("canary-container"));
    other.system_identifier = "7000000000000000002";
    let error = find(&same, &servers(vec![other])).await.unwrap_err();
    assert_eq!(error.code(), "CONTAINER_CHANGED");

    // Another container gets nothing of it.
    let mut elsewhere = official("other");
    elsewhere
        .env
        .retain(|(name, _)| *name != "POSTGRES_PASSWORD");
    let (mut foreign, _) = input(vec![elsewhere], &[]);
    foreign.persisted_file = Some(path);
    let other = servers(vec![account("other", "shop", Some("canary-container"))]);
    assert_eq!(
        find(&foreign, &other).await.unwrap_err().code(),
        "CREDENTIALS_REFUSED"
    );
    assert!(other.attempts.lock().unwrap().iter().all(|a| a.3.is_none()));
}

#[tokio::test]
async fn the_listing_shows_all_with_the_reason_where_one_cannot_be_used() {
    let (_dir, path) = state(DbMode::External).await;
    let mut app = container("app");
    app.env = vec![
        ("POSTGRES_HOST", "far.example"),
        ("POSTGRES_DB", "x"),
        ("POSTGRES_USER", "x"),
    ];
    let env = [("PGHOST", "localhost"), ("PGUSER", "nobody")];
    let (mut input, _) = input(vec![official("db1"), official("db2"), app], &env);
    input.persisted_file = Some(path);
    let servers = servers(vec![
        account("db1", "shop", Some("canary-container")),
        account("db2", "shop", Some("canary-other")),
        account("db.example:5432", "shop", Some("canary-kept")),
    ]);
    let (found, trail) = all_with(&input, &servers).await;
    let lines: Vec<String> = found
        .iter()
        .map(|item| {
            let login = match &item.login {
                Ok(login) => login.creds.user.clone(),
                Err(why) => why.split(':').next().unwrap_or_default().to_owned(),
            };
            format!("{} {}", item.candidate.target, login)
        })
        .collect();
    assert_eq!(
        lines,
        [
            "container:db1 shop",
            "container:db2 CREDENTIALS_REFUSED",
            "container:app SERVER_UNREACHABLE",
            "postgres://shop@db.example:5432/shop shop",
        ]
    );
    assert!(!format!("{found:?} {trail:?}").contains("canary"));
}
