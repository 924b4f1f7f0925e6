//! A server outside containers' reach: over TCP with TLS, through programs of this host.

mod support;

use support::{backups, cli};
use testkit::proxy::{Cut, Proxy};
use testkit::tls::Certificates;
use testkit::{Cli, PgContainer};

/// A program of this host that cannot reach any container engine.
fn cli_of_host(port: u16, certificates: &Certificates) -> Cli {
    let path = |name: &str| certificates.path(name).display().to_string();
    cli()
        .env("DOCKER_HOST", "unix:///nonexistent/engine.sock")
        // Resolves to this host and is not a name of it.
        .env("POSTGRES_HOST", "localhost.localdomain")
        .env("POSTGRES_PORT", &port.to_string())
        .env("POSTGRES_DATABASE", "postgres")
        .env("POSTGRES_USERNAME", "postgres")
        .env("POSTGRES_PASSWORD", testkit::container::PASSWORD)
        .env("POSTGRES_SSLMODE", "verify-full")
        .env("POSTGRES_SSLROOTCERT", &path("ca.crt"))
        .env("POSTGRES_SSLCERT", &path("client.crt"))
        .env("POSTGRES_SSLKEY", &path("client.key"))
}

#[test]
fn external_backup_and_restore_with_verify_full_and_a_client_certificate() {
    let certificates = Certificates::make("postgres").unwrap();
    let container = certificates.server(PgContainer::builder(15)).unwrap();
    container
        .psql(
            "postgres",
            "create table t as select g, md5(g::text) from generate_series(1, 9000) g",
        )
        .unwrap();
    let port = container.host_port().unwrap();
    let url = format!("postgres://postgres@localhost:{port}/postgres");
    let path = |name: &str| certificates.path(name).display().to_string();
    let password = certificates.path("password");
    std::fs::write(&password, testkit::container::PASSWORD).unwrap();
    std::fs::set_permissions(
        &password,
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let password = password.display().to_string();
    let (ca, cert, key) = (path("ca.crt"), path("client.crt"), path("client.key"));
    let tls = [
        "--password-file",
        &password,
        "--sslmode",
        "verify-full",
        "--sslrootcert",
        &ca,
        "--sslcert",
        &cert,
        "--sslkey",
        &key,
    ];
    let cli = cli().env("DOCKER_HOST", "unix:///nonexistent/engine.sock");
    let run = cli
        .run(&[&["backup", url.as_str()][..], &tls].concat())
        .expect(0);
    assert!(run.stderr.contains("localhost"), "{}", run.stderr);
    let args = [
        "restore",
        "latest",
        "--to",
        url.as_str(),
        "--as",
        "copy",
        "--database",
        "postgres",
    ];
    let run = cli.run(&[&args[..], &tls].concat());
    assert!(matches!(run.code, Some(0 | 3)), "{run:?}");
    let sum = "select count(*), md5(string_agg(t::text, ',' order by g)) from t";
    assert_eq!(
        container.psql("postgres", sum).unwrap(),
        container.psql("copy", sum).unwrap()
    );

    // Another authority, no client certificate, a name that is not in the certificate.
    let others = Certificates::make("postgres").unwrap();
    let other_ca = others.path("ca.crt").display().to_string();
    let mut wrong = tls;
    wrong[5] = &other_ca;
    let run = cli
        .run(&[&["backup", url.as_str()][..], &wrong].concat())
        .expect(11);
    assert!(run.stderr.contains("TLS_FAILED"), "{}", run.stderr);
    assert!(
        run.stderr.contains("certificate verify failed"),
        "{}",
        run.stderr
    );
    let by_address = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    let run = cli
        .run(&[&["backup", by_address.as_str()][..], &tls].concat())
        .expect(11);
    assert!(run.stderr.contains("TLS_FAILED"), "{}", run.stderr);
    let run = cli.run(&[&["backup", url.as_str()][..], &tls[..6]].concat());
    assert!(
        run.code != Some(0) && run.stderr.contains("certificate"),
        "{run:?}"
    );
    assert_eq!(backups(&cli).len(), 1);
}

#[test]
fn the_environment_names_an_external_server() {
    let certificates = Certificates::make("postgres").unwrap();
    let cli = cli_of_host(1, &certificates);
    let run = cli.run(&["backup"]);
    assert!(!matches!(run.code, Some(0)), "{run:?}");
    let run = cli.run(&["discover", "--explain"]);
    assert!(
        run.stderr.contains("POSTGRES_HOST") || run.stdout.contains("POSTGRES_HOST"),
        "{run:?}"
    );
}

#[test]
fn bar_33_host_programs_that_are_too_old_are_refused() {
    let container = PgContainer::builder(17).publish(0).start().unwrap();
    let port = container.host_port().unwrap();
    let cli = cli()
        .env("DOCKER_HOST", "unix:///nonexistent/engine.sock")
        .env("PGPASSWORD", testkit::container::PASSWORD)
        .env(
            "DATABASE_URL",
            &format!(
                "postgres://postgres:{}@127.0.0.1:{port}/postgres",
                testkit::container::PASSWORD
            ),
        );
    let bin = "/usr/lib/postgresql/15/bin";
    let run = cli.run(&["backup", "--pg-bin-dir", bin]).expect(12);
    assert!(run.stderr.contains("PROGRAM_TOO_OLD"), "{}", run.stderr);
    let run = cli
        .run(&["backup", "--pg-bin-dir", "/nonexistent"])
        .expect(12);
    assert!(run.stderr.contains("PROGRAM_MISSING"), "{}", run.stderr);
}

#[test]
fn bar_24_a_connection_that_is_cut_is_a_failed_run() {
    let container = PgContainer::builder(15).publish(0).start().unwrap();
    support::fill(&container, "postgres", 5_000);
    let port = container.host_port().unwrap();
    let cli = cli().env("DOCKER_HOST", "unix:///nonexistent/engine.sock");
    for round in 0..20 {
        let engine = if round < 10 { "stock" } else { "parallel" };
        // Discovery and the preflight need some 100 KB; the rows are 3 MB.
        let limit = 400_000 + support::below(2_000_000);
        let proxy = Proxy::tcp(port, Some(limit), Cut::CleanEnd).unwrap();
        let url = format!(
            "postgres://postgres:{}@127.0.0.1:{}/postgres?sslmode=disable",
            testkit::container::PASSWORD,
            proxy.port()
        );
        let run = cli.run(&["backup", &url, "--quiet", "--engine", engine]);
        if engine == "parallel" && matches!(run.code, Some(0 | 3)) {
            // What was cut is pg_dump, after its table of contents: its rows are not used.
            let id = run.stdout.trim();
            let verified = cli.run(&["verify", id, "--level", "read"]).expect(0);
            assert!(verified.stdout.contains(id), "{verified:?}");
            let shown = cli.run(&["show", id, "--json"]).expect(0);
            assert!(shown.stdout.contains("\"rows\":5000"), "{}", shown.stdout);
            std::fs::remove_dir_all(&cli.backup_dirs()[0]).unwrap();
            continue;
        }
        assert!(
            run.code == Some(1) && proxy.has_cut(),
            "after {limit} bytes, {} passed, cut: {}: {run:?}",
            proxy.passed(),
            proxy.has_cut()
        );
        assert_eq!(backups(&cli), Vec::<String>::new());
    }
}
