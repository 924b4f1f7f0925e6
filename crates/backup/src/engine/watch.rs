//! Silence of the movers: a server may be slow, but one that is gone or paused is not waited for.

use std::time::Duration;

use dbexec::PgExecutor;
use serde::Deserialize;
use tokio::time::Instant;

use super::emit::Failure;
use super::mover::Sessions;

/// How long the server may take to say what our sessions do.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Sessions that move rows and are at work.
const AT_WORK: &str = "
select pg_catalog.count(*) as count from pg_catalog.pg_stat_activity
where application_name ~~ :'name' and state = 'active'";

/// Looks after the movers.
pub(crate) struct Watch<'a> {
    executor: &'a dyn PgExecutor,
    /// When something moved last.
    since: Instant,
}

#[derive(Deserialize)]
struct AtWork {
    count: u64,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(executor: &'a dyn PgExecutor) -> Self {
        Self {
            executor,
            since: Instant::now(),
        }
    }

    /// Something moved.
    pub(crate) fn moved(&mut self) {
        self.since = Instant::now();
    }

    /// Nothing moved: after a while the server is asked whether it works for us.
    pub(crate) async fn look(&mut self, sessions: &Sessions) -> Result<(), Failure> {
        let settings = self.executor.settings();
        if self.since.elapsed() < settings.stall_after {
            return Ok(());
        }
        let name = format!("{}-{}-%", settings.application_name, sessions.suffix);
        let vars = [("name", name.as_str())];
        let asked = dbexec::query::rows::<AtWork>(
            self.executor,
            &sessions.database,
            "look after the movers",
            AT_WORK,
            &vars,
        );
        let wrong = match tokio::time::timeout(ANSWER_WAIT, asked).await {
            Ok(Ok(rows)) if rows.first().is_some_and(|row| row.count > 0) => None,
            Ok(Ok(_)) => Some("no session of ours is at work".to_owned()),
            Ok(Err(error)) => Some(crate::run::chain(&error)),
            Err(_elapsed) => Some("the server does not answer".to_owned()),
        };
        match wrong {
            None => {
                self.moved();
                Ok(())
            }
            Some(wrong) => Err(Failure::Stock(format!(
                "nothing moved for {} s: {wrong}",
                settings.stall_after.as_secs()
            ))),
        }
    }
}
