//! Real archives, made by the programs of each major inside its container.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use archive::{ArchiveError, ArchiveSummary, CheckOptions};
use testkit::{PgContainer, process::docker};

/// Rows of `s.t` in the fixture.
pub(crate) const ROWS: u64 = 3000;
/// Rows in all.
pub(crate) const ALL_ROWS: u64 = ROWS + 2 + 5;

const SCHEMA: &str = r"
CREATE ROLE app NOLOGIN;
CREATE SCHEMA s;
CREATE TABLE s.t (id int PRIMARY KEY, v text);
INSERT INTO s.t SELECT g, md5(g::text) || E'\n\t\\.' || g FROM generate_series(1, 3000) AS g;
CREATE TABLE s.empty (x int);
CREATE TABLE s.no_columns ();
INSERT INTO s.no_columns DEFAULT VALUES;
INSERT INTO s.no_columns DEFAULT VALUES;
CREATE TABLE s.odd (v text);
INSERT INTO s.odd VALUES ('\.'), (''), (NULL), (E'a\nb'), ('\N');
ALTER TABLE s.t OWNER TO app;
GRANT SELECT ON s.odd TO app;
SELECT lo_from_bytea(0, convert_to(repeat('x', 50000), 'UTF8'));
SELECT lo_from_bytea(0, '');
SELECT lo_from_bytea(4000000000, 'abc');
CREATE FUNCTION s.f() RETURNS int LANGUAGE sql AS $f$ SELECT 1 $f$;
COMMENT ON TABLE s.t IS E'it''s \\';
";

/// Server and the directory that its archives are copied to.
pub(crate) struct Corpus {
    container: PgContainer,
    dir: tempfile::TempDir,
    pub(crate) major: u32,
}

impl Corpus {
    pub(crate) fn new(major: u32) -> Self {
        let container = PgContainer::start(major).unwrap();
        container.psql("postgres", SCHEMA).unwrap();
        Self {
            container,
            dir: tempfile::tempdir().unwrap(),
            major,
        }
    }

    /// Compressions that this major's pg_dump knows, as its `-Z` takes them.
    pub(crate) fn compressions(&self) -> &'static [&'static str] {
        if self.major >= 16 {
            &["0", "gzip:1", "lz4:1", "zstd:2"]
        } else {
            &["0", "1"]
        }
    }

    /// Dumps with these options into a file or directory; returns its copy on this host.
    pub(crate) fn dump(&self, name: &str, options: &[&str]) -> PathBuf {
        let inside = format!("/tmp/{name}");
        let argv = [
            &["pg_dump", "-U", "postgres", "-d", "postgres", "-f", &inside][..],
            options,
        ]
        .concat();
        self.container.exec(&argv).unwrap();
        self.fetch(name)
    }

    /// As [`Corpus::dump`] in the custom format, through a pipe: without offsets.
    pub(crate) fn piped(&self, name: &str, compression: &str) -> PathBuf {
        let script = "pg_dump -U postgres -d postgres -Fc -Z \"$1\" | cat > \"$2\"";
        let inside = format!("/tmp/{name}");
        self.container
            .exec(&["sh", "-c", script, "sh", compression, &inside])
            .unwrap();
        self.fetch(name)
    }

    fn fetch(&self, name: &str) -> PathBuf {
        let to = self.dir.path().join(name);
        let from = format!("{}:/tmp/{name}", self.container.id());
        docker(&["cp", &from, to.to_str().unwrap()]).unwrap();
        to
    }

    pub(crate) fn psql(&self, sql: &str) -> String {
        self.container.psql("postgres", sql).unwrap()
    }
}

pub(crate) fn check_dir(path: &Path) -> Result<ArchiveSummary, ArchiveError> {
    let toc = File::open(path.join("toc.dat")).unwrap();
    archive::check_directory(toc, |name| open(&path.join(name)), &CheckOptions::default())
}

fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    Ok(Box::new(File::open(path)?))
}
