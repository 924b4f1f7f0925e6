//! Properties of the source's database: from the manifest, or from the archive's own table of
//! contents, which pg_dump fills with the database's definition, settings, comment and
//! privileges.

use archive::{Entry, SqlToken, Toc, split_statements};

use crate::manifest::{DatabaseRecord, DatabaseSetting};

/// What a new database gets so that it equals the source's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DatabaseFacts {
    pub(crate) owner: Option<String>,
    pub(crate) encoding: Option<String>,
    pub(crate) collate: Option<String>,
    pub(crate) ctype: Option<String>,
    /// `libc`, `icu` or `builtin`.
    pub(crate) provider: Option<String>,
    /// ICU or builtin locale.
    pub(crate) locale: Option<String>,
    pub(crate) icu_rules: Option<String>,
    /// `None` for `pg_default`.
    pub(crate) tablespace: Option<String>,
    /// `None` for no limit.
    pub(crate) connection_limit: Option<i32>,
    pub(crate) comment: Option<String>,
    pub(crate) settings: Vec<Setting>,
    pub(crate) privileges: Privileges,
    /// What could not be understood, in words.
    pub(crate) notes: Vec<String>,
}

/// `ALTER DATABASE … SET`, perhaps for one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) role: Option<String>,
    pub(crate) name: String,
    /// One value, or the elements of a list.
    pub(crate) values: Vec<String>,
}

/// Privileges on the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Privileges {
    /// As a new database has them.
    #[default]
    Default,
    /// `datacl` of the source, each item as text.
    Items(Vec<String>),
    /// Statements of the archive.
    Grants(Vec<Grant>),
}

/// `GRANT` or `REVOKE` on the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) revoke: bool,
    /// Role that granted it, where it was not the owner.
    pub(crate) grantor: Option<String>,
    /// Keywords.
    pub(crate) privileges: Vec<String>,
    /// `None` is PUBLIC.
    pub(crate) grantee: Option<String>,
    pub(crate) grant_option: bool,
}

/// Parameters whose value is a list of names: `pg_dump` writes (and the server stores) these with
/// their own quoting. From `variable_is_guc_list_quote` of PostgreSQL's `dumputils.c`.
const LISTS: &[&str] = &[
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];
/// Words of `GRANT … ON DATABASE`.
const DATABASE_PRIVILEGES: &[&str] = &["ALL", "CREATE", "CONNECT", "TEMPORARY", "TEMP"];

impl Setting {
    /// From a row of `pg_db_role_setting`.
    pub(crate) fn of_record(setting: &DatabaseSetting) -> Self {
        Self {
            role: setting.role.clone(),
            name: setting.name.clone(),
            values: if LISTS.contains(&setting.name.to_lowercase().as_str()) {
                split_list(&setting.value)
            } else {
                vec![setting.value.clone()]
            },
        }
    }
}

/// From the manifest.
pub(crate) fn of_record(record: &DatabaseRecord) -> DatabaseFacts {
    let settings = record.settings.iter().map(Setting::of_record);
    DatabaseFacts {
        owner: Some(record.owner.clone()),
        encoding: Some(record.encoding.clone()),
        collate: Some(record.collate.clone()),
        ctype: Some(record.ctype.clone()),
        provider: Some(record.locale_provider.clone()),
        locale: record.locale.clone(),
        icu_rules: record.icu_rules.clone(),
        tablespace: Some(record.tablespace.clone()).filter(|name| name != "pg_default"),
        connection_limit: Some(record.connection_limit).filter(|limit| *limit >= 0),
        comment: record.comment.clone(),
        settings: settings.collect(),
        privileges: record
            .acl
            .clone()
            .map_or(Privileges::Default, Privileges::Items),
        notes: Vec::new(),
    }
}

/// From an archive's table of contents.
pub(crate) fn of_toc(toc: &Toc) -> DatabaseFacts {
    let mut facts = DatabaseFacts::default();
    let Some(database) = toc.entries.iter().find(|entry| entry.kind == "DATABASE") else {
        facts.notes.push(
            "the archive does not say how its database was made; the new one gets the server's \
             defaults"
                .to_owned(),
        );
        // Without the entry the encoding is known all the same.
        facts.encoding = client_encoding(toc);
        return facts;
    };
    facts.owner = database.owner.map(str::to_owned);
    read(database, &mut facts, create_database);
    let about = format!("DATABASE {}", quoted_if_needed(database.name));
    for entry in &toc.entries {
        let here = entry.name == about || entry.name == format!("DATABASE {}", database.name);
        match entry.kind {
            "DATABASE PROPERTIES" => read(entry, &mut facts, property),
            "ACL" if here && entry.schema.is_none() => read(entry, &mut facts, grant),
            "COMMENT" if here && entry.schema.is_none() => read(entry, &mut facts, comment),
            _ => {}
        }
    }
    facts
}

