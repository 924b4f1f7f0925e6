//! The fixture is restorable by the stock programs, and the comparisons see what they must.

use testkit::PgContainer;
use testkit::images::MAJORS;
use testkit::schema::{database_properties, fingerprint, load_bar31, schema_dump};

#[test]
fn the_fixture_loads_and_stock_programs_restore_it() {
    for major in MAJORS {
        let container = PgContainer::start(major).unwrap();
        load_bar31(&container, "shop").unwrap_or_else(|error| panic!("{major}: {error}"));
        container
            .exec(&[
                "sh", "-c",
                "pg_dump -Fc -U postgres -d shop -f /tmp/x && createdb -U postgres -T template0 \
                 -l de_DE.UTF-8 -E UTF8 copy && pg_restore --exit-on-error -U postgres -d copy /tmp/x",
            ])
            .unwrap_or_else(|error| panic!("{major}: {error}"));
        assert_eq!(
            schema_dump(&container, "shop"),
            schema_dump(&container, "copy"),
            "{major}"
        );
        assert_eq!(
            fingerprint(&container, "shop"),
            fingerprint(&container, "copy"),
            "{major}"
        );
        assert_ne!(
            database_properties(&container, "shop"),
            database_properties(&container, "copy")
        );
    }
}

#[test]
fn a_fingerprint_sees_a_row_a_sequence_and_a_large_object() {
    let container = PgContainer::start(15).unwrap();
    load_bar31(&container, "shop").unwrap();
    let mut seen = vec![fingerprint(&container, "shop").unwrap()];
    for change in [
        "update app.values set t = 'changed' where f = 'NaN'",
        "select nextval('app.standalone')",
        "select setval('app.never_called', 5, false)",
        "select lo_put(700003, 0, '\\x01')",
        "insert into app.no_columns default values",
    ] {
        container.psql("shop", change).unwrap();
        let now = fingerprint(&container, "shop").unwrap();
        assert!(!seen.contains(&now), "{change}");
        seen.push(now);
    }
}

#[test]
fn the_preload_image_has_what_stock_images_lack() {
    for major in [15, 17] {
        let with = PgContainer::builder(major)
            .image(&testkit::images::preload(major))
            .start()
            .unwrap();
        let database = "create database shop";
        let script = "create extension pg_stat_statements; create extension stowloaded;
            create extension timescaledb; create table metric (at timestamptz, value int);
            select create_hypertable('metric');";
        with.psql("postgres", database).unwrap();
        with.psql("shop", script).unwrap();
        // A restore without the hooks fails, one between them does not.
        let restore = "pg_dump -Fc -U postgres -d shop -f /tmp/x && dropdb -U postgres shop \
             && createdb -U postgres shop && psql -qXU postgres -d shop -c 'create extension timescaledb'";
        with.exec(&["sh", "-c", restore]).unwrap();
        let pg_restore = [
            "pg_restore",
            "--exit-on-error",
            "-U",
            "postgres",
            "-d",
            "shop",
            "/tmp/x",
        ];
        let words = with.exec(&pg_restore).unwrap_err();
        assert!(words.contains("timescaledb_pre_restore"), "{words}");
        let again =
            "drop table if exists metric; drop extension if exists stowloaded, pg_stat_statements;
            select timescaledb_pre_restore()";
        with.psql("shop", again).unwrap();
        with.exec(&pg_restore).unwrap();
        with.psql("shop", "select timescaledb_post_restore()")
            .unwrap();
        let calls = "select string_agg(hook || user_tables, ',' order by number) from _timescaledb_catalog.calls";
        assert_eq!(
            with.psql("shop", calls).unwrap().trim(),
            "pre_restore0,post_restore1"
        );
        // Not without the libraries, and not in a stock image.
        let bare = PgContainer::builder(major)
            .image(&testkit::images::preload(major))
            .args(&["postgres"])
            .start()
            .unwrap();
        let words = bare
            .psql("postgres", "create extension stowloaded")
            .unwrap_err();
        assert!(words.contains("shared_preload_libraries"), "{words}");
    }
}
