//! Discovery on real containers: each step, each refusal, each ambiguity.

mod discover_support;
mod runtime_support;

use std::sync::Arc;
use std::time::Instant;

use dbexec::executor::HostPrograms;
use dbexec::{
    ConnectionSettings, CredentialSource, DbContext, DbMode, DiscoverError, PgProgram,
    SeenPrograms, open_executor,
};
use discover_support::{Scope, find, words};
use runtime_support::Lens;
use secrecy::ExposeSecret;
use testkit::{PgContainer, images};

/// The bug that started the project, with the official image: a random published port and nothing
/// else set.
#[tokio::test]
async fn one_container_with_a_random_port_is_found_with_nothing_set() {
    let scope = Scope::new().await;
    let db = scope.start(PgContainer::builder(17).publish(0));
    let since = Instant::now();
    let context = find(&scope.input(&[])).await.unwrap();
    println!(
        "discovery took {:?}\n{}",
        since.elapsed(),
        words(&context.trail)
    );
    assert_eq!(context.mode, DbMode::InContainer);
    assert_eq!(context.source, CredentialSource::RunningContainer);
    let container = context.container.unwrap();
    assert_eq!(container.id, db.id());
    assert!(container.image_digest.starts_with("sha256:"));
    assert_eq!(context.server.major(), 17);
    let identifier = db
        .psql(
            "postgres",
            "select system_identifier from pg_control_system()",
        )
        .unwrap();
    assert_eq!(
        context.server.system_identifier.as_deref(),
        Some(identifier.trim())
    );
    assert!(context.server.is_superuser);
}

/// The same with an application's image whose own environment says `POSTGRES_HOST=localhost`, while
/// the tool's environment says so too.
async fn app_image_is_found(major: u32) {
    let scope = Scope::new().await;
    let app = scope.start(PgContainer::app(major).publish(0).env("mark", "x"));
    let env = [("POSTGRES_HOST", "localhost"), ("POSTGRES_PORT", "5432")];
    let context = find(&scope.input(&env)).await.expect("it is found");
    assert_eq!(context.mode, DbMode::InContainer);
    assert_eq!(
        context.container.as_ref().map(|c| c.id.as_str()),
        Some(app.id())
    );
    assert_eq!(context.server.major(), major);
    assert_eq!(context.creds.user, "appuser");
    assert_eq!(context.creds.database, "appdb");
    assert_eq!(context.creds.host, None, "over the local socket");
    assert!(words(&context.trail).contains("means here"));
    programs_are_known(&scope, &context).await;
}

/// Discovery has seen the programs that a search finds, and they are not looked for again.
async fn programs_are_known(scope: &Scope, context: &DbContext) {
    let open = async |context: DbContext, execs: bool| {
        let engine = Arc::new(Lens {
            inner: Arc::clone(&scope.runtime),
            label: None,
            mounts: None,
            addresses: true,
            processes: true,
            execs,
        });
        let settings = ConnectionSettings::new("programs");
        open_executor(context, Some(engine), HostPrograms::default(), settings)
            .await
            .expect("an executor")
    };
    let known = open(context.clone(), false).await;
    let mut unknown = context.clone();
    unknown.programs = SeenPrograms::default();
    let searched = open(unknown, true).await;
    for program in [
        PgProgram::PgDump,
        PgProgram::PgDumpall,
        PgProgram::PgRestore,
        PgProgram::Psql,
    ] {
        let found = searched.program(program).await.expect("it is found");
        let seen = known.program(program).await.expect("it is known");
        assert_eq!(seen, found);
    }
}

#[tokio::test]
async fn the_app_image_is_found_in_major_13() {
    app_image_is_found(13).await;
}

#[tokio::test]
async fn the_app_image_is_found_in_major_15() {
    app_image_is_found(15).await;
}

#[tokio::test]
async fn the_app_image_is_found_in_major_17() {
    app_image_is_found(17).await;
}

#[tokio::test]
async fn the_app_image_is_found_in_major_18() {
    app_image_is_found(18).await;
}