/// `SET client_encoding = 'UTF8';`
fn client_encoding(toc: &Toc) -> Option<String> {
    let entry = toc.entries.iter().find(|entry| entry.kind == "ENCODING")?;
    let statements = split_statements(entry.definition?).ok()?;
    match statements.first()?.tokens.last()? {
        SqlToken::Literal(encoding) => Some(encoding.clone()),
        _ => None,
    }
}

type Understand = fn(&[SqlToken], &mut DatabaseFacts) -> Option<()>;

fn read(entry: Entry<'_>, facts: &mut DatabaseFacts, understand: Understand) {
    let Some(definition) = entry.definition else {
        return;
    };
    match split_statements(definition) {
        Ok(statements) => {
            let mut grantor = None;
            for statement in statements {
                // Set and reset around grants of others than the owner.
                if let Some(who) = session_authorization(&statement.tokens) {
                    grantor = who;
                    continue;
                }
                let before = grants(facts);
                if understand(&statement.tokens, facts).is_none() {
                    facts.notes.push(format!(
                        "a property of the database is not restored: {}",
                        statement.text
                    ));
                }
                if let Privileges::Grants(list) = &mut facts.privileges {
                    for grant in list.iter_mut().skip(before) {
                        grant.grantor.clone_from(&grantor);
                    }
                }
            }
        }
        Err(problem) => facts.notes.push(format!(
            "the {} of the archive is not understood ({problem}) and not restored",
            entry.kind
        )),
    }
}

fn grants(facts: &DatabaseFacts) -> usize {
    match &facts.privileges {
        Privileges::Grants(list) => list.len(),
        _ => 0,
    }
}

fn session_authorization(tokens: &[SqlToken]) -> Option<Option<String>> {
    match tokens {
        [set, session, authorization, name]
            if set.is("SET") && session.is("SESSION") && authorization.is("AUTHORIZATION") =>
        {
            match name {
                SqlToken::Literal(name) => Some(Some(name.clone())),
                word if word.is("DEFAULT") => Some(None),
                other => Some(other.name()),
            }
        }
        [reset, session, authorization]
            if reset.is("RESET") && session.is("SESSION") && authorization.is("AUTHORIZATION") =>
        {
            Some(None)
        }
        _ => None,
    }
}

/// `CREATE DATABASE name WITH KEY = value …`
fn create_database(tokens: &[SqlToken], facts: &mut DatabaseFacts) -> Option<()> {
    let [create, database, _name, with, options @ ..] = tokens else {
        return None;
    };
    if !(create.is("CREATE") && database.is("DATABASE") && with.is("WITH")) {
        return None;
    }
    let mut rest = options;
    while let [key, SqlToken::Sign('='), value, after @ ..] = rest {
        let SqlToken::Word(key) = key else {
            return None;
        };
        let text = match value {
            SqlToken::Literal(text) => text.clone(),
            other => other.name()?,
        };
        match key.to_ascii_uppercase().as_str() {
            "TEMPLATE" => {}
            "ENCODING" => facts.encoding = Some(text),
            "LOCALE_PROVIDER" => facts.provider = Some(text.to_lowercase()),
            "LOCALE" => {
                facts.collate = Some(text.clone());
                facts.ctype = Some(text);
            }
            "LC_COLLATE" => facts.collate = Some(text),
            "LC_CTYPE" => facts.ctype = Some(text),
            "ICU_LOCALE" | "BUILTIN_LOCALE" => facts.locale = Some(text),
            "ICU_RULES" => facts.icu_rules = Some(text),
            "TABLESPACE" => facts.tablespace = Some(text),
            "COLLATION_VERSION" | "STRATEGY" | "OID" => {}
            _ => return None,
        }
        rest = after;
    }
    rest.is_empty().then_some(())
}

