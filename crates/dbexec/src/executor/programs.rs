//! Finding PostgreSQL's programs and choosing among several versions of them.

use crate::executor::{ExecError, PgProgram, ProgramInfo};

/// Directories where distributions keep versioned programs; `*` stands for one path part.
pub(crate) const VERSIONED_DIRS: &[&str] = &[
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/bitnami/postgresql/bin",
    "/usr/local/pgsql/bin",
    "/usr/libexec/postgresql*",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
];

/// A directory with programs of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installation {
    pub(crate) dir: String,
    pub(crate) version: String,
    pub(crate) programs: Vec<PgProgram>,
    pub(crate) has_zstd: bool,
}

/// Reads the version out of `pg_dump (PostgreSQL) 15.18 (Debian 15.18-1)`.
pub(crate) fn parse_version(text: &str) -> Option<(String, u32)> {
    let after = text.split("(PostgreSQL)").nth(1)?.trim();
    let version = after.split_whitespace().next()?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((version.to_owned(), digits.parse().ok()?))
}

/// Chooses the lowest major that is not older than the server.
///
/// # Errors
/// [`ExecError::ProgramMissing`], [`ExecError::ProgramTooOld`].
pub(crate) fn choose(
    found: &[Installation],
    program: PgProgram,
    server_major: u32,
    server_version: &str,
    looked_in: &[String],
) -> Result<ProgramInfo, ExecError> {
    let mut usable: Vec<(u32, &Installation)> = found
        .iter()
        .filter(|installation| installation.programs.contains(&program))
        .filter_map(|installation| {
            let text = format!("(PostgreSQL) {}", installation.version);
            Some((parse_version(&text)?.1, installation))
        })
        .collect();
    // Stable: of one major the directory that was searched first.
    usable.sort_by_key(|(major, _)| *major);
    let Some((_, newest)) = usable.last() else {
        return Err(ExecError::ProgramMissing {
            program,
            looked_in: looked_in.to_vec(),
        });
    };
    let Some((major, best)) = usable.iter().find(|(major, _)| *major >= server_major) else {
        return Err(ExecError::ProgramTooOld {
            program,
            installed: newest.version.clone(),
            server: server_version.to_owned(),
        });
    };
    Ok(ProgramInfo {
        path: format!("{}/{program}", best.dir),
        version: best.version.clone(),
        major: *major,
        has_zstd: best.has_zstd,
    })
}

/// Reads a line `dir TAB version text TAB programs TAB zstd|-`, as the search in a container
/// prints it.
pub(crate) fn parse_installation(line: &str) -> Option<Installation> {
    let mut fields = line.split('\t');
    let (dir, (version, major)) = (fields.next()?, parse_version(fields.next()?)?);
    let names = fields.next()?;
    let programs = PgProgram::ALL
        .into_iter()
        .filter(|program| names.split(' ').any(|name| name == program.as_str()))
        .collect();
    // Before 16 any word was taken for a gzip level.
    let has_zstd = fields.next()? == "zstd" && major >= 16;
    Some(Installation {
        dir: dir.to_owned(),
        version,
        programs,
        has_zstd,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(dir: &str, version: &str) -> Installation {
        let programs = vec![PgProgram::PgDump];
        Installation {
            dir: dir.to_owned(),
            version: version.to_owned(),
            programs,
            has_zstd: false,
        }
    }

    #[test]
    fn versions_as_programs_print_them() {
        let table = [
            (
                "pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)",
                "15.18",
                15,
            ),
            ("psql (PostgreSQL) 16beta1", "16beta1", 16),
            ("pg_restore (PostgreSQL) 9.6.24", "9.6.24", 9),
            ("pg_dump (PostgreSQL) 18devel", "18devel", 18),
        ];
        for (text, version, major) in table {
            assert_eq!(
                parse_version(text),
                Some((version.to_owned(), major)),
                "{text}"
            );
        }
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn bar_33_the_lowest_major_that_is_not_older_than_the_server() {
        let found = [
            installation("/18", "18.1"),
            installation("/15", "15.2"),
            installation("/16", "16.3"),
        ];
        let choose = |major| choose(&found, PgProgram::PgDump, major, "x", &[]);
        assert_eq!(choose(13).unwrap().path, "/15/pg_dump");
        assert_eq!(choose(16).unwrap().path, "/16/pg_dump");
        assert_eq!(choose(17).unwrap().path, "/18/pg_dump");
        assert!(matches!(choose(19), Err(ExecError::ProgramTooOld { .. })));
    }

    #[test]
    fn a_program_that_is_nowhere() {
        let found = [installation("/18", "18.1")];
        let looked = ["/18".to_owned()];
        let error = choose(&found, PgProgram::Psql, 15, "15", &looked).unwrap_err();
        assert!(error.to_string().contains("looked in /18"), "{error}");
    }

    #[test]
    fn lines_of_the_search() {
        let line = "/usr/lib/postgresql/17/bin\tpg_dump (PostgreSQL) 17.6\tpg_dump psql\tzstd";
        let parsed = parse_installation(line).unwrap();
        assert_eq!(parsed.programs, [PgProgram::PgDump, PgProgram::Psql]);
        assert!(parsed.has_zstd);
        let old = "/usr/lib/postgresql/13/bin\tpg_dump (PostgreSQL) 13.16\tpg_dump\tzstd";
        assert!(!parse_installation(old).unwrap().has_zstd);
    }
}
