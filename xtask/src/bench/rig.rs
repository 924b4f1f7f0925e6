//! The server of a bench: a container, the database in it, and an independent fingerprint of any
//! database there.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testkit::sets::{Set, Sizes};

use super::cpu::of_control_group;

/// Name of the database that is backed up.
pub(crate) const DATABASE: &str = "bench";
const PASSWORD: &str = "bench-only";

/// A container that is removed with its volume when dropped.
pub(crate) struct Rig {
    /// Container name.
    pub(crate) name: String,
    /// Major version.
    pub(crate) major: u32,
    /// Port on this host.
    pub(crate) port: u16,
}

impl Rig {
    /// Starts a server of a major, with room for the locks of many tables.
    ///
    /// # Errors
    /// The failing command with its words.
    pub(crate) fn start(major: u32) -> Result<Self, String> {
        let name = format!("pgstow-bench-{major}-{}", std::process::id());
        let image = format!("pgstow-test/postgres:{major}");
        let run = ["run", "-d", "--name", &name, "--shm-size=512m"];
        let password = format!("POSTGRES_PASSWORD={PASSWORD}");
        let container = ["-p", "127.0.0.1::5432", "-e", &password, &image];
        let settings = [
            "max_wal_size=4GB",
            "shared_buffers=512MB",
            "max_locks_per_transaction=2048",
            "autovacuum=off",
        ];
        let settings = settings.iter().flat_map(|setting| ["-c", setting]);
        let args: Vec<&str> = run.into_iter().chain(container).chain(settings).collect();
        docker(&args)?;
        // From here on the container is removed whatever fails.
        let mut rig = Self {
            name,
            major,
            port: 0,
        };
        let published = docker(&["port", &rig.name, "5432/tcp"])?;
        rig.port = published
            .lines()
            .find_map(|line| line.rsplit_once(':')?.1.trim().parse().ok())
            .ok_or_else(|| format!("no port: {published:?}"))?;
        rig.wait()?;
        Ok(rig)
    }

    /// Makes the database anew and fills it; its size in bytes.
    ///
    /// # Errors
    /// The failing command with its words.
    pub(crate) fn fill(&self, set: Set, sizes: &Sizes) -> Result<u64, String> {
        self.drop_database(DATABASE)?;
        self.psql("postgres", &format!("create database {DATABASE}"))?;
        match set.sql(sizes) {
            Some(sql) => self
                .psql(DATABASE, &format!("set synchronous_commit = off; {sql}"))
                .map(drop)?,
            None => {
                let scale = sizes.pgbench_scale().to_string();
                let pgbench = ["exec", &self.name, "pgbench", "-U", "postgres", "-i", "-q"];
                docker(&[&pgbench[..], &["-s", &scale, DATABASE]].concat()).map(drop)?;
            }
        }
        self.psql(DATABASE, "vacuum analyze; checkpoint;")?;
        let query = format!("select pg_database_size('{DATABASE}')");
        let bytes = self.psql("postgres", &query)?;
        bytes
            .trim()
            .parse()
            .map_err(|_| format!("no size: {bytes:?}"))
    }

    /// Seconds of processor time of everything in the container.
    ///
    /// # Errors
    /// When its control group cannot be read.
    pub(crate) fn cpu_seconds(&self) -> Result<f64, String> {
        let script = "cat /sys/fs/cgroup/cpu.stat 2>/dev/null || \
                      cat /sys/fs/cgroup/cpuacct/cpuacct.usage";
        let text = docker(&["exec", &self.name, "sh", "-c", script])?;
        of_control_group(&text).ok_or_else(|| format!("no processor time in {text:?}"))
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

    /// What a database holds, computed by the server and not by pgstow: rows and an
    /// order-independent hash of each table, of the large objects and of the sequences, and the
    /// definitions.
    ///
    /// # Errors
    /// psql's words.
    pub(crate) fn fingerprint(&self, database: &str) -> Result<String, String> {
        self.psql(
            database,
            "set extra_float_digits = 3; set timezone = 'UTC';
             select format('select %L, count(*), sum(hashtextextended(t::text, 0)) from %I.%I t',
                           c.relname, n.nspname, c.relname)
             from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where c.relkind = 'r' and n.nspname !~ '^(pg_|information_schema)'
             order by n.nspname, c.relname \\gexec
             select count(*), sum(hashtextextended(oid || encode(lo_get(oid), 'hex'), 0))
             from pg_largeobject_metadata;
             select schemaname, sequencename, last_value from pg_sequences order by 1, 2;
             select count(*), sum(hashtextextended(indexdef, 0)) from pg_indexes
             where schemaname !~ '^(pg_|information_schema)';
             select count(*), sum(hashtextextended(concat_ws(' ', c.relname, a.attname,
               format_type(a.atttypid, a.atttypmod), a.attnotnull), 0))
             from pg_attribute a join pg_class c on c.oid = a.attrelid
             join pg_namespace n on n.oid = c.relnamespace
             where a.attnum > 0 and c.relkind = 'r'
               and n.nspname !~ '^(pg_|information_schema)';",
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

    /// Copies a file or directory into the container.
    ///
    /// # Errors
    /// The engine's words.
    pub(crate) fn copy_in(&self, from: &std::path::Path, to: &str) -> Result<(), String> {
        let from = from.display().to_string();
        docker(&["cp", &from, &format!("{}:{to}", self.name)])?;
        docker(&["exec", &self.name, "chmod", "-R", "a+rX", to]).map(drop)
    }

    /// Bytes of a file or directory in the container.
    ///
    /// # Errors
    /// The engine's words.
    pub(crate) fn size_inside(&self, path: &str) -> Result<u64, String> {
        let said = docker(&["exec", &self.name, "du", "-sb", "--apparent-size", path])?;
        let bytes = said.split_whitespace().next().and_then(|b| b.parse().ok());
        bytes.ok_or_else(|| format!("no size: {said:?}"))
    }

    /// Removes a file or directory in the container.
    ///
    /// # Errors
    /// The engine's words.
    pub(crate) fn remove_inside(&self, path: &str) -> Result<(), String> {
        docker(&["exec", &self.name, "rm", "-rf", path]).map(drop)
    }

    /// A program in the container, as the superuser.
    pub(crate) fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", &self.name, program, "-U", "postgres"]);
        command
    }

    /// The same, with this process's standard input.
    pub(crate) fn inside_with_input(&self, program: &str) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", "-i", &self.name, program, "-U", "postgres"]);
        command
    }

    /// Connection string of a database for programs of this host; the password stands in it, it is
    /// the bench's own.
    pub(crate) fn url(&self, database: &str) -> String {
        format!(
            "postgres://postgres:{PASSWORD}@127.0.0.1:{}/{database}",
            self.port
        )
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

pub(crate) fn docker(args: &[&str]) -> Result<String, String> {
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
