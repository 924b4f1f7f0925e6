//! Restores of a part of an archive, on real servers with the objects of bar line 31.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::path::Path;

use backup::{BackupError, RestoreContents, RestorePlace, RestoreReport, RestoreSection};
use support::live::{Live, file_as, words};
use testkit::schema::load_bar31;

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn tables(patterns: &[&str]) -> RestoreContents {
    RestoreContents {
        tables: strings(patterns),
        ..RestoreContents::default()
    }
}

fn schemas(patterns: &[&str]) -> RestoreContents {
    RestoreContents {
        schemas: strings(patterns),
        ..RestoreContents::default()
    }
}

fn sections(sections: &[RestoreSection]) -> RestoreContents {
    RestoreContents {
        sections: sections.to_vec(),
        ..RestoreContents::default()
    }
}

/// Restores a part; returns the plan's warnings too.
async fn part(
    live: &Live,
    path: &Path,
    name: &str,
    contents: RestoreContents,
) -> (RestoreReport, Vec<String>) {
    let mut request = file_as(path, name);
    request.contents = contents;
    let plan = live.plan(&request).await;
    let plan = plan.unwrap_or_else(|error| panic!("{name}: {}", words(&error)));
    assert!(
        plan.steps
            .iter()
            .any(|step| step.contains("restore a part")),
        "{:?}",
        plan.steps
    );
    let report = live.apply(&plan).await;
    let report = report.unwrap_or_else(|error| panic!("{name}: {}", words(&error)));
    assert_eq!(report.warnings, Vec::<String>::new(), "{name}");
    (report, plan.warnings)
}

/// What stock pg_dump says of a part of a database.
fn dumped(live: &Live, database: &str, options: &[&str]) -> String {
    let argv = [&["pg_dump", "-U", "postgres", "-d", database][..], options].concat();
    let text = live.container.exec(&argv).unwrap();
    let random = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    text.lines().filter(random).collect::<Vec<_>>().join("\n")
}

fn relations(live: &Live, database: &str) -> String {
    live.psql(
        database,
        "SELECT string_agg(n.nspname || '.' || c.relname, ' ' ORDER BY 1, c.relname)
         FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^(pg_|information_schema)'
           AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e')
         GROUP BY ()",
    )
}

async fn parts_of_bar31(live: &Live) {
    load_bar31(&live.container, "src").unwrap();
    for (format, options) in [("custom", &["-Fc"]), ("directory", &["-Fd"])] {
        let path = live.dump("src", format, options);
        let name = |part: &str| format!("{format}_{part}");

        // With its types, collation, domain over an extension's type, trigger function, indexes.
        let (report, _) = part(live, &path, &name("person"), tables(&["app.person"])).await;
        assert_eq!(report.rows, 300);
        let copy = name("person");
        assert_eq!(relations(live, &copy), "app.person");
        let whole = ["-t", "app.person"];
        assert_eq!(dumped(live, &copy, &whole), dumped(live, "src", &whole));

        // The foreign keys of a circle are left out, and said.
        let (report, warnings) = part(live, &path, &name("hen"), tables(&["app.chicken"])).await;
        assert_eq!((report.tables, report.rows), (1, 1));
        assert!(
            warnings
                .iter()
                .any(|warning| warning.contains("left out") && warning.contains("fkey")),
            "{warnings:?}"
        );
        let keys = "SELECT string_agg(contype::text, '' ORDER BY contype) FROM pg_constraint WHERE connamespace = 'app'::regnamespace AND conrelid <> 0 AND contype <> 'n'";
        assert_eq!(live.psql(&name("hen"), keys), "p");
        let both = tables(&["app.chicken", "app.egg"]);
        part(live, &path, &name("both"), both).await;
        assert_eq!(live.psql(&name("both"), keys), "ffpp");

        // Partitions come with their parent, and a part alone with none of the others.
        let (report, _) = part(live, &path, &name("event"), tables(&["app.event"])).await;
        assert_eq!(report.rows, 900);
        let rows = "SELECT md5(string_agg(e::text, ',' ORDER BY at, kind, n)) FROM app.event AS e";
        assert_eq!(live.psql(&name("event"), rows), live.psql("src", rows));

        // Names are data.
        let odd = "\"odd \"\"schema\"\" 'x'; $(y)\".\"-Fc host=x\nnewline ü;\"";
        let (report, _) = part(live, &path, &name("odd"), tables(&[odd])).await;
        assert_eq!((report.tables, report.rows), (1, 1));

        // A schema with all that is in it.
        part(live, &path, &name("schema"), schemas(&["app"])).await;
        let definitions = ["-n", "app", "-s"];
        assert_eq!(
            dumped(live, &name("schema"), &definitions),
            dumped(live, "src", &definitions)
        );
        let odd = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'odd%'";
        assert_eq!(live.psql(&name("schema"), odd), "0");
        // Restored by name and not by connection.
        assert_eq!(
            live.psql(&name("schema"), "SELECT count(*) FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"),
            "0"
        );
        // The databases are as the source's: encoding, settings, owner.
        let facts = "SELECT pg_get_userbyid(datdba), datcollate FROM pg_database WHERE datname = current_database(); SHOW work_mem";
        assert_eq!(live.psql(&name("person"), facts), live.psql("src", facts));
    }
}

