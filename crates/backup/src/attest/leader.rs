//! The session that leads a dump: psql next to the server, or a session of our own.

use std::sync::Arc;
use std::time::Duration;

use dbexec::native::Canceller;
use dbexec::{
    ExecError, NativeError, NativeRoute, NativeSession, PgExecutor, PgProgram, PsqlSession,
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

/// Behind the run's name in the `application_name` of a leader of our own.
const SUFFIX: &str = "leader";
/// How long a cancelled statement may take to end.
const CANCEL_WAIT: Duration = Duration::from_secs(2);

/// See the module.
pub(crate) struct Leader {
    session: Session,
    database: String,
}

enum Session {
    Psql(PsqlSession),
    Native(Box<NativeSession>, Watch),
}

/// Looks whether the server is there when it is silent, as is done for every program.
struct Watch {
    route: Arc<NativeRoute>,
    after: Duration,
    database: String,
    cancel: CancellationToken,
}

impl Watch {
    /// Waits for an answer for as long as the server lets others in.
    async fn over<T>(
        &self,
        canceller: &Canceller,
        work: impl Future<Output = Result<T, NativeError>>,
        failed: impl FnOnce(NativeError) -> ExecError,
    ) -> Result<T, ExecError> {
        let work = self.route.while_there(&self.database, self.after, work);
        tokio::pin!(work);
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => {
                // A statement that waits would go on without us.
                let _ = canceller.cancel().await;
                let _ = tokio::time::timeout(CANCEL_WAIT, work).await;
                Err(interrupted())
            }
            done = &mut work => done.map_err(failed),
        }
    }
}

impl Leader {
    /// Opens psql next to the server.
    ///
    /// # Errors
    /// As [`PsqlSession::open`].
    pub(crate) async fn psql(
        executor: &dyn PgExecutor,
        database: &str,
        cancel: &CancellationToken,
    ) -> Result<Self, ExecError> {
        let session = PsqlSession::open(executor, database, cancel).await?;
        Ok(Self {
            session: Session::Psql(session),
            database: database.to_owned(),
        })
    }

    /// Opens a session of our own, with the same settings as psql gets.
    ///
    /// # Errors
    /// What the server or the connection refused, or an interruption.
    pub(crate) async fn native(
        executor: &dyn PgExecutor,
        route: &Arc<NativeRoute>,
        database: &str,
        cancel: &CancellationToken,
    ) -> Result<Self, ExecError> {
        let opened = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(interrupted()),
            opened = route.open(database, SUFFIX) => opened?,
        };
        let watch = Watch {
            route: Arc::clone(route),
            after: executor.settings().stall_after,
            database: database.to_owned(),
            cancel: cancel.clone(),
        };
        let mut this = Self {
            session: Session::Native(Box::new(opened), watch),
            database: database.to_owned(),
        };
        let settings = format!(
            "set client_encoding to 'UTF8';
set lock_timeout to {};
select pg_catalog.set_config(name, '0', false) from pg_catalog.pg_settings
where name in ('statement_timeout', 'idle_in_transaction_session_timeout',
               'idle_session_timeout', 'transaction_timeout');",
            executor.settings().lock_wait_timeout.as_millis()
        );
        this.run("open a session", &settings).await?;
        Ok(this)
    }

    /// Our own session, where it is one.
    pub(crate) fn session(&mut self) -> Option<&mut NativeSession> {
        match &mut self.session {
            Session::Native(session, _) => Some(session),
            Session::Psql(_) => None,
        }
    }

    /// psql, where it is that.
    pub(crate) fn script(&mut self) -> Option<&mut PsqlSession> {
        match &mut self.session {
            Session::Psql(session) => Some(session),
            Session::Native(..) => None,
        }
    }

    pub(crate) fn is_native(&self) -> bool {
        matches!(self.session, Session::Native(..))
    }

    /// Runs statements; what they print: columns apart by `|`, a row a line.
    ///
    /// # Errors
    /// [`ExecError::Query`] when a statement failed: the session can go on. Any other error is its
    /// end.
    pub(crate) async fn run(&mut self, name: &'static str, sql: &str) -> Result<String, ExecError> {
        let (session, watch) = match &mut self.session {
            Session::Psql(session) => return session.run(name, sql, &[]).await,
            Session::Native(session, watch) => (session, watch),
        };
        let failed = |error| ExecError::of_query(name, &self.database, error);
        let canceller = session.canceller();
        let rows = watch.over(&canceller, session.query(sql), failed).await?;
        let line = |row: Vec<Option<String>>| {
            let columns: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
            format!("{}\n", columns.join("|"))
        };
        Ok(rows.into_iter().map(line).collect())
    }

    /// Runs one SELECT and decodes each row.
    ///
    /// # Errors
    /// As [`Leader::run`].
    pub(crate) async fn rows<T: DeserializeOwned + Send>(
        &mut self,
        name: &'static str,
        select: &str,
        vars: &[(&str, &str)],
    ) -> Result<Vec<T>, ExecError> {
        match &mut self.session {
            Session::Psql(session) => session.rows(name, select, vars).await,
            Session::Native(session, watch) => {
                let failed = |error| ExecError::of_query(name, &self.database, error);
                let canceller = session.canceller();
                let work = session.rows(name, select, vars);
                watch.over(&canceller, work, failed).await
            }
        }
    }

    /// Ends the session.
    ///
    /// # Errors
    /// psql's failure.
    pub(crate) async fn close(self) -> Result<(), ExecError> {
        match self.session {
            Session::Psql(session) => session.close().await,
            Session::Native(session, _) => {
                session.close().await;
                Ok(())
            }
        }
    }
}

fn interrupted() -> ExecError {
    ExecError::Interrupted {
        program: PgProgram::Psql,
    }
}
