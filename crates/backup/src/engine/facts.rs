//! What the leader asks the server about the tables of a table of contents.

use std::collections::HashMap;

use archive::{DumpData, DumpDataKind};
use dbexec::ExecError;
use serde::Deserialize;

use super::statement::CopyStatement;
use crate::attest::Leader;

/// Tables that one statement locks or asks about.
const BATCH: usize = 500;

/// A table that is not as most are: big, not a heap, or changed since the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct TableFacts {
    oid: u32,
    /// `relkind`.
    kind: String,
    /// Access method.
    method: String,
    /// Pages of the table itself.
    pub(crate) pages: u64,
    /// Bytes with what is stored out of line; without it where the table has one page, which
    /// cannot be cut.
    pub(crate) bytes: u64,
    /// Whether its rows were written anew since the snapshot: it then looks empty.
    rewritten: bool,
}

impl TableFacts {
    /// Whether ranges of its pages can be read.
    pub(crate) fn splits(&self) -> bool {
        self.kind == "r" && self.method == "heap"
    }
}

/// Asked after the lock: whoever rewrote or emptied the table between the snapshot and the lock
/// gave it another file, which `pg_relation_filenode` knows and the snapshot does not.
const FACTS: &str = "
select f.* from (
  select c.oid::pg_catalog.int8 as oid, c.relkind::pg_catalog.text as kind,
    coalesce(a.amname::pg_catalog.text, '') as method,
    main.bytes / main.page as pages,
    case when a.amname = 'heap' and main.bytes <= main.page then main.bytes
         when a.amname = 'heap'
           then main.bytes + coalesce(pg_catalog.pg_relation_size(nullif(c.reltoastrelid, 0)), 0)
         else coalesce(pg_catalog.pg_table_size(c.oid), 0) end as bytes,
    c.relfilenode is distinct from pg_catalog.pg_relation_filenode(c.oid) as rewritten
  from pg_catalog.pg_class c left join pg_catalog.pg_am a on a.oid = c.relam
    cross join lateral (
      select coalesce(pg_catalog.pg_relation_size(c.oid), 0) as bytes,
        pg_catalog.current_setting('block_size')::pg_catalog.int8 as page
      offset 0) main
  where c.oid = any (:'oids'::pg_catalog.oid[])
) f where f.kind <> 'r' or f.rewritten or f.bytes >= :'big'::pg_catalog.int8";

const CONDITIONS: &str = "
select c.oid::pg_catalog.int8 as oid, c.condition
from pg_catalog.pg_extension e,
  unnest(e.extconfig, e.extcondition) as c (oid, condition)
where c.condition <> ''";

#[derive(Deserialize)]
struct Condition {
    oid: u32,
    condition: String,
}

/// Takes ACCESS SHARE on every table that has rows in the archive, without waiting.
pub(crate) async fn lock(leader: &mut Leader, data: &[DumpData]) -> Result<(), ExecError> {
    let tables: Vec<&str> = data
        .iter()
        .filter_map(|data| match &data.kind {
            DumpDataKind::Rows { copy_statement } => CopyStatement::parse(copy_statement),
            _ => None,
        })
        .map(|statement| statement.table)
        .collect();
    for batch in tables.chunks(BATCH) {
        let list = batch.join(", only ");
        let sql = format!("lock table only {list} in access share mode nowait;");
        leader.run("lock the tables", &sql).await?;
    }
    Ok(())
}

/// Looks at the locked tables; `unit`: bytes of a unit.
pub(crate) async fn tables(
    leader: &mut Leader,
    data: &[DumpData],
    unit: u64,
) -> Result<HashMap<u32, TableFacts>, ExecError> {
    let oids: Vec<u32> = data
        .iter()
        .filter(|data| matches!(data.kind, DumpDataKind::Rows { .. }))
        .map(|data| data.oid)
        .collect();
    let big = (2 * unit).to_string();
    let mut facts = HashMap::new();
    for batch in oids.chunks(BATCH * 20) {
        let batch: Vec<String> = batch.iter().map(u32::to_string).collect();
        let list = format!("{{{}}}", batch.join(","));
        let vars = [("oids", list.as_str()), ("big", big.as_str())];
        let found: Vec<TableFacts> = leader.rows("look at the tables", FACTS, &vars).await?;
        facts.extend(found.into_iter().map(|facts| (facts.oid, facts)));
    }
    Ok(facts)
}

/// A table whose rows the snapshot does not show any more, by oid.
pub(crate) fn rewritten(facts: &HashMap<u32, TableFacts>) -> Option<u32> {
    facts
        .values()
        .find(|facts| facts.rewritten)
        .map(|facts| facts.oid)
}

/// A relation with rows that is no table, by oid.
pub(crate) fn no_table(facts: &HashMap<u32, TableFacts>) -> Option<u32> {
    facts
        .values()
        .find(|facts| facts.kind != "r")
        .map(|facts| facts.oid)
}

/// Conditions of extensions' configuration tables.
pub(crate) async fn conditions(leader: &mut Leader) -> Result<HashMap<u32, String>, ExecError> {
    let name = "read the conditions of extensions";
    let found: Vec<Condition> = leader.rows(name, CONDITIONS, &[]).await?;
    Ok(found.into_iter().map(|c| (c.oid, c.condition)).collect())
}
