//! pgstow's own environment, with the files that its `…_FILE` variables name.

use secrecy::SecretString;

use super::{
    settings::Fields,
    variables::{FileContents, OWN, Reader, file_value, files_named},
};
use crate::{CredentialSource, EnvSnapshot};

/// What pgstow's own environment says.
pub(crate) enum OwnEnvironment {
    /// It cannot be used, and why.
    Broken(String),
    /// Fields, possibly none.
    Read(Box<Fields>),
}

impl OwnEnvironment {
    pub(crate) fn fields(&self) -> Option<&Fields> {
        match self {
            Self::Read(fields) => Some(fields),
            Self::Broken(_) => None,
        }
    }
}

/// Reads the environment; the second part are remarks for the trail.
pub(crate) fn read_own_environment(env: &EnvSnapshot) -> (OwnEnvironment, Vec<String>) {
    let files: FileContents = files_named(env, OWN)
        .into_iter()
        .map(|(_, path)| {
            let value = read_secret_file(&path);
            (path, value)
        })
        .collect();
    let reader = Reader {
        env,
        files: &files,
        source: CredentialSource::Env,
        whose: String::new(),
        lenient: false,
        notes: std::cell::RefCell::default(),
    };
    let fields = reader.read(OWN);
    if fields.is_ok() {
        for name in ["PGSERVICE", "PGPASSFILE"] {
            if env.get(name).is_some() {
                reader
                    .notes
                    .borrow_mut()
                    .push(format!("{name} is set and is not read by pgstow"));
            }
        }
    }
    let notes = reader.notes.into_inner();
    match fields {
        Ok(fields) => (OwnEnvironment::Read(Box::new(fields)), notes),
        Err(problem) => (OwnEnvironment::Broken(problem), notes),
    }
}

/// Reads a file that a `…_FILE` variable of pgstow's own environment names.
fn read_secret_file(path: &str) -> Result<SecretString, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if metadata.len() > super::inside::FILE_LIMIT {
        return Err("it is larger than 64 KiB".to_owned());
    }
    let content = std::fs::read(path).map_err(|error| error.to_string())?;
    file_value(&content)
}
