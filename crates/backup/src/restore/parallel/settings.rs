//! What a session is set to before it takes rows: as pg_restore sets its own.

use archive::Toc;

use super::super::source::refused;
use crate::BackupError;

/// Statements for a new session with a server of this major.
///
/// # Errors
/// [`BackupError::RestoreRefused`] for an encoding whose name is none.
pub(super) fn of_session(toc: &Toc, major: u32) -> Result<String, BackupError> {
    let mut text = "SET statement_timeout = 0;\nSET lock_timeout = 0;\n\
                    SET idle_in_transaction_session_timeout = 0;\n"
        .to_owned();
    if major >= 14 {
        // It waits while the tables are made.
        text.push_str("SET idle_session_timeout = 0;\n");
    }
    if major >= 17 {
        text.push_str("SET transaction_timeout = 0;\n");
    }
    if let Some(encoding) = encoding(toc)? {
        text.push_str(&format!("SET client_encoding = '{encoding}';\n"));
    }
    text.push_str(
        "SET standard_conforming_strings = on;\n\
         SELECT pg_catalog.set_config('search_path', '', false);\n\
         SET check_function_bodies = false;\n\
         SET xmloption = content;\n\
         SET client_min_messages = warning;\n\
         SET row_security = off;\n\
         SET default_transaction_read_only = off;\n\
         SET synchronous_commit = off;\n",
    );
    Ok(text)
}

/// The encoding of the archive's rows, from its entry `SET client_encoding = 'UTF8';`.
fn encoding(toc: &Toc) -> Result<Option<&str>, BackupError> {
    let entry = toc.entries.iter().find(|entry| entry.kind == "ENCODING");
    let Some(definition) = entry.and_then(|entry| entry.definition) else {
        return Ok(None);
    };
    let name = definition.split('\'').nth(1).unwrap_or_default();
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || !name.chars().all(known) {
        return Err(refused(
            format!("the archive names an encoding that is none: {definition:?}"),
            "restore it with --engine stock".to_owned(),
        ));
    }
    Ok(Some(name))
}
