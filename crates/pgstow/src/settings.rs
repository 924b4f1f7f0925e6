//! Settings: arguments, environment and configuration files merged once, for one command.

pub(crate) mod keys;
pub(crate) mod layers;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use backup::{DumpFormat, EngineChoice, VerifyLevel, sessions_wanted};
use dbexec::sidecar::TransportChoice;
use dbexec::{ConnectionSettings, EnvSnapshot};

use self::layers::{Layers, Origin, SecretRef, Value, read_file};
use crate::args::{Command, EngineArg, GlobalArgs, TargetArgs};
use crate::dirs::{self, DataDir};
use crate::env_vars;
use crate::{error::CommandError, exit::codes};

/// The first layer.
pub(crate) const DEFAULTS: &str = include_str!("../config/default.toml");
/// How long a replaced database is kept where no layer says it.
const KEEP_OLD: Duration = Duration::from_secs(7 * 24 * 3600);
/// Configuration of the system.
const SYSTEM_CONFIG: &str = "/etc/pgstow/config.toml";

/// Variables that name a server; they replace the target of configuration files.
const SERVER_VARIABLES: &[&str] = &[
    "POSTGRES_HOST",
    "POSTGRES_HOST_FILE",
    "DATABASE_URL",
    "DATABASE_URL_FILE",
    "PGHOST",
    "PGHOSTADDR",
];

/// Which server, as settings say; discovery finds the rest.
#[derive(Debug, Clone, Default)]
pub(crate) struct TargetSettings {
    /// TARGET, a name of the configuration already replaced.
    pub(crate) name: Option<String>,
    /// Whether TARGET was typed as an argument.
    pub(crate) name_typed: bool,
    pub(crate) container: Option<String>,
    pub(crate) image_pattern: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) dbname: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<SecretRef>,
    pub(crate) sslmode: Option<String>,
    pub(crate) sslrootcert: Option<PathBuf>,
    pub(crate) sslcert: Option<PathBuf>,
    pub(crate) sslkey: Option<PathBuf>,
    pub(crate) sslcrl: Option<PathBuf>,
    pub(crate) allow_mixed_sources: bool,
    /// Whether argument, environment or configuration name a server.
    pub(crate) named: bool,
}

/// Everything that a command goes by.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data_dir: DataDir,
    pub(crate) metrics_textfile: Option<PathBuf>,
    /// Filter of the log.
    pub(crate) log: String,
    /// Whether the log is written as JSON.
    pub(crate) log_json: bool,
    pub(crate) target: TargetSettings,
    pub(crate) pg_bin_dir: Option<PathBuf>,
    pub(crate) format: DumpFormat,
    /// Who moves the rows of a backup.
    pub(crate) engine: EngineChoice,
    /// How client programs in a container hand over their bytes.
    pub(crate) transport: TransportChoice,
    /// Jobs of a backup, as asked for.
    pub(crate) jobs: Option<u32>,
    pub(crate) verify: VerifyLevel,
    pub(crate) exclude_table_data: Vec<String>,
    /// Bytes of tables that a run fingerprints.
    pub(crate) fingerprint_budget: Option<u64>,
    /// Who moves the rows of a restore.
    pub(crate) restore_engine: EngineChoice,
    /// How long a replaced database is kept.
    pub(crate) keep_old: Duration,
    /// The layers, for `config show`.
    pub(crate) layers: Layers,
}

impl Settings {
    /// Merges everything.
    ///
    /// # Errors
    /// Unknown keys, values of a wrong type, a file that cannot be read; `INVALID_CONFIG` or, for
    /// arguments, `USAGE`.
    pub(crate) fn resolve(
        global: &GlobalArgs,
        command: &Command,
        env: &EnvSnapshot,
    ) -> Result<Self, CommandError> {
        Self::from_layers(read_layers(global, env)?, global, command, env)
    }

