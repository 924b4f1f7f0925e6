//! What commands share: the container engine, discovery, executors and the repository.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use backup::{BackupId, Clock, Repository};
use dbexec::discover::discover_all;
use dbexec::executor::HostPrograms;
use dbexec::runtime::{EndpointInput, connect_runtime};
use dbexec::target::parse_url;
use dbexec::{
    ContainerRuntime, CredentialSource, DbContext, DbMode, DiscoverInput, EnvSnapshot,
    ExplicitSettings, PgExecutor, RuntimeError, SslMode, TargetSpec, TlsOptions, Trail,
    discover_db_context, open_executor,
};
use secrecy::{ExposeSecret, SecretString};
use storage::LocalStore;
use tokio::process::Command;

use crate::clock::SystemClock;
use crate::exit::codes;
use crate::render::metrics::Metrics;
use crate::settings::layers::SecretRef;
use crate::settings::{Settings, TargetSettings};
use crate::{error::CommandError, printer::Printer, signals::Interrupts};

/// One run of one command.
pub(crate) struct Session {
    pub(crate) settings: Settings,
    pub(crate) env: EnvSnapshot,
    pub(crate) printer: Arc<Printer>,
    pub(crate) interrupts: Interrupts,
    pub(crate) clock: Arc<dyn Clock>,
    /// Collected for `--metrics-textfile`.
    pub(crate) metrics: Mutex<Metrics>,
    /// Whether unfinished restores were told.
    told: AtomicBool,
}

/// A server that was found, with what is needed to open executors on it.
pub(crate) struct Server {
    pub(crate) context: DbContext,
    pub(crate) runtime: Option<Arc<dyn ContainerRuntime>>,
    pub(crate) host_programs: HostPrograms,
}

impl Session {
    pub(crate) fn new(
        settings: Settings,
        env: EnvSnapshot,
        printer: Arc<Printer>,
        interrupts: Interrupts,
    ) -> Self {
        Self {
            settings,
            env,
            printer,
            interrupts,
            clock: Arc::new(SystemClock),
            metrics: Mutex::default(),
            told: AtomicBool::new(false),
        }
    }

    /// An id for a run, and for the `application_name` of its sessions.
    pub(crate) fn run_id(&self) -> BackupId {
        BackupId::new(self.clock.now())
    }

    /// Gives something to `--metrics-textfile`.
    pub(crate) fn measure(&self, put: impl FnOnce(&mut Metrics)) {
        let mut metrics = self
            .metrics
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        put(&mut metrics);
    }

    /// The repository; its directories are made where they are missing.
    pub(crate) fn repository(&self) -> Result<Repository, CommandError> {
        self.settings.data_dir.prepare()?;
        self.open_repository()
    }

    /// The repository when there is one already; nothing is made.
    pub(crate) fn existing_repository(&self) -> Result<Option<Repository>, CommandError> {
        match self.settings.data_dir.existing()? {
            true => self.open_repository().map(Some),
            false => Ok(None),
        }
    }

    /// The repository, for a command that needs a backup of it.
    pub(crate) fn filled_repository(&self, wanted: &str) -> Result<Repository, CommandError> {
        self.existing_repository()?.ok_or_else(|| {
            CommandError::new(
                backup::codes::BACKUP_NOT_FOUND,
                format!(
                    "no backup matches {wanted:?}: there are no backups in {}",
                    self.settings.data_dir.root.display()
                ),
            )
            .hint("make one with pgstow backup, or name the right directory with --data-dir")
        })
    }

    /// The repository, without a word about unfinished restores: for what deals with them.
    pub(crate) fn repository_to_mend(&self) -> Result<Option<Repository>, CommandError> {
        self.told.store(true, Ordering::Relaxed);
        self.existing_repository()
    }

    fn open_repository(&self) -> Result<Repository, CommandError> {
        if !self.told.swap(true, Ordering::Relaxed) {
            crate::commands::rollback::warn_of_unfinished(self);
        }
        let store = LocalStore::open(self.settings.data_dir.backups())?;
        Ok(Repository {
            store: Arc::new(store),
            state_dir: self.settings.data_dir.state(),
            clock: Arc::clone(&self.clock),
        })
    }

