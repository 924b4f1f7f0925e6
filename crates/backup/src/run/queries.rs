//! What the preflight asks the server: one query for the whole server, one for each database.
//!
//! The texts work on every major from 13 on: columns that only newer majors have are taken from
//! `to_jsonb` of the row, where an absent one is simply null.

use std::collections::BTreeMap;

use dbexec::{ExecError, NativeRoute, PgExecutor};
use serde::Deserialize;

use crate::attest::ServerSetting;
use crate::manifest::DatabaseSetting;

/// The server as a whole.
#[derive(Debug, Deserialize)]
pub(crate) struct ServerFacts {
    /// Every database, also those that accept no connections.
    pub(crate) databases: Vec<DatabaseFacts>,
    /// Roles but the predefined ones.
    pub(crate) roles: Vec<String>,
    /// Locks that the server has room for.
    pub(crate) lock_capacity: u64,
    /// `max_locks_per_transaction`.
    pub(crate) locks_per_transaction: u64,
    /// Parameters that a throw-away server may need, not yet chosen.
    pub(crate) settings: Vec<ServerSetting>,
    /// Whether it keeps statistics in POSIX shared memory and tells us of which relations.
    pub(crate) tells_of_statistics: bool,
}

/// A row of `pg_database`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DatabaseFacts {
    pub(crate) name: String,
    pub(crate) accepts_connections: bool,
    pub(crate) may_connect: bool,
    pub(crate) owner: String,
    pub(crate) encoding: String,
    pub(crate) collate: String,
    pub(crate) ctype: String,
    pub(crate) locale_provider: String,
    pub(crate) locale: Option<String>,
    pub(crate) icu_rules: Option<String>,
    pub(crate) collation_version: Option<String>,
    pub(crate) tablespace: String,
    pub(crate) connection_limit: i32,
    pub(crate) comment: Option<String>,
    /// Over a session of our own it is asked for apart ([`sizes`]).
    pub(crate) size_bytes: Option<u64>,
    pub(crate) acl: Option<Vec<String>>,
    pub(crate) settings: Vec<DatabaseSetting>,
}

/// What is known of one database from inside it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct InsideFacts {
    pub(crate) extensions: BTreeMap<String, String>,
    pub(crate) tables: u64,
    pub(crate) missing_count: u64,
    pub(crate) missing: Vec<MissingRight>,
}

/// An object that the role may not read.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct MissingRight {
    pub(crate) object: String,
    pub(crate) remedy: String,
}

const SERVER: &str = "
select
  (select coalesce(json_agg(json_build_object(
      'name', d.datname,
      'accepts_connections', d.datallowconn and d.datconnlimit <> -2,
      'may_connect', has_database_privilege(d.oid, 'CONNECT'),
      'owner', pg_get_userbyid(d.datdba),
      'encoding', pg_encoding_to_char(d.encoding),
      'collate', d.datcollate,
      'ctype', d.datctype,
      'locale_provider', case to_jsonb(d) ->> 'datlocprovider'
          when 'i' then 'icu' when 'b' then 'builtin' else 'libc' end,
      'locale', coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
      'icu_rules', to_jsonb(d) ->> 'daticurules',
      'collation_version', to_jsonb(d) ->> 'datcollversion',
      'tablespace', t.spcname,
      'connection_limit', d.datconnlimit,
      'comment', shobj_description(d.oid, 'pg_database'),
      'size_bytes', SIZE,
      'acl', d.datacl::text[],
      'settings', (
          select coalesce(json_agg(json_build_object(
              'role', case when s.setrole = 0 then null else pg_get_userbyid(s.setrole) end,
              'name', split_part(one, '=', 1),
              'value', substr(one, strpos(one, '=') + 1)) order by s.setrole, nr), '[]')
          from pg_db_role_setting s, unnest(s.setconfig) with ordinality as u (one, nr)
          where s.setdatabase = d.oid)
    ) order by d.datname), '[]')
   from pg_database d join pg_tablespace t on t.oid = d.dattablespace) as databases,
  (select coalesce(json_agg(rolname order by rolname), '[]')
   from pg_roles where rolname !~ '^pg_') as roles,
  current_setting('max_locks_per_transaction')::bigint
    * (current_setting('max_connections')::bigint
       + current_setting('max_prepared_transactions')::bigint) as lock_capacity,
  current_setting('max_locks_per_transaction')::bigint as locks_per_transaction,
  (select coalesce(json_agg(json_build_object(
      'name', name, 'value', setting, 'source', source) order by name), '[]')
   from pg_settings
   where strpos(name, '.') > 0 or context <> 'internal' and vartype <> 'real') as settings,
  current_setting('dynamic_shared_memory_type') = 'posix'
    and exists (select from pg_proc
                where proname = 'pg_stat_have_stats' and pronamespace = 'pg_catalog'::regnamespace
                  and has_function_privilege(oid, 'EXECUTE')) as tells_of_statistics";

