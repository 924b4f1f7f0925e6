//! The database that a restore would replace: what the preflight asks about it, and what forbids
//! to replace it.

use dbexec::{PgExecutor, query};
use serde::{Deserialize, Serialize};

use super::{
    facts::{DatabaseFacts, Privileges, Setting},
    journal::beside,
    source::refused,
};
use crate::{BackupError, id::BackupId, run::server_facts};

/// A session in the database that is replaced; it would be ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSession {
    /// Its role; `None` for a worker of the server.
    pub user: Option<String>,
    /// What it calls itself.
    pub application: String,
    /// Address of its client; `None` for the local socket.
    pub client: Option<String>,
    /// How many there are of this kind.
    pub count: u32,
    /// Whether the restoring role may end it.
    #[serde(skip_serializing, default)]
    pub(crate) may_end: bool,
}

/// The server and the live database, as one query saw them.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Live {
    /// `None`: there is no such database.
    pub(crate) oid: Option<u32>,
    #[serde(default)]
    is_template: Option<bool>,
    #[serde(default)]
    accepts_connections: Option<bool>,
    #[serde(default)]
    owner: Option<String>,
    /// Whether the role may do what the owner may.
    #[serde(default)]
    owns: Option<bool>,
    role: String,
    create_database: bool,
    pub(crate) sessions: Vec<LiveSession>,
    prepared: u32,
    subscriptions: Vec<String>,
    slots: Vec<String>,
    /// Databases with one of the names that this restore would give.
    taken: Vec<String>,
    /// Databases that the role may connect to, but for the live one; the best for renaming first.
    maintenance: Vec<String>,
}

/// What a restore that replaces a database needs, beside what every restore needs.
#[derive(Debug, Clone)]
pub(crate) struct SwapWork {
    pub(crate) id: BackupId,
    pub(crate) staging: String,
    pub(crate) before: String,
    pub(crate) undone: String,
    pub(crate) maintenance: String,
    /// Oid of the live database.
    pub(crate) live: Option<u32>,
    pub(crate) safety_backup: bool,
    pub(crate) keep_old_seconds: u64,
}

// Of workers without a role others than superusers see nothing, not even that they are autovacuum,
// which the server ends by itself.
const SELECT: &str = "\
SELECT d.oid::int8 AS oid, d.datistemplate AS is_template, d.datallowconn AS accepts_connections, \
  pg_get_userbyid(d.datdba) AS owner, pg_has_role(d.datdba, 'USAGE') AS owns, \
  r.rolname AS role, r.rolcreatedb OR r.rolsuper AS create_database, \
  (SELECT coalesce(json_agg(s), '[]') FROM ( \
     SELECT a.usename AS \"user\", coalesce(a.application_name, '') AS application, \
       host(a.client_addr) AS client, count(*) AS count, \
       bool_and(r.rolsuper OR (NOT coalesce(u.rolsuper, true) AND (pg_has_role(u.oid, 'USAGE') \
         OR pg_has_role('pg_signal_backend', 'USAGE')))) AS may_end \
     FROM pg_stat_activity AS a LEFT JOIN pg_roles AS u ON u.oid = a.usesysid \
     WHERE a.datid = d.oid AND a.pid <> pg_backend_pid() \
       AND a.backend_type IS DISTINCT FROM 'autovacuum worker' \
       AND (a.usesysid IS NOT NULL OR r.rolsuper) AND a.application_name IS DISTINCT FROM :'own' \
     GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3) AS s) AS sessions, \
  (SELECT count(*) FROM pg_prepared_xacts AS x WHERE x.database = d.datname) AS prepared, \
  (SELECT coalesce(json_agg(subname ORDER BY subname), '[]') FROM pg_subscription \
     WHERE subdbid = d.oid AND subenabled) AS subscriptions, \
  (SELECT coalesce(json_agg(slot_name ORDER BY slot_name), '[]') FROM pg_replication_slots \
     WHERE database = d.datname) AS slots, \
  (SELECT coalesce(json_agg(datname), '[]') FROM pg_database \
     WHERE datname IN (:'staging', :'before', :'undone')) AS taken, \
  (SELECT coalesce(json_agg(datname ORDER BY datname <> :'login', datname <> 'postgres', \
       datname <> 'template1', datname), '[]') FROM pg_database AS m \
     WHERE datallowconn AND datconnlimit <> 0 AND datconnlimit <> -2 AND datname <> :'name' \
       AND has_database_privilege(m.oid, 'CONNECT')) AS maintenance \
FROM pg_roles AS r LEFT JOIN pg_database AS d ON d.datname = :'name' \
WHERE r.rolname = current_user";

