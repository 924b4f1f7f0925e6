use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;

use super::*;
use crate::{ContainerIdentity, FieldSources, ServerIdentity, Trail};

fn context(mode: DbMode, password: Option<&str>) -> DbContext {
    DbContext {
        mode,
        creds: DbCreds {
            host: (mode == DbMode::External).then(|| "db.example".to_owned()),
            port: 5433,
            database: "sh\"op".to_owned(),
            user: "us er".to_owned(),
            password: password.map(|p| SecretString::from(p.to_owned())),
            tls: TlsOptions {
                mode: Some(SslMode::VerifyFull),
                root_cert: Some(PathBuf::from("/ca.pem")),
                ..TlsOptions::default()
            },
        },
        source: CredentialSource::RunningContainer,
        field_sources: FieldSources::default(),
        container: (mode == DbMode::InContainer).then(|| ContainerIdentity {
            id: "00".to_owned(),
            name: "shop-db-1".to_owned(),
            image: "postgres:17".to_owned(),
            image_digest: "sha256:00".to_owned(),
            compose: Some(ComposeService {
                project: "shop".to_owned(),
                service: "db".to_owned(),
            }),
        }),
        server: ServerIdentity {
            version_num: 170_002,
            version: "17.2".to_owned(),
            system_identifier: Some("7000000000000000001".to_owned()),
            in_recovery: false,
            is_superuser: true,
            running: None,
        },
        trail: Trail::default(),
        programs: crate::SeenPrograms::default(),
    }
}

/// A private state directory and the path of the file in it.
fn state() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let path = dir.path().join("db.env");
    (dir, path)
}

fn secret(persisted: &Persisted) -> Option<String> {
    persisted
        .creds
        .password
        .as_ref()
        .map(|p| p.expose_secret().to_owned())
}

#[test]
fn what_is_written_is_read_and_only_the_owner_may() {
    for mode in [DbMode::InContainer, DbMode::External] {
        let (dir, path) = state();
        assert!(read_persisted(&path).unwrap().is_none());
        let written = context(mode, Some("pa$$ 'w\"o#rd\\n=${X}"));
        write_persisted(&path, &written).unwrap();
        write_persisted(&path, &written).unwrap();
        let read = read_persisted(&path).unwrap().unwrap();
        assert_eq!(read.mode, mode);
        assert_eq!(read.creds.host, written.creds.host);
        assert_eq!(read.creds.port, 5433);
        assert_eq!(read.creds.database, "sh\"op");
        assert_eq!(read.creds.user, "us er");
        assert_eq!(secret(&read).as_deref(), Some("pa$$ 'w\"o#rd\\n=${X}"));
        assert_eq!(read.creds.tls, written.creds.tls);
        assert_eq!(
            read.system_identifier.as_deref(),
            Some("7000000000000000001")
        );
        assert_eq!(read.compose.is_some(), mode == DbMode::InContainer);
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "no temporary file stays");
    }
}

#[test]
fn the_file_is_literal_for_docker() {
    let (_dir, path) = state();
    write_persisted(&path, &context(DbMode::InContainer, Some("a b$c\"d'\\"))).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\nPOSTGRES_PASSWORD=a b$c\"d'\\\n"), "{text}");
    assert!(text.contains("\nPGSTOW_FORMAT_VERSION=1\n"), "{text}");
}

#[test]
fn bar_39_links_fifos_loose_modes_and_foreign_owners_are_refused() {
    let written = context(DbMode::External, Some("canary"));
    let refused = |path: &Path, word: &str| {
        let error = read_persisted(path).unwrap_err();
        assert!(matches!(error, PersistedError::Unsafe { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(word) && !text.contains("canary"), "{text}");
    };

    let (dir, path) = state();
    write_persisted(&path, &written).unwrap();
    for mode in [0o640, 0o604, 0o622, 0o644] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        refused(&path, "chmod 600");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(read_persisted(&path).is_ok());

    let link = dir.path().join("link.env");
    symlink(&path, &link).unwrap();
    refused(&link, "symbolic link");

    let fifo = dir.path().join("fifo.env");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .unwrap();
    refused(&fifo, "regular file");

    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        refused(&path, "12345");
    }

    let (dir, path) = state();
    write_persisted(&path, &written).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    refused(&path, "chmod 700");
    assert!(write_persisted(&path, &written).is_err());

    let (dir, _) = state();
    let other = dir.path().join("real");
    fs::create_dir(&other).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o700)).unwrap();
    let linked = dir.path().join("linked");
    symlink(&other, &linked).unwrap();
    refused(&linked.join("db.env"), "symbolic link");
    assert!(write_persisted(&linked.join("db.env"), &written).is_err());
}