// :'filters' are the patterns of --exclude-table-data: pg_dump does not read rows of these tables,
// so row-level security does not stop it there.
// pg_dump locks each table that it dumps, also those whose rows are excluded, and a lock needs
// the same right as a read. Tables of extensions are dumped only where the extension says that
// they hold configuration.
const INSIDE: &str = "
with relations as (
  select c.oid, c.relkind, c.relname, n.nspname, n.oid as schema
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'S') and c.relpersistence <> 't'
    and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and (not exists (select 1 from pg_depend d
                     where d.classid = 'pg_class'::regclass and d.objid = c.oid
                       and d.deptype = 'e')
         or exists (select 1 from pg_extension e where c.oid = any (e.extconfig)))
), filters as (
  select f ->> 'schema' as schema_names, f ->> 'table' as table_names
  from jsonb_array_elements(:'filters'::jsonb) f
), me as (
  select rolname, rolsuper from pg_roles where rolname = current_user
), missing as (
  select distinct 1 as kind, format('schema %I', nspname) as object,
    format('GRANT USAGE ON SCHEMA %I TO %I', nspname, current_user) as remedy
  from relations where not has_schema_privilege(schema, 'USAGE')
  union all
  select 2, format('%s %I.%I', case relkind when 'S' then 'sequence' else 'table' end,
                   nspname, relname),
    format('GRANT SELECT ON %s %I.%I TO %I',
           case relkind when 'S' then 'SEQUENCE' else 'TABLE' end,
           nspname, relname, current_user)
  from relations where not has_table_privilege(oid, 'SELECT')
  union all
  select 3, format('rows of table %I.%I (row-level security)', nspname, relname),
    format('ALTER ROLE %I BYPASSRLS', current_user)
  from relations where relkind in ('r', 'p') and row_security_active(oid)
    and not exists (select 1 from filters
                    where relname ~ table_names
                      and case when schema_names is null then pg_table_is_visible(oid)
                               else nspname ~ schema_names end)
  union all
  select 4, format('large object %s', l.oid),
    format('GRANT SELECT ON LARGE OBJECT %s TO %I', l.oid, current_user)
  from pg_largeobject_metadata l, me
  where not me.rolsuper and not pg_has_role(l.lomowner, 'USAGE')
    and not exists (select 1 from aclexplode(l.lomacl) a
                    where a.privilege_type = 'SELECT'
                      and (a.grantee = 0 or pg_has_role(a.grantee, 'USAGE')))
)
select
  (select coalesce(json_object_agg(extname, extversion), '{}') from pg_extension) as extensions,
  (select count(*) from relations where relkind <> 'S') as tables,
  (select count(*) from missing) as missing_count,
  (select coalesce(json_agg(json_build_object('object', object, 'remedy', remedy)), '[]')
   from (select object, remedy from missing order by kind, object limit 50) few) as missing";