#[tokio::test]
async fn parts_of_bar31_13() {
    parts_of_bar31(&Live::start(13).await).await;
}

#[tokio::test]
async fn parts_of_bar31_15() {
    parts_of_bar31(&Live::start(15).await).await;
}

#[tokio::test]
async fn parts_of_bar31_18() {
    parts_of_bar31(&Live::start(18).await).await;
}

const SMALL: &str = "
CREATE TABLE t (id int PRIMARY KEY, v text CHECK (v <> '')); INSERT INTO t SELECT g, 'x' FROM generate_series(1, 70) AS g;
CREATE INDEX ON t (v); CREATE SEQUENCE s; SELECT setval('s', 42);
CREATE TABLE \"Upper\" (a int); INSERT INTO \"Upper\" VALUES (1);
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
SELECT lo_from_bytea(4711, 'abc');
";

#[tokio::test]
async fn sections_and_rows_alone() {
    // With programs of this host too, and with jobs, so that the list is beside them.
    for (live, jobs) in [
        (Live::start(17).await, None),
        (Live::over_network(15).await, Some(3)),
    ] {
        live.psql("postgres", "CREATE DATABASE src");
        live.psql("src", SMALL);
        let path = live.dump("src", "dir", &["-Fd"]);
        let restore = async |name: &str, contents: RestoreContents| {
            let mut request = file_as(&path, name);
            request.contents = contents;
            request.jobs = jobs;
            let report = live.restore(&request).await;
            report.unwrap_or_else(|error| panic!("{name}: {}", words(&error)))
        };
        let seen = "SELECT (SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'),
                           (SELECT count(*) FROM pg_trigger), (SELECT last_value FROM s),
                           (SELECT count(*) FROM pg_largeobject)";
        use RestoreSection::{Data, PostData, PreData};
        let report = restore("pre", sections(&[PreData])).await;
        assert_eq!((report.tables, report.rows), (2, 0));
        assert_eq!(live.psql("pre", seen), "0|0|1|0");
        let report = restore("rows", sections(&[Data, PreData])).await;
        assert_eq!(report.rows, 71);
        assert_eq!(live.psql("rows", seen), "0|0|42|1");
        let report = restore("shape", sections(&[PreData, PostData])).await;
        assert_eq!(report.rows, 0);
        assert_eq!(live.psql("shape", seen), "2|1|1|0");
        let only = RestoreContents {
            data_only: true,
            ..tables(&["t"])
        };
        let report = restore("only", only).await;
        assert_eq!((report.tables, report.rows), (1, 70));
        let bare = "SELECT (SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'), (SELECT count(*) FROM pg_trigger)";
        assert_eq!(live.psql("only", bare), "0|0");
        assert_eq!(
            live.psql("only", "SELECT count(*) FROM pg_largeobject"),
            "0"
        );
    }
}

