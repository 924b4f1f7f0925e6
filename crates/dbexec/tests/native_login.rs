//! Logins of native sessions: kinds of passwords, TLS, sockets.

mod cancel_support;

use std::os::unix::fs::PermissionsExt;

use cancel_support::cancel_a_sleep;
use dbexec::{ConnectionSettings, DbCreds, NativeError, NativeSession, Route, SslMode, TlsOptions};
use testkit::PgContainer;
use testkit::tls::Certificates;

const CANARY: &str = "Kanarie-ẞ7\u{a0}'\"\\";

fn creds(user: &str, password: Option<&str>) -> DbCreds {
    DbCreds {
        host: None,
        port: 5432,
        database: "postgres".to_owned(),
        user: user.to_owned(),
        password: password.map(Into::into),
        tls: TlsOptions::default(),
    }
}

async fn connect(route: &Route, creds: &DbCreds) -> Result<NativeSession, NativeError> {
    let settings = ConnectionSettings::new("login");
    NativeSession::connect(route, creds, "postgres", &settings, "pgstow-login").await
}

async fn one(session: &mut NativeSession, sql: &str) -> String {
    let rows = session.query(sql).await.expect("it answers");
    rows[0][0].clone().expect("a value")
}

#[tokio::test]
async fn bar_40_every_kind_of_password_and_never_in_a_message() {
    for major in testkit::images::MAJORS {
        let container = PgContainer::start(major).unwrap();
        let literal = format!(" E'{}'", CANARY.replace('\\', "\\\\").replace('\'', "\\'"));
        let roles = format!(
            "set password_encryption = 'md5'; create role md login password {literal}; \
             set password_encryption = 'scram-sha-256'; create role sc login password {literal}; \
             create role clear login password {literal}; create role free login; \
             create role cert login;"
        );
        container.psql("postgres", &roles).unwrap();
        container
            .exec(&[
                "sh",
                "-c",
                "{ echo 'host all md all md5'; echo 'host all sc all scram-sha-256'; \
                 echo 'host all clear all password'; echo 'host all free all trust'; \
                 echo 'host all cert all ident'; } > \"$PGDATA\"/pg_hba.conf.new; \
                 cat \"$PGDATA\"/pg_hba.conf >> \"$PGDATA\"/pg_hba.conf.new; \
                 cat \"$PGDATA\"/pg_hba.conf.new > \"$PGDATA\"/pg_hba.conf",
            ])
            .unwrap();
        container
            .psql("postgres", "select pg_reload_conf(), pg_sleep(0.3)")
            .unwrap();
        let (address, port) = (container.ip().unwrap(), 5432);
        let route = Route::ContainerAddress {
            address: address.clone(),
            port,
        };
        for user in ["md", "sc", "clear"] {
            let mut session = connect(&route, &creds(user, Some(CANARY))).await.unwrap();
            assert_eq!(one(&mut session, "select current_user").await, user);
            let wrong = format!("{CANARY}x");
            let error = connect(&route, &creds(user, Some(&wrong)))
                .await
                .unwrap_err();
            assert_eq!(error.sqlstate(), Some("28P01"), "{user}: {error}");
            assert_eq!(error.code(), dbexec::codes::CREDENTIALS_REFUSED);
            let none = connect(&route, &creds(user, None)).await.unwrap_err();
            for error in [error, none] {
                assert!(matches!(error, NativeError::Login { .. }), "{error}");
                let shown = format!("{error} {error:?} {}", error.in_words());
                assert!(!shown.contains("Kanarie"), "{shown}");
            }
            let shown = format!("{session:?} {:?}", session.canceller());
            assert!(
                !shown.contains("Kanarie") && !shown.contains("secret"),
                "{shown}"
            );
        }
        connect(&route, &creds("free", None)).await.unwrap();
        let error = connect(&route, &creds("cert", None)).await.unwrap_err();
        assert!(matches!(error, NativeError::Login { .. }), "{error}");
        // In clear text over a network that others may read: not sent.
        let open = Route::Tcp {
            host: address,
            port,
        };
        let error = connect(&open, &creds("clear", Some(CANARY)))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("clear text"), "{error}");
        assert!(!container.logs().contains("Kanarie"));
    }
}

