//! Tables and properties of the pure parts: hosts, families of variables, merging, signs.

use std::collections::BTreeMap;

use proptest::prelude::*;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    CredentialSource, EnvSnapshot,
    discover::{
        evidence::{Enabled, enabled, glob},
        flow_containers::published_port,
        settings::{Fields, is_local_host},
        variables::{FileContents, OWN, Reader, file_value, files_named},
    },
};

fn read(vars: &[(&str, &str)], files: &[(&str, &str)]) -> Result<(Fields, Vec<String>), String> {
    let env: EnvSnapshot = vars.iter().copied().collect();
    let files: FileContents = files
        .iter()
        .map(|(path, content)| ((*path).to_owned(), file_value(content.as_bytes())))
        .collect();
    let reader = Reader {
        env: &env,
        files: &files,
        source: CredentialSource::Env,
        whose: String::new(),
        lenient: false,
        notes: std::cell::RefCell::default(),
    };
    let fields = reader.read(OWN)?;
    Ok((fields, reader.notes.into_inner()))
}

fn shown(fields: &Fields) -> String {
    let text = |setting: &Option<crate::discover::settings::Setting<String>>| {
        setting.as_ref().map_or("-".to_owned(), |s| s.value.clone())
    };
    let passwords: Vec<&str> = fields
        .passwords
        .iter()
        .map(|p| p.value.expose_secret())
        .collect();
    format!(
        "{} {} {} {} {}",
        text(&fields.host),
        fields.port_value(),
        text(&fields.database),
        text(&fields.user),
        passwords.join(",")
    )
}

#[test]
fn hosts_that_mean_here() {
    for host in [
        "",
        "localhost",
        "LocalHost",
        "localhost.",
        "127.0.0.1",
        "127.8.9.10",
        "::1",
        "[::1]",
        "::ffff:127.0.0.1",
        "/var/run/postgresql",
        "@abstract",
        "localhost.localdomain",
    ] {
        assert!(is_local_host(host), "{host}");
    }
    for host in [
        "db",
        "128.0.0.1",
        "10.0.0.1",
        "localhost.example",
        "::2",
        "127.0.0.1.example",
        "127",
        "0.0.0.0",
        "host.docker.internal",
    ] {
        assert!(!is_local_host(host), "{host}");
    }
}

#[test]
fn the_documented_order() {
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a str);
    let rows: &[Row<'_>] = &[
        (&[], "- 5432 - - "),
        (
            &[
                ("POSTGRES_HOST", "h"),
                ("POSTGRES_DB", "d"),
                ("POSTGRES_USER", "u"),
                ("POSTGRES_PASSWORD", "p"),
            ],
            "h 5432 d u p",
        ),
        // POSTGRES_DATABASE and POSTGRES_USERNAME come before the image's spellings.
        (
            &[
                ("POSTGRES_DATABASE", "a"),
                ("POSTGRES_DB", "b"),
                ("POSTGRES_USERNAME", "c"),
                ("POSTGRES_USER", "d"),
            ],
            "- 5432 a c ",
        ),
        (&[("DATABASE_URL", "postgres://u:p@h:1/d")], "h 1 d u p"),
        (
            &[
                ("PGHOST", "h"),
                ("PGPORT", "2"),
                ("PGDATABASE", "d"),
                ("PGUSER", "u"),
                ("PGPASSWORD", "p"),
            ],
            "h 2 d u p",
        ),
        // PGHOSTADDR stands in only where PGHOST is not set.
        (&[("PGHOSTADDR", "10.0.0.1")], "10.0.0.1 5432 - - "),
        (
            &[("PGHOST", "h"), ("PGHOSTADDR", "10.0.0.1")],
            "h 5432 - - ",
        ),
        // The first family that names a host decides, and takes no password of another host.
        (
            &[
                ("POSTGRES_HOST", "h"),
                ("DATABASE_URL", "postgres://u:p@other/d"),
                ("PGHOST", "third"),
                ("PGPASSWORD", "q"),
            ],
            "h 5432 - - ",
        ),
        (
            &[
                ("DATABASE_URL", "postgres://u@h/d"),
                ("PGHOST", "third"),
                ("PGPASSWORD", "q"),
            ],
            "h 5432 d u ",
        ),
        // Families without a host fill in.
        (
            &[
                ("POSTGRES_HOST", "h"),
                ("PGDATABASE", "d"),
                ("PGUSER", "u"),
                ("PGPASSWORD", "p"),
            ],
            "h 5432 d u p",
        ),
        (
            &[
                ("POSTGRES_PASSWORD", "p"),
                ("DATABASE_URL", "postgres://u@h/d"),
            ],
            "h 5432 d u p",
        ),
        // A password belongs to its user.
        (
            &[
                ("POSTGRES_HOST", "h"),
                ("POSTGRES_USER", "a"),
                ("PGUSER", "b"),
                ("PGPASSWORD", "p"),
            ],
            "h 5432 - a ",
        ),
        // The same host in two families: both passwords, in order, each once.
        (
            &[
                ("POSTGRES_HOST", "h"),
                ("POSTGRES_PASSWORD", "p"),
                ("DATABASE_URL", "postgres://u:q@H/d"),
                ("PGPASSWORD", "p"),
            ],
            "h 5432 d u p,q",
        ),
        // Empty is unset.
        (&[("POSTGRES_HOST", ""), ("PGHOST", "h")], "h 5432 - - "),
        (
            &[("DATABASE_URL", "mysql://u:p@h/d"), ("PGHOST", "x")],
            "x 5432 - - ",
        ),
    ];
    for (vars, expected) in rows {
        let (fields, _) = read(vars, &[]).unwrap_or_else(|e| panic!("{vars:?}: {e}"));
        assert_eq!(shown(&fields), *expected, "{vars:?}");
    }
}

