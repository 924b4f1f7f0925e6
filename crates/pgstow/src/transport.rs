//! How client programs of a backup hand over their bytes: through the engine's exec, or from a
//! sidecar.

use std::path::Path;
use std::sync::Arc;

use backup::{BackupId, EngineChoice};
use dbexec::sidecar::{Situation, TransportChoice, wants_sidecar};
use dbexec::{
    ContainerRuntime, DbMode, ExecError, NoSidecar, PgExecutor, SidecarPgExecutor, Transport,
    open_sidecar, query, reap_sidecars,
};
use serde::Deserialize;

use crate::commands::discover::would_use::engine;
use crate::error::one_line;
use crate::printer::Printer;
use crate::render::text;
use crate::session::Session;

/// The executor of a backup.
pub(crate) struct Chosen {
    pub(crate) executor: Arc<dyn PgExecutor>,
    sidecar: Option<Arc<SidecarPgExecutor>>,
}

impl Chosen {
    /// Ends the sidecar, where there is one.
    pub(crate) async fn close(self, printer: &Printer) {
        if let Some(sidecar) = self.sidecar
            && let Err(error) = sidecar.close().await
        {
            printer.warning(one_line(&error));
        }
    }
}

impl Session {
    /// Opens a sidecar where it pays and can be had, else leaves things as they are.
    pub(crate) async fn transport(
        &self,
        executor: Arc<dyn PgExecutor>,
        runtime: Option<Arc<dyn ContainerRuntime>>,
        databases: &[String],
        run: &BackupId,
    ) -> Chosen {
        let settings = &self.settings;
        let opened = self.sidecar(&executor, runtime, databases, run).await;
        match opened {
            Ok(sidecar) => {
                self.printer.message(format!(
                    "client programs run in the sidecar {} (transport = \"exec\" prevents it)",
                    sidecar.name()
                ));
                let sidecar = Arc::new(sidecar);
                Chosen {
                    executor: Arc::clone(&sidecar) as Arc<dyn PgExecutor>,
                    sidecar: Some(sidecar),
                }
            }
            Err((tried, no)) => {
                if settings.transport == TransportChoice::Sidecar {
                    self.printer
                        .warning(format!("client programs run by docker exec: {no}"));
                } else if tried {
                    self.printer
                        .message(format!("client programs run by docker exec: {no}"));
                } else {
                    tracing::debug!(%no, "client programs run where they usually do");
                }
                Chosen {
                    executor,
                    sidecar: None,
                }
            }
        }
    }

    /// How client programs would run, in words, and why not from a sidecar.
    pub(crate) async fn transport_words(&self, executor: &dyn PgExecutor, stock: bool) -> String {
        match (executor.transport(), self.pays(executor, stock, &[]).await) {
            (Transport::Exec, Ok(())) => format!(
                "{}, where it can be had; else {}",
                text::transport(Transport::Sidecar),
                text::transport(Transport::Exec)
            ),
            (Transport::Exec, Err(no)) => format!("{} ({no})", text::transport(Transport::Exec)),
            (transport, _) => text::transport(transport),
        }
    }

    /// Whether a sidecar pays for these databases (none: for all).
    async fn pays(
        &self,
        executor: &dyn PgExecutor,
        stock: bool,
        databases: &[String],
    ) -> Result<(), NoSidecar> {
        let choice = self.settings.transport;
        let mut now = Situation {
            mode: executor.context().mode,
            stock,
            bytes: Some(u64::MAX),
        };
        wants_sidecar(choice, now)?;
        if choice == TransportChoice::Auto {
            now.bytes = size(executor, databases).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "the size of the databases");
                None
            });
        }
        wants_sidecar(choice, now)
    }

    /// The sidecar, or whether one was tried and why there is none.
    async fn sidecar(
        &self,
        executor: &Arc<dyn PgExecutor>,
        runtime: Option<Arc<dyn ContainerRuntime>>,
        databases: &[String],
        run: &BackupId,
    ) -> Result<SidecarPgExecutor, (bool, NoSidecar)> {
        let settings = &self.settings;
        let scratch = settings.data_dir.scratch();
        if let Some(runtime) = &runtime
            && executor.context().mode == DbMode::InContainer
        {
            self.reap_leftovers(runtime.as_ref(), &scratch).await;
        }
        let stock = match settings.transport {
            // It does not matter.
            TransportChoice::Exec | TransportChoice::Sidecar => true,
            // What was asked for and cannot be had is refused.
            TransportChoice::Auto if settings.engine == EngineChoice::Parallel => false,
            TransportChoice::Auto => engine(settings, executor.as_ref()).await.1 == "stock",
        };
        self.pays(executor.as_ref(), stock, databases)
            .await
            .map_err(|no| (false, no))?;
        let no_engine = || (true, NoSidecar::new("no container engine answers"));
        let runtime = runtime.ok_or_else(no_engine)?;
        let opened = open_sidecar(executor, &runtime, &scratch, run.as_str()).await;
        opened.map_err(|no| (true, no))
    }

    /// By every backup of a container, also one that opens no sidecar: there may be rows in them.
    async fn reap_leftovers(&self, runtime: &dyn ContainerRuntime, scratch: &Path) {
        match reap_sidecars(runtime, scratch).await {
            Ok(0) => {}
            Ok(count) => self.printer.message(format!(
                "removed {count} leftovers of sidecars whose run was killed"
            )),
            Err(error) => tracing::debug!(%error, "leftovers of sidecars were not looked for"),
        }
    }
}

/// Size of the databases of a backup, bytes; `None` where none may be asked for.
async fn size(executor: &dyn PgExecutor, databases: &[String]) -> Result<Option<u64>, ExecError> {
    #[derive(Deserialize)]
    struct Size {
        bytes: Option<u64>,
    }
    let names = serde_json::Value::from(databases).to_string();
    let select = "select sum(pg_catalog.pg_database_size(oid))::int8 as bytes \
        from pg_catalog.pg_database where datallowconn and not datistemplate \
        and pg_catalog.has_database_privilege(oid, 'CONNECT') \
        and (:'names' = '[]' or datname in \
            (select pg_catalog.json_array_elements_text(:'names'::json)))";
    let database = &executor.context().creds.database;
    let vars = [("names", names.as_str())];
    let name = "size of the databases";
    let rows = query::rows::<Size>(executor, database, name, select, &vars).await?;
    Ok(rows.into_iter().next().and_then(|row| row.bytes))
}
