//! Exchanges the names of databases: in ONE statement of the server, so that whatever dies in the
//! middle (this program, psql, the server), every name is as before or as wanted.
//!
//! Two sessions work together. The **mover** renames: from the moment it has the lock on the
//! database that goes out, new connections to it wait, and the server itself waits a few seconds
//! for the sessions that are there. The **ender** ends these, for as long as the mover has or
//! wants the lock and no longer. Nothing is committed before the new names are: there is no
//! moment at which the live database refuses connections and nobody is left to allow them again.
//! Every database is known by its oid; a name that belongs to another oid stops the exchange.

use std::time::Duration;

use dbexec::{ExecError, PgExecutor, query};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{
    create::{DURABLE, UNSEEN},
    psql,
};

/// First key of the advisory locks by which the two sessions know each other: `pgs`, then which.
const MOVER: u32 = 0x7067_7301;
const ENDER: u32 = 0x7067_7302;
/// How long the ender may stay when the mover has ended.
const ENDER_WAIT: Duration = Duration::from_secs(2);

/// Which names change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exchange<'a> {
    /// The name that another database gets.
    pub(crate) name: &'a str,
    /// Oid of the database that has it now, and the name that this one gets. Its connections are
    /// refused afterwards. `None`: nobody has the name.
    pub(crate) out: Option<(u32, &'a str)>,
    /// Oid of the database that gets it, and its name until then. `None`: the name is free
    /// afterwards.
    pub(crate) come: Option<(u32, &'a str)>,
}

/// What an exchange took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Exchanged {
    /// From the moment at which new connections had to wait to the commit, by the server's clock,
    /// seconds.
    pub(crate) outage_seconds: f64,
    /// Sessions that were ended.
    pub(crate) ended: u32,
}

/// Both sessions: values travel as settings, because a `DO` block takes no parameters.
const PREPARE: &str = "\
SET default_transaction_read_only = off;
SET default_transaction_isolation = 'read committed';
SET search_path = pg_catalog;
SET lock_timeout = '3s';
SET statement_timeout = '60s';
SELECT set_config('pgstow.name', :'name', false) AS a,
       set_config('pgstow.out_oid', :'out_oid', false) AS b,
       set_config('pgstow.out_name', :'out_name', false) AS c,
       set_config('pgstow.come_oid', :'come_oid', false) AS d,
       set_config('pgstow.come_name', :'come_name', false) AS e,
       set_config('pgstow.pair', :'pair', false) AS f,
       set_config('pgstow.mover', :'mover', false) AS g,
       set_config('pgstow.ender', :'ender', false) AS h \\gset pgstow_
";

const MOVE: &str = "\
SELECT pg_advisory_lock(:mover, :pair) IS NULL AS a \\gset pgstow_
DO $pgstow$
DECLARE
  wanted text := current_setting('pgstow.name');
  out_oid oid := current_setting('pgstow.out_oid')::oid;
  out_name text := current_setting('pgstow.out_name');
  come_oid oid := current_setting('pgstow.come_oid')::oid;
  come_name text := current_setting('pgstow.come_name');
  ender boolean;
  holder oid;
BEGIN
  -- Without the session that ends others, connections would wait for nothing.
  FOR attempt IN 1..500 LOOP
    SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2
                   AND classid = current_setting('pgstow.ender')::oid
                   AND objid = current_setting('pgstow.pair')::oid) INTO ender;
    EXIT WHEN ender;
    PERFORM pg_sleep(0.02);
  END LOOP;
  IF NOT ender THEN
    RAISE EXCEPTION 'the session that ends others did not come';
  END IF;
  SELECT oid FROM pg_database WHERE datname = wanted INTO holder;
  IF coalesce(holder, 0) <> out_oid THEN
    RAISE EXCEPTION 'database % is not the one that was planned for (oid %, expected %)', wanted, holder, out_oid;
  END IF;
  IF come_oid <> 0 AND come_name IS DISTINCT FROM (SELECT datname::text FROM pg_database WHERE oid = come_oid) THEN
    RAISE EXCEPTION 'database % is not the one that this restore made (oid %)', come_name, come_oid;
  END IF;
  PERFORM set_config('pgstow.started', clock_timestamp()::text, false);
  FOR attempt IN 1..2 LOOP
    BEGIN
      IF out_oid <> 0 THEN
        EXECUTE format('ALTER DATABASE %I RENAME TO %I', wanted, out_name);
        EXECUTE format('ALTER DATABASE %I ALLOW_CONNECTIONS false', out_name);
      END IF;
      IF come_oid <> 0 THEN
        EXECUTE format('ALTER DATABASE %I RENAME TO %I', come_name, wanted);
        EXECUTE format('ALTER DATABASE %I ALLOW_CONNECTIONS true', wanted);
      END IF;
      EXIT;
    EXCEPTION WHEN object_in_use OR lock_not_available THEN
      IF attempt = 2 THEN
        RAISE;
      END IF;
    END;
  END LOOP;
  -- Between the first look and the lock somebody could have renamed databases.
  IF out_oid <> 0 AND out_name IS DISTINCT FROM (SELECT datname::text FROM pg_database WHERE oid = out_oid)
     OR come_oid <> 0 AND wanted IS DISTINCT FROM (SELECT datname::text FROM pg_database WHERE oid = come_oid) THEN
    RAISE EXCEPTION 'databases were renamed at the same time by somebody else';
  END IF;
