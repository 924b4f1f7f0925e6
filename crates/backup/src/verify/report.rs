//! Verifying one backup: manifest, list of hashes and every file, each difference named.

use std::collections::BTreeSet;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::archives::{Checked, Work, check_archives};
use crate::catalog::{compare_sums, parse_sums, read_text};
use crate::prove::{check_proof, is_proof_name};
use crate::requests::VerifyProblem;
use crate::run::Progress;
use crate::{
    BackupError, BackupId, EventSink, Repository, VerifyLevel, VerifyReport, manifest,
    manifest::StoredFile, manifest_file,
};

/// Verifies one backup. Differences are in the report, not an error. At level `read` archives are
/// decoded by pgstow's own reader and compared with their attestation; no server is asked.
///
/// # Errors
/// [`BackupError::NotFound`] when there is no such backup; the store's failure;
/// [`BackupError::Interrupted`].
pub async fn verify(
    repo: &Repository,
    id: &BackupId,
    level: VerifyLevel,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<VerifyReport, BackupError> {
    let begun = Instant::now();
    let store = repo.store.as_ref();
    let mut problems = Vec::new();
    let mut differ = |object: &str, problem: String| {
        problems.push(VerifyProblem {
            object: object.to_owned(),
            problem,
        });
    };
    let listed = store
        .list(&format!("{id}/"))
        .await
        .map_err(|source| BackupError::Store {
            operation: format!("listing backup {id}"),
            source,
        })?;
    let manifest_name = format!("{id}/{}", manifest::FILE_NAME);
    if !listed.iter().any(|entry| entry.name == manifest_name) {
        return Err(BackupError::NotFound {
            wanted: id.to_string(),
            reason: "it has no manifest, so it is no backup".to_owned(),
        });
    }
    let (sha256, parsed) = match manifest_file::read(store, id).await {
        Ok(read) => (Some(read.sha256), read.manifest),
        Err(problem) => (None, Err(problem)),
    };
    let sums = read_text(store, &format!("{id}/{}", manifest::SUMS_NAME))
        .await
        .and_then(|bytes| parse_sums(&bytes));
    if let Err(problem) = &sums {
        differ(manifest::SUMS_NAME, problem.clone());
    }
    let mut known: BTreeSet<String> = BTreeSet::from([
        manifest::FILE_NAME.to_owned(),
        manifest::SUMS_NAME.to_owned(),
    ]);
    let mut texts = Checked::default();
    for entry in &listed {
        let name = entry.name.trim_start_matches(&format!("{id}/"));
        if known.contains(name) {
            texts.files += 1;
            texts.bytes += entry.bytes;
        }
    }
    let mut checked = match (&parsed, &sums) {
        (Ok(manifest), sums) => {
            if let (Ok(sums), Some(sha256)) = (sums, &sha256) {
                for (object, problem) in compare_sums(manifest, sha256, sums) {
                    differ(&object, problem);
                }
            }
            known.extend(manifest.files().map(|file| file.name.clone()));
            check_archives(repo, manifest, level, None, sink, cancel).await?
        }
        (Err(problem), Ok(sums)) => {
            // The manifest is of no use; the list of hashes still tells of every file.
            differ(manifest::FILE_NAME, problem.clone());
            known.extend(sums.keys().cloned());
            let mut work = Work::new(repo, id, VerifyLevel::Hash, cancel);
            for (name, sha256) in sums {
                if name == manifest::FILE_NAME {
                    continue;
                }
                let full = format!("{id}/{name}");
                let Some(entry) = listed.iter().find(|entry| entry.name == full) else {
                    work.checked.problem(name, "it is missing".to_owned());
                    continue;
                };
                let file = StoredFile {
                    name: name.clone(),
                    bytes: entry.bytes,
                    sha256: sha256.clone(),
                };
                let mut progress = Progress::start(sink, "verify", name, Some(file.bytes));
                work.file(&file, name, None, &mut progress).await?;
                progress.finish();
            }
            work.checked
        }
        (Err(problem), Err(_)) => {
            differ(manifest::FILE_NAME, problem.clone());
            Checked::default()
        }
    };
    for entry in &listed {
        let name = entry.name.trim_start_matches(&format!("{id}/"));
        if known.contains(name) {
            continue;
        }
        if !is_proof_name(name) {
            differ(name, "it is not part of the backup".to_owned());
        } else if let Some(sha256) = &sha256 {
            checked.files += 1;
            checked.bytes += entry.bytes;
            if let Some(problem) = check_proof(store, id, name, sha256).await {
                differ(name, problem);
            }
        }
    }
    problems.append(&mut checked.problems);
    Ok(VerifyReport {
        id: id.clone(),
        level,
        ok: problems.is_empty(),
        files: checked.files + texts.files,
        bytes: checked.bytes + texts.bytes,
        problems,
        reader: checked.reader,
        seconds: begun.elapsed().as_secs_f64(),
    })
}
