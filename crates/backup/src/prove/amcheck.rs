//! Indexes of the restored database, checked by the server's own extension where it has it.

use dbexec::{ExecError, PgExecutor, PsqlSession};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::compare::Difference;

/// Problems that are kept.
const KEPT: usize = 100;
/// Schema that the extension gets where the database does not have it; dropped with the database.
const SCHEMA: &str = "pgstow_amcheck";

/// What amcheck found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AmcheckProof {
    /// Indexes that were checked.
    pub indexes: u64,
    /// Each index that is not sound, with the server's words.
    pub problems: Vec<Difference>,
    /// Duration in seconds.
    pub seconds: f64,
}

#[derive(Deserialize)]
struct Available {
    available: bool,
}

#[derive(Deserialize)]
struct Index {
    name: String,
    statement: String,
}

// Event triggers of the database must not see, or refuse, what is done here.
const PREPARE: &str = "set session_replication_role = replica;
set default_transaction_read_only = off; set row_security = off;";
const INDEXES: &str = "
select pg_catalog.format('%I.%I', n.nspname, c.relname) as name,
       pg_catalog.format('select %I.bt_index_check(%s::regclass)', f.nspname, c.oid) as statement
  from pg_catalog.pg_index i
  join pg_catalog.pg_class c on c.oid = i.indexrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_am a on a.oid = c.relam
  cross join pg_catalog.pg_extension e
  join pg_catalog.pg_namespace f on f.oid = e.extnamespace
 where e.extname = 'amcheck' and a.amname = 'btree' and c.relkind = 'i'
   and c.relpersistence <> 't' and i.indisready and i.indisvalid
   and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_toast'
 order by 1";

/// Checks every B-tree index of a database that may be changed; `None` where the server has no
/// amcheck.
pub(crate) async fn check_indexes(
    executor: &dyn PgExecutor,
    database: &str,
    cancel: &CancellationToken,
) -> Result<Option<AmcheckProof>, ExecError> {
    let begun = Instant::now();
    let mut session = PsqlSession::open(executor, database, cancel).await?;
    let available: Vec<Available> = session
        .rows(
            "is amcheck there",
            "select exists (select from pg_catalog.pg_available_extensions where name = 'amcheck') \
             as available",
            &[],
        )
        .await?;
    if !available.first().is_some_and(|row| row.available) {
        session.close().await?;
        return Ok(None);
    }
    let create = format!(
        "{PREPARE}\ncreate schema {SCHEMA};\n\
         create extension if not exists amcheck schema {SCHEMA};"
    );
    session.run("creating amcheck", &create, &[]).await?;
    let indexes: Vec<Index> = session.rows("listing the indexes", INDEXES, &[]).await?;
    let mut proof = AmcheckProof::default();
    for index in indexes {
        proof.indexes += 1;
        let statement = format!("{};", index.statement);
        match session.run("checking an index", &statement, &[]).await {
            Ok(_) => {}
            Err(ExecError::Query { message, .. }) => {
                if proof.problems.len() < KEPT {
                    proof.problems.push(Difference {
                        object: format!("index {}", index.name),
                        expected: "sound".to_owned(),
                        found: message,
                    });
                }
            }
            Err(error) => return Err(error),
        }
    }
    session.close().await?;
    proof.seconds = begun.elapsed().as_secs_f64();
    Ok(Some(proof))
}