#[test]
fn files_give_values_as_in_the_official_image() {
    let files = [
        ("/s/p", "two\nlines \n\n"),
        ("/s/h", "db.example\n"),
        ("/s/url", "postgres://u:p@h/d\n"),
    ];
    let vars = [("POSTGRES_PASSWORD_FILE", "/s/p"), ("PGHOST_FILE", "/s/h")];
    let env: EnvSnapshot = vars.iter().copied().collect();
    let named: Vec<String> = files_named(&env, OWN)
        .into_iter()
        .map(|(_, path)| path)
        .collect();
    assert_eq!(named, ["/s/p", "/s/h"]);
    assert_eq!(
        shown(&read(&vars, &files).unwrap().0),
        "db.example 5432 - - two\nlines "
    );
    let (fields, _) = read(&[("DATABASE_URL_FILE", "/s/url")], &files).unwrap();
    assert_eq!(shown(&fields), "h 5432 d u p");
    assert!(fields.host.unwrap().origin.contains("DATABASE_URL_FILE"));
}

#[test]
fn what_cannot_be_used_is_named_without_its_value() {
    for (vars, word) in [
        (
            vec![("PGPASSWORD", "canary"), ("PGPASSWORD_FILE", "/s/canary")],
            "PGPASSWORD_FILE are both set",
        ),
        (
            vec![("POSTGRES_PASSWORD_FILE", "/none")],
            "POSTGRES_PASSWORD_FILE",
        ),
        (
            vec![("POSTGRES_PORT", "tcp://canary:5432")],
            "POSTGRES_PORT",
        ),
        (vec![("PGPORT", "0")], "PGPORT"),
        (vec![("PGHOST", "a,b")], "PGHOST"),
        (vec![("POSTGRES_SSLMODE", "canary")], "POSTGRES_SSLMODE"),
        (vec![("PGCHANNELBINDING", "canary")], "PGCHANNELBINDING"),
        (
            vec![("DATABASE_URL", "postgres://u:canary@a,b/d")],
            "DATABASE_URL",
        ),
    ] {
        let problem = read(&vars, &[]).unwrap_err();
        assert!(
            problem.contains(word) && !problem.contains("canary:") && !problem.contains("u:canary"),
            "{problem}"
        );
    }
}

#[test]
fn tls_options_of_both_families() {
    let (fields, _) = read(
        &[
            ("POSTGRES_SSLMODE", "verify-full"),
            ("POSTGRES_SSLROOTCERT", "/ca"),
            ("PGSSLMODE", "disable"),
            ("PGSSLCERT", "/c"),
            ("PGSSLKEY", "/k"),
            ("PGSSLCRL", "/r"),
            ("PGCHANNELBINDING", "require"),
        ],
        &[],
    )
    .unwrap();
    assert_eq!(fields.tls.mode.unwrap().as_str(), "verify-full");
    assert_eq!(fields.tls.root_cert.unwrap().to_str(), Some("/ca"));
    assert_eq!(fields.tls.cert.unwrap().to_str(), Some("/c"));
    assert_eq!(fields.tls.key.unwrap().to_str(), Some("/k"));
    assert_eq!(fields.tls.crl.unwrap().to_str(), Some("/r"));
    assert_eq!(fields.tls.channel_binding.as_deref(), Some("require"));
}

