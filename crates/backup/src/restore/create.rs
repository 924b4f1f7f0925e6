//! Makes the new database, gives it its properties, and removes it again when the restore fails.
//!
//! Every name travels as a variable of psql and is quoted there; into what goes over a session of
//! ours it is put quoted.

use dbexec::{ExecError, NativeError, NativeRoute, NativeSession, PgExecutor, query};
use serde::Deserialize;

use super::facts::{DatabaseFacts, Grant, Privileges, Setting};

/// Behind the run's name in that of a session that makes or changes the database.
const SUFFIX: &str = "database";
/// Settings that would get in the way of the restore itself, so they are made last.
const LATE: &[&str] = &[
    "default_transaction_read_only",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "role",
    "session_authorization",
    "row_security",
    "session_replication_role",
];

/// A script with its variables.
#[derive(Default)]
struct Script {
    text: String,
    vars: Vec<(String, String)>,
}

/// Before the transaction by which a filled database counts. It waits until it is on the server's
/// disk, and with it everything that was written before: filling waits for nothing
/// ([`dbexec::Invocation::asynchronous_commit`]). Where the server waits for nobody (`off`), this one
/// transaction waits for the server's own disk.
pub(super) const DURABLE: &str = "\
SELECT pg_catalog.set_config('synchronous_commit', CASE pg_catalog.current_setting('synchronous_commit') \
  WHEN 'off' THEN 'local' ELSE pg_catalog.current_setting('synchronous_commit') END, false) AS durable";
/// Behind a SELECT that is run by psql and answers nothing that is printed.
pub(super) const UNSEEN: &str = " \\gset pgstow_\n";

impl Script {
    /// A variable; returns its name.
    fn var(&mut self, value: &str) -> String {
        let name = format!("v{}", self.vars.len());
        self.vars.push((name.clone(), value.to_owned()));
        name
    }

    fn literal(&mut self, value: &str) {
        let name = self.var(value);
        self.text.push_str(&format!(":'{name}'"));
    }

    fn identifier(&mut self, value: &str) {
        let name = self.var(value);
        self.text.push_str(&format!(":\"{name}\""));
    }

    fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    fn vars(&self) -> Vec<(&str, &str)> {
        let vars = self.vars.iter();
        vars.map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    async fn run(&self, executor: &dyn PgExecutor, name: &'static str) -> Result<(), ExecError> {
        let own = &executor.context().creds.database;
        query::execute(executor, own, name, &self.text, &self.vars(), false).await
    }

    /// All of it or nothing, over a session of ours where there is one. It was begun there, so
    /// nobody else is asked when it fails.
    async fn run_whole(
        &self,
        route: Option<&NativeRoute>,
        executor: &dyn PgExecutor,
        name: &'static str,
    ) -> Result<(), ExecError> {
        if self.text.is_empty() {
            return Ok(());
        }
        let own = &executor.context().creds.database;
        let Some((route, mut session)) = session(route, own).await else {
            return query::execute(executor, own, name, &self.text, &self.vars(), true).await;
        };
        // In one message it is one transaction.
        let vars = self.vars();
        let working = session.execute(&self.text, &vars);
        let after = executor.settings().stall_after;
        let done = route.while_there(own, after, working).await;
        done.map_err(|error| ExecError::of_query(name, own, error))?;
        session.close().await;
        Ok(())
    }
}

/// A session of ours, where there is a route and it lets us in; nothing is begun without it.
async fn session<'a>(
    route: Option<&'a NativeRoute>,
    own: &str,
) -> Option<(&'a NativeRoute, NativeSession)> {
    let route = route?;
    let session = route.open(own, SUFFIX).await.ok()?;
    Some((route, session))
}

/// For messages.
const CREATING: &str = "creating the database";
/// A new database.
#[derive(Deserialize)]
struct Oid {
    oid: u32,
}

