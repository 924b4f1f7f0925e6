//! The schema of line 31 of the reliability bar, and comparisons of databases that are computed
//! by the server and stock programs alone, so that they can contradict pgstow.

use crate::container::PgContainer;

const ROLES: &str = include_str!("../fixtures/roles.sql");
const FINGERPRINT: &str = include_str!("../fixtures/fingerprint.sql");
const BAR31: &str = include_str!("../fixtures/bar31.sql");

/// Names that are data, whatever they look like: each is a valid name of a database, role or
/// table of at most 63 bytes.
pub const ODD_NAMES: &[&str] = &[
    "with space",
    " leading and trailing ",
    "quote\"double",
    "quote'single",
    "back\\slash",
    "semi;colon; drop table x; --",
    "$(touch stow)",
    "`touch stow`",
    "new\nline",
    "tab\there",
    "-Fc",
    "--help",
    "-",
    "host=evil port=1",
    "dbname=other",
    "postgres://u:p@evil:1/x",
    "../../etc/passwd",
    ".hidden",
    "a'b\"c; $(x)",
    "%s %n {}",
    ":name :'x'",
    "UPPER lower",
    "select",
    "ünïcödé",
    "数据库数据库数据库数据库数据库数据库数据库",
    "🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘",
    "a=b&c=d#e?f",
    "*?[x]~!",
];

/// Quotes an identifier.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Creates a database with properties worth restoring and fills it with the whole fixture.
///
/// # Errors
/// psql's words.
pub fn load_bar31(container: &PgContainer, database: &str) -> Result<(), String> {
    container.psql("postgres", ROLES)?;
    let name = quoted(database);
    container.psql(
        "postgres",
        &format!(
            "create database {name} owner stow_owner template template0 encoding 'UTF8' \
               lc_collate 'de_DE.UTF-8' lc_ctype 'de_DE.UTF-8' connection limit 50;
             comment on database {name} is 'the fixture''s database';
             alter database {name} set work_mem = '7MB';
             alter database {name} set search_path = app, public;
             alter role stow_reader in database {name} set statement_timeout = '11s';
             revoke connect on database {name} from public;
             grant connect, temporary on database {name} to stow_reader with grant option;"
        ),
    )?;
    container.psql(database, BAR31).map(drop)
}

/// The schema as stock pg_dump tells it, without what differs between equal databases.
///
/// # Errors
/// pg_dump's words.
pub fn schema_dump(container: &PgContainer, database: &str) -> Result<String, String> {
    let name = format!(
        "dbname='{}'",
        database.replace('\\', "\\\\").replace('\'', "\\'")
    );
    let user = container.superuser().to_owned();
    let text = container.exec(&["pg_dump", "-s", "-U", &user, "-d", &name])?;
    let differs = |line: &&str| {
        !line.starts_with("\\restrict")
            && !line.starts_with("\\unrestrict")
            && !line.starts_with("-- Dumped")
    };
    Ok(text.lines().filter(differs).collect::<Vec<_>>().join("\n"))
}

/// Properties of the database itself, but for its name.
///
/// # Errors
/// psql's words.
pub fn database_properties(container: &PgContainer, database: &str) -> Result<String, String> {
    let name = literal(database);
    container.psql(
        "postgres",
        &format!(
            "select pg_encoding_to_char(encoding), datcollate, datctype, datconnlimit,
                    pg_get_userbyid(datdba), shobj_description(oid, 'pg_database'),
                    (select array_agg(a::text order by a::text) from unnest(datacl) a)
               from pg_database where datname = {name};
             select coalesce(r.rolname, '(all)'), (select array_agg(c order by c) from unnest(setconfig) c)
               from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase
               left join pg_roles r on r.oid = s.setrole where d.datname = {name} order by 1;"
        ),
    )
}

/// Counts and order-independent hashes of every table, sequences and large objects: equal texts
/// mean equal rows, and a difference names the table.
///
/// # Errors
/// psql's words.
pub fn fingerprint(container: &PgContainer, database: &str) -> Result<String, String> {
    container.psql(database, FINGERPRINT)
}

/// A table of ordinary rows of about 200 bytes.
///
/// # Errors
/// psql's words.
pub fn fill(container: &PgContainer, database: &str, table: &str, rows: u64) -> Result<(), String> {
    let table = quoted(table);
    let sql = format!(
        "create table {table} as select g as id, md5(g::text) as hash, \
         repeat('ordinary words ' || g % 100, 8) as note from generate_series(1, {rows}) g"
    );
    container.psql(database, &sql).map(drop)
}
