//! Names are data: databases, roles and tables that look like options, connection strings, shell
//! and SQL come back exactly.

mod support;

use support::cli;
use testkit::PgContainer;
use testkit::schema::{ODD_NAMES, fingerprint, quoted};

#[test]
fn bar_36_odd_names_of_databases_roles_and_tables_come_back() {
    let container = PgContainer::start(17).unwrap();
    let mut script = String::new();
    for name in ODD_NAMES {
        script += &format!(
            "create role {0} nologin; create database {0} owner {0};\n",
            quoted(name)
        );
    }
    container.psql("postgres", &script).unwrap();
    for name in ODD_NAMES {
        let table = quoted(name);
        let sql = format!(
            "create table {table} ({table} text); alter table {table} owner to {table}; \
             insert into {table} values ('x'), ({})",
            format_args!("'{}'", name.replace('\'', "''"))
        );
        container
            .psql(name, &sql)
            .unwrap_or_else(|error| panic!("{name:?}: {error}"));
    }
    let cli = cli();
    let target = container.target();
    let _ = cli.run(&["backup", &target, "--quiet"]).expect(0);
    let show = cli.run(&["show", "latest", "--json"]).expect(0);
    for (number, name) in ODD_NAMES.iter().enumerate() {
        assert!(
            show.stdout.contains(&serde_json::to_string(name).unwrap()),
            "{name:?} is not in the manifest"
        );
        // A new name as odd as the old one.
        let place = format!("{number}{}", &ODD_NAMES[ODD_NAMES.len() - 1 - number]);
        let place: String = place.chars().take(20).collect();
        let option = format!("--database={name}");
        let new = format!("--as={place}");
        let run = cli.run(&[
            "restore", "latest", "--to", &target, &option, &new, "--quiet",
        ]);
        assert!(
            matches!(run.code, Some(0 | 3)),
            "{name:?} as {place:?}: {run:?}"
        );
        let (source, copy) = (
            fingerprint(&container, name),
            fingerprint(&container, &place),
        );
        assert_eq!(source.unwrap(), copy.unwrap(), "{name:?}");
    }
    // Nothing that a name asked for was executed, here or there.
    assert!(!cli.home().join("stow").exists());
    assert!(container.exec(&["test", "-e", "/stow"]).is_err());
}