    fn from_layers(
        mut layers: Layers,
        global: &GlobalArgs,
        command: &Command,
        env: &EnvSnapshot,
    ) -> Result<Self, CommandError> {
        layers.add_environment(env)?;
        add_arguments(&mut layers, global, command)?;
        let target = target(&mut layers, env)?;
        if layers.text("data_dir").is_none()
            && let Some(dir) = dirs::default_data_dir(env)
        {
            let value = Value::Text(dir.display().to_string());
            layers.values.insert(
                "data_dir",
                layers::Sourced {
                    value,
                    origin: Origin::Default,
                },
            );
        }
        if layers.number("connection.max_connections").is_none() {
            let jobs = match command {
                Command::Restore(args) => args.jobs,
                _ => number(&layers, "backup.jobs"),
            };
            let value = Value::Number(i64::from(sessions_wanted(jobs)));
            layers.values.insert(
                "connection.max_connections",
                layers::Sourced {
                    value,
                    origin: Origin::Default,
                },
            );
        }
        let root = layers.path("data_dir").ok_or_else(|| {
            CommandError::new(
                codes::DATA_DIR_UNSAFE,
                "there is no place for backups: neither HOME nor XDG_DATA_HOME is set",
            )
        })?;
        let root = std::path::absolute(&root).map_err(|error| {
            CommandError::caused(
                codes::DATA_DIR_UNSAFE,
                "the data directory is no path",
                &error,
            )
        })?;
        let format = match layers.text("backup.format") {
            Some("directory") => DumpFormat::Directory,
            Some("plain") => DumpFormat::Plain,
            _ => DumpFormat::Custom,
        };
        let verify = match layers.text("backup.verify") {
            Some("none") => VerifyLevel::None,
            Some("hash") => VerifyLevel::Hash,
            Some("restore") => VerifyLevel::Restore,
            _ => VerifyLevel::Read,
        };
        Ok(Self {
            data_dir: DataDir { root },
            metrics_textfile: layers.path("metrics_textfile"),
            log: log_filter(&layers, global.verbose),
            log_json: layers.text("log_format") == Some("json"),
            target,
            pg_bin_dir: layers.path("programs.pg_bin_dir"),
            format,
            engine: engine(&layers, "backup.engine"),
            transport: layers
                .text("backup.transport")
                .and_then(TransportChoice::parse)
                .unwrap_or_default(),
            jobs: number(&layers, "backup.jobs"),
            verify,
            exclude_table_data: layers.list("backup.exclude_table_data"),
            fingerprint_budget: layers.size("backup.fingerprint_budget"),
            restore_engine: engine(&layers, "restore.engine"),
            keep_old: layers.duration("restore.keep_old").unwrap_or(KEEP_OLD),
            layers,
        })
    }

    /// Connection settings for one run.
    pub(crate) fn connection(&self, run_id: &str) -> ConnectionSettings {
        let mut settings = ConnectionSettings::new(run_id);
        let layers = &self.layers;
        for (key, field) in [
            ("connection.connect_timeout", &mut settings.connect_timeout),
            (
                "connection.lock_wait_timeout",
                &mut settings.lock_wait_timeout,
            ),
            (
                "connection.statement_timeout",
                &mut settings.statement_timeout,
            ),
            ("connection.stall_timeout", &mut settings.stall_after),
        ] {
            if let Some(duration) = layers.duration(key) {
                *field = duration;
            }
        }
        if let Some(sessions) = number(layers, "connection.max_connections") {
            settings.max_connections = sessions;
        }
        settings
    }
}

fn engine(layers: &Layers, key: &str) -> EngineChoice {
    match layers.text(key) {
        Some("parallel") => EngineChoice::Parallel,
        Some("stock") => EngineChoice::Stock,
        _ => EngineChoice::Auto,
    }
}

fn number(layers: &Layers, key: &str) -> Option<u32> {
    layers
        .number(key)
        .and_then(|number| u32::try_from(number).ok())
}

/// `-v` is an argument and wins over the filter of files and environment.
fn log_filter(layers: &Layers, verbose: u8) -> String {
    match verbose {
        0 => layers.text("log").unwrap_or("warn").to_owned(),
        1 => "info,bollard=warn,hyper=warn".to_owned(),
        2 => "debug,bollard=info,hyper=info".to_owned(),
        _ => "trace".to_owned(),
    }
}

