//! A server whose databases are dumped and restored by its own programs.

use std::path::{Path, PathBuf};

use testkit::{PgContainer, process::docker, schema::quoted};

pub(crate) struct Server {
    pub(crate) container: PgContainer,
    dir: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(major: u32) -> Self {
        Self {
            container: PgContainer::start(major).unwrap(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Dumps in the format of this option; returns the copy on this host.
    pub(crate) fn dump(&self, database: &str, format: &str) -> PathBuf {
        let name = format!("{database}{format}");
        let inside = format!("/tmp/{name}");
        self.exec(&["pg_dump", "-d", database, format, "-f", &inside]);
        let to = self.dir.path().join(&name);
        let from = format!("{}:{inside}", self.container.id());
        docker(&["cp", &from, to.to_str().unwrap()]).unwrap();
        to
    }

    /// Restores into a new database; the first error ends it.
    pub(crate) fn restore(&self, archive: &Path, database: &str, options: &[&str]) {
        self.container
            .psql(
                "postgres",
                &format!(
                    "create database {} owner stow_owner template template0 encoding 'UTF8' \
                     lc_collate 'de_DE.UTF-8' lc_ctype 'de_DE.UTF-8'",
                    quoted(database)
                ),
            )
            .unwrap();
        let to = format!("{}:/tmp/restored", self.container.id());
        docker(&["cp", archive.to_str().unwrap(), &to]).unwrap();
        self.exec(
            &[
                &["pg_restore", "-d", database, "-e", "/tmp/restored"],
                options,
            ]
            .concat(),
        );
    }

    pub(crate) fn exec(&self, argv: &[&str]) {
        let argv = [&argv[..1], &["-U", self.container.superuser()], &argv[1..]].concat();
        self.container.exec(&argv).unwrap();
    }
}
