//! The server of a bench: a container with a filled database, and an independent fingerprint of
//! any database in it.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Name of the database that is backed up.
pub(crate) const DATABASE: &str = "bench";
const PASSWORD: &str = "bench-only";

/// A container that is removed with its volume when dropped.
pub(crate) struct Rig {
    /// Container name.
    pub(crate) name: String,
    /// Port on this host.
    pub(crate) port: u16,
    /// Size of the database in bytes.
    pub(crate) bytes: u64,
}

impl Rig {
    /// Starts a server of a major and fills a database of about `megabytes` MB.
    ///
    /// # Errors
    /// The failing command with its words.
    pub(crate) fn start(major: u32, megabytes: u64) -> Result<Self, String> {
        let name = format!("pgstow-bench-{major}-{}", std::process::id());
        let image = format!("pgstow-test/postgres:{major}");
        let port: u16 = 55_000 + u16::try_from(major).map_err(|e| e.to_string())?;
        let args = ["-c", "max_wal_size=8GB", "-c", "shared_buffers=512MB"];
        docker(
            &[
                &[
                    "run",
                    "-d",
                    "--name",
                    &name,
                    "--shm-size=512m",
                    "-p",
                    &format!("127.0.0.1:{port}:5432"),
                ][..],
                &["-e", &format!("POSTGRES_PASSWORD={PASSWORD}"), &image][..],
                &args[..],
            ]
            .concat(),
        )?;
        let mut rig = Self {
            name,
            port,
            bytes: 0,
        };
        rig.wait()?;
        rig.psql("postgres", &format!("create database {DATABASE}"))?;
        rig.fill(megabytes)?;
        let bytes = rig.psql(
            "postgres",
            &format!("select pg_database_size('{DATABASE}')"),
        )?;
        rig.bytes = bytes
            .trim()
            .parse()
            .map_err(|_| format!("no size: {bytes:?}"))?;
        Ok(rig)
    }

    fn wait(&self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            // Over TCP: the entry point's own first server listens on its socket alone.
            let ready = docker(&[
                "exec",
                &self.name,
                "psql",
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-XAtqc",
                "select 1",
            ]);
            match ready {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(300)),
            }
        }
    }

    /// Ordinary rows: numbers, times, words that compress and hashes that do not.
    fn fill(&self, megabytes: u64) -> Result<(), String> {
        const ROWS_PER_MB: u64 = 4_600;
        let rows = megabytes * ROWS_PER_MB;
        self.psql(
            DATABASE,
            &format!(
                "create table orders as
                   select g as id, (g * 7919) % 100003 as customer,
                          timestamptz '2020-01-01' + g * interval '37 seconds' as placed,
                          round((g % 99991) / 7.0, 2) as amount,
                          md5(g::text) as reference,
                          repeat(substr('the quick brown fox jumps over the lazy dog', 1 + (g % 20)::int), 2)
                            as note
                   from generate_series(1::bigint, {rows}) g;
                 alter table orders add primary key (id);
                 create index on orders (customer);
                 create table small as select g as id, md5(g::text) as t from generate_series(1, 1000) g;
                 vacuum analyze;"
            ),
        )
        .map(drop)
    }

    /// Runs SQL as the superuser inside the container.
    ///
    /// # Errors
    /// psql's words.
    pub(crate) fn psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut child = Command::new("docker")
            .args(["exec", "-i", &self.name, "psql", "-U", "postgres", "-XAtq"])
            .args(["-v", "ON_ERROR_STOP=1", "-d", database])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("docker: {e}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(sql.as_bytes())
                .map_err(|e| format!("psql: {e}"))?;
        }
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(format!("psql: {}", String::from_utf8_lossy(&output.stderr)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Count and order-independent hash of every row, computed by the server and not by pgstow.
    ///
    /// # Errors
    /// psql's words.
    pub(crate) fn fingerprint(&self, database: &str) -> Result<String, String> {
        self.psql(
            database,
            "select count(*), sum(('x' || substr(md5(o::text), 1, 15))::bit(60)::bigint) from orders o;
             select count(*), sum(('x' || substr(md5(s::text), 1, 15))::bit(60)::bigint) from small s;",
        )
    }

    /// Drops a database that a restore made.
    ///
    /// # Errors
    /// psql's words.
    pub(crate) fn drop_database(&self, name: &str) -> Result<(), String> {
        self.psql("postgres", &format!("drop database if exists {name}"))
            .map(drop)
    }

    /// Drops what a restore by staging kept of the database that it replaced.
    ///
    /// # Errors
    /// psql's words.
    pub(crate) fn drop_kept(&self) -> Result<(), String> {
        self.psql(
            "postgres",
            "select format('drop database %I;', datname) from pg_database
             where datname ~ '__(before|restore)_[0-9a-z]+$' \\gexec",
        )
        .map(drop)
    }

    /// Copies a file into the container.
    ///
    /// # Errors
    /// The engine's words.
    pub(crate) fn copy_in(&self, from: &std::path::Path, to: &str) -> Result<(), String> {
        let from = from.display().to_string();
        docker(&["cp", &from, &format!("{}:{to}", self.name)])?;
        docker(&["exec", &self.name, "chmod", "644", to]).map(drop)
    }

    /// Environment for programs of this host.
    pub(crate) fn host_env(&self, command: &mut Command) {
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGPASSWORD", PASSWORD);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = docker(&["rm", "-f", "-v", &self.name]);
    }
}

fn docker(args: &[&str]) -> Result<String, String> {
    let output = Command::new("docker")
        .args(args)
        .output()
        .map_err(|e| format!("docker: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!(
            "docker {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}
