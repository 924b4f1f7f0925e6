//! The command line as it is typed. Arguments are not settings: `settings.rs` merges them with
//! the configuration.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "\
Exit codes:
  0 done, 1 failed, 2 usage, 3 done with warnings that matter, 4 no backup matched,
  10 database not found or ambiguous, 11 credentials refused, 12 program missing or too old,
  13 rights missing, 20 store unreachable or full, 21 locked by another run,
  30 verification failed, 40 restore failed and target untouched,
  41 restore failed and target needs attention, 42 refused before starting,
  130/143 interrupted";

/// Back up and restore PostgreSQL wherever it runs.
///
/// Next to one running container no configuration is needed: `pgstow backup`, then
/// `pgstow restore latest`.
#[derive(Debug, Parser)]
#[command(name = "pgstow", version, max_term_width = 100)]
#[command(after_long_help = format!("{}\n{EXIT_CODES}", crate::env_vars::help()))]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command, before or after it.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Directory of backups and state [default: /var/lib/pgstow for root, else the XDG data directory]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A configuration file, read after the system's and the user's
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Results on standard output as JSON: events line by line, one result object at the end
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No messages but warnings and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Colours in messages and tables
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value = "auto"
    )]
    pub(crate) color: ColorArg,
    /// More of the log on standard error; twice for debug, three times for trace
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Write Prometheus metrics of discovery and result to this file, in one step
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) metrics_textfile: Option<PathBuf>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorArg {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Also into files and pipes
    Always,
    /// Never
    Never,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Find the database: target, source of each credential field, versions
    Discover(DiscoverArgs),
    /// Check everything that a backup needs; each line is good or says its fix
    Doctor(DoctorArgs),
    /// Back up every database of the target, with roles, and check the result
    Backup(BackupArgs),
    /// List the backups; failed, incomplete and damaged ones apart
    List,
    /// Show one backup
    Show(ShowArgs),
    /// Compare two backups: objects added, dropped and changed, and rows
    Diff(DiffArgs),
    /// Prove that a backup is whole
    Verify(VerifyArgs),
    /// Restore a database: in the place of the live one, which is kept, or beside it
    Restore(RestoreArgs),
    /// Put back the database that the last restore replaced
    Rollback(RollbackArgs),
    /// Remove old backups; only shows what it would do, unless --apply
    Prune(PruneArgs),
    /// Write an archive of a backup to an ordinary file or directory
    Export(ExportArgs),
    /// The configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Show the whole way on a throw-away server: back up, break, restore, compare
    Demo,
}

/// Which server, and how to reach it.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Target options")]
pub(crate) struct TargetArgs {
    /// Name or id of the container [env: TARGET_CONTAINER]
    #[arg(long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// Consider only containers whose image matches this glob
    #[arg(long, value_name = "GLOB")]
    pub(crate) image_pattern: Option<String>,
    /// Host name, address or socket directory of the server
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Port
    #[arg(long, short, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Database of the first connection
    #[arg(long, short, value_name = "NAME")]
    pub(crate) dbname: Option<String>,
    /// Role that logs in
    #[arg(long, short = 'U', value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// File whose content, without its last line break, is the password
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// disable, allow, prefer, require, verify-ca or verify-full
    #[arg(long, value_name = "MODE")]
    pub(crate) sslmode: Option<String>,
    /// Certificate of the authority that signed the server's certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) sslrootcert: Option<PathBuf>,
    /// Client certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) sslcert: Option<PathBuf>,
    /// Key of the client certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) sslkey: Option<PathBuf>,
    /// Certificate revocation list
    #[arg(long, value_name = "FILE")]
    pub(crate) sslcrl: Option<PathBuf>,
    /// Let secrets of one source go to a host that another source named
    #[arg(long)]
    pub(crate) allow_mixed_sources: bool,
    /// Directory of PostgreSQL's programs on this host, for servers outside containers
    #[arg(long, value_name = "DIR")]
    pub(crate) pg_bin_dir: Option<PathBuf>,
    /// How long a connection may take, for example 10s
    #[arg(long, value_name = "TIME")]
    pub(crate) connect_timeout: Option<String>,
    /// How long a dump may wait for a lock before it gives up, for example 30s
    #[arg(long, value_name = "TIME")]
    pub(crate) lock_wait_timeout: Option<String>,
    /// Limit of each of pgstow's own queries, never of a dump
    #[arg(long, value_name = "TIME")]
    pub(crate) statement_timeout: Option<String>,
    /// How long a program may move no byte before it is diagnosed
    #[arg(long, value_name = "TIME")]
    pub(crate) stall_timeout: Option<String>,
    /// Sessions that pgstow may hold at once [default: one for each job, and four]. A backup by the
    /// parallel engine needs one for pg_dump, one that leads and one for each mover, and two more to
    /// begin the next database before the last rows of this one are stored
    #[arg(long, value_name = "N")]
    pub(crate) max_connections: Option<u32>,
}

