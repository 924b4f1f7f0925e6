//! A PostgreSQL server in a container, removed with its volumes when dropped.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::images;
use crate::process::{docker, run_with_env};

/// Label of every container of the tests; its value is the time of the start in seconds.
const LABEL: &str = "pgstow.test.started";
/// Leftovers of killed test runs older than this are removed.
const LEFTOVER_SECONDS: u64 = 45 * 60;
/// How long `docker pause` is tried again where the kernel could not freeze the processes.
const FREEZE_TIME: Duration = Duration::from_secs(20);
/// Password of the superuser unless a test sets another.
pub const PASSWORD: &str = "test-secret";

/// What to start.
#[derive(Debug, Clone)]
pub struct PgContainerBuilder {
    image: String,
    name: String,
    env: Vec<(String, String)>,
    options: Vec<String>,
    args: Vec<String>,
    superuser: String,
    database: String,
    password: String,
    port: u16,
}

/// A running server.
#[derive(Debug)]
pub struct PgContainer {
    id: String,
    name: String,
    superuser: String,
    database: String,
    password: String,
    port: u16,
}

impl PgContainer {
    /// Begins the description of a server in the manner of the official image.
    #[must_use]
    pub fn builder(major: u32) -> PgContainerBuilder {
        PgContainerBuilder {
            image: images::postgres(major),
            name: unique_name(&format!("pg{major}")),
            env: vec![("POSTGRES_PASSWORD".to_owned(), PASSWORD.to_owned())],
            options: Vec::new(),
            args: Vec::new(),
            superuser: "postgres".to_owned(),
            database: "postgres".to_owned(),
            password: PASSWORD.to_owned(),
            port: 5432,
        }
    }

    /// A plain server of a major.
    ///
    /// # Errors
    /// What the engine or the server said.
    pub fn start(major: u32) -> Result<Self, String> {
        Self::builder(major).start()
    }

    /// An application's container with the server inside, listening on its localhost alone.
    #[must_use]
    pub fn app(major: u32) -> PgContainerBuilder {
        let mut builder = Self::builder(major)
            .image(&images::app(major))
            .login("appuser", "appdb");
        builder.env.clear();
        builder.password = "app-secret".to_owned();
        builder.name = unique_name(&format!("app{major}"));
        builder
    }

    /// Full id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `container:NAME`, as a user would type it.
    #[must_use]
    pub fn target(&self) -> String {
        format!("container:{}", self.name)
    }

    /// Superuser's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Superuser that the test kit logs in as.
    #[must_use]
    pub fn superuser(&self) -> &str {
        &self.superuser
    }

    /// Port on this host, when published.
    ///
    /// # Errors
    /// When it is not published.
    pub fn host_port(&self) -> Result<u16, String> {
        let shown = docker(&["port", &self.id, &format!("{}/tcp", self.port)])?;
        shown
            .lines()
            .find_map(|line| line.rsplit_once(':')?.1.parse().ok())
            .ok_or_else(|| format!("port of {} is not published: {shown:?}", self.name))
    }