/// Asks about the live database and decides whether it may be replaced. `warnings` takes what does
/// not forbid it.
///
/// # Errors
/// [`BackupError::RestoreRefused`] with every reason and remedy, or the query's failure.
pub(crate) async fn plan_swap(
    executor: &dyn PgExecutor,
    name: &str,
    id: &BackupId,
    options: (bool, u64),
    warnings: &mut Vec<String>,
) -> Result<(SwapWork, Live), BackupError> {
    let (staging, before, undone) = (
        beside(name, "restore", id),
        beside(name, "before", id),
        beside(name, "undone", id),
    );
    let failed = |source| BackupError::Exec {
        operation: format!("asking about the database {name:?}"),
        source,
    };
    // Names are exchanged by sessions that know each other.
    query::check_no_pooler(executor).await.map_err(failed)?;
    let login = executor.context().creds.database.clone();
    let own = executor.settings().application_name.clone();
    let vars = [
        ("name", name),
        ("staging", staging.as_str()),
        ("before", before.as_str()),
        ("undone", undone.as_str()),
        ("login", login.as_str()),
        ("own", own.as_str()),
    ];
    let rows: Vec<Live> = query::rows(executor, &login, "the live database", SELECT, &vars)
        .await
        .map_err(failed)?;
    let Some(live) = rows.into_iter().next() else {
        return Err(refused(
            "the role that logged in is not in pg_roles".to_owned(),
            "log in as another role".to_owned(),
        ));
    };
    let maintenance = judge(name, &live, warnings)?;
    // That it exists and may be used is known; that it can be reached (pg_hba.conf) is not.
    query::rows::<serde_json::Value>(
        executor,
        &maintenance,
        "the database to rename from",
        "SELECT 1 AS one",
        &[],
    )
    .await
    .map_err(|source| {
        refused(
            format!(
                "databases are renamed from another database, and {maintenance:?} cannot be \
                 reached: {source}"
            ),
            format!("let the role {:?} connect to {maintenance:?}", live.role),
        )
    })?;
    let (safety_backup, keep_old_seconds) = options;
    let work = SwapWork {
        id: id.clone(),
        staging,
        before,
        undone,
        maintenance,
        live: live.oid,
        safety_backup,
        keep_old_seconds,
    };
    Ok((work, live))
}