const TARGET_HELP: &str = "container:NAME[/db], project/service[/db] (compose), postgres://…, or a \
                           name from [targets] of the configuration; nothing where there is one \
                           candidate";

#[derive(Debug, Default, Args)]
pub(crate) struct DiscoverArgs {
    #[arg(value_name = "TARGET", help = TARGET_HELP)]
    pub(crate) target: Option<String>,
    /// List every server that can be seen, instead of choosing one
    #[arg(long, conflicts_with = "target")]
    pub(crate) all: bool,
    /// Show what each step tried and why it ended as it did, and which transport, route and engine a
    /// backup would use
    #[arg(long)]
    pub(crate) explain: bool,
    #[command(flatten)]
    pub(crate) options: TargetArgs,
}

#[derive(Debug, Default, Args)]
pub(crate) struct DoctorArgs {
    #[arg(value_name = "TARGET", help = TARGET_HELP)]
    pub(crate) target: Option<String>,
    #[command(flatten)]
    pub(crate) options: TargetArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    /// One file, pg_dump's own container
    Custom,
    /// A directory with one file for each table
    Directory,
    /// A script, compressed with zstd
    Plain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerifyArg {
    /// Nothing beyond what every run checks while it writes
    None,
    /// Stored bytes equal what was hashed
    Hash,
    /// The whole archive decodes to its end
    Read,
    /// As read; then, once published, restored into a throw-away server and compared
    Restore,
}

/// Who moves the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineArg {
    /// The parallel engine where it pays and can be used, else PostgreSQL's programs alone
    Auto,
    /// The parallel engine also where it is not expected to pay
    Parallel,
    /// PostgreSQL's programs alone
    Stock,
}