/// Creates the database; fails when it exists. Returns its oid, by which it is known afterwards.
/// Over a session of ours where there is one.
pub(crate) async fn create(
    route: Option<&NativeRoute>,
    executor: &dyn PgExecutor,
    database: &str,
    facts: &DatabaseFacts,
    major: u32,
    keep_owner: bool,
    no_tablespaces: bool,
) -> Result<u32, ExecError> {
    let mut script = Script::default();
    script.push("CREATE DATABASE ");
    script.identifier(database);
    script.push(" TEMPLATE template0");
    if let (true, Some(owner)) = (keep_owner, &facts.owner) {
        script.push(" OWNER ").identifier(owner);
    }
    if let Some(encoding) = &facts.encoding {
        script.push(" ENCODING ").literal(encoding);
    }
    let provider = facts.provider.as_deref().unwrap_or("libc");
    if major >= 15 && facts.provider.is_some() {
        // A closed set, checked by the preflight.
        script.push(" LOCALE_PROVIDER ").push(provider);
    }
    if let Some(collate) = &facts.collate {
        script.push(" LC_COLLATE ").literal(collate);
    }
    if let Some(ctype) = &facts.ctype {
        script.push(" LC_CTYPE ").literal(ctype);
    }
    match (provider, &facts.locale) {
        ("icu", Some(locale)) => script.push(" ICU_LOCALE ").literal(locale),
        ("builtin", Some(locale)) => script.push(" BUILTIN_LOCALE ").literal(locale),
        _ => {}
    }
    if let (16.., "icu", Some(rules)) = (major, provider, &facts.icu_rules) {
        script.push(" ICU_RULES ").literal(rules);
    }
    if let (false, Some(tablespace)) = (no_tablespaces, &facts.tablespace) {
        script.push(" TABLESPACE ").identifier(tablespace);
    }
    script.push(";\n");
    let own = &executor.context().creds.database;
    let oid = match session(route, own).await {
        Some((route, session)) => {
            let after = executor.settings().stall_after;
            let creating = create_over(session, &script, database);
            let created = route.while_there(own, after, creating).await;
            created.map_err(|error| ExecError::of_query(CREATING, own, error))?
        }
        None => {
            // In the same session: each one takes its time to start.
            let name = script.var(database);
            script.push("SELECT oid FROM pg_catalog.pg_database WHERE datname = :'");
            script.push(&name).push("';\n");
            let vars = script.vars();
            let answer = query::answer(executor, own, CREATING, &script.text, &vars).await?;
            answer.trim().parse().ok()
        }
    };
    oid.ok_or_else(|| ExecError::Query {
        query: CREATING,
        database: database.to_owned(),
        message: "it is not there after CREATE DATABASE succeeded".to_owned(),
    })
}

async fn create_over(
    mut session: NativeSession,
    script: &Script,
    database: &str,
) -> Result<Option<u32>, NativeError> {
    session.execute(&script.text, &script.vars()).await?;
    let vars = [("name", database)];
    let rows: Vec<Oid> = session.rows(CREATING, OID, &vars).await?;
    session.close().await;
    Ok(rows.first().map(|row| row.oid))
}

const OID: &str = "SELECT oid::int8 AS oid FROM pg_catalog.pg_database WHERE datname = :'name'";

/// Oid of a database; `None` when there is none of this name.
pub(crate) async fn oid(
    executor: &dyn PgExecutor,
    database: &str,
) -> Result<Option<u32>, ExecError> {
    let own = &executor.context().creds.database;
    let name = "looking for the database";
    let rows: Vec<Oid> = query::rows(executor, own, name, OID, &[("name", database)]).await?;
    Ok(rows.first().map(|row| row.oid))
}