// What holds long values is used with its index, where there are any. That is known since the last
// vacuum; to look at the file itself would open every table. The last argument is an oid up to major
// 17 and a bigint after it; the one given fits both.
const WITHOUT_STATISTICS: &str = "
select coalesce(sum(case relkind when 't' then 2 else 1 end), 0) as count
from pg_class c, pg_database d
where d.datname = current_database() and c.oid >= 16384
  and (c.relkind in ('r', 'S') or c.relkind = 't' and c.relpages > 0)
  and not pg_stat_have_stats('relation', d.oid, c.oid::bigint)";

/// Asks about the whole server, by the route where there is one; the sizes of the databases are
/// then left to [`sizes`].
pub(crate) async fn server(
    route: Option<&NativeRoute>,
    executor: &dyn PgExecutor,
) -> Result<ServerFacts, ExecError> {
    let database = &executor.context().creds.database;
    let size = match route {
        Some(_) => "null",
        None => SIZE,
    };
    let select = SERVER.replace("SIZE", size);
    one(route, executor, database, "databases", &select, &[]).await
}

/// Size of a database; the server looks at every file of it.
const SIZE: &str = "\
case when has_database_privilege(d.oid, 'CONNECT') then pg_database_size(d.oid) end";
const SIZES: &str = "
select d.datname as name, SIZE as bytes
from pg_database d
where d.datname in (select jsonb_array_elements_text(:'names'::jsonb))";

/// Asks for the sizes of databases over a session of our own; bytes by name.
pub(crate) async fn sizes(
    route: &NativeRoute,
    executor: &dyn PgExecutor,
    names: &[String],
) -> Result<BTreeMap<String, u64>, ExecError> {
    #[derive(Deserialize)]
    struct Row {
        name: String,
        bytes: Option<u64>,
    }
    let names = serde_json::Value::from(names).to_string();
    let vars = [("names", names.as_str())];
    let own = &executor.context().creds.database;
    let name = "sizes of the databases";
    let select = SIZES.replace("SIZE", SIZE);
    let rows: Vec<Row> =
        dbexec::query::rows_over(Some(route), executor, own, name, &select, &vars).await?;
    let known = rows
        .into_iter()
        .filter_map(|row| Some((row.name, row.bytes?)));
    Ok(known.collect())
}

/// Asks about one database, by the route where there is one.
pub(crate) async fn inside(
    route: Option<&NativeRoute>,
    executor: &dyn PgExecutor,
    database: &str,
    filters: &str,
) -> Result<InsideFacts, ExecError> {
    let vars = [("filters", filters)];
    one(route, executor, database, "rights", INSIDE, &vars).await
}

/// Tables, sequences and indexes of one database that a dump uses and the server has no statistics
/// of. It has them from the first use on, and begins anew after a crash.
pub(crate) async fn without_statistics(
    route: Option<&NativeRoute>,
    executor: &dyn PgExecutor,
    database: &str,
) -> Result<u64, ExecError> {
    #[derive(Deserialize)]
    struct Row {
        count: u64,
    }
    let name = "missing statistics";
    let row: Row = one(route, executor, database, name, WITHOUT_STATISTICS, &[]).await?;
    Ok(row.count)
}

async fn one<T: serde::de::DeserializeOwned + Send>(
    route: Option<&NativeRoute>,
    executor: &dyn PgExecutor,
    database: &str,
    name: &'static str,
    select: &str,
    vars: &[(&str, &str)],
) -> Result<T, ExecError> {
    let select = select.trim();
    let mut rows = dbexec::query::rows_over(route, executor, database, name, select, vars).await?;
    match (rows.pop(), rows.is_empty()) {
        (Some(row), true) => Ok(row),
        _ => Err(ExecError::Query {
            query: name,
            database: database.to_owned(),
            message: "one row was expected".to_owned(),
        }),
    }
}