#[tokio::test]
async fn bitnami_kartoza_and_secret_files_are_read() {
    let scope = Scope::new().await;
    let builder = PgContainer::builder(15)
        .image(&images::bitnami())
        .without_env("POSTGRES_PASSWORD")
        .env("POSTGRESQL_USERNAME", "app")
        .env("POSTGRESQL_PASSWORD", "app-secret")
        .env("POSTGRESQL_POSTGRES_PASSWORD", "root-secret")
        .env("POSTGRESQL_DATABASE", "shop")
        .password("root-secret");
    let bitnami = scope.start(builder);
    let context = find(&scope.input(&[])).await.unwrap();
    programs_are_known(&scope, &context).await;
    assert_eq!(
        context.creds.user, "postgres",
        "the superuser whose password is known"
    );
    assert_eq!(context.creds.database, "shop");
    assert_eq!(
        context.creds.password.as_ref().unwrap().expose_secret(),
        "root-secret"
    );
    drop(bitnami);

    let scope = Scope::new().await;
    let builder = PgContainer::builder(15)
        .image(&images::kartoza())
        .without_env("POSTGRES_PASSWORD")
        .env("POSTGRES_USER", "gis")
        .env("POSTGRES_PASS", "gis-secret")
        .env("POSTGRES_DBNAME", "gis")
        .env("PGSTOW_TEST_LOCAL_PASSWORD", "1")
        .login("gis", "gis")
        .password("gis-secret");
    let kartoza = scope.start(builder);
    let context = find(&scope.input(&[])).await.unwrap();
    assert_eq!(
        (context.creds.user.as_str(), context.creds.database.as_str()),
        ("gis", "gis")
    );
    drop(kartoza);

    let scope = Scope::new().await;
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("pw");
    std::fs::write(&file, "file $ecret-'secret'\n").unwrap();
    let builder = PgContainer::builder(15)
        .without_env("POSTGRES_PASSWORD")
        .env("POSTGRES_PASSWORD_FILE", "/run/secrets/pw")
        .env("PGSTOW_TEST_LOCAL_PASSWORD", "1")
        .mount(file.to_str().unwrap(), "/run/secrets/pw")
        .password("file $ecret-'secret'");
    let _db = scope.start(builder);
    let context = find(&scope.input(&[])).await.unwrap();
    assert_eq!(
        context.creds.password.as_ref().unwrap().expose_secret(),
        "file $ecret-'secret'"
    );
    assert!(words(&context.trail).contains("POSTGRES_PASSWORD_FILE of container"));
}

#[tokio::test]
async fn bar_19_two_real_containers_are_refused_until_one_is_meant() {
    let scope = Scope::new().await;
    let one = scope.start(PgContainer::builder(15).publish(0));
    let two = scope.start(
        PgContainer::builder(17)
            .publish(0)
            .label("com.docker.compose.project", "shop")
            .label("com.docker.compose.service", one.name()),
    );
    let error = find(&scope.input(&[])).await.unwrap_err();
    assert_eq!(error.code(), "CONTAINER_AMBIGUOUS");
    let hints = error.hints().join("\n");
    assert!(hints.contains(&one.target()), "{hints}");
    assert!(hints.contains(&format!("shop/{}", one.name())), "{hints}");
    assert!(hints.contains("->5432"), "{hints}");

    // A name, a compose service, a published port: each says which one is meant.
    let context = find(&scope.named(&one.target())).await.unwrap();
    assert_eq!(context.container.unwrap().id, one.id());
    assert_eq!(context.source, CredentialSource::Explicit);
    let context = find(&scope.named(&format!("shop/{}", one.name())))
        .await
        .unwrap();
    assert_eq!(context.container.unwrap().id, two.id());
    let port = two.host_port().unwrap().to_string();
    let env = [
        ("POSTGRES_HOST", "127.0.0.1"),
        ("POSTGRES_PORT", port.as_str()),
    ];
    let context = find(&scope.input(&env)).await.unwrap();
    assert_eq!(context.container.unwrap().id, two.id());
}

#[tokio::test]
async fn bar_19_labels_take_containers_out_and_single_them_out() {
    let scope = Scope::new().await;
    let _out = scope.start(PgContainer::builder(15).label("pgstow.enable", "false"));
    let inside = scope.start(PgContainer::builder(15));
    let context = find(&scope.input(&[])).await.unwrap();
    assert_eq!(context.container.as_ref().unwrap().id, inside.id());
    assert!(words(&context.trail).contains("pgstow.enable=false"));
    let meant = scope.start(PgContainer::builder(15).label("pgstow.enable", "true"));
    let context = find(&scope.input(&[])).await.unwrap();
    assert_eq!(context.container.unwrap().id, meant.id());
}

