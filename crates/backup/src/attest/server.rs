//! What the server itself is asked for an attestation. The texts work on every major from 13 on.

use archive::Name;
use serde::Deserialize;

/// A table that holds rows of its own and that pg_dump dumps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct ServerTable {
    pub(crate) oid: u32,
    #[serde(deserialize_with = "super::text::shared::deserialize")]
    pub(crate) schema: Name,
    #[serde(deserialize_with = "super::text::deserialize")]
    pub(crate) name: Name,
    /// A configuration table of an extension.
    pub(crate) configuration: bool,
    /// Its rows are left out of the dump.
    pub(crate) excluded: bool,
    /// Size on the server, where it could be told without waiting for a lock.
    pub(crate) bytes: Option<u64>,
    /// Rows in the dump's snapshot; `None` where they were not counted.
    #[serde(default)]
    pub(crate) rows: Option<u64>,
    /// No rows were seen of it, and it was rewritten or emptied since the snapshot: whoever read it
    /// after that saw none, whatever there had been.
    #[serde(default)]
    pub(crate) emptied: bool,
}

impl ServerTable {
    /// `SELECT oid, count(*), …`. Also tells whether the table was rewritten since the snapshot: it
    /// then has another file than the snapshot knows.
    pub(crate) fn statement(&self) -> String {
        let oid = self.oid;
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        format!(
            "select {oid}, pg_catalog.count(*), (select c.relfilenode is distinct from \
             pg_catalog.pg_relation_filenode(c.oid) from pg_catalog.pg_class c where c.oid = {oid}) \
             from only {}.{}",
            quoted(&self.schema),
            quoted(&self.name)
        )
    }
}

/// A sequence at one moment; sequences know no snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ServerSequence {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) increment: i64,
    pub(crate) cycles: bool,
    /// An extension made it, or its value is left out of the dump.
    pub(crate) may_be_absent: bool,
    /// `last_value`; `None` when the sequence was never used.
    pub(crate) value: Option<i64>,
}

/// What the server counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ServerSide {
    /// Whether tables and large objects were counted in the dump's own snapshot.
    pub(crate) snapshot: bool,
    pub(crate) tables: Vec<ServerTable>,
    pub(crate) large_objects: u64,
    /// Sequences before the dump began and after it ended; `None` where they could not be read.
    pub(crate) sequences: Option<(Vec<ServerSequence>, Vec<ServerSequence>)>,
}

/// Begins the transaction whose snapshot pg_dump takes, and prints the snapshot's name. The sizes
/// of tables, which come next, are not worth a wait; rolling back to the savepoint ends that.
pub(crate) const BEGIN: &str = "\
set max_parallel_workers_per_gather to 0;
set row_security to off;
begin isolation level repeatable read read only;
select pg_catalog.pg_export_snapshot();
savepoint pgstow;
set local lock_timeout to 1000;";
/// Gives back the locks and settings since the snapshot.
pub(crate) const BACK: &str = "rollback to savepoint pgstow;";
/// Somebody works on the tables: the next ones are not waited for as long.
pub(crate) const IMPATIENT: &str = "set lock_timeout to 1000; savepoint pgstow;";
/// As [`BEGIN`] without a snapshot, in a session whose transaction may have failed.
pub(crate) const BEGIN_WITHOUT_SNAPSHOT: &str = "\
rollback;
begin read only;
savepoint pgstow;
set local lock_timeout to 1000;";

/// `:'filters'` are the patterns of `--exclude-table-data`, as in the preflight. They are matched
/// with the session's own search path, as pg_dump does. Unlogged tables cannot be read on a
/// standby, and pg_dump leaves their rows out there.
pub(crate) const TABLES: &str = "
with filters as (
  select f ->> 'schema' as schema_names, f ->> 'table' as table_names
  from pg_catalog.jsonb_array_elements(:'filters'::pg_catalog.jsonb) f
), relations as (
  select c.oid, c.relname, n.nspname, c.relpersistence, c.relfilenode, c.reltoastrelid,
    exists (select 1 from pg_catalog.pg_am a where a.oid = c.relam and a.amname = 'heap') as heap,
    exists (select 1 from pg_catalog.pg_extension e where c.oid = any (e.extconfig))
      as configuration,
    exists (select 1 from pg_catalog.pg_depend d
            where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
              and d.objsubid = 0 and d.deptype = 'e') as member
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where c.relkind = 'r' and c.relpersistence <> 't'
)
select r.oid::pg_catalog.int8 as oid, r.nspname as schema, r.relname as name, r.configuration,
  (r.relpersistence = 'u' and pg_catalog.pg_is_in_recovery())
    or exists (select 1 from filters
               where r.relname ~ table_names
                 and case when schema_names is null then pg_catalog.pg_table_is_visible(r.oid)
                          else r.nspname ~ schema_names end) as excluded,
  SIZE as bytes, EMPTY as rows
