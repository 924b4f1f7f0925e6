//! Stock archives of real servers, written anew in every format: pg_restore of the same major says
//! of ours what it says of its own, and restores equal databases.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod recode;

use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use archive::{
    ArchiveKind, ArchiveSummary, Compression, DirectoryEntry, WriteFormat, check_custom, copy_toc,
    read_directory_entries, read_large_object_list, stream_directory_large_object,
    stream_directory_rows, toc_without_data,
};
use recode::{ALL, ARCHIVE, COMPRESSIONS, Collected, Cuts, Recoded, Sizes, collect, recode};
use testkit::{
    PgContainer,
    process::docker,
    schema::{fill, fingerprint, load_bar31, schema_dump},
};

/// Beside the fixture: rows whose columns come in another order once they are restored, rows of
/// many lines and bytes, none, and large objects of every kind.
const MORE: &str = r"
    create table app.older (a integer);
    create table app.younger (own text, later text) inherits (app.older);
    insert into app.younger select g, E'own\t' || g, E'later\n\\.\r' || g from generate_series(1, 500) g;
    create table app.anew_nothing (a integer);
    create table app.anew_wide as select repeat(md5(g::text), 20000) as v from generate_series(1, 3) g;
    create table app.anew_dots as select '\.' as v from generate_series(1, 10);
    select lo_from_bytea(4000000000, convert_to(repeat('large ', 60000), 'UTF8')) \g /dev/null
    select lo_from_bytea(0, decode(md5(g::text), 'hex')) from generate_series(1, 200) g \g /dev/null
";

struct Case {
    container: PgContainer,
    dir: tempfile::TempDir,
    major: u32,
    databases: u32,
}

impl Case {
    fn new(major: u32) -> Self {
        // Nothing here outlives the server, and a dozen databases are restored.
        let quick = ["fsync=off", "full_page_writes=off", "autovacuum=off"];
        let container = PgContainer::builder(major)
            .args(&quick.map(|setting| ["-c", setting]).concat())
            .start()
            .unwrap();
        load_bar31(&container, "source").unwrap();
        container.psql("source", MORE).unwrap();
        fill(&container, "source", "ordinary", 5000).unwrap();
        Self {
            container,
            dir: tempfile::tempdir().unwrap(),
            major,
            databases: 0,
        }
    }

    /// Runs a script of the shell in the container.
    fn sh(&self, script: &str) -> String {
        let script = format!(
            "export PGUSER={}; set -e; {script}",
            self.container.superuser()
        );
        self.container.exec(&["bash", "-c", &script]).unwrap()
    }

    /// Copies out of the container's `/tmp`.
    fn fetch(&self, name: &str) -> PathBuf {
        let to = self.dir.path().join(name);
        let from = format!("{}:/tmp/{name}", self.container.id());
        docker(&["cp", &from, to.to_str().unwrap()]).unwrap();
        to
    }

    /// Dumps to a pipe.
    fn piped(&self, name: &str, options: &str) -> Vec<u8> {
        self.sh(&format!("pg_dump -d source {options} | cat > /tmp/{name}"));
        std::fs::read(self.fetch(name)).unwrap()
    }

    /// Puts an archive into the container's `/tmp`.
    fn put(&self, recoded: &Recoded, name: &str) {
        let local = self.dir.path().join(name);
        if let Some(bytes) = recoded.files.get(ARCHIVE) {
            std::fs::write(&local, bytes).unwrap();
        } else {
            std::fs::create_dir(&local).unwrap();
            for (file, bytes) in &recoded.files {
                std::fs::write(local.join(file), bytes).unwrap();
            }
        }
        self.copy_in(&local, name);
    }

    fn copy_in(&self, local: &Path, name: &str) {
        let to = format!("{}:/tmp/{name}", self.container.id());
        docker(&["cp", local.to_str().unwrap(), &to]).unwrap();
    }

    /// Hash of the script that pg_restore makes; it closes scripts with words of chance.
    fn script(&self, options: &str, name: &str) -> String {
        self.sh(&format!(
            "set -o pipefail; pg_restore {options} -f - /tmp/{name} | sed -E '/^\\\\(un)?restrict /d' \
             | sha256sum"
        ))
    }

    fn restore(&mut self, options: &str, name: &str) -> String {
        self.databases += 1;
        let database = format!("copy{}", self.databases);
        self.sh(&format!(
            "createdb -T template0 -E UTF8 --lc-collate de_DE.UTF-8 --lc-ctype de_DE.UTF-8 {database}; \
             pg_restore -e -d {database} {options} /tmp/{name}"
        ));
        database
    }