#[tokio::test]
async fn a_named_container_that_is_paused_stopped_or_gone_says_so() {
    let scope = Scope::new().await;
    let db = scope.start(PgContainer::builder(15));
    db.engine("pause").unwrap();
    let error = find(&scope.named(&db.target())).await.unwrap_err();
    assert_eq!(error.code(), "CONTAINER_NOT_FOUND");
    assert!(error.to_string().contains("docker unpause"), "{error}");
    // Unnamed, a paused one is told and not waited for.
    let error = find(&scope.input(&[])).await.unwrap_err();
    assert_eq!(error.code(), "DATABASE_NOT_FOUND");
    assert!(words(error.trail()).contains("docker unpause"));
    db.engine("unpause").unwrap();
    db.engine("stop").unwrap();
    let error = find(&scope.named(&db.target())).await.unwrap_err();
    assert!(error.to_string().contains("docker start"), "{error}");
    let error = find(&scope.named("container:no-such-container"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "CONTAINER_NOT_FOUND");
    assert!(error.to_string().contains("no such container"), "{error}");
}

#[tokio::test]
async fn the_port_inside_is_the_servers_whatever_the_variables_say() {
    let scope = Scope::new().await;
    let builder = PgContainer::builder(15)
        .inner_port(5544)
        .env("POSTGRES_PORT", "55432")
        .env("POSTGRES_HOST", "localhost");
    let _db = scope.start(builder);
    let context = find(&scope.input(&[])).await.unwrap();
    assert_eq!(context.creds.port, 5544);
}

#[tokio::test]
async fn bar_20_a_container_without_a_shell_is_found_by_its_signs() {
    let scope = Scope::new().await;
    let db = scope.start(PgContainer::builder(15));
    // initdb needs a shell, so it goes away only now.
    let shells =
        ["sh", "dash", "bash"].map(|shell| [format!("/bin/{shell}"), format!("/usr/bin/{shell}")]);
    let mut argv = vec!["rm", "-f"];
    argv.extend(shells.iter().flatten().map(String::as_str));
    db.exec(&argv).unwrap();
    let result = find(&scope.input(&[])).await;
    let trail = match &result {
        Ok(context) => {
            assert_eq!(context.container.as_ref().unwrap().id, db.id());
            words(&context.trail)
        }
        // A clear refusal that names the container and what is missing is the other way (bar 20).
        Err(error) => {
            assert!(matches!(error, DiscoverError::Unusable { .. }), "{error:?}");
            assert!(error.to_string().contains(db.name()), "{error}");
            assert_eq!(error.code(), "PROGRAM_MISSING", "{}", words(error.trail()));
            words(error.trail())
        }
    };
    assert!(trail.contains("it has no shell"), "{trail}");
}

#[tokio::test]
async fn a_container_of_a_client_leads_to_its_server_outside() {
    let outside = Scope::new().await;
    let server = outside.start(PgContainer::builder(15));
    let address = server.ip().unwrap();
    let scope = Scope::new().await;
    // The client's container runs a server for the test kit's sake only in another scope; here
    // it is seen as what it is: a container whose settings name an address.
    let client = testkit_client(&scope, &address);
    let context = find(&scope.input(&[])).await.unwrap();
    assert_eq!(context.mode, DbMode::External);
    assert_eq!(context.source, CredentialSource::RunningContainer);
    assert_eq!(context.creds.host.as_deref(), Some(address.as_str()));
    assert_eq!(context.container.unwrap().name, client.name);
}

#[tokio::test]
async fn a_client_beside_its_server_is_one_candidate() {
    let scope = Scope::new().await;
    let server = scope.start(PgContainer::builder(15));
    let client = testkit_client(&scope, &server.ip().unwrap());
    let context = find(&scope.input(&[])).await.unwrap();
    assert_eq!(context.mode, DbMode::InContainer);
    assert_eq!(context.container.unwrap().id, server.id());
    // Named, the client leads to the same server.
    let context = find(&scope.named(&format!("container:{}", client.name)))
        .await
        .unwrap();
    assert_eq!(context.container.unwrap().id, server.id());
}

/// A container without a server whose settings name one.
struct Client {
    name: String,
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = testkit::process::docker(&["rm", "-f", "-v", &self.name]);
    }
}

fn testkit_client(scope: &Scope, host: &str) -> Client {
    let name = testkit::container::unique_name("client");
    let host = format!("POSTGRES_HOST={host}");
    let label = scope.label();
    let image = images::postgres(15);
    testkit::process::docker(&[
        "run",
        "-d",
        "--name",
        &name,
        "--label",
        &label,
        "-e",
        &host,
        "-e",
        "POSTGRES_DATABASE=postgres",
        "-e",
        "POSTGRES_USERNAME=postgres",
        "-e",
        "POSTGRES_PASSWORD=test-secret",
        "--entrypoint",
        "sleep",
        &image,
        "600",
    ])
    .expect("the client starts");
    Client { name }
}
