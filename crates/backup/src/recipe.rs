//! How to restore a backup by hand: commands for a POSIX shell, with every name quoted.

use dbexec::DbMode;

use crate::names::shell;
use crate::{DumpFormat, Manifest, manifest::DatabaseRecord};

/// Commands, one a line, to be run in the backup's directory.
pub(crate) fn recipe(manifest: &Manifest) -> Vec<String> {
    let mut lines = vec![
        "# Run these in the directory of this backup. The first must report no failure.".to_owned(),
        "sha256sum -c SHA256SUMS".to_owned(),
    ];
    let container = match (&manifest.target.mode, &manifest.target.container) {
        (DbMode::InContainer, Some(container)) => Some(container.name.as_str()),
        _ => None,
    };
    if let Some(file) = &manifest.globals.file {
        lines.push(
            "# Roles and tablespaces; roles that exist already give harmless errors.".to_owned(),
        );
        lines.push(format!(
            "zstd -dc {} | psql -X -d postgres",
            shell(&file.name)
        ));
        if let Some(name) = container {
            lines.push(format!(
                "zstd -dc {} | docker exec -i {} psql -X -U {} -d postgres",
                shell(&file.name),
                shell(name),
                shell(&manifest.target.user)
            ));
        }
    }
    for database in &manifest.databases {
        by_hand(database, container, &manifest.target.user, &mut lines);
    }
    lines
}

fn by_hand(
    database: &DatabaseRecord,
    container: Option<&str>,
    user: &str,
    lines: &mut Vec<String>,
) {
    let new = shell(&format!("{}_restored", database.name));
    // As a connection string the name stays a name, whatever it holds.
    let conninfo = shell(&dbexec::executor::conninfo_dbname(&format!(
        "{}_restored",
        database.name
    )));
    let create = format!(
        "createdb --template=template0 --encoding={} --lc-collate={} --lc-ctype={} -- {new}",
        shell(&database.encoding),
        shell(&database.collate),
        shell(&database.ctype)
    );
    let Some(first) = database.archive.files.first() else {
        return;
    };
    let stored = match database.archive.format {
        DumpFormat::Directory => first.name.split('/').next().unwrap_or(&first.name),
        _ => &first.name,
    };
    // `./` keeps a name from being read as an option.
    let file = shell(&format!("./{stored}"));
    lines.push(format!("# Database {:?} into a new one.", database.name));
    lines.push(create.clone());
    lines.push(match database.archive.format {
        DumpFormat::Custom | DumpFormat::Directory => {
            format!("pg_restore --exit-on-error -d {conninfo} {file}")
        }
        DumpFormat::Plain => format!(
            "zstd -dc {file} | psql -X -v ON_ERROR_STOP=1 --single-transaction -d {conninfo}"
        ),
    });
    let Some(name) = container else {
        return;
    };
    let (name, user) = (shell(name), shell(user));
    lines.push("# The same in the container.".to_owned());
    lines.push(format!(
        "docker exec {name} {}",
        create.replacen("createdb ", &format!("createdb -U {user} "), 1)
    ));
    lines.push(match database.archive.format {
        DumpFormat::Custom => format!(
            "docker exec -i {name} pg_restore --exit-on-error -U {user} -d {conninfo} < {file}"
        ),
        DumpFormat::Directory => {
            let inside = shell(&format!("/tmp/{stored}"));
            format!(
                "docker cp {file} {name}:/tmp/ && docker exec {name} pg_restore --exit-on-error \
                 -U {user} -d {conninfo} {inside}"
            )
        }
        DumpFormat::Plain => format!(
            "zstd -dc {file} | docker exec -i {name} psql -X -v ON_ERROR_STOP=1 \
             --single-transaction -U {user} -d {conninfo}"
        ),
    });
}