fn read_layers(global: &GlobalArgs, env: &EnvSnapshot) -> Result<Layers, CommandError> {
    let mut layers = Layers::default();
    layers.add_toml(DEFAULTS, &Origin::Default)?;
    let named = global
        .config
        .clone()
        .or_else(|| env.get(env_vars::CONFIG.name).map(PathBuf::from));
    let files = [
        (Some(PathBuf::from(SYSTEM_CONFIG)), false),
        (dirs::user_config(env), false),
        (named, true),
    ];
    for (path, must_exist) in files {
        let Some(path) = path else { continue };
        if let Some(text) = read_file(&path, must_exist)? {
            layers.add_toml(&text, &Origin::File(path))?;
        }
    }
    Ok(layers)
}

fn add_arguments(
    layers: &mut Layers,
    global: &GlobalArgs,
    command: &Command,
) -> Result<(), CommandError> {
    let text = |text: Option<&str>| text.map(|text| Value::Text(text.to_owned()));
    let path = |path: &Option<PathBuf>| {
        path.as_ref()
            .map(|path| Value::Text(path.display().to_string()))
    };
    let count = |number: Option<u32>| number.map(|number| Value::Number(i64::from(number)));
    layers.add_argument("data_dir", "--data-dir", path(&global.data_dir))?;
    layers.add_argument(
        "metrics_textfile",
        "--metrics-textfile",
        path(&global.metrics_textfile),
    )?;
    let choice = |engine: &Option<EngineArg>| engine.as_ref().map(word).map(Value::Text);
    if let Command::Restore(args) = command {
        layers.add_argument("restore.engine", "--engine", choice(&args.engine))?;
        layers.add_argument(
            "restore.keep_old",
            "--keep-old",
            text(args.keep_old.as_deref()),
        )?;
    }
    if let Command::Backup(args) = command {
        let value = |word: Option<String>| word.map(Value::Text);
        layers.add_argument(
            "backup.format",
            "--format",
            value(args.format.as_ref().map(word)),
        )?;
        layers.add_argument(
            "backup.verify",
            "--verify",
            value(args.verify.as_ref().map(word)),
        )?;
        layers.add_argument("backup.engine", "--engine", choice(&args.engine))?;
        layers.add_argument("backup.jobs", "--jobs", count(args.jobs))?;
        layers.add_argument(
            "backup.fingerprint_budget",
            "--fingerprint-budget",
            text(args.fingerprint_budget.as_deref()),
        )?;
        if !args.exclude_table_data.is_empty() {
            let list = Value::List(args.exclude_table_data.clone());
            layers.add_argument(
                "backup.exclude_table_data",
                "--exclude-table-data",
                Some(list),
            )?;
        }
    }
    let Some((name, options)) = command.target() else {
        return Ok(());
    };
    let flag = match command {
        Command::Restore(_) => "--to",
        Command::Export(_) => "--target",
        _ => "TARGET",
    };
    layers.add_argument("target.name", flag, text(name))?;
    let TargetArgs {
        container,
        image_pattern,
        host,
        port,
        dbname,
        username,
        password_file,
        sslmode,
        sslrootcert,
        sslcert,
        sslkey,
        sslcrl,
        allow_mixed_sources,
        pg_bin_dir,
        connect_timeout,
        lock_wait_timeout,
        statement_timeout,
        stall_timeout,
        max_connections,
    } = options;
    let secret = password_file
        .clone()
        .map(SecretRef::File)
        .map(Value::Secret);
    let switch = allow_mixed_sources.then_some(Value::Switch(true));
    for (key, flag, value) in [
        (
            "target.container",
            "--container",
            text(container.as_deref()),
        ),
        (
            "target.image_pattern",
            "--image-pattern",
            text(image_pattern.as_deref()),
        ),
        ("target.host", "--host", text(host.as_deref())),
        ("target.port", "--port", count(port.map(u32::from))),
        ("target.dbname", "--dbname", text(dbname.as_deref())),
        ("target.username", "--username", text(username.as_deref())),
        ("target.password", "--password-file", secret),
        ("target.sslmode", "--sslmode", text(sslmode.as_deref())),
        ("target.sslrootcert", "--sslrootcert", path(sslrootcert)),
        ("target.sslcert", "--sslcert", path(sslcert)),
        ("target.sslkey", "--sslkey", path(sslkey)),
        ("target.sslcrl", "--sslcrl", path(sslcrl)),
        (
            "target.allow_mixed_sources",
            "--allow-mixed-sources",
            switch,
        ),
        ("programs.pg_bin_dir", "--pg-bin-dir", path(pg_bin_dir)),
        (
            "connection.connect_timeout",
            "--connect-timeout",
            text(connect_timeout.as_deref()),
        ),
        (
            "connection.lock_wait_timeout",
            "--lock-wait-timeout",
            text(lock_wait_timeout.as_deref()),
        ),
        (
            "connection.statement_timeout",
            "--statement-timeout",
            text(statement_timeout.as_deref()),
        ),
        (
            "connection.stall_timeout",
            "--stall-timeout",
            text(stall_timeout.as_deref()),
        ),
        (
            "connection.max_connections",
            "--max-connections",
            count(*max_connections),
        ),
    ] {
        layers.add_argument(key, flag, value)?;
    }
    Ok(())
}

