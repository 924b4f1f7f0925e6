//! Which roles an archive refers to, and how missing ones are made from a backup's globals.

use std::collections::BTreeSet;

use archive::{SqlStatement, SqlToken, Toc, split_statements};

use super::facts::{DatabaseFacts, Privileges};

/// Names that stand for a role without being one.
const NOT_ROLES: &[&str] = &["public", "current_user", "current_role", "session_user"];

/// Roles without which the restore would fail: owners and grantees when ownership is kept, and
/// in any case the roles of policies and user mappings.
pub(crate) fn needed(
    toc: Option<&Toc>,
    facts: &DatabaseFacts,
    keep_owner: bool,
) -> BTreeSet<String> {
    let mut roles = BTreeSet::new();
    for entry in toc.iter().flat_map(|toc| &toc.entries) {
        let matters = matches!(entry.kind, "POLICY" | "USER MAPPING");
        let database = matches!(entry.kind, "DATABASE" | "DATABASE PROPERTIES");
        if keep_owner
            && !database
            && let Some(owner) = entry.owner.filter(|owner| !roles.contains(*owner))
        {
            roles.insert(owner.to_owned());
        }
        let privileges = matches!(entry.kind, "ACL" | "DEFAULT ACL");
        if matters || (keep_owner && privileges) {
            let statements = entry
                .definition
                .and_then(|definition| split_statements(definition).ok());
            for statement in statements.unwrap_or_default() {
                roles.extend(named_in(&statement.tokens));
            }
        }
    }
    if keep_owner {
        roles.extend(facts.owner.clone());
        roles.extend(
            facts
                .settings
                .iter()
                .filter_map(|setting| setting.role.clone()),
        );
        match &facts.privileges {
            Privileges::Default => {}
            Privileges::Items(items) => {
                roles.extend(items.iter().flat_map(|item| roles_of_item(item)));
            }
            Privileges::Grants(grants) => {
                for grant in grants {
                    roles.extend(grant.grantee.clone());
                    roles.extend(grant.grantor.clone());
                }
            }
        }
    }
    // In an archive of another encoding such a name cannot be told; the restore itself finds out.
    let readable = |role: &str| toc.is_none_or(|toc| toc.utf8) || role.is_ascii();
    roles.retain(|role| !role.is_empty() && !NOT_ROLES.contains(&role.as_str()) && readable(role));
    roles
}

/// Roles named in `GRANT`, `REVOKE`, `ALTER DEFAULT PRIVILEGES`, `CREATE POLICY`,
/// `CREATE USER MAPPING` and `SET SESSION AUTHORIZATION`.
fn named_in(tokens: &[SqlToken]) -> Vec<String> {
    let mut roles = Vec::new();
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is(word));
    if is(0, "SET") && is(1, "SESSION") && is(2, "AUTHORIZATION") {
        match tokens.get(3) {
            Some(SqlToken::Literal(name)) => roles.push(name.clone()),
            Some(word) if !word.is("DEFAULT") => roles.extend(word.name()),
            _ => {}
        }
        return roles;
    }
    if is(0, "CREATE") && is(1, "USER") && is(2, "MAPPING") && is(3, "FOR") {
        roles.extend(tokens.get(4).and_then(SqlToken::name));
        return roles;
    }
    if is(0, "RESET") {
        return roles;
    }
    // Parentheses hold expressions and column names, never roles.
    let mut depth = 0_u32;
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            SqlToken::Sign('(') => depth += 1,
            SqlToken::Sign(')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        let list = depth == 0
            && (tokens[at].is("TO")
                || tokens[at].is("FROM")
                || (tokens[at].is("ROLE") && at > 0 && tokens[at - 1].is("FOR"))
                || (tokens[at].is("BY") && at > 0 && tokens[at - 1].is("GRANTED")));
        at += 1;
        if !list {
            continue;
        }
        while let Some(name) = tokens.get(at).and_then(SqlToken::name) {
            roles.push(name);
            at += 1;
            if tokens.get(at) == Some(&SqlToken::Sign(',')) {
                at += 1;
            } else {
                break;
            }
        }
    }
    roles
}

/// Grantee and grantor of an `aclitem` (`name=privileges/name`, names quoted where needed).
fn roles_of_item(item: &str) -> Vec<String> {
    let Some((grantee, rest)) = item_name(item, '=') else {
        return Vec::new();
    };
    let mut roles = vec![grantee];
    if let Some((_, grantor)) = rest.split_once('/')
        && let Some((grantor, _)) = item_name(grantor, '\0')
    {
        roles.push(grantor);
    }
    roles
}

/// A name up to `end`, and what follows.
fn item_name(text: &str, end: char) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        return match text.split_once(end) {
            Some((name, rest)) => Some((name.to_owned(), rest)),
            None => (end == '\0').then(|| (text.to_owned(), "")),
        };
    };
    let mut name = String::new();
    loop {
        let (before, after) = rest.split_once('"')?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Some((name, after.strip_prefix(end).unwrap_or(after))),
        }
    }
}