    /// Connects to the container engine, or learns why there is none.
    pub(crate) async fn runtime(&self) -> Result<Arc<dyn ContainerRuntime>, Arc<RuntimeError>> {
        let input = EndpointInput {
            env: self.env.clone(),
            home: self.env.get("HOME").map(Into::into),
        };
        match connect_runtime(&input).await {
            Ok(runtime) => Ok(Arc::new(runtime)),
            Err(error) => Err(Arc::new(error)),
        }
    }

    /// Where programs of this host are searched.
    pub(crate) fn host_programs(&self) -> HostPrograms {
        let path = self
            .env
            .get("PATH")
            .unwrap_or("/usr/local/bin:/usr/bin:/bin");
        HostPrograms {
            bin_dir: self.settings.pg_bin_dir.clone(),
            path_dirs: std::env::split_paths(path).collect(),
            scratch_root: self.settings.data_dir.scratch(),
        }
    }

    /// What the user said about the target.
    pub(crate) async fn explicit(&self) -> Result<ExplicitSettings, CommandError> {
        let target = &self.settings.target;
        if let Some(name) = &target.name
            && parse_url(name).is_ok_and(|url| url.password.is_some())
        {
            let place = if target.name_typed {
                "a password in an argument can be seen in the process list"
            } else {
                "a password in the target's URL is easily copied on"
            };
            self.printer.warning(format!(
                "{place}; give the URL in the variable DATABASE_URL, or the password with --password-file"
            ));
        }
        // A password may be asked of a program that takes its time.
        self.interrupts
            .guard("obtaining the login", explicit(target, &self.env))
            .await?
    }

    /// What discovery goes by.
    pub(crate) async fn discover_input(
        &self,
        explicit: ExplicitSettings,
        run: &BackupId,
    ) -> Result<DiscoverInput, CommandError> {
        Ok(DiscoverInput {
            explicit,
            env: self.env.clone(),
            runtime: self
                .interrupts
                .guard("connecting to the container engine", self.runtime())
                .await?,
            persisted_file: Some(self.settings.data_dir.persisted_file()),
            allow_mixed_sources: self.settings.target.allow_mixed_sources,
            host_programs: self.host_programs(),
            settings: self.settings.connection(run.as_str()),
        })
    }

    /// Finds the one server that is meant, and says which it is.
    pub(crate) async fn discover(
        &self,
        explicit: ExplicitSettings,
        run: &BackupId,
    ) -> Result<Server, CommandError> {
        let input = self.discover_input(explicit, run).await?;
        let found = self
            .interrupts
            .guard("looking for the database", discover_db_context(&input))
            .await?;
        match found {
            Ok(context) => {
                self.measure(|metrics| metrics.trail(&context.trail));
                self.printer.message(chosen(&context));
                Ok(Server {
                    context,
                    runtime: input.runtime.ok(),
                    host_programs: input.host_programs,
                })
            }
            Err(error) => {
                self.measure(|metrics| metrics.trail(error.trail()));
                Err(error.into())
            }
        }
    }

    /// Lists every server that can be seen.
    pub(crate) async fn discover_every(
        &self,
        run: &BackupId,
    ) -> Result<(Vec<dbexec::discover::Found>, Trail), CommandError> {
        let explicit = self.explicit().await?;
        let input = self.discover_input(explicit, run).await?;
        let (found, trail) = self
            .interrupts
            .guard("looking for databases", discover_all(&input))
            .await?;
        self.measure(|metrics| metrics.trail(&trail));
        Ok((found, trail))
    }

    /// Opens the executor of a server, for one run.
    pub(crate) async fn open(
        &self,
        server: Server,
        run: &BackupId,
    ) -> Result<Arc<dyn PgExecutor>, CommandError> {
        let opened = open_executor(
            server.context,
            server.runtime,
            server.host_programs,
            self.settings.connection(run.as_str()),
        );
        let opened = self
            .interrupts
            .guard("opening the connection", opened)
            .await?;
        Ok(opened?)
    }
}