/// `ALTER DATABASE name …` and `ALTER ROLE name IN DATABASE name SET …`
fn property(tokens: &[SqlToken], facts: &mut DatabaseFacts) -> Option<()> {
    match tokens {
        [alter, database, _name, set, rest @ ..]
            if alter.is("ALTER") && database.is("DATABASE") && set.is("SET") =>
        {
            facts.settings.push(setting(None, rest)?);
            Some(())
        }
        [alter, role, name, r#in, database, _database, set, rest @ ..]
            if alter.is("ALTER")
                && role.is("ROLE")
                && r#in.is("IN")
                && database.is("DATABASE")
                && set.is("SET") =>
        {
            facts.settings.push(setting(Some(name.name()?), rest)?);
            Some(())
        }
        [
            alter,
            database,
            _name,
            connection,
            limit,
            SqlToken::Sign('='),
            ..,
        ] if alter.is("ALTER")
            && database.is("DATABASE")
            && connection.is("CONNECTION")
            && limit.is("LIMIT") =>
        {
            // The number is not a word; take it from its signs.
            facts.connection_limit = digits(&tokens[6..]);
            Some(())
        }
        // Whether the source was a template says nothing about a restored copy.
        [alter, database, _name, template, ..]
            if alter.is("ALTER") && database.is("DATABASE") && template.is("IS_TEMPLATE") =>
        {
            Some(())
        }
        _ => None,
    }
}

fn digits(tokens: &[SqlToken]) -> Option<i32> {
    let text: String = tokens
        .iter()
        .map_while(|token| match token {
            SqlToken::Sign(sign) if sign.is_ascii_digit() => Some(*sign),
            _ => None,
        })
        .collect();
    text.parse().ok()
}

/// `name TO 'value', 'value'`
fn setting(role: Option<String>, tokens: &[SqlToken]) -> Option<Setting> {
    let to = tokens.iter().position(|token| token.is("TO"))?;
    let mut name = String::new();
    for token in &tokens[..to] {
        match token {
            SqlToken::Sign('.') => name.push('.'),
            other => name.push_str(&other.name()?),
        }
    }
    let mut values = Vec::new();
    for (position, token) in tokens[to + 1..].iter().enumerate() {
        match (position % 2, token) {
            (0, SqlToken::Literal(value)) => values.push(value.clone()),
            (1, SqlToken::Sign(',')) => {}
            _ => return None,
        }
    }
    (!name.is_empty() && !values.is_empty()).then_some(Setting { role, name, values })
}

/// `GRANT CONNECT,CREATE ON DATABASE name TO role WITH GRANT OPTION`
fn grant(tokens: &[SqlToken], facts: &mut DatabaseFacts) -> Option<()> {
    let (revoke, rest) = match tokens {
        [first, rest @ ..] if first.is("GRANT") => (false, rest),
        [first, rest @ ..] if first.is("REVOKE") => (true, rest),
        _ => return None,
    };
    let (grant_option, rest) = match rest {
        [grant, option, r#for, rest @ ..]
            if revoke && grant.is("GRANT") && option.is("OPTION") && r#for.is("FOR") =>
        {
            (true, rest)
        }
        _ => (false, rest),
    };
    let on = rest.iter().position(|token| token.is("ON"))?;
    let mut privileges = Vec::new();
    for token in &rest[..on] {
        match token {
            SqlToken::Sign(',') => {}
            SqlToken::Word(word) => {
                let word = word.to_ascii_uppercase();
                if DATABASE_PRIVILEGES.contains(&word.as_str()) {
                    privileges.push(word);
                } else if word != "PRIVILEGES" {
                    return None;
                }
            }
            _ => return None,
        }
    }
    let [database, _name, direction, grantee, after @ ..] = &rest[on + 1..] else {
        return None;
    };
    if !database.is("DATABASE") || !(direction.is("TO") || direction.is("FROM")) {
        return None;
    }
    let grant_option = grant_option
        || match after {
            [] => false,
            [with, grant, option]
                if with.is("WITH") && grant.is("GRANT") && option.is("OPTION") =>
            {
                true
            }
            _ => return None,
        };
    let grant = Grant {
        revoke,
        grantor: None,
        privileges,
        grantee: if grantee.is("PUBLIC") {
            None
        } else {
            Some(grantee.name()?)
        },
        grant_option,
    };
    match &mut facts.privileges {
        Privileges::Grants(list) => list.push(grant),
        other => *other = Privileges::Grants(vec![grant]),
    }
    Some(())
}

/// `COMMENT ON DATABASE name IS 'text'`
fn comment(tokens: &[SqlToken], facts: &mut DatabaseFacts) -> Option<()> {
    match tokens {
        [comment, on, database, _name, is, SqlToken::Literal(text)]
            if comment.is("COMMENT") && on.is("ON") && database.is("DATABASE") && is.is("IS") =>
        {
            facts.comment = Some(text.clone());
            Some(())
        }
        _ => None,
    }
}

/// Elements of a list as the server stores it: `"$user", public`.
pub(crate) fn split_list(stored: &str) -> Vec<String> {
    let mut elements = Vec::new();
    let mut rest = stored.trim();
    while !rest.is_empty() {
        let mut element = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut after = quoted;
            loop {
                let Some((before, next)) = after.split_once('"') else {
                    // Not closed: the server would not have stored it; keep it whole.
                    return vec![stored.to_owned()];
                };
                element.push_str(before);
                match next.strip_prefix('"') {
                    Some(next) => {
                        element.push('"');
                        after = next;
                    }
                    None => {
                        rest = next.trim_start();
                        break;
                    }
                }
            }
        } else {
            let (word, after) = rest.find(',').map_or((rest, ""), |at| rest.split_at(at));
            element.push_str(word.trim());
            rest = after;
        }
        elements.push(element);
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.is_empty() => {}
            None => return vec![stored.to_owned()],
        }
    }
    if elements.is_empty() {
        elements.push(String::new());
    }
    elements
}