#[derive(Debug, Default, Args)]
pub(crate) struct BackupArgs {
    #[arg(value_name = "TARGET", help = TARGET_HELP)]
    pub(crate) target: Option<String>,
    /// Back up this database only; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Vec<String>,
    /// Leave out the rows of tables that match this pattern of pg_dump
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude_table_data: Vec<String>,
    /// Format of the archives [default: custom]
    #[arg(long, value_enum)]
    pub(crate) format: Option<FormatArg>,
    /// Who moves the rows [default: auto]
    #[arg(long, value_enum, value_name = "ENGINE")]
    pub(crate) engine: Option<EngineArg>,
    /// Movers of the parallel engine, or jobs of pg_dump in the directory format; never more than
    /// --max-connections leaves [default: a mover for each processor, 8 at most; 2 jobs]
    #[arg(long, short, value_name = "N")]
    pub(crate) jobs: Option<u32>,
    /// Check after the dump, before the backup is published [default: read]
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub(crate) verify: Option<VerifyArg>,
    /// How many bytes of tables are fingerprinted in a run, the smallest first; 0 for none
    /// [default: 2GB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) fingerprint_budget: Option<String>,
    /// A tag for the manifest; may be given more than once
    #[arg(long, value_name = "K=V")]
    pub(crate) tag: Vec<String>,
    #[command(flatten)]
    pub(crate) options: TargetArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Id, unique beginning of an id, or `latest`
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Also list what is in each archive: schemas, tables with rows and bytes, other objects
    #[arg(long)]
    pub(crate) toc: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The older backup: id, unique beginning of an id, or `latest`
    #[arg(value_name = "ID")]
    pub(crate) before: String,
    /// The newer backup
    #[arg(value_name = "ID")]
    pub(crate) after: String,
    /// Only this database
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelArg {
    /// Stored bytes equal what was hashed
    Hash,
    /// The whole archive decodes to its end
    Read,
    /// All of it restores into a throw-away server and equals what was attested
    Restore,
}

/// How a backup is proven by a restore.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Options of --level restore")]
pub(crate) struct ProveArgs {
    /// Image of the throw-away server [default: the source's, or this host's programs]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// Memory of the throw-away container [default: 2GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Processors of the throw-away container [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<f64>,
    /// A query that has to return a single true in the restored database; may be given more than
    /// once
    #[arg(long, value_name = "SQL")]
    pub(crate) check: Vec<String>,
    /// Database that the queries of --check run in, where the backup holds more than one
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Id, unique beginning of an id, or `latest`
    #[arg(value_name = "ID", required_unless_present = "all")]
    pub(crate) id: Option<String>,
    /// Every backup
    #[arg(long, conflicts_with = "id")]
    pub(crate) all: bool,
    /// Level of proof
    #[arg(long, value_enum, default_value = "read")]
    pub(crate) level: LevelArg,
    #[command(flatten)]
    pub(crate) prove: ProveArgs,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RolesArg {
    /// Create those that are missing, from the backup's globals
    Create,
    /// Leave roles alone
    #[default]
    Skip,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OwnerArg {
    /// Owners and privileges as in the backup
    #[default]
    Keep,
    /// Everything belongs to the role that restores
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SectionArg {
    /// Definitions
    PreData,
    /// Rows, large objects, values of sequences
    Data,
    /// Indexes, constraints, triggers
    PostData,
}

/// Which part of a backup is restored; a part goes into a new database.
#[derive(Debug, Default, Args)]
pub(crate) struct PartArgs {
    /// Restore only tables, views and sequences that match (`schema.table`, `*`, `?`, double
    /// quotes), with what they need; may be given more than once
    #[arg(long, value_name = "PATTERN", conflicts_with = "in_place")]
    pub(crate) table: Vec<String>,
    /// Restore only schemas that match, with all that is in them; may be given more than once
    #[arg(long, value_name = "PATTERN", conflicts_with = "in_place")]
    pub(crate) schema: Vec<String>,
    /// Restore only this section; may be given more than once, pre-data among them
    #[arg(long, value_enum, conflicts_with_all = ["in_place", "data_only"])]
    pub(crate) section: Vec<SectionArg>,
    /// Restore rows with the bare tables that hold them: no indexes, constraints, triggers
    #[arg(long, conflicts_with = "in_place")]
    pub(crate) data_only: bool,
    /// Fill materialised views that read foreign tables, which logs in at other servers
    #[arg(long)]
    pub(crate) connect_foreign: bool,
}

impl PartArgs {
    /// Whether only a part is restored.
    pub(crate) fn is_partial(&self) -> bool {
        self.data_only
            || !(self.table.is_empty() && self.schema.is_empty() && self.section.is_empty())
    }
}

#[derive(Debug, Default, Args)]
pub(crate) struct RestoreArgs {
    /// Id, unique beginning of an id, `latest`, or a file or directory made by pg_dump
    #[arg(value_name = "ID|latest|FILE", required_unless_present = "resume")]
    pub(crate) source: Option<String>,
    /// Restore into a new database of this name
    #[arg(long = "as", value_name = "NEWDB", conflicts_with = "in_place")]
    pub(crate) new_database: Option<String>,
    /// Restore into an existing database, in one transaction
    #[arg(long)]
    pub(crate) in_place: bool,
    /// Consent: the name of the database that is replaced or changed
    #[arg(long, value_name = "DBNAME")]
    pub(crate) yes: Option<String>,
    /// Finish or undo a restore that was killed
    #[arg(
        long,
        conflicts_with_all = ["source", "new_database", "in_place", "yes", "dry_run"]
    )]
    pub(crate) resume: bool,
    /// Do not back up the live database before it is replaced
    #[arg(long, conflicts_with_all = ["new_database", "in_place"])]
    pub(crate) no_safety_backup: bool,
    /// How long the replaced database is kept, for example 7d or 12h [default: 7d]
    #[arg(long, value_name = "TIME", conflicts_with_all = ["new_database", "in_place"])]
    pub(crate) keep_old: Option<String>,
    /// Database of the backup, where it holds more than one
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Roles that the archive refers to and the target lacks
    #[arg(long, value_enum, default_value = "skip")]
    pub(crate) roles: RolesArg,
    /// Owners and privileges
    #[arg(long, value_enum, default_value = "keep")]
    pub(crate) owner: OwnerArg,
    /// Show the plan and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Who moves the rows [default: auto]
    #[arg(long, value_enum, value_name = "ENGINE")]
    pub(crate) engine: Option<EngineArg>,
    /// Sessions that fill tables side by side, and jobs of pg_restore
    #[arg(long, short, value_name = "N")]
    pub(crate) jobs: Option<u32>,
    #[command(flatten)]
    pub(crate) part: PartArgs,
    /// Server to restore to, written as TARGET elsewhere [default: where the backup came from]
    #[arg(long, value_name = "TARGET")]
    pub(crate) to: Option<String>,
    #[command(flatten)]
    pub(crate) options: TargetArgs,
}

#[derive(Debug, Default, Args)]
pub(crate) struct RollbackArgs {
    #[arg(value_name = "TARGET", help = TARGET_HELP)]
    pub(crate) target: Option<String>,
    /// Database that was replaced, where it is not the last one
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Consent: the name of the database that is replaced
    #[arg(long, value_name = "DBNAME")]
    pub(crate) yes: Option<String>,
    #[command(flatten)]
    pub(crate) options: TargetArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// How many good backups of each target stay
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: usize,
    /// Remove them; without this the plan is only shown
    #[arg(long)]
    pub(crate) apply: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Id, unique beginning of an id, or `latest`
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// File or directory to write; must not exist
    #[arg(long, short, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// Database of the backup, where it holds more than one
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Format to write [default: as stored]
    #[arg(long, value_enum)]
    pub(crate) format: Option<FormatArg>,
    /// Server whose pg_restore converts archives, where a conversion is asked for
    #[arg(long, value_name = "TARGET")]
    pub(crate) target: Option<String>,
    #[command(flatten)]
    pub(crate) options: TargetArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every key with its value
    Show {
        /// Also show where each value comes from
        #[arg(long)]
        origin: bool,
    },
}

impl Command {
    /// What was typed about the target, where the verb has one.
    pub(crate) fn target(&self) -> Option<(Option<&str>, &TargetArgs)> {
        match self {
            Self::Discover(args) => Some((args.target.as_deref(), &args.options)),
            Self::Doctor(args) => Some((args.target.as_deref(), &args.options)),
            Self::Backup(args) => Some((args.target.as_deref(), &args.options)),
            Self::Restore(args) => Some((args.to.as_deref(), &args.options)),
            Self::Rollback(args) => Some((args.target.as_deref(), &args.options)),
            Self::Export(args) => Some((args.target.as_deref(), &args.options)),
            Self::List
            | Self::Show(_)
            | Self::Diff(_)
            | Self::Verify(_)
            | Self::Prune(_)
            | Self::Config { .. }
            | Self::Completions { .. }
            | Self::Demo => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_work_before_and_after_the_verb() {
        for line in [
            ["pgstow", "--json", "--data-dir", "/d", "list"],
            ["pgstow", "list", "--json", "--data-dir", "/d"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert!(cli.global.json);
            assert_eq!(cli.global.data_dir, Some(PathBuf::from("/d")));
        }
    }
}