/// Ends the sessions of a database and drops it, if it still is the one with this oid.
pub(crate) async fn drop(
    executor: &dyn PgExecutor,
    database: &str,
    created: u32,
) -> Result<(), ExecError> {
    match oid(executor, database).await? {
        None => return Ok(()),
        Some(found) if found != created => {
            return Err(ExecError::Query {
                query: "dropping the new database",
                database: database.to_owned(),
                message: "somebody replaced it by another database of the same name".to_owned(),
            });
        }
        Some(_) => {}
    }
    release_subscriptions(executor, database, created).await?;
    let mut script = Script::default();
    // FORCE ends sessions, also those that come in between.
    script.push("DROP DATABASE ").identifier(database);
    script.push(" WITH (FORCE);\n");
    script.run(executor, "dropping the new database").await
}

/// Between the name that a database is to get and a random tail, while it is filled.
const WORKING: &str = "__restoring_";

/// A name for the time of the restore: at most 63 bytes, recognisable, never met twice.
pub(crate) fn working_name(name: &str) -> String {
    const TAIL: usize = 6;
    let mut kept = name.len().min(63 - WORKING.len() - TAIL);
    while !name.is_char_boundary(kept) {
        kept -= 1;
    }
    let tail: u32 = rand::random_range(0..0x100_0000);
    format!("{}{WORKING}{tail:06x}", &name[..kept])
}

/// Gives a finished database its name; fails when the name was taken meanwhile. Over a session of
/// ours where there is one; it was begun there, so nobody else is asked when it fails.
pub(crate) async fn rename(
    route: Option<&NativeRoute>,
    executor: &dyn PgExecutor,
    working: &str,
    name: &str,
) -> Result<(), ExecError> {
    let own = &executor.context().creds.database;
    if let Some((_, mut session)) = session(route, own).await {
        return rename_over(&mut session, executor, working, name).await;
    }
    let mut script = Script::default();
    script.push(DURABLE).push(UNSEEN);
    script.push("ALTER DATABASE ").identifier(working);
    script.push(" RENAME TO ").identifier(name);
    script.push(";\n");
    script.run(executor, "giving the database its name").await
}

async fn rename_over(
    session: &mut NativeSession,
    executor: &dyn PgExecutor,
    working: &str,
    name: &str,
) -> Result<(), ExecError> {
    let settings = executor.settings();
    let timeouts = format!(
        "SET statement_timeout = {}; SET lock_timeout = {};",
        settings.statement_timeout.as_millis(),
        settings.lock_wait_timeout.as_millis(),
    );
    let rename = format!(
        "ALTER DATABASE {} RENAME TO {}",
        quoted(working),
        quoted(name)
    );
    let renaming = async {
        // One after the other: the transaction of the last one has to begin with their settings.
        for statement in [timeouts.as_str(), DURABLE, &rename] {
            session.batch(statement).await?;
        }
        Ok::<_, NativeError>(())
    };
    let longest = settings.connect_timeout + settings.statement_timeout;
    match tokio::time::timeout(longest, renaming).await {
        Ok(renamed) => Ok(renamed?),
        Err(_elapsed) => Err(ExecError::Query {
            query: "giving the database its name",
            database: working.to_owned(),
            message: format!("the server gave no answer for {} s", longest.as_secs()),
        }),
    }
}

/// A name as SQL writes it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Databases under a working name.
pub(crate) async fn leftovers(
    route: Option<&NativeRoute>,
    executor: &dyn PgExecutor,
) -> Result<Vec<String>, ExecError> {
    #[derive(serde::Deserialize)]
    struct Row {
        name: String,
    }
    const SELECT: &str = "select datname as name from pg_catalog.pg_database \
                          where datname ~ '__restoring_[0-9a-f]{6}$' order by 1";
    let own = executor.context().creds.database.clone();
    let name = "listing unfinished restores";
    let rows: Vec<Row> = query::rows_over(route, executor, &own, name, SELECT, &[]).await?;
    Ok(rows.into_iter().map(|row| row.name).collect())
}