    fn drop(&self, database: &str) {
        let subscriptions = r"select format('alter subscription %I disable', subname) from
            pg_subscription where subdbid = (select oid from pg_database where datname =
            current_database()) \gexec
            select format('alter subscription %I set (slot_name = none)', subname) from
            pg_subscription where subdbid = (select oid from pg_database where datname =
            current_database()) \gexec
            select format('drop subscription %I', subname) from
            pg_subscription where subdbid = (select oid from pg_database where datname =
            current_database()) \gexec";
        let sql = format!("{subscriptions}\n\\connect postgres\ndrop database {database};");
        self.container.psql(database, &sql).unwrap();
    }
}

/// The header's time, which differs from dump to dump, as zeros.
fn timeless(mut toc: Vec<u8>) -> Vec<u8> {
    let time = if toc[6] >= 15 { 12 } else { 16 };
    toc[time..time + 7 * 5].fill(0);
    toc
}

/// What stands in front of the data.
fn head(archive: &[u8], format: WriteFormat) -> Vec<u8> {
    let mut head = Vec::new();
    copy_toc(archive, format, &ALL, &mut |piece| {
        head.extend_from_slice(piece);
        Ok(())
    })
    .unwrap();
    timeless(head)
}

fn written_anew(major: u32) {
    let mut case = Case::new(major);
    let stock = case.piped("stock", "-Fc -Z0");
    let summary = check_custom(Cursor::new(&stock), &ALL).unwrap();
    assert!(summary.rows() > 6000 && summary.large_objects > 203);
    let expected = case.script("", "stock");
    let source = (
        fingerprint(&case.container, "source").unwrap(),
        schema_dump(&case.container, "source").unwrap(),
    );
    let formats = [ArchiveKind::Custom, ArchiveKind::DirectoryOrTar].map(|kind| {
        COMPRESSIONS.map(|(compression, level)| WriteFormat {
            kind,
            compression,
            level,
        })
    });
    let mut tried = 0;
    for (at, format) in formats.into_iter().flatten().enumerate() {
        if format.check(summary.header.version).is_err() {
            continue;
        }
        for (unit, piece) in [(3_000, 700), (1 << 20, 1 << 16)] {
            let sizes = Sizes::new(at as u64);
            let recoded = recode(&stock, format, &Cuts { sizes, unit, piece });
            recoded.assert_equal(&summary);
            let name = format!("ours{tried}");
            tried += 1;
            case.put(&recoded, &name);
            assert_eq!(case.script("", &name), expected, "{format:?}");
            // One level of each.
            if matches!(format.level, 0 | 1) {
                let options = if unit == 3_000 { "-j3" } else { "" };
                let copy = case.restore(options, &name);
                assert_eq!(fingerprint(&case.container, &copy).unwrap(), source.0);
                assert_eq!(schema_dump(&case.container, &copy).unwrap(), source.1);
                case.drop(&copy);
            }
        }
    }
    assert_eq!(tried, if major >= 16 { 32 } else { 16 });
    as_stock_writes_it(&case, &stock);
    stock_archives_stream(&case, &stock, &summary);
    metadata_alone(&mut case, &stock, &source.1);
}

/// The bytes before the data are those of a stock archive of the same format.
fn as_stock_writes_it(case: &Case, stock: &[u8]) {
    let mut formats = vec![(Compression::None, 0, "-Z0"), (Compression::Gzip, -1, "")];
    if case.major >= 16 {
        formats.extend([
            (Compression::Gzip, 3, "-Z gzip:3"),
            (Compression::Lz4, 1, "-Z lz4"),
            (Compression::Zstd, 2, "-Z zstd:2"),
        ]);
    } else {
        formats.push((Compression::Gzip, 3, "-Z3"));
    }
    for (at, (compression, level, option)) in formats.into_iter().enumerate() {
        let format = |kind| WriteFormat {
            kind,
            compression,
            level,
        };
        let theirs = case.piped(&format!("custom{at}"), &format!("-Fc {option}"));
        let ours = head(stock, format(ArchiveKind::Custom));
        assert_eq!(timeless(theirs)[..ours.len()], ours, "{option}");
        case.sh(&format!("pg_dump -d source -Fd {option} -f /tmp/dir{at}"));
        let theirs = std::fs::read(case.fetch(&format!("dir{at}")).join("toc.dat")).unwrap();
        let ours = head(stock, format(ArchiveKind::DirectoryOrTar));
        assert_eq!(timeless(theirs), ours, "{option}");
    }
}