/// The statements of a globals script that make exactly these roles, in order. Statements about
/// any other role are left out, so existing roles stay as they are. Memberships are taken where
/// the member is one of these roles and the group is one of them or exists.
///
/// # Errors
/// Roles that the script does not make, or what is not understood in it.
pub(crate) fn statements_for(
    globals: &str,
    wanted: &BTreeSet<String>,
    existing: &BTreeSet<String>,
) -> Result<RoleStatements, String> {
    let mut made = BTreeSet::new();
    let mut result = RoleStatements::default();
    for statement in split_statements(globals)? {
        let SqlStatement { text, tokens } = statement;
        match tokens.as_slice() {
            [create, role, name] if create.is("CREATE") && role.is("ROLE") => {
                let Some(name) = name.name().filter(|name| wanted.contains(name)) else {
                    continue;
                };
                made.insert(name);
            }
            [alter, role, name, rest @ ..] if alter.is("ALTER") && role.is("ROLE") => {
                let Some(name) = name.name().filter(|name| wanted.contains(name)) else {
                    continue;
                };
                // Settings in one database belong to the restore of that database.
                if rest.first().is_some_and(|token| token.is("IN")) {
                    continue;
                }
                if rest.iter().any(|token| token.is("SUPERUSER")) {
                    result.superusers.push(name);
                }
            }
            [grant, group, to, member, ..] if grant.is("GRANT") && to.is("TO") => {
                let member = member.name().filter(|name| wanted.contains(name));
                let group = group
                    .name()
                    .filter(|name| wanted.contains(name) || existing.contains(name));
                let (Some(member), Some(group)) = (member, group) else {
                    continue;
                };
                if existing.contains(&group) {
                    result.joins.push((member, group));
                }
            }
            _ => continue,
        }
        result.statements.push(text);
    }
    let absent: Vec<_> = wanted.difference(&made).cloned().collect();
    if absent.is_empty() {
        Ok(result)
    } else {
        Err(format!(
            "the backup's globals do not create {}",
            list(&absent)
        ))
    }
}

/// What makes the missing roles. No `Debug`: the statements hold password verifiers.
#[derive(Default)]
pub(crate) struct RoleStatements {
    pub(crate) statements: Vec<String>,
    /// Roles that become superusers.
    pub(crate) superusers: Vec<String>,
    /// New members of roles that exist: member, group.
    pub(crate) joins: Vec<(String, String)>,
}

/// Names for a message.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names
        .into_iter()
        .map(|name| format!("{name:?}"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        split_statements(text)
            .unwrap()
            .iter()
            .flat_map(|statement| named_in(&statement.tokens))
            .collect()
    }

    #[test]
    fn roles_in_statements() {
        assert_eq!(
            names("GRANT SELECT(a,b) ON TABLE s.t TO app WITH GRANT OPTION;"),
            ["app"]
        );
        assert_eq!(names("REVOKE ALL ON SCHEMA x FROM PUBLIC;"), ["public"]);
        assert_eq!(
            names("ALTER DEFAULT PRIVILEGES FOR ROLE \"O\" IN SCHEMA s GRANT ALL ON TABLES TO b;"),
            ["O", "b"]
        );
        assert_eq!(
            names("CREATE POLICY p ON s.t FOR SELECT TO a, \"B\" USING ((x = 'to z'::text));"),
            ["a", "B"]
        );
        assert_eq!(
            names("CREATE USER MAPPING FOR u SERVER s OPTIONS (user 'x');"),
            ["u"]
        );
        assert_eq!(names("SET SESSION AUTHORIZATION 'q';"), ["q"]);
    }

    #[test]
    fn roles_in_items() {
        assert_eq!(roles_of_item("app=CTc/owner"), ["app", "owner"]);
        assert_eq!(roles_of_item("=Tc/owner"), ["", "owner"]);
        assert_eq!(roles_of_item("\"a\"\"=b\"=c/\"o/p\""), ["a\"=b", "o/p"]);
    }

    #[test]
    fn only_missing_roles_are_made_and_nothing_else() {
        let globals = "--\n-- PostgreSQL database cluster dump\n--\n\\restrict abc\n\
            SET default_transaction_read_only = off;\n\
            CREATE ROLE app;\nALTER ROLE app WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM;x';\n\
            CREATE ROLE boss;\nALTER ROLE boss WITH SUPERUSER;\n\
            CREATE ROLE old;\nALTER ROLE old WITH SUPERUSER;\n\
            GRANT old TO app GRANTED BY postgres;\nGRANT app TO old;\n\\unrestrict abc\n";
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let made = statements_for(globals, &set(&["app", "boss"]), &set(&["old"])).unwrap();
        assert_eq!(
            made.statements,
            [
                "CREATE ROLE app",
                "ALTER ROLE app WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM;x'",
                "CREATE ROLE boss",
                "ALTER ROLE boss WITH SUPERUSER",
                "GRANT old TO app GRANTED BY postgres",
            ]
        );
        assert_eq!(made.superusers, ["boss"]);
        assert_eq!(made.joins, [("app".to_owned(), "old".to_owned())]);
        assert!(statements_for(globals, &set(&["none"]), &set(&[])).is_err());
    }
}