/// Settings as discovery takes them.
async fn explicit(
    target: &TargetSettings,
    env: &EnvSnapshot,
) -> Result<ExplicitSettings, CommandError> {
    let spec = match &target.name {
        Some(name) => Some(
            TargetSpec::parse(name)
                .map_err(|error| CommandError::usage(format!("the target: {error}")))?,
        ),
        None => None,
    };
    let mode = match target.sslmode.as_deref() {
        Some(word) => Some(
            SslMode::parse(word)
                .ok_or_else(|| CommandError::usage(format!("{word:?} is no sslmode")))?,
        ),
        None => None,
    };
    let password = match &target.password {
        Some(reference) => Some(read_secret(reference, env).await?),
        None => None,
    };
    Ok(ExplicitSettings {
        target: spec,
        container: target.container.clone(),
        image_pattern: target.image_pattern.clone(),
        host: target.host.clone(),
        port: target.port,
        database: target.dbname.clone(),
        user: target.username.clone(),
        password,
        tls: TlsOptions {
            mode,
            root_cert: target.sslrootcert.clone(),
            cert: target.sslcert.clone(),
            key: target.sslkey.clone(),
            crl: target.sslcrl.clone(),
            channel_binding: None,
        },
    })
}

/// The secret behind a reference; messages never hold it.
async fn read_secret(
    reference: &SecretRef,
    env: &EnvSnapshot,
) -> Result<SecretString, CommandError> {
    let invalid = |message: String| CommandError::new(codes::INVALID_CONFIG, message);
    let secret = match reference {
        SecretRef::Env(name) => env
            .get(name)
            .map(|value| SecretString::from(value.to_owned()))
            .ok_or_else(|| invalid(format!("the password's variable {name} is not set")))?,
        SecretRef::File(path) => secret_of_file(path)?,
        SecretRef::Command(argv) => secret_of_program(argv).await?,
    };
    if secret.expose_secret().is_empty() {
        return Err(invalid(
            "the password that was referred to is empty".to_owned(),
        ));
    }
    Ok(secret)
}

fn secret_of_file(path: &Path) -> Result<SecretString, CommandError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        CommandError::caused(
            codes::INVALID_CONFIG,
            format!("reading the password file {} failed", path.display()),
            &error,
        )
    })?;
    let text = SecretString::from(text);
    Ok(SecretString::from(
        text.expose_secret()
            .trim_end_matches(['\r', '\n'])
            .to_owned(),
    ))
}

async fn secret_of_program(argv: &[String]) -> Result<SecretString, CommandError> {
    let (program, args) = argv
        .split_first()
        .ok_or_else(|| CommandError::new(codes::INVALID_CONFIG, "the password command is empty"))?;
    let output = Command::new(program)
        .args(args)
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| {
            CommandError::caused(
                codes::INVALID_CONFIG,
                format!("starting the password command {program:?} failed"),
                &error,
            )
        })?;
    if !output.status.success() {
        return Err(CommandError::new(
            codes::INVALID_CONFIG,
            format!(
                "the password command {program:?} failed with {}",
                output.status
            ),
        ));
    }
    let text = SecretString::from(String::from_utf8(output.stdout).map_err(|_| {
        CommandError::new(
            codes::INVALID_CONFIG,
            format!("the password command {program:?} printed no UTF-8"),
        )
    })?);
    Ok(SecretString::from(
        text.expose_secret()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
    ))
}

/// What was chosen and why, for standard error.
pub(crate) fn chosen(context: &DbContext) -> String {
    let server = &context.server;
    let why = match context.source {
        CredentialSource::Explicit => "named",
        CredentialSource::Env => "named by the environment",
        CredentialSource::RunningContainer => "only candidate",
        CredentialSource::PersistedFile => "named by the persisted file of an earlier backup",
    };
    let place = match (&context.mode, &context.container) {
        (DbMode::InContainer, Some(container)) => {
            let compose = container
                .compose
                .as_ref()
                .map_or_else(String::new, |compose| {
                    format!("; compose service {}/{}", compose.project, compose.service)
                });
            format!(
                "container {} ({why}; image {}{compose})",
                container.name, container.image
            )
        }
        _ => format!("server {} ({why})", context.target_name()),
    };
    let login = context
        .field_sources
        .password
        .or(context.field_sources.user);
    format!(
        "using {place}, PostgreSQL {}, user {:?}, credentials from {}",
        server.version,
        context.creds.user,
        login.map_or("defaults", source_words)
    )
}

/// A source in words.
pub(crate) fn source_words(source: CredentialSource) -> &'static str {
    match source {
        CredentialSource::Explicit => "the command line or configuration",
        CredentialSource::Env => "the environment",
        CredentialSource::RunningContainer => "the container's environment",
        CredentialSource::PersistedFile => "the persisted file",
    }
}