/// Stock archives of every compression give the same data as the one that is not compressed.
fn stock_archives_stream(case: &Case, stock: &[u8], summary: &ArchiveSummary) {
    let expected = collect(stock).unwrap();
    assert_eq!(expected.rows.len(), summary.tables.len());
    assert_eq!(expected.large_objects.len() as u64, summary.large_objects);
    for table in &summary.tables {
        let (entry, rows, count) = &expected.rows[&table.dump_id];
        assert_eq!((&*entry.name, Some(*count)), (&*table.name, table.rows));
        assert_eq!(rows.len() as u64 + 5, table.bytes);
    }
    for at in 0..if case.major >= 16 { 5 } else { 3 } {
        let bytes = std::fs::read(case.dir.path().join(format!("custom{at}"))).unwrap();
        let collected = collect(&bytes).unwrap();
        assert!(collected.rows == expected.rows);
        assert!(collected.large_objects == expected.large_objects);
        let dir = case.dir.path().join(format!("dir{at}"));
        let mut collected = Collected::default();
        let toc = File::open(dir.join("toc.dat")).unwrap();
        for entry in read_directory_entries(toc, &mut |_| true).unwrap() {
            match entry {
                DirectoryEntry::Rows { entry, file_name } => {
                    let (name, file) = open(&dir, &file_name);
                    stream_directory_rows(file, &name, &entry, &mut collected).unwrap();
                }
                DirectoryEntry::LargeObjects { list_name, .. } => {
                    let list = File::open(dir.join(&list_name)).unwrap();
                    for (oid, file_name) in read_large_object_list(list, &list_name).unwrap() {
                        let (name, file) = open(&dir, &file_name);
                        stream_directory_large_object(file, &name, oid, &mut collected).unwrap();
                    }
                }
            }
        }
        assert!(collected.rows == expected.rows);
        assert!(collected.large_objects == expected.large_objects);
    }
}

fn open(dir: &Path, name: &str) -> (String, File) {
    ["", ".gz", ".lz4", ".zst"]
        .into_iter()
        .map(|suffix| format!("{name}{suffix}"))
        .find_map(|name| Some((name.clone(), File::open(dir.join(name)).ok()?)))
        .unwrap()
}

/// A table of contents alone: pg_restore makes all objects of it, serially and with `-j`.
fn metadata_alone(case: &mut Case, stock: &[u8], schema: &str) {
    let directory = std::fs::read(case.dir.path().join("dir0/toc.dat")).unwrap();
    for (name, from) in [("alone", stock), ("alone_dir", &directory[..])] {
        let mut alone = Vec::new();
        toc_without_data(from, &mut |piece| {
            alone.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        let local = case.dir.path().join(name);
        std::fs::write(&local, alone).unwrap();
        case.copy_in(&local, name);
        for section in ["pre-data", "post-data"] {
            let option = format!("--section={section}");
            let listed = |name: &str| {
                case.sh(&format!(
                    "pg_restore -l {option} /tmp/{name} | grep -v '^;'"
                ))
            };
            assert_eq!(listed(name), listed("stock"), "{section}");
        }
        for options in ["", "-j3"] {
            let copy = case.restore(options, name);
            assert_eq!(schema_dump(&case.container, &copy).unwrap(), schema);
            let counts =
                "select (select count(*) from app.younger) + (select count(*) from app.ordinary),
                (select last_value from app.standalone)";
            let of = |database| case.container.psql(database, counts).unwrap();
            let (copied, source) = (of(&copy), of("source"));
            assert_eq!(copied.split('|').next(), Some("0"));
            assert_eq!(copied.split('|').nth(1), source.split('|').nth(1));
            case.drop(&copy);
        }
    }
}

#[test]
fn bar_31_archives_written_anew_restore_like_stock_ones_13() {
    written_anew(13);
}

#[test]
fn bar_31_archives_written_anew_restore_like_stock_ones_15() {
    written_anew(15);
}

#[test]
fn bar_31_archives_written_anew_restore_like_stock_ones_17() {
    written_anew(17);
}

#[test]
fn bar_31_archives_written_anew_restore_like_stock_ones_18() {
    written_anew(18);
}
