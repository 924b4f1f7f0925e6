use proptest::prelude::*;

use super::*;

type Row<'a> = (
    &'a str,
    Option<&'a str>,
    Option<u16>,
    Option<&'a str>,
    Option<&'a str>,
    Option<&'a str>,
);

#[test]
fn urls_read_as_libpq_reads_them() {
    let rows: &[Row<'_>] = &[
        ("postgres://", None, None, None, None, None),
        ("postgresql://h", Some("h"), None, None, None, None),
        (
            "postgres://u:p@h:5433/d",
            Some("h"),
            Some(5433),
            Some("d"),
            Some("u"),
            Some("p"),
        ),
        ("postgres://u@h/", Some("h"), None, None, Some("u"), None),
        (
            "postgres://u:@h/d",
            Some("h"),
            None,
            Some("d"),
            Some("u"),
            None,
        ),
        (
            "postgres://a%40b:p%40%2F%3A%25@h/d%2Fe",
            Some("h"),
            None,
            Some("d/e"),
            Some("a@b"),
            Some("p@/:%"),
        ),
        (
            "postgres://[::1]:55432/d",
            Some("::1"),
            Some(55432),
            Some("d"),
            None,
            None,
        ),
        (
            "postgres://[fe80::1]/d",
            Some("fe80::1"),
            None,
            Some("d"),
            None,
            None,
        ),
        (
            "postgres://%2Fvar%2Frun%2Fpostgresql/d",
            Some("/var/run/postgresql"),
            None,
            Some("d"),
            None,
            None,
        ),
        (
            "postgres:///d?host=/tmp&port=5434&user=u",
            Some("/tmp"),
            Some(5434),
            Some("d"),
            Some("u"),
            None,
        ),
        (
            "postgresql+asyncpg://u@h/d",
            Some("h"),
            None,
            Some("d"),
            Some("u"),
            None,
        ),
        (
            "postgres://u:p:q@h/d#e",
            Some("h"),
            None,
            Some("d#e"),
            Some("u"),
            Some("p:q"),
        ),
    ];
    for (text, host, port, database, user, password) in rows {
        let url = parse_url(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(url.host.as_deref(), *host, "{text}");
        assert_eq!(url.port, *port, "{text}");
        assert_eq!(url.database.as_deref(), *database, "{text}");
        assert_eq!(url.user.as_deref(), *user, "{text}");
        assert_eq!(
            url.password.as_ref().map(ExposeSecret::expose_secret),
            *password,
            "{text}"
        );
    }
}

#[test]
fn tls_parameters_are_kept_and_frameworks_extras_are_named() {
    let url = parse_url(
        "postgres://u@h/d?sslmode=verify-full&sslrootcert=/ca.pem&sslcert=/c.pem&sslkey=/k.pem&sslcrl=/r.pem&channel_binding=require&schema=public",
    )
    .unwrap();
    assert_eq!(url.tls.mode, Some(SslMode::VerifyFull));
    assert_eq!(url.tls.root_cert, Some(PathBuf::from("/ca.pem")));
    assert_eq!(url.tls.cert, Some(PathBuf::from("/c.pem")));
    assert_eq!(url.tls.key, Some(PathBuf::from("/k.pem")));
    assert_eq!(url.tls.crl, Some(PathBuf::from("/r.pem")));
    assert_eq!(url.tls.channel_binding.as_deref(), Some("require"));
    assert_eq!(url.ignored, ["schema"]);
}

#[test]
fn bad_urls_say_what_is_wrong_without_repeating_the_password() {
    for (text, word) in [
        ("postgres://u:canary@a,b/d", "several hosts"),
        ("postgres://u:canary@h/d?host=a,b", "several hosts"),
        ("postgres://u:canary@x@h/d", "%40"),
        ("postgres://u:canary%zz@h/d", "%25"),
        ("postgres://u:canary%@h/d", "%25"),
        ("postgres://u:canary@h:0/d", "port"),
        ("postgres://u:canary@h:70000/d", "port"),
        ("postgres://u:canary@::1/d", "brackets"),
        ("postgres://u:canary@[::1/d", "never closes"),
        ("postgres://u:canary@[::1]5/d", "after the IPv6"),
        ("postgres://u:canary@h/d?sslmode=on", "sslmode"),
        (
            "postgres://u:canary@h/d?channel_binding=x",
            "channel_binding",
        ),
        (
            "postgres://u:canary@h/d?require_auth=scram-sha-256",
            "require_auth",
        ),
        ("postgres://u:canary@h/d%00", "zero byte"),
        ("mysql://u:canary@h/d", "scheme"),
    ] {
        let error = parse_url(text).unwrap_err().to_string();
        assert!(error.contains(word), "{text}: {error}");
        assert!(!error.contains("canary"), "{text}: {error}");
    }
}

#[test]
fn targets_read_as_documented() {
    let Ok(TargetSpec::Container { name, database }) = TargetSpec::parse("container:db") else {
        panic!("container")
    };
    assert_eq!((name.as_str(), database), ("db", None));
    let Ok(TargetSpec::Container { name, database }) = TargetSpec::parse("container:db/a/b") else {
        panic!("container with database")
    };
    assert_eq!((name.as_str(), database.as_deref()), ("db", Some("a/b")));
    let Ok(TargetSpec::Compose {
        project,
        service,
        database,
    }) = TargetSpec::parse("shop/db/x")
    else {
        panic!("compose")
    };
    assert_eq!(
        (project.as_str(), service.as_str(), database.as_deref()),
        ("shop", "db", Some("x"))
    );
    assert!(matches!(
        TargetSpec::parse("postgres://h/d"),
        Ok(TargetSpec::Url(_))
    ));
    for bad in [
        "",
        "container:",
        "container:/db",
        "/x",
        "x/",
        "name",
        "http://h",
    ] {
        assert!(TargetSpec::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn debug_of_a_url_target_hides_the_password() {
    let target = TargetSpec::parse("postgres://u:canary@h/d").unwrap();
    assert!(!format!("{target:?}").contains("canary"));
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

proptest! {
    #[test]
    fn any_login_survives_percent_encoding(
        user in "[^\0]{1,20}", password in "[^\0]{1,40}", database in "[^\0]{1,30}"
    ) {
        let text = format!("postgres://{}:{}@h:1/{}", encode(&user), encode(&password), encode(&database));
        let url = parse_url(&text).unwrap();
        prop_assert_eq!(url.user.as_deref(), Some(user.as_str()));
        prop_assert_eq!(url.password.as_ref().map(ExposeSecret::expose_secret), Some(password.as_str()));
        prop_assert_eq!(url.database.as_deref(), Some(database.as_str()));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".*") {
        let _ = TargetSpec::parse(&text);
        let _ = parse_url(&format!("postgres://{text}"));
    }
}

#[test]
fn the_database_that_a_target_names() {
    for (target, database) in [
        ("container:db", None),
        ("container:db/shop", Some("shop")),
        ("shop/db", None),
        ("shop/db/a/b", Some("a/b")),
        ("postgres://u@h", None),
        ("postgres://u@h/a%20b", Some("a b")),
    ] {
        let spec = TargetSpec::parse(target).unwrap();
        assert_eq!(spec.database().as_deref(), database, "{target}");
    }
}
