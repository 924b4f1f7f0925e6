//! Retention: which backups go, decided by a pure function, then applied.
//!
//! Only backups that exist count, target by target. Failed runs, damaged and incomplete
//! directories are neither counted nor removed.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::lock::{Holder, TargetLock};
use crate::manifest::TargetRecord;
use crate::requests::PrunePlan;
use crate::{
    BackupError, BackupEvent, Catalog, EventSink, Manifest, ProofResult, Repository, RunState,
    VerifyLevel, records, run, state::StateDir,
};

/// A backup this many times smaller than the one before it looks as if rows had been lost.
const SUDDENLY_SMALL: u64 = 4;
/// Databases below this size in the store are too small to judge by their size, bytes.
const JUDGED_FROM: u64 = 1 << 20;

fn key(target: &TargetRecord) -> String {
    records::lock_key(target.server.system_identifier.as_deref(), &target.name)
}

/// Decides which backups of each target stay and which go.
///
/// # Errors
/// [`BackupError::PruneRefused`] when `keep_last` is 0, or when `now` lies before the newest
/// backup: the clock has gone backwards, and ages mean nothing.
pub fn plan_prune(
    catalog: &Catalog,
    keep_last: usize,
    now: Timestamp,
) -> Result<PrunePlan, BackupError> {
    let refuse = |problem: String| Err(BackupError::PruneRefused { problem });
    if keep_last == 0 {
        return refuse("at least one backup has to stay (--keep-last 1)".to_owned());
    }
    if let Some(ahead) = catalog.backups.iter().find(|m| m.finished_at > now) {
        return refuse(format!(
            "the clock says {now}, but backup {} was finished at {}: the clock went backwards",
            ahead.id, ahead.finished_at
        ));
    }
    let mut targets: BTreeMap<String, Vec<&Manifest>> = BTreeMap::new();
    for manifest in &catalog.backups {
        targets
            .entry(key(&manifest.target))
            .or_default()
            .push(manifest);
    }
    let mut plan = PrunePlan {
        keep: Vec::new(),
        remove: Vec::new(),
    };
    for (key, mut backups) in targets {
        backups.sort_by(|a, b| (b.sequence, &b.id).cmp(&(a.sequence, &a.id)));
        let (safety, backups): (Vec<&Manifest>, Vec<&Manifest>) =
            backups.into_iter().partition(|m| m.is_safety());
        for (age, manifest) in safety.iter().enumerate() {
            let (list, why) = match age < keep_last {
                true => (&mut plan.keep, "of a restore's safety backups, "),
                false => (&mut plan.remove, "a restore's safety backup, older than "),
            };
            list.push((manifest.id.clone(), format!("{why}the last {keep_last}")));
        }
        plan_target(catalog, &key, &backups, keep_last, &mut plan);
    }
    // Newest first over all targets.
    let order: BTreeMap<_, _> = catalog
        .backups
        .iter()
        .map(|m| (&m.id, m.sequence))
        .collect();
    let newest_first = |list: &mut Vec<(crate::BackupId, String)>| {
        list.sort_by_key(|(id, _)| std::cmp::Reverse((order.get(id).copied(), id.clone())));
    };
    newest_first(&mut plan.keep);
    newest_first(&mut plan.remove);
    Ok(plan)
}