#[test]
fn labels_patterns_and_published_ports() {
    let labels = |value: &str| BTreeMap::from([("pgstow.enable".to_owned(), value.to_owned())]);
    assert_eq!(enabled(&labels("true")), Enabled::Yes);
    assert_eq!(enabled(&labels("FALSE ")), Enabled::No);
    assert_eq!(enabled(&labels("maybe")), Enabled::Unsaid);
    assert_eq!(enabled(&BTreeMap::new()), Enabled::Unsaid);
    for (pattern, text, fits) in [
        ("postgres:*", "postgres:17", true),
        ("postgres:*", "x/postgres:17", false),
        ("*postgres*", "x/postgres:17", true),
        ("postgres:1?", "postgres:17", true),
        ("postgres:1?", "postgres:175", false),
        ("**", "", true),
        ("a*b*c", "aXbXbYc", true),
        ("", "x", false),
    ] {
        assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
    }
    for (text, port) in [
        ("0.0.0.0:55432->5432/tcp", Some(55432)),
        ("[::]:55432->5432/tcp", Some(55432)),
        ("55432->5432", Some(55432)),
        ("5432/tcp", None),
    ] {
        assert_eq!(published_port(text), port, "{text}");
    }
}

proptest! {
    /// Whatever the environment holds: a password only ever goes to the host of its own family.
    #[test]
    fn bar_41_no_family_sends_its_password_to_the_host_of_another(
        hosts in proptest::array::uniform3(proptest::option::of("[a-c]")),
        with_password in proptest::array::uniform3(any::<bool>()),
    ) {
        let mut vars: Vec<(String, String)> = Vec::new();
        for (at, (host_name, password_name)) in
            [("POSTGRES_HOST", "POSTGRES_PASSWORD"), ("", ""), ("PGHOST", "PGPASSWORD")].into_iter().enumerate()
        {
            let host = hosts[at].clone();
            if at == 1 {
                let password = if with_password[1] { ":url-secret" } else { "" };
                vars.push(("DATABASE_URL".to_owned(), format!("postgres://u{password}@{}/d", host.unwrap_or_default())));
                continue;
            }
            if let Some(host) = host {
                vars.push((host_name.to_owned(), host));
            }
            if with_password[at] {
                vars.push((password_name.to_owned(), format!("{host_name}-secret")));
            }
        }
        let pairs: Vec<(&str, &str)> = vars.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let (fields, _) = read(&pairs, &[]).unwrap();
        prop_assert_eq!(fields.host_value(), hosts.iter().flatten().next().map(String::as_str));
        let secrets: Vec<&str> = fields.passwords.iter().map(|p| p.value.expose_secret()).collect();
        for (at, secret) in ["POSTGRES_HOST-secret", "url-secret", "PGHOST-secret"].into_iter().enumerate() {
            let may = with_password[at] && (hosts[at].is_none() || hosts[at].as_deref() == fields.host_value());
            prop_assert_eq!(secrets.contains(&secret), may, "{} {:?}", secret, pairs);
        }
    }

    #[test]
    fn a_glob_without_wildcards_is_equality(text in "[a-z:/.]{0,12}", other in "[a-z:/.]{0,12}") {
        prop_assert!(glob(&text, &text));
        prop_assert_eq!(glob(&text, &other), text == other);
        let contained = format!("*{text}*");
        let within = format!("{other}{text}{other}");
        prop_assert!(glob(&contained, &within));
    }

    #[test]
    fn file_values_lose_only_trailing_newlines(text in "[^\0]*[^\0\n]", newlines in 0_usize..4) {
        let content = format!("{text}{}", "\n".repeat(newlines));
        let value: SecretString = file_value(content.as_bytes()).unwrap();
        prop_assert_eq!(value.expose_secret(), text.as_str());
    }
}