/// A database with a subscription cannot be dropped, and dropping the subscription would try to
/// reach its publisher; without a slot it drops nothing but itself.
async fn release_subscriptions(
    executor: &dyn PgExecutor,
    database: &str,
    created: u32,
) -> Result<(), ExecError> {
    if !executor.context().server.is_superuser {
        // Only a superuser may read the catalogue; who is none could not restore one either.
        return Ok(());
    }
    #[derive(serde::Deserialize)]
    struct Row {
        name: String,
    }
    const SELECT: &str = "select subname as name from pg_catalog.pg_subscription \
                          where subdbid = (:'oid')::pg_catalog.oid";
    let own = executor.context().creds.database.clone();
    let oid = created.to_string();
    let vars = [("oid", oid.as_str())];
    let rows: Vec<Row> =
        query::rows(executor, &own, "listing subscriptions", SELECT, &vars).await?;
    if rows.is_empty() {
        return Ok(());
    }
    // A database that a restore put aside refuses connections.
    let mut open = Script::default();
    open.push("ALTER DATABASE ").identifier(database);
    open.push(" ALLOW_CONNECTIONS true;\n");
    open.run(executor, "opening the database").await?;
    for row in rows {
        let script = "ALTER SUBSCRIPTION :\"name\" DISABLE;\n\
                      ALTER SUBSCRIPTION :\"name\" SET (slot_name = NONE);\n\
                      DROP SUBSCRIPTION :\"name\";\n";
        let name = "dropping a subscription";
        let vars = [("name", row.name.as_str())];
        query::execute(executor, database, name, script, &vars, false).await?;
    }
    Ok(())
}

/// Settings before the rows come, so that what they influence (functions in index expressions,
/// materialised views) sees them.
pub(crate) async fn early_settings(
    route: Option<&NativeRoute>,
    executor: &dyn PgExecutor,
    database: &str,
    facts: &DatabaseFacts,
) -> Result<(), ExecError> {
    let mut script = Script::default();
    for setting in facts.settings.iter().filter(|setting| !is_late(setting)) {
        set(&mut script, database, setting);
    }
    let name = "setting the database's parameters";
    script.run_whole(route, executor, name).await
}

/// Everything else: late settings, comment, connection limit, privileges, in one transaction.
pub(crate) async fn finish(
    route: Option<&NativeRoute>,
    executor: &dyn PgExecutor,
    database: &str,
    facts: &DatabaseFacts,
    keep_owner: bool,
) -> Result<(), ExecError> {
    let mut script = Script::default();
    for setting in facts.settings.iter().filter(|setting| is_late(setting)) {
        // A role's settings follow ownership: without it the role may not exist.
        if keep_owner || setting.role.is_none() {
            set(&mut script, database, setting);
        }
    }
    if let Some(comment) = &facts.comment {
        script.push("COMMENT ON DATABASE ").identifier(database);
        script.push(" IS ").literal(comment);
        script.push(";\n");
    }
    if let Some(limit) = facts.connection_limit {
        script.push("ALTER DATABASE ").identifier(database);
        script.push(&format!(" CONNECTION LIMIT {limit};\n"));
    }
    if keep_owner {
        match &facts.privileges {
            Privileges::Default => {}
            Privileges::Items(items) => {
                for statement in statements_of_items(route, executor, database, items).await? {
                    script.push(&statement).push(";\n");
                }
            }
            Privileges::Grants(grants) => {
                for grant in grants {
                    push_grant(&mut script, database, grant);
                }
            }
        }
    }
    let name = "setting the database's properties";
    script.run_whole(route, executor, name).await
}

fn is_late(setting: &Setting) -> bool {
    setting.role.is_some() || LATE.contains(&setting.name.to_lowercase().as_str())
}

