//! Roles, memberships and tablespaces: `pg_dumpall --globals-only`.

use dbexec::executor::conninfo_dbname;
use dbexec::{ExecError, PgProgram};

use super::Progress;
use super::dump::{Kind, Source, Stored, Work};
use crate::{BackupError, BackupEvent, EventSink, manifest::GlobalsRecord, script};

/// Name of the stored script.
const NAME: &str = "globals.sql.zst";

impl Work<'_> {
    /// Dumps the globals. A role that may not read password verifiers dumps the rest; one that
    /// may not read anything of it gets a warning, not a failed backup.
    pub(crate) async fn store_globals(
        &self,
        roles: &[String],
        sink: &dyn EventSink,
        warnings: &mut Vec<String>,
    ) -> Result<GlobalsRecord, BackupError> {
        let context = self.executor.context();
        let superuser = context.server.is_superuser;
        let mut args = vec![
            "--globals-only".to_owned(),
            "--no-password".to_owned(),
            // pg_dumpall ignores PGDATABASE; the name is quoted, so that it stays a name.
            format!("--database={}", conninfo_dbname(&context.creds.database)),
        ];
        let mut warn = |message: String| {
            sink.emit(BackupEvent::Warning {
                message: message.clone(),
            });
            warnings.push(message);
        };
        if !superuser {
            args.push("--no-role-passwords".to_owned());
            warn(format!(
                "role {:?} may not read password verifiers: the roles are stored without them",
                context.creds.user
            ));
        }
        let mut progress = Progress::start(sink, "dump", "globals", None);
        let stored = self
            .store_output(
                Source {
                    program: PgProgram::PgDumpall,
                    args,
                    database: context.creds.database.clone(),
                    kind: Kind::Script(script::CLUSTER_END),
                    along: None,
                    name: NAME,
                    operation: "dumping the globals",
                },
                &mut progress,
            )
            .await;
        match stored {
            Ok(Stored { file, finished, .. }) => {
                for line in finished.stderr {
                    warn(format!("pg_dumpall: {line}"));
                }
                progress.finish();
                Ok(GlobalsRecord {
                    file: Some(file),
                    with_passwords: superuser,
                    roles: roles.to_vec(),
                })
            }
            Err(BackupError::Exec {
                source: ExecError::Failed { stderr, .. },
                ..
            }) if !superuser => {
                warn(format!(
                    "the roles could not be dumped: {}",
                    stderr.last().map_or("pg_dumpall failed", String::as_str)
                ));
                Ok(GlobalsRecord {
                    file: None,
                    with_passwords: false,
                    roles: roles.to_vec(),
                })
            }
            Err(error) => Err(error),
        }
    }
}