/// Decides; returns the database to rename from.
fn judge(name: &str, live: &Live, warnings: &mut Vec<String>) -> Result<String, BackupError> {
    let mut problems: Vec<(String, String)> = Vec::new();
    let beside = "restore beside it with --as NEWDB";
    if name.is_empty() || name.len() > 63 {
        problems.push((
            format!("{name:?} cannot be the name of a database"),
            "name the database by 1 to 63 bytes".to_owned(),
        ));
    }
    if live.is_template == Some(true) {
        problems.push((
            format!("database {name:?} is a template of the server"),
            beside.to_owned(),
        ));
    }
    if live.owns == Some(false) {
        let owner = live.owner.as_deref().unwrap_or_default();
        problems.push((
            format!(
                "role {:?} may not rename database {name:?}, which belongs to {owner:?}",
                live.role
            ),
            format!("restore as {owner:?} or as a superuser"),
        ));
    }
    // Whether databases may be created at all is asked by the preflight of every restore; a
    // database is renamed by its owner only when the owner may create some.
    if live.prepared > 0 {
        problems.push((
            format!(
                "database {name:?} has {} prepared transactions, and no database with such can \
                 be renamed",
                live.prepared
            ),
            "COMMIT PREPARED or ROLLBACK PREPARED each (pg_prepared_xacts)".to_owned(),
        ));
    }
    if !live.subscriptions.is_empty() {
        problems.push((
            format!(
                "database {name:?} has enabled subscriptions ({}), which would go on in the old \
                 database",
                live.subscriptions.join(", ")
            ),
            "ALTER SUBSCRIPTION … DISABLE each first".to_owned(),
        ));
    }
    let stay: Vec<_> = live
        .sessions
        .iter()
        .filter(|session| !session.may_end)
        .map(|session| session.to_string())
        .collect();
    if !stay.is_empty() {
        problems.push((
            format!(
                "role {:?} may not end these sessions in {name:?}: {}",
                live.role,
                stay.join("; ")
            ),
            format!(
                "end them, GRANT pg_signal_backend TO {:?}, or restore as a superuser",
                live.role
            ),
        ));
    }
    if !live.taken.is_empty() {
        problems.push((
            format!(
                "databases with names of this restore are there: {:?}",
                live.taken
            ),
            "run the command again: the names are random".to_owned(),
        ));
    }
    if live.maintenance.is_empty() {
        problems.push((
            format!(
                "role {:?} may connect to no other database than {name:?}",
                live.role
            ),
            "a database is renamed from another one: let the role connect to postgres".to_owned(),
        ));
    }
    if !problems.is_empty() {
        let (problems, remedies): (Vec<_>, Vec<_>) = problems.into_iter().unzip();
        return Err(refused(problems.join("; "), remedies.join("; ")));
    }
    if !live.create_database {
        // Said by the preflight of every restore as well, with its remedy.
        tracing::debug!("the role may not create databases");
    }
    if live.accepts_connections == Some(false) {
        warnings.push(format!(
            "database {name:?} refuses connections now; the restored one will allow them"
        ));
    }
    if !live.slots.is_empty() {
        warnings.push(format!(
            "replication slots belong to the old database and go with it: {}; their consumers have to \
             start anew",
            live.slots.join(", ")
        ));
    }
    Ok(live.maintenance.first().cloned().unwrap_or_default())
}

impl std::fmt::Display for LiveSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of ", self.count)?;
        match &self.user {
            Some(user) => write!(f, "{user:?}")?,
            None => f.write_str("the server itself")?,
        }
        if !self.application.is_empty() {
            write!(f, " ({:?})", self.application)?;
        }
        match &self.client {
            Some(client) => write!(f, " from {client}"),
            None => f.write_str(" from the local socket"),
        }
    }
}

/// Properties of the live database, for a source that tells none of its own.
pub(crate) async fn facts(
    executor: &dyn PgExecutor,
    name: &str,
) -> Result<Option<DatabaseFacts>, BackupError> {
    let server = server_facts(None, executor)
        .await
        .map_err(|source| BackupError::Exec {
            operation: format!("asking about the database {name:?}"),
            source,
        })?;
    let found = server.databases.into_iter().find(|one| one.name == name);
    Ok(found.map(|live| DatabaseFacts {
        owner: Some(live.owner),
        encoding: Some(live.encoding),
        collate: Some(live.collate),
        ctype: Some(live.ctype),
        provider: Some(live.locale_provider),
        locale: live.locale,
        icu_rules: live.icu_rules,
        tablespace: Some(live.tablespace).filter(|name| name != "pg_default"),
        connection_limit: Some(live.connection_limit).filter(|limit| *limit >= 0),
        comment: live.comment,
        settings: live.settings.iter().map(Setting::of_record).collect(),
        privileges: live.acl.map_or(Privileges::Default, Privileges::Items),
        notes: vec![format!(
            "the source does not say how its database was made: the new one gets the properties \
             of the live database {name:?}"
        )],
    }))
}