END
$pgstow$;
SELECT extract(epoch FROM clock_timestamp() - current_setting('pgstow.started')::timestamptz);
";

// Workers without a role are a superuser's to end; autovacuum makes way for a rename by itself.
const END: &str = "\
SELECT pg_advisory_lock(:ender, :pair) IS NULL AS a \\gset pgstow_
DO $pgstow$
DECLARE
  deadline timestamptz := clock_timestamp() + interval '40 s';
  oids oid[] := ARRAY[current_setting('pgstow.out_oid')::oid, current_setting('pgstow.come_oid')::oid];
  mover int;
  met boolean := false;
  one int;
  ended int[] := '{}';
BEGIN
  LOOP
    SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2
       AND classid = current_setting('pgstow.mover')::oid
       AND objid = current_setting('pgstow.pair')::oid INTO mover;
    EXIT WHEN met AND mover IS NULL;
    met := met OR mover IS NOT NULL;
    IF EXISTS (SELECT FROM pg_locks WHERE pid = mover AND locktype = 'object'
               AND classid = 'pg_catalog.pg_database'::regclass AND objid = ANY (oids)
               AND mode = 'AccessExclusiveLock') THEN
      PERFORM pg_stat_clear_snapshot();
      FOR one IN SELECT pid FROM pg_stat_activity
                 WHERE datid = ANY (oids) AND datid <> 0 AND pid <> pg_backend_pid()
                   AND (usesysid IS NOT NULL OR current_setting('is_superuser') = 'on') LOOP
        IF pg_terminate_backend(one) AND one <> ALL (ended) THEN
          ended := ended || one;
        END IF;
      END LOOP;
    END IF;
    EXIT WHEN clock_timestamp() > deadline;
    PERFORM pg_sleep(0.01);
  END LOOP;
  PERFORM set_config('pgstow.ended', cardinality(ended)::text, false);
END
$pgstow$;
SELECT current_setting('pgstow.ended');
";

/// How the names stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// As before the exchange.
    Before,
    /// As before, and the database that was to come is not there any more.
    Gone,
    /// As wanted.
    After,
    /// Neither: somebody else changed something. In words.
    Other(String),
}

#[derive(Debug, Deserialize)]
struct Named {
    oid: u32,
    name: String,
}

/// Looks how the names of an exchange stand.
pub(crate) async fn standing(
    executor: &dyn PgExecutor,
    exchange: &Exchange<'_>,
) -> Result<Standing, ExecError> {
    const SELECT: &str = "SELECT oid::int8 AS oid, datname AS name FROM pg_catalog.pg_database";
    let own = executor.context().creds.database.clone();
    let databases: Vec<Named> =
        query::rows(executor, &own, "names of the databases", SELECT, &[]).await?;
    Ok(judge(exchange, &databases))
}

fn judge(exchange: &Exchange<'_>, databases: &[Named]) -> Standing {
    let name_of = |oid: u32| {
        databases
            .iter()
            .find(|database| database.oid == oid)
            .map(|database| database.name.as_str())
    };
    let holder = databases
        .iter()
        .find(|database| database.name == exchange.name)
        .map(|database| database.oid);
    let told = |role: &str, (oid, expected): (u32, &str)| match name_of(oid) {
        Some(name) => format!("{role} (oid {oid}) is called {name:?}"),
        None => format!("{role} (oid {oid}, expected as {expected:?}) is not there any more"),
    };
    let other = || {
        let mut parts = vec![match holder {
            Some(oid) => format!("database {:?} has the oid {oid}", exchange.name),
            None => format!("there is no database {:?}", exchange.name),
        }];
        parts.extend(
            exchange
                .out
                .map(|out| told("the one that had the name", out)),
        );
        parts.extend(
            exchange
                .come
                .map(|come| told("the one that was to get it", come)),
        );
        Standing::Other(format!("{}; nothing was changed", parts.join(", ")))
    };
    let done = match (exchange.come, exchange.out) {
        // The one that went out may have been dropped since.
        (Some((oid, _)), _) => holder == Some(oid),
        (None, Some((oid, name))) => holder.is_none() && name_of(oid) == Some(name),
        (None, None) => true,
    };
    if done {
        return Standing::After;
    }
    if holder != exchange.out.map(|(oid, _)| oid) {
        return other();
    }
    match exchange.come {
        Some((oid, name)) => match name_of(oid) {
            Some(now) if now == name => Standing::Before,
            Some(_) => other(),
            None => Standing::Gone,
        },
        None => Standing::Before,
    }
}