fn plan_target(
    catalog: &Catalog,
    key: &str,
    backups: &[&Manifest],
    keep_last: usize,
    plan: &mut PrunePlan,
) {
    let newest = backups.first().map_or(0, |manifest| manifest.sequence);
    let failing = catalog.runs.iter().find(|run| {
        run.lock_key == key
            && run.sequence > newest
            && matches!(run.state, RunState::Failed | RunState::Interrupted)
    });
    if let Some(run) = failing {
        let reason = format!("run {} failed after the newest backup", run.id);
        plan.keep
            .extend(backups.iter().map(|m| (m.id.clone(), reason.clone())));
        return;
    }
    let proven = backups.iter().find(|m| {
        catalog
            .proof(&m.id)
            .is_some_and(|proof| proof.result == ProofResult::Passed)
    });
    let verified = backups.iter().find(|m| m.verified >= VerifyLevel::Read);
    // Pairs of newer and older: the newest place where the size fell.
    let before_fall = backups.windows(2).find_map(|pair| {
        let (newer, older) = (pair[0].bytes(), pair[1].bytes());
        (older >= JUDGED_FROM && newer < older / SUDDENLY_SMALL).then_some(pair[1])
    });
    for (age, manifest) in backups.iter().enumerate() {
        let id = manifest.id.clone();
        if age < keep_last {
            plan.keep
                .push((id, format!("{} of the last {keep_last}", age + 1)));
        } else if proven.is_some_and(|proven| proven.id == id) {
            plan.keep
                .push((id, "the newest that was proven by a restore".to_owned()));
        } else if verified.is_some_and(|verified| verified.id == id) {
            plan.keep
                .push((id, "the newest that was read to its end".to_owned()));
        } else if before_fall.is_some_and(|before| before.id == id) {
            plan.keep
                .push((id, "the last before the backups became small".to_owned()));
        } else {
            plan.remove
                .push((id, format!("older than the last {keep_last}")));
        }
    }
}

/// Removes what a plan says, each target under its lock. The manifest goes first, so that a crash
/// leaves files without a manifest and never a listed backup that lacks files.
///
/// # Errors
/// [`BackupError::Locked`] when a run works on a target; [`BackupError::PruneRefused`] when a
/// backup that was to stay is gone or damaged since the plan was made; otherwise the store's
/// failure.
pub async fn apply_prune(
    repo: &Repository,
    plan: &PrunePlan,
    sink: &dyn EventSink,
) -> Result<(), BackupError> {
    if plan.remove.is_empty() {
        return Ok(());
    }
    let state = StateDir::open(&repo.state_dir)?;
    let catalog = repo.catalog_without_tables().await?;
    let mut targets: BTreeMap<String, (String, Vec<&crate::BackupId>)> = BTreeMap::new();
    for manifest in &catalog.backups {
        if let Some((id, _)) = plan.remove.iter().find(|(id, _)| *id == manifest.id) {
            targets
                .entry(key(&manifest.target))
                .or_insert_with(|| (manifest.target.name.clone(), Vec::new()))
                .1
                .push(id);
        }
    }
    let holder = Holder::this("prune", None, repo.clock.as_ref());
    for (key, (name, ids)) in targets {
        let _lock = TargetLock::acquire(&state, &key, &name, &holder).await?;
        still_as_planned(&repo.catalog_without_tables().await?, plan, &key)?;
        // Oldest first: what is cut short leaves the newest.
        for id in ids.into_iter().rev() {
            let removed = run::remove_backup(repo.store.as_ref(), id)
                .await
                .map_err(|source| BackupError::Store {
                    operation: format!("removing backup {id}"),
                    source,
                })?;
            records::remove(&state, id)?;
            sink.emit(BackupEvent::CleanedUp {
                message: format!("backup {id}: removed {removed} files"),
            });
        }
    }
    Ok(())
}

/// What was to stay must still be there when the rest goes.
fn still_as_planned(catalog: &Catalog, plan: &PrunePlan, target: &str) -> Result<(), BackupError> {
    let refuse = |problem: String| Err(BackupError::PruneRefused { problem });
    for (id, _) in &plan.keep {
        if let Some(damaged) = catalog.damaged.iter().find(|damaged| damaged.id == *id) {
            return refuse(format!(
                "backup {id}, which was to stay, is damaged: {}",
                damaged.problem
            ));
        }
        if !catalog.backups.iter().any(|manifest| manifest.id == *id) {
            return refuse(format!(
                "backup {id}, which was to stay, is gone: plan again"
            ));
        }
    }
    let stays = catalog
        .backups
        .iter()
        .filter(|m| key(&m.target) == target)
        .any(|m| plan.keep.iter().any(|(id, _)| *id == m.id));
    if stays {
        Ok(())
    } else {
        refuse("no good backup of the target would stay".to_owned())
    }
}