from relations r LOOK
where r.configuration
   or (not r.member and r.nspname !~ '^pg_' and r.nspname <> 'information_schema')
order by r.nspname, r.relname";

/// Looks at a table's own file. Waits for whoever holds the table alone.
pub(crate) const LOOK: &str = "\
cross join lateral (select pg_catalog.pg_relation_size(r.oid) as bytes offset 0) main";
/// Size of a table with what it stores out of line; the maps of free space and visibility are left
/// out. `pg_table_size` opens two more relations of each table, of which there may be very many: a
/// table without a page of its own has nothing out of line that anybody could read.
pub(crate) const SIZE: &str = "\
case when not r.heap then pg_catalog.pg_table_size(r.oid)
     when main.bytes > 0 and r.reltoastrelid <> 0
       then main.bytes + coalesce(pg_catalog.pg_relation_size(r.reltoastrelid), 0)
     else main.bytes end";
/// The number of rows of a table that holds not even a page, which then need not be counted: what
/// the snapshot sees stays in the file that the snapshot knows. In this order: it has to be that
/// file still after the look at its size.
pub(crate) const EMPTY: &str = "\
case when r.heap and main.bytes = 0 then
  case when r.relfilenode = pg_catalog.pg_relation_filenode(r.oid) then 0 end end";
/// The same as [`SIZE`] without a lock, as the last VACUUM or ANALYZE saw it.
pub(crate) const SIZE_WITHOUT_LOCK: &str = "(
  select case when c.relpages > 0 then (c.relpages + coalesce(t.relpages, 0))::pg_catalog.int8
    * pg_catalog.current_setting('block_size')::pg_catalog.int8 end
  from pg_catalog.pg_class c left join pg_catalog.pg_class t on t.oid = c.reltoastrelid
  where c.oid = r.oid)";

/// How many large objects there are, and how much room they take.
pub(crate) const LARGE_OBJECTS: &str = "
select (select pg_catalog.count(*) from pg_catalog.pg_largeobject_metadata) as count,
  pg_catalog.pg_relation_size('pg_catalog.pg_largeobject') as bytes";

/// Up to 1,000 sequences with oids above `:'after'`. Run outside of a transaction, so that each
/// statement's locks end with it.
pub(crate) const SEQUENCES: &str = "
with filters as (
  select f ->> 'schema' as schema_names, f ->> 'table' as table_names
  from pg_catalog.jsonb_array_elements(:'filters'::pg_catalog.jsonb) f
), page as (
  select c.oid, n.nspname, c.relname, s.seqincrement, s.seqcycle
  from pg_catalog.pg_sequence s join pg_catalog.pg_class c on c.oid = s.seqrelid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and not (c.relpersistence = 'u' and pg_catalog.pg_is_in_recovery())
    and c.oid > :'after'::pg_catalog.oid
    and c.relkind = 'S' and pg_catalog.has_table_privilege(c.oid, 'SELECT')
  order by c.oid limit 1000
)
select p.oid::pg_catalog.int8 as oid, p.nspname as schema, p.relname as name,
  p.seqincrement as increment, p.seqcycle as cycles,
  exists (select 1 from pg_catalog.pg_depend d
          where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = p.oid
            and d.objsubid = 0 and d.deptype = 'e')
    or exists (select 1 from filters
               where p.relname ~ table_names
                 and case when schema_names is null then pg_catalog.pg_table_is_visible(p.oid)
                          else p.nspname ~ schema_names end) as may_be_absent,
  pg_catalog.pg_sequence_last_value(p.oid) as value
from page p order by p.oid";
/// Sequences of one page.
pub(crate) const PAGE: usize = 1000;