/// Exchanges names. It is not cancelled once it has begun: it takes seconds at most.
///
/// # Errors
/// The server's words; **the names are then unknown** to the caller where the connection was lost,
/// and as before where the server refused.
pub(crate) async fn exchange(
    executor: &dyn PgExecutor,
    maintenance: &str,
    exchange: &Exchange<'_>,
) -> Result<Exchanged, ExecError> {
    let text = |database: Option<(u32, &str)>| {
        let (oid, name) = database.unwrap_or((0, ""));
        (oid.to_string(), name.to_owned())
    };
    let (out_oid, out_name) = text(exchange.out);
    let (come_oid, come_name) = text(exchange.come);
    let pair = rand::random_range(1..i32::MAX).to_string();
    let (mover, ender) = (MOVER.to_string(), ENDER.to_string());
    let vars = [
        ("name", exchange.name),
        ("out_oid", out_oid.as_str()),
        ("out_name", &out_name),
        ("come_oid", &come_oid),
        ("come_name", &come_name),
        ("pair", &pair),
        ("mover", &mover),
        ("ender", &ender),
    ];
    let moving = format!("{PREPARE}{DURABLE}{UNSEEN}{MOVE}");
    let ending = format!("{PREPARE}{END}");
    let never = CancellationToken::new();
    let enough = CancellationToken::new();
    let mover = async {
        let moved = psql::run_with(executor, maintenance, &moving, &vars, &never).await;
        (moved, tokio::time::Instant::now())
    };
    let ender = psql::run_with(executor, maintenance, &ending, &vars, &enough);
    tokio::pin!(mover, ender);
    let (moved, ended) = tokio::select! {
        (moved, at) = &mut mover => {
            let ended = match tokio::time::timeout_at(at + ENDER_WAIT, &mut ender).await {
                Ok(ended) => Some(ended),
                Err(_) => {
                    // It waits for a mover that has never come to it; the server ends it.
                    enough.cancel();
                    let _ = ender.await;
                    None
                }
            };
            (moved, ended)
        }
        ended = &mut ender => (mover.await.0, Some(ended)),
    };
    let last = |text: &str| text.lines().last().map(|line| line.trim().to_owned());
    match (moved, ended) {
        (Ok(moved), ended) => Ok(Exchanged {
            outage_seconds: last(&moved)
                .and_then(|seconds| seconds.parse().ok())
                .unwrap_or_default(),
            ended: ended
                .and_then(Result::ok)
                .and_then(|text| last(&text))
                .and_then(|count| count.parse().ok())
                .unwrap_or_default(),
        }),
        // What kept sessions from being ended is the cause of what the mover says.
        (Err(_), Some(Err(cause))) => Err(cause),
        (Err(error), _) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand(exchange: &Exchange<'_>, databases: &[(u32, &str)]) -> Standing {
        let databases: Vec<_> = databases
            .iter()
            .map(|(oid, name)| Named {
                oid: *oid,
                name: (*name).to_owned(),
            })
            .collect();
        judge(exchange, &databases)
    }

    #[test]
    fn databases_are_known_by_their_oids() {
        let swap = Exchange {
            name: "live",
            out: Some((1, "before")),
            come: Some((2, "staging")),
        };
        assert_eq!(
            stand(&swap, &[(1, "live"), (2, "staging")]),
            Standing::Before
        );
        assert_eq!(stand(&swap, &[(1, "before"), (2, "live")]), Standing::After);
        assert_eq!(stand(&swap, &[(2, "live")]), Standing::After);
        assert_eq!(stand(&swap, &[(1, "live")]), Standing::Gone);
        for odd in [
            // Somebody else's databases under our names.
            &[(1, "live"), (3, "staging"), (2, "x")][..],
            &[(3, "live"), (2, "staging")],
            &[(3, "live"), (1, "before"), (2, "staging")],
            &[(1, "before"), (2, "staging")],
            &[],
        ] {
            assert!(matches!(stand(&swap, odd), Standing::Other(_)), "{odd:?}");
        }
        let new = Exchange { out: None, ..swap };
        assert_eq!(stand(&new, &[(2, "staging")]), Standing::Before);
        assert_eq!(stand(&new, &[(2, "live")]), Standing::After);
        assert!(matches!(
            stand(&new, &[(2, "staging"), (3, "live")]),
            Standing::Other(_)
        ));
        let away = Exchange { come: None, ..swap };
        assert_eq!(stand(&away, &[(1, "live")]), Standing::Before);
        assert_eq!(stand(&away, &[(1, "before")]), Standing::After);
        assert!(matches!(
            stand(&away, &[(1, "before"), (3, "live")]),
            Standing::Other(_)
        ));
    }
}