/// The steps of the swap in words: before the fill, and after it.
pub(crate) fn steps(name: &str, work: &SwapWork, live: &Live) -> (Vec<String>, Vec<String>) {
    let mut first = Vec::new();
    let mut last = Vec::new();
    if live.oid.is_some() {
        first.push(match work.safety_backup {
            true => format!("back up the live database {name:?} (safety backup)"),
            false => format!("no safety backup of {name:?}, as you said"),
        });
    }
    let sessions: u32 = live.sessions.iter().map(|session| session.count).sum();
    match live.oid {
        None => last.push(format!(
            "rename {:?} to {name:?}; there is no such database yet, so nothing is replaced",
            work.staging
        )),
        Some(_) => {
            let ended = match sessions {
                0 => "no session is in it now; any that comes is ended".to_owned(),
                _ => format!(
                    "end its sessions, now {sessions}: {}",
                    live.sessions
                        .iter()
                        .take(10)
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join("; ")
                ),
            };
            last.push(format!(
                "swap: let new connections to {name:?} wait; {ended}; in one transaction rename \
                 {name:?} to {:?} and {:?} to {name:?}",
                work.before, work.staging
            ));
            last.push(format!(
                "keep {:?}, closed to connections, for {}; until then pgstow rollback brings it \
                 back, afterwards pgstow prune --apply drops it",
                work.before,
                words_of(work.keep_old_seconds)
            ));
        }
    }
    (first, last)
}

/// A time in words.
fn words_of(seconds: u64) -> String {
    let (day, hour) = (24 * 3600, 3600);
    match seconds {
        _ if seconds >= day && seconds.is_multiple_of(day) => format!("{} days", seconds / day),
        _ if seconds >= hour && seconds.is_multiple_of(hour) => format!("{} hours", seconds / hour),
        _ => format!("{seconds} seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        Live {
            oid: Some(5),
            is_template: Some(false),
            accepts_connections: Some(true),
            owner: Some("app".to_owned()),
            owns: Some(true),
            role: "me".to_owned(),
            create_database: true,
            sessions: Vec::new(),
            prepared: 0,
            subscriptions: Vec::new(),
            slots: Vec::new(),
            taken: Vec::new(),
            maintenance: vec!["postgres".to_owned()],
        }
    }

    #[test]
    fn bar_34_what_forbids_a_swap() {
        let mut warnings = Vec::new();
        assert_eq!(judge("shop", &live(), &mut warnings).unwrap(), "postgres");
        type Change = fn(&mut Live);
        let cases: [(Change, &str); 6] = [
            (|l| l.is_template = Some(true), "template"),
            (|l| l.owns = Some(false), "belongs to \"app\""),
            (|l| l.prepared = 2, "prepared"),
            (|l| l.subscriptions = vec!["sub".to_owned()], "sub"),
            (|l| l.taken = vec!["x".to_owned()], "random"),
            (|l| l.maintenance.clear(), "no other database"),
        ];
        for (change, word) in cases {
            let mut live = live();
            change(&mut live);
            match judge("shop", &live, &mut warnings) {
                Err(BackupError::RestoreRefused { problem, remedy }) => {
                    assert!(format!("{problem} {remedy}").contains(word), "{problem}");
                }
                other => panic!("{word}: {other:?}"),
            }
        }
        let mut boss = live();
        boss.sessions.push(LiveSession {
            user: Some("boss".to_owned()),
            application: "psql".to_owned(),
            client: None,
            count: 3,
            may_end: false,
        });
        let error = judge("shop", &boss, &mut warnings).unwrap_err().to_string();
        assert!(error.contains("3 of \"boss\" (\"psql\")"), "{error}");
        assert!(warnings.is_empty());
        let mut odd = live();
        odd.slots.push("slot".to_owned());
        odd.accepts_connections = Some(false);
        judge("shop", &odd, &mut warnings).unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }
}