#[test]
fn writing_replaces_a_link_instead_of_following_it() {
    let (dir, path) = state();
    let victim = dir.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    symlink(&victim, &path).unwrap();
    write_persisted(&path, &context(DbMode::External, Some("canary"))).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert!(read_persisted(&path).unwrap().is_some());
}

#[test]
fn leftovers_of_a_killed_run_go_away() {
    let (dir, path) = state();
    let leftover = dir.path().join(".db.env.tmp.1.0");
    fs::write(&leftover, "POSTGRES_PASSWORD=canary").unwrap();
    write_persisted(&path, &context(DbMode::External, None)).unwrap();
    assert!(!leftover.exists());
}

#[test]
fn a_newer_format_is_neither_read_nor_rewritten() {
    let (_dir, path) = state();
    let newer = "PGSTOW_FORMAT_VERSION=2\nPGSTOW_MODE=elsewhere\n";
    fs::write(&path, newer).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let error = read_persisted(&path).unwrap_err();
    assert!(error.to_string().contains("newer pgstow"), "{error}");
    let error = write_persisted(&path, &context(DbMode::External, None)).unwrap_err();
    assert!(error.to_string().contains("newer pgstow"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}

#[test]
fn damage_names_the_key_and_not_the_value() {
    let good = "PGSTOW_FORMAT_VERSION=1\nPGSTOW_MODE=external\nPOSTGRES_HOST=h\nPOSTGRES_DATABASE=d\nPOSTGRES_USERNAME=u\nPOSTGRES_PASSWORD=canary\n";
    assert!(parse(good).is_ok());
    assert!(parse(&format!("{good}# comment\n\nFUTURE_KEY=x\n")).is_ok());
    for (from, to, word) in [
        ("PGSTOW_FORMAT_VERSION=1\n", "", "PGSTOW_FORMAT_VERSION"),
        ("VERSION=1", "VERSION=x", "PGSTOW_FORMAT_VERSION"),
        ("=external", "=canary", "PGSTOW_MODE"),
        ("POSTGRES_HOST=h", "POSTGRES_PORT=canary", "POSTGRES_PORT"),
        (
            "POSTGRES_HOST=h",
            "POSTGRES_SSLMODE=canary",
            "POSTGRES_SSLMODE",
        ),
        ("POSTGRES_DATABASE=d\n", "", "POSTGRES_DATABASE"),
        (
            "POSTGRES_HOST=h",
            "POSTGRES_DATABASE=canary",
            "POSTGRES_DATABASE is there twice",
        ),
        ("POSTGRES_HOST=h", "canary", "line 3"),
    ] {
        let problem = parse(&good.replace(from, to)).unwrap_err();
        assert!(
            problem.contains(word) && !problem.contains("canary"),
            "{problem}"
        );
    }
}

proptest! {
    #[test]
    fn any_value_survives(
        password in any::<String>(), database in ".{1,20}", user in "[^\0]{1,20}"
    ) {
        let mut written = context(DbMode::External, Some(&password));
        written.creds.database = database.clone();
        written.creds.user = user.clone();
        let read = parse(render(&written).expose_secret()).unwrap();
        prop_assert_eq!(secret(&read), Some(password));
        prop_assert_eq!(read.creds.database, database);
        prop_assert_eq!(read.creds.user, user);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(PGSTOW_FORMAT_VERSION=1\n)?(.*\n){0,5}") {
        let _ = parse(&text);
    }
}