async fn refused(
    live: &Live,
    path: &Path,
    change: impl FnOnce(&mut backup::RestoreRequest),
) -> String {
    let before = (live.databases(), dumped(live, "src", &[]));
    let mut request = file_as(path, "copy");
    change(&mut request);
    match live.plan(&request).await {
        Err(BackupError::RestoreRefused { problem, remedy }) => {
            assert_eq!((live.databases(), dumped(live, "src", &[])), before);
            format!("{problem} – {remedy}")
        }
        Err(other) => panic!("another error: {}", words(&other)),
        Ok(plan) => panic!("it was not refused: {:?}", plan.steps),
    }
}

#[tokio::test]
async fn parts_that_cannot_be_are_refused() {
    let live = Live::start(15).await;
    live.psql("postgres", "CREATE DATABASE src");
    live.psql("src", SMALL);
    let path = live.dump("src", "custom", &["-Fc"]);
    let plain = live.dump("src", "plain.sql", &["-Fp"]);
    let text = refused(&live, &path, |r| r.contents = tables(&["t", "nothing*"])).await;
    assert!(
        text.contains("nothing*") && !text.contains("\"t\""),
        "{text}"
    );
    let text = refused(&live, &path, |r| r.contents = tables(&["Upper"])).await;
    assert!(text.contains("it does hold \"Upper\""), "{text}");
    let text = refused(&live, &path, |r| r.contents = schemas(&["nowhere"])).await;
    assert!(text.contains("nowhere"), "{text}");
    for broken in ["a.b.c", "\"open", "", "a."] {
        let text = refused(&live, &path, |r| r.contents = tables(&[broken])).await;
        assert!(text.contains("no pattern"), "{text}");
    }
    use RestoreSection::{Data, PostData};
    for alone in [&[Data][..], &[PostData], &[Data, PostData]] {
        let text = refused(&live, &path, |r| r.contents = sections(alone)).await;
        assert!(text.contains("--data-only"), "{text}");
    }
    for place in [
        RestorePlace::InPlace {
            name: "src".to_owned(),
        },
        RestorePlace::Swap {
            name: "src".to_owned(),
            safety_backup: false,
            keep_old_seconds: 60,
        },
    ] {
        let text = refused(&live, &path, |r| {
            r.contents = tables(&["t"]);
            r.place = place;
        })
        .await;
        assert!(text.contains("--as NEWDB"), "{text}");
    }
    let text = refused(&live, &plain, |r| r.contents = tables(&["t"])).await;
    assert!(
        text.contains("plain dump") && text.contains("custom"),
        "{text}"
    );
    // An existing database is never filled.
    let text = refused(&live, &path, |r| {
        r.contents.data_only = true;
        r.place = RestorePlace::NewDatabase {
            name: "src".to_owned(),
        };
    })
    .await;
    assert!(text.contains("exists already"), "{text}");
}

#[tokio::test]
async fn a_part_needs_only_what_it_uses() {
    let live = Live::start(15).await;
    live.psql("postgres", "CREATE ROLE far_away; CREATE DATABASE src");
    live.psql("src", SMALL);
    live.psql(
        "src",
        "CREATE SCHEMA x; CREATE EXTENSION stowtest SCHEMA x; CREATE TABLE x.t (a int); ALTER TABLE x.t OWNER TO far_away",
    );
    let path = live.dump("src", "custom", &["-Fc"]);
    let other = Live::start(15).await;
    for file in ["stowtest.control", "stowtest--1.2.sql"] {
        let file = format!("/usr/share/postgresql/15/extension/{file}");
        other.container.exec(&["rm", &file]).unwrap();
    }
    match other.plan(&file_as(&path, "copy")).await {
        Err(BackupError::RestoreRefused { problem, .. }) => {
            assert!(
                problem.contains("far_away") && problem.contains("stowtest"),
                "{problem}"
            );
        }
        other => panic!("{other:?}"),
    }
    let (report, _) = part(&other, &path, "copy", tables(&["public.t"])).await;
    assert_eq!((report.tables, report.rows), (1, 70));
}