    /// Address in the engine's default network.
    ///
    /// # Errors
    /// The engine's words.
    pub fn ip(&self) -> Result<String, String> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
        let shown = docker(&["inspect", "--format", format, &self.id])?;
        shown
            .split_whitespace()
            .next()
            .map(str::to_owned)
            .ok_or("no address".to_owned())
    }

    /// Runs SQL as the superuser inside the container; the statements travel on standard input.
    ///
    /// # Errors
    /// psql's words.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String, String> {
        self.psql_as(&self.superuser, database, sql)
    }

    /// As [`PgContainer::psql`], as another user.
    ///
    /// # Errors
    /// psql's words.
    pub fn psql_as(&self, user: &str, database: &str, sql: &str) -> Result<String, String> {
        let port = self.port.to_string();
        let env = [
            ("PGPASSWORD", self.password.as_str()),
            ("PGPORT", &port),
            ("PGDATABASE", database),
        ];
        let args = [
            "exec",
            "-i",
            "-e",
            "PGPASSWORD",
            "-e",
            "PGPORT",
            "-e",
            "PGDATABASE",
            &self.id,
            "psql",
            "-U",
            user,
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
        ];
        run_with_env("docker", &args, &env, Some(sql))
    }

    /// Runs a program in the container and returns its standard output.
    ///
    /// # Errors
    /// The program's words.
    pub fn exec(&self, argv: &[&str]) -> Result<String, String> {
        let args = [&["exec", "-e", "PGPASSWORD", &self.id][..], argv].concat();
        run_with_env("docker", &args, &[("PGPASSWORD", &self.password)], None)
    }

    /// `docker stop`, `kill`, `pause`, `unpause`, `restart` or `start`, then waits for the server
    /// where it should answer again.
    ///
    /// # Errors
    /// The engine's words.
    pub fn engine(&self, verb: &str) -> Result<(), String> {
        let began = Instant::now();
        // A cgroup with a process deep in the kernel (waiting for a disk, being forked) cannot be
        // frozen just then; the runtime thaws what it froze and gives up.
        while let Err(error) = docker(&[verb, &self.id]) {
            if !error.contains("unable to freeze") || began.elapsed() > FREEZE_TIME {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if matches!(verb, "restart" | "start" | "unpause") {
            self.wait()
        } else {
            Ok(())
        }
    }

    /// Command lines of the processes in the container, as the engine shows them.
    ///
    /// # Errors
    /// The engine's words.
    pub fn processes(&self) -> Result<Vec<String>, String> {
        let shown = docker(&["top", &self.id, "-eo", "pid,args"])?;
        Ok(shown
            .lines()
            .skip(1)
            .map(|line| line.trim().to_owned())
            .collect())
    }

    /// Sessions of the server whose `application_name` starts with `pgstow-`.
    ///
    /// # Errors
    /// psql's words.
    pub fn pgstow_sessions(&self) -> Result<u32, String> {
        let count = self.psql(
            &self.database,
            "select count(*) from pg_stat_activity where application_name like 'pgstow-%'",
        )?;
        count
            .trim()
            .parse()
            .map_err(|_| format!("{count:?} is no count"))
    }

    /// The last lines of the container's log: what it wrote to either stream.
    #[must_use]
    pub fn logs(&self) -> String {
        let args = ["logs", "--tail", "50", &self.id];
        match std::process::Command::new("docker").args(args).output() {
            Ok(output) => [output.stdout, output.stderr]
                .map(|text| String::from_utf8_lossy(&text).into_owned())
                .concat(),
            Err(error) => format!("docker cannot be started: {error}"),
        }
    }

    /// Waits until the server answers, after the container was started once more.
    ///
    /// # Errors
    /// When it does not within 90 s.
    pub fn wait(&self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(90);
        let port = self.port.to_string();
        loop {
            // Over TCP: the entry point's first server listens on its socket alone.
            let answer = self.exec(&[
                "psql",
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                &self.superuser,
                "-d",
                &self.database,
                "-XAtqc",
                "select 1",
            ]);
            match answer {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(format!(
                        "{} did not start: {error}\n{}",
                        self.name,
                        self.logs()
                    ));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

impl Drop for PgContainer {
    fn drop(&mut self) {
        let _ = docker(&["rm", "-f", "-v", &self.id]);
    }
}

impl PgContainerBuilder {
    /// Another image.
    #[must_use]
    pub fn image(mut self, image: &str) -> Self {
        image.clone_into(&mut self.image);
        self
    }

    /// Another name; must be unique on this machine.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// An environment variable; replaces an earlier one of the name.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes an environment variable.
    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self
    }

    /// Superuser and its first database, as the test kit itself logs in.
    #[must_use]
    pub fn login(mut self, superuser: &str, database: &str) -> Self {
        superuser.clone_into(&mut self.superuser);
        database.clone_into(&mut self.database);
        self
    }

    /// Superuser's password, as the test kit itself logs in.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        password.clone_into(&mut self.password);
        self
    }

    /// A label.
    #[must_use]
    pub fn label(self, name: &str, value: &str) -> Self {
        self.option(&["--label", &format!("{name}={value}")])
    }

    /// Publishes the server's port on this host's loopback: a fixed port, or 0 for any.
    #[must_use]
    pub fn publish(self, host_port: u16) -> Self {
        let container_port = self.port;
        let host = if host_port == 0 {
            String::new()
        } else {
            host_port.to_string()
        };
        self.option(&["-p", &format!("127.0.0.1:{host}:{container_port}")])
    }

    /// A bind mount, read-only.
    #[must_use]
    pub fn mount(self, from: &str, to: &str) -> Self {
        self.option(&["-v", &format!("{from}:{to}:ro")])
    }

    /// Any further options of `docker run`.
    #[must_use]
    pub fn option(mut self, options: &[&str]) -> Self {
        self.options
            .extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    /// Arguments of the server (`-c`, `name=value`, …).
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// Another port inside the container.
    #[must_use]
    pub fn inner_port(mut self, port: u16) -> Self {
        self.port = port;
        self.args(&["-c", &format!("port={port}")])
    }

    /// Starts the container and waits until the server answers.
    ///
    /// # Errors
    /// What the engine or the server said; a missing image names the command that makes it.
    pub fn start(self) -> Result<PgContainer, String> {
        images::require(&self.image)?;
        remove_leftovers();
        let label = format!("{LABEL}={}", now_seconds());
        let mut args = vec!["run", "-d", "--name", &self.name, "--label", &label];
        args.extend(self.options.iter().map(String::as_str));
        args.extend(self.env.iter().flat_map(|(name, _)| ["-e", name.as_str()]));
        args.push(&self.image);
        args.extend(self.args.iter().map(String::as_str));
        let env: Vec<(&str, &str)> = self
            .env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let started = run_with_env("docker", &args, &env, None).inspect_err(|_| {
            // A container that could not start exists all the same.
            let _ = docker(&["rm", "-f", "-v", &self.name]);
        });
        let id = started?.trim().to_owned();
        let container = PgContainer {
            id,
            name: self.name,
            superuser: self.superuser,
            database: self.database,
            password: self.password,
            port: self.port,
        };
        container.wait()?;
        Ok(container)
    }
}

/// A name that no other container of any test run has.
#[must_use]
pub fn unique_name(kind: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("pgstow-test-{kind}-{}-{count}", std::process::id())
}

fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// Containers that a killed test run left behind.
fn remove_leftovers() {
    let format = format!("{{{{.ID}}}} {{{{.Label \"{LABEL}\"}}}}");
    let filter = format!("label={LABEL}");
    let Ok(list) = docker(&["ps", "-a", "--filter", &filter, "--format", &format]) else {
        return;
    };
    for line in list.lines() {
        let Some((id, started)) = line.split_once(' ') else {
            continue;
        };
        if started
            .trim()
            .parse::<u64>()
            .is_ok_and(|at| at + LEFTOVER_SECONDS < now_seconds())
        {
            let _ = docker(&["rm", "-f", "-v", id]);
        }
    }
}