fn set(script: &mut Script, database: &str, setting: &Setting) {
    match &setting.role {
        None => script.push("ALTER DATABASE ").identifier(database),
        Some(role) => {
            script.push("ALTER ROLE ").identifier(role);
            script.push(" IN DATABASE ").identifier(database);
        }
    }
    script.push(" SET ").identifier(&setting.name);
    script.push(" TO ");
    for (position, value) in setting.values.iter().enumerate() {
        if position > 0 {
            script.push(", ");
        }
        script.literal(value);
    }
    script.push(";\n");
}

fn push_grant(script: &mut Script, database: &str, grant: &Grant) {
    if let Some(grantor) = &grant.grantor {
        script
            .push("SET SESSION AUTHORIZATION ")
            .identifier(grantor);
        script.push(";\n");
    }
    script.push(if grant.revoke { "REVOKE " } else { "GRANT " });
    if grant.revoke && grant.grant_option {
        script.push("GRANT OPTION FOR ");
    }
    // Keywords of a closed set.
    script.push(&grant.privileges.join(", "));
    script.push(" ON DATABASE ").identifier(database);
    script.push(if grant.revoke { " FROM " } else { " TO " });
    match &grant.grantee {
        None => {
            script.push("PUBLIC");
        }
        Some(grantee) => script.identifier(grantee),
    }
    if !grant.revoke && grant.grant_option {
        script.push(" WITH GRANT OPTION");
    }
    script.push(";\n");
    if grant.grantor.is_some() {
        script.push("RESET SESSION AUTHORIZATION;\n");
    }
}

/// Statements that turn a new database's privileges into these items; the server quotes the names.
async fn statements_of_items(
    route: Option<&NativeRoute>,
    executor: &dyn PgExecutor,
    database: &str,
    items: &[String],
) -> Result<Vec<String>, ExecError> {
    #[derive(Deserialize)]
    struct Row {
        statement: String,
    }
    const SELECT: &str = "\
SELECT statement FROM ( \
  SELECT 0::int8 AS n, pg_catalog.format('REVOKE ALL ON DATABASE %I FROM PUBLIC', :'db') AS statement \
  UNION ALL \
  SELECT 0, pg_catalog.format('REVOKE ALL ON DATABASE %I FROM %I', d.datname, pg_catalog.pg_get_userbyid(d.datdba)) \
    FROM pg_catalog.pg_database AS d WHERE d.datname = :'db' \
  UNION ALL \
  SELECT a.n, \
    CASE WHEN a.grantor <> d.datdba THEN pg_catalog.format(E'SET SESSION AUTHORIZATION %I;\\n', pg_catalog.pg_get_userbyid(a.grantor)) ELSE '' END || \
    pg_catalog.format('GRANT %s ON DATABASE %I TO %s%s', a.privilege_type, d.datname, \
      CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, \
      CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) || \
    CASE WHEN a.grantor <> d.datdba THEN E';\\nRESET SESSION AUTHORIZATION' ELSE '' END \
    FROM pg_catalog.pg_database AS d, \
      pg_catalog.aclexplode((:'acl')::pg_catalog.aclitem[]) WITH ORDINALITY AS a(grantor, grantee, privilege_type, is_grantable, n) \
    WHERE d.datname = :'db' \
) AS s ORDER BY n";
    let own = executor.context().creds.database.clone();
    let rows: Vec<Row> = query::rows_over(
        route,
        executor,
        &own,
        "reading the database's privileges",
        SELECT,
        &[("db", database), ("acl", &array(items))],
    )
    .await?;
    Ok(rows.into_iter().map(|row| row.statement).collect())
}

/// An array literal.
fn array(items: &[String]) -> String {
    let items: Vec<_> = items
        .iter()
        .map(|item| format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    format!("{{{}}}", items.join(","))
}

#[cfg(test)]
mod tests {
    #[test]
    fn array_literals() {
        let items = ["=c/a".to_owned(), "\"o\"\"p\\\"=c/a".to_owned()];
        assert_eq!(super::array(&items), r#"{"=c/a","\"o\"\"p\\\"=c/a"}"#);
    }
}