/// A name as pg_dump writes it in the tag of a comment or privilege.
fn quoted_if_needed(name: &str) -> String {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_as_the_server_stores_them() {
        assert_eq!(split_list("\"$user\", public"), ["$user", "public"]);
        assert_eq!(split_list("a,\"b\"\"c, d\" ,e"), ["a", "b\"c, d", "e"]);
        assert_eq!(split_list("\"\""), [""]);
        assert_eq!(split_list(""), [""]);
        assert_eq!(split_list("\"open"), ["\"open"]);
    }

    fn understood(text: &str, understand: Understand) -> DatabaseFacts {
        let mut facts = DatabaseFacts::default();
        for statement in split_statements(text).unwrap() {
            understand(&statement.tokens, &mut facts).unwrap();
        }
        facts
    }

    #[test]
    fn bar_32_database_definitions_of_all_majors() {
        let facts = understood(
            "CREATE DATABASE \"a;b\" WITH TEMPLATE = template0 ENCODING = 'LATIN1' \
             LC_COLLATE = 'C' LC_CTYPE = 'de_DE' TABLESPACE = \"Fast\";",
            create_database,
        );
        assert_eq!(facts.encoding.as_deref(), Some("LATIN1"));
        assert_eq!(facts.ctype.as_deref(), Some("de_DE"));
        assert_eq!(facts.tablespace.as_deref(), Some("Fast"));
        let facts = understood(
            "CREATE DATABASE x WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = icu \
             LOCALE = 'C' ICU_LOCALE = 'de-u-co-phonebk' ICU_RULES = '&a < b';",
            create_database,
        );
        assert_eq!(facts.provider.as_deref(), Some("icu"));
        assert_eq!(facts.locale.as_deref(), Some("de-u-co-phonebk"));
        assert_eq!(facts.icu_rules.as_deref(), Some("&a < b"));
    }

    #[test]
    fn bar_32_properties_and_privileges() {
        let facts = understood(
            "ALTER DATABASE x CONNECTION LIMIT = 17;ALTER DATABASE x SET search_path TO 'a', 'B c';\
             ALTER ROLE \"R\" IN DATABASE x SET \"my.var\" TO 'it''s';",
            property,
        );
        assert_eq!(facts.connection_limit, Some(17));
        assert_eq!(facts.settings[0].values, ["a", "B c"]);
        assert_eq!(facts.settings[1].role.as_deref(), Some("R"));
        assert_eq!(facts.settings[1].name, "my.var");
        let facts = understood(
            "REVOKE CONNECT,TEMPORARY ON DATABASE x FROM PUBLIC;\
             GRANT ALL ON DATABASE x TO \"o'p\" WITH GRANT OPTION;",
            grant,
        );
        let Privileges::Grants(grants) = facts.privileges else {
            panic!("no grants");
        };
        assert!(grants[0].revoke && grants[0].grantee.is_none());
        assert_eq!(grants[1].grantee.as_deref(), Some("o'p"));
        assert!(grants[1].grant_option);
    }
}