fn word<T: clap::ValueEnum>(value: &T) -> String {
    value
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

/// Keys that describe one server and its login.
const SERVER_KEYS: &[&str] = &[
    "target.name",
    "target.container",
    "target.host",
    "target.port",
    "target.dbname",
    "target.username",
    "target.password",
    "target.sslmode",
    "target.sslrootcert",
    "target.sslcert",
    "target.sslkey",
    "target.sslcrl",
];

/// A server that was named closer to the command replaces the whole login of a layer below: a
/// password of a file never goes to a server that was typed.
fn target(layers: &mut Layers, env: &EnvSnapshot) -> Result<TargetSettings, CommandError> {
    let names = ["target.name", "target.container", "target.host"];
    let typed = names
        .iter()
        .any(|key| matches!(layers.origin(key), Some(Origin::Argument(_))));
    let from_env = SERVER_VARIABLES.iter().any(|name| env.get(name).is_some())
        || names
            .iter()
            .any(|key| matches!(layers.origin(key), Some(Origin::Environment(_))));
    layers.values.retain(|key, sourced| {
        !SERVER_KEYS.contains(key)
            || match sourced.origin {
                Origin::Argument(_) => true,
                Origin::Environment(_) => !typed,
                Origin::File(_) | Origin::Default => !typed && !from_env,
            }
    });
    let mut name = layers.text("target.name").map(str::to_owned);
    let name_typed = matches!(layers.origin("target.name"), Some(Origin::Argument(_)));
    if let Some(text) = &name
        && !text.contains(['/', ':'])
    {
        let Some(known) = layers.targets.get(text) else {
            let known: Vec<_> = layers.targets.keys().map(String::as_str).collect();
            let list = match known.as_slice() {
                [] => "the configuration names none".to_owned(),
                known => format!("the configuration names {}", known.join(", ")),
            };
            return Err(CommandError::usage(format!(
                "{text:?} is no target: {list}"
            ))
            .hint(format!(
                "a container is written container:{text}, a compose service project/{text}, a server postgres://USER@{text}/DATABASE"
            )));
        };
        if let Value::Text(target) = &known.value {
            name = Some(target.clone());
        }
    }
    let text = |key: &str| layers.text(key).map(str::to_owned);
    Ok(TargetSettings {
        name,
        name_typed,
        container: text("target.container"),
        image_pattern: text("target.image_pattern"),
        host: text("target.host"),
        port: layers
            .number("target.port")
            .and_then(|port| u16::try_from(port).ok()),
        dbname: text("target.dbname"),
        username: text("target.username"),
        password: layers.secret("target.password").cloned(),
        sslmode: text("target.sslmode"),
        sslrootcert: layers.path("target.sslrootcert"),
        sslcert: layers.path("target.sslcert"),
        sslkey: layers.path("target.sslkey"),
        sslcrl: layers.path("target.sslcrl"),
        allow_mixed_sources: layers.switch("target.allow_mixed_sources"),
        named: from_env || names.iter().any(|key| layers.text(key).is_some()),
    })
}