#[tokio::test]
async fn a_socket_of_this_host() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let path = dir.path().display().to_string();
    let container = PgContainer::builder(17)
        .option(&["-v", &format!("{path}:/var/run/postgresql")])
        .start()
        .unwrap();
    let route = Route::Socket {
        directory: dir.path().to_owned(),
        port: 5432,
    };
    let mut strict = creds("postgres", None);
    // Without a meaning for sockets, as in libpq.
    strict.tls.mode = Some(SslMode::VerifyFull);
    let mut session = connect(&route, &strict).await.unwrap();
    assert_eq!(
        one(&mut session, "select inet_client_addr() is null").await,
        "t"
    );
    cancel_a_sleep(&container, &mut session).await;
    strict.tls.channel_binding = Some("require".to_owned());
    let error = connect(&route, &strict).await.unwrap_err();
    assert!(error.to_string().contains("channel binding"), "{error}");
    drop(container);
    let error = connect(&route, &creds("postgres", None)).await.unwrap_err();
    assert!(matches!(error, NativeError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn tls_of_every_strength_on_every_major() {
    for major in testkit::images::MAJORS {
        let certificates = Certificates::make("postgres").unwrap();
        let others = Certificates::make("postgres").unwrap();
        let container = certificates.server(PgContainer::builder(major)).unwrap();
        // The image's first password is an MD5 one before 14.
        let password = format!(
            "set password_encryption = 'scram-sha-256'; alter role postgres password '{}'; \
             select pg_sleep(0.3)",
            container.password()
        );
        container.psql("postgres", &password).unwrap();
        let port = container.host_port().unwrap();
        let at = |host: &str| Route::Tcp {
            host: host.to_owned(),
            port,
        };
        let (name, address) = (at("localhost"), at("127.0.0.1"));
        let with = |mode: Option<SslMode>, authority: Option<&Certificates>| {
            let mut creds = creds("postgres", Some(container.password()));
            creds.tls = TlsOptions {
                mode,
                root_cert: authority.map(|authority| authority.path("ca.crt")),
                cert: Some(certificates.path("client.crt")),
                key: Some(certificates.path("client.key")),
                crl: None,
                channel_binding: None,
            };
            creds
        };
        let own = Some(&certificates);
        let full = with(Some(SslMode::VerifyFull), own);
        for good in [
            with(None, None),
            with(Some(SslMode::Allow), None),
            with(Some(SslMode::Prefer), own),
            with(Some(SslMode::Require), None),
            with(Some(SslMode::Require), own),
            with(Some(SslMode::VerifyCa), own),
            full.clone(),
        ] {
            let mut session = connect(&name, &good).await.unwrap();
            let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
            assert_eq!(one(&mut session, sql).await, "t");
        }
        let tls = async |route: &Route, creds: &DbCreds| {
            let error = connect(route, creds).await.unwrap_err();
            assert!(matches!(error, NativeError::Tls { .. }), "{error}");
            assert_eq!(error.code(), dbexec::codes::TLS_FAILED);
        };
        // The certificate does not name the address.
        connect(&address, &with(Some(SslMode::VerifyCa), own))
            .await
            .unwrap();
        tls(&address, &full).await;
        // Another authority, in every mode that knows of one; none at all.
        for mode in [
            None,
            Some(SslMode::Require),
            Some(SslMode::VerifyCa),
            Some(SslMode::VerifyFull),
        ] {
            tls(&name, &with(mode, Some(&others))).await;
        }
        tls(&name, &with(Some(SslMode::VerifyCa), None)).await;
        let mut missing = full.clone();
        missing.tls.root_cert = Some("/nonexistent/ca.crt".into());
        tls(&name, &missing).await;
        // Revocation lists.
        let mut listed = full.clone();
        listed.tls.crl = Some(certificates.path("none.crl"));
        connect(&name, &listed).await.unwrap();
        listed.tls.crl = Some(certificates.path("server.crl"));
        tls(&name, &listed).await;
        listed.tls.crl = Some(others.path("none.crl"));
        tls(&name, &listed).await;
        // Bound to the channel, where that is demanded.
        for binding in ["require", "prefer", "disable"] {
            let mut bound = full.clone();
            bound.tls.channel_binding = Some(binding.to_owned());
            connect(&name, &bound).await.unwrap();
        }
        // The server wants a certificate of its own authority, and TLS.
        let mut bare = full.clone();
        (bare.tls.cert, bare.tls.key) = (None, None);
        let error = connect(&name, &bare).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
        let error = connect(&name, &with(Some(SslMode::Disable), None))
            .await
            .unwrap_err();
        assert_eq!(error.sqlstate(), Some("28000"), "{error}");
        // A key that others may read.
        let key = others.path("client.key");
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
        let mut loose = full.clone();
        loose.tls.key = Some(key);
        tls(&name, &loose).await;
        // Cancelled over TLS as well; rows through TLS.
        let mut session = connect(&name, &full).await.unwrap();
        cancel_a_sleep(&container, &mut session).await;
        let rows = b"some text of a row\n".repeat(500_000);
        let mut copy = session
            .copy_in("create temp table t(w text); copy t from stdin")
            .await
            .unwrap();
        copy.send(&rows).await.unwrap();
        assert_eq!(copy.finish().await.unwrap(), 500_000);
        let mut copy = session.copy_out("copy t to stdout").await.unwrap();
        let mut back = Vec::new();
        while copy.read(&mut back, 1 << 20).await.unwrap() {}
        assert!(back == rows);
    }
}

#[tokio::test]
async fn tls_is_refused_where_it_is_demanded_and_not_had() {
    let container = PgContainer::start(17).unwrap();
    let route = Route::Tcp {
        host: container.ip().unwrap(),
        port: 5432,
    };
    let mut login = creds("postgres", Some(container.password()));
    connect(&route, &login).await.unwrap();
    login.tls.channel_binding = Some("require".to_owned());
    let error = connect(&route, &login).await.unwrap_err();
    assert!(error.to_string().contains("channel binding"), "{error}");
    login.tls.channel_binding = None;
    login.tls.mode = Some(SslMode::Require);
    let error = connect(&route, &login).await.unwrap_err();
    assert!(matches!(error, NativeError::Tls { .. }), "{error}");
}
