//! Retention: the plan as a pure function, and its application under faults and locks.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use backup::{
    BackupError, BackupId, BackupOptions, Catalog, Clock, Manifest, RunRecord, RunState,
    VerifyLevel, apply_prune, plan_prune,
};
use jiff::Timestamp;
use storage::LocalStore;
use storage::faulty::StepFaults;
use support::fake::Script;
use support::{FakeExecutor, Home};

const LATER: &str = "2027-01-01T00:00:00Z";

async fn sample() -> Manifest {
    let home = Home::new();
    home.run(&FakeExecutor::new(Script::default()))
        .await
        .unwrap()
        .manifest
}

/// A backup of `target` with a sequence number, stored bytes and a level.
fn variant(
    sample: &Manifest,
    target: u64,
    sequence: u64,
    bytes: u64,
    level: VerifyLevel,
) -> Manifest {
    let mut manifest = sample.clone();
    manifest.id = BackupId::parse(&format!("20260101T{sequence:06}Z-{target:06}")).unwrap();
    manifest.sequence = sequence;
    manifest.verified = level;
    manifest.target.server.system_identifier = Some(target.to_string());
    manifest.globals.file = None;
    manifest.databases[0].archive.files[0].bytes = bytes;
    manifest
}

fn catalog(mut backups: Vec<Manifest>) -> Catalog {
    backups.sort_by_key(|m| std::cmp::Reverse(m.sequence));
    Catalog {
        backups,
        ..Catalog::default()
    }
}

fn failed_run(target: u64, sequence: u64, state: RunState) -> RunRecord {
    RunRecord {
        format_version: 1,
        id: BackupId::new(LATER.parse().unwrap()),
        sequence,
        target: "t".to_owned(),
        lock_key: target.to_string(),
        application_name: "a".to_owned(),
        started_at: LATER.parse().unwrap(),
        ended_at: None,
        state,
        error_code: None,
        error: None,
    }
}

fn now() -> Timestamp {
    LATER.parse().unwrap()
}

#[tokio::test]
async fn the_last_n_of_each_target_stay() {
    let sample = sample().await;
    let backups = (1..=10)
        .map(|n| variant(&sample, n % 2, n, 100, VerifyLevel::Read))
        .collect();
    let plan = plan_prune(&catalog(backups), 3, now()).unwrap();
    assert_eq!(plan.keep.len(), 6);
    assert_eq!(plan.remove.len(), 4);
    let gone: Vec<_> = plan
        .remove
        .iter()
        .map(|(id, _)| id.as_str()[9..15].to_owned())
        .collect();
    assert_eq!(gone, ["000004", "000003", "000002", "000001"]);
}

#[tokio::test]
async fn bar_43_a_clock_that_went_back_refuses() {
    let sample = sample().await;
    let one = variant(&sample, 1, 1, 100, VerifyLevel::Read);
    let before = one.finished_at - jiff::SignedDuration::from_secs(1);
    let error = plan_prune(&catalog(vec![one.clone()]), 1, before).unwrap_err();
    assert!(matches!(error, BackupError::PruneRefused { .. }));
    assert!(error.to_string().contains("clock"), "{error}");
    let error = plan_prune(&catalog(vec![one]), 0, now()).unwrap_err();
    assert!(matches!(error, BackupError::PruneRefused { .. }));
}

#[tokio::test]
async fn bar_47_nothing_goes_while_runs_fail() {
    let sample = sample().await;
    let backups: Vec<_> = (1..=5)
        .flat_map(|n| [1, 2].map(|t| variant(&sample, t, n * 2 + t, 100, VerifyLevel::Read)))
        .collect();
    for state in [RunState::Failed, RunState::Interrupted] {
        let mut catalog = catalog(backups.clone());
        catalog.runs = vec![failed_run(1, 99, state)];
        let plan = plan_prune(&catalog, 2, now()).unwrap();
        let of = |list: &[(BackupId, String)], target: &str| {
            list.iter()
                .filter(|(id, _)| id.as_str().ends_with(target))
                .count()
        };
        assert_eq!(of(&plan.remove, "000001"), 0);
        assert!(
            plan.keep
                .iter()
                .any(|(_, reason)| reason.contains("failed after"))
        );
        assert_eq!(of(&plan.remove, "000002"), 3, "other targets go on");
        // A failure before the newest backup is past.
        catalog.runs = vec![failed_run(1, 4, state)];
        let plan = plan_prune(&catalog, 2, now()).unwrap();
        assert_eq!(of(&plan.remove, "000001"), 3);
    }
}

#[tokio::test]
async fn bar_47_the_last_verified_and_the_last_large_one_stay() {
    let sample = sample().await;
    let large = 50 << 20;
    let mut backups = vec![
        variant(&sample, 1, 1, large, VerifyLevel::Read),
        variant(&sample, 1, 2, large, VerifyLevel::Read),
        variant(&sample, 1, 3, large, VerifyLevel::Hash),
    ];
    backups.extend((4..=9).map(|n| variant(&sample, 1, n, 2000, VerifyLevel::None)));
    let plan = plan_prune(&catalog(backups), 2, now()).unwrap();
    let kept: Vec<_> = plan
        .keep
        .iter()
        .map(|(id, _)| id.as_str()[9..15].to_owned())
        .collect();
    assert_eq!(kept, ["000009", "000008", "000003", "000002"]);
}

proptest::proptest! {
    /// Whatever the history: something stays for every target, the newest `keep_last` among it,
    /// each backup is decided on exactly once.
    #[test]
    fn bar_47_plans_never_remove_the_last(
        history in proptest::collection::vec((0_u64..3, 0_u64..4, 0_usize..3), 1..30),
        keep_last in 1_usize..6,
        failing in proptest::option::of(0_u64..3),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        static SAMPLE: std::sync::OnceLock<Manifest> = std::sync::OnceLock::new();
        let sample = SAMPLE.get_or_init(|| {
            let runtime2 = &runtime;
            runtime2.block_on(sample_with_time())
        });
        let levels = [VerifyLevel::None, VerifyLevel::Hash, VerifyLevel::Read];
        let backups: Vec<_> = history
            .iter()
            .enumerate()
            .map(|(n, (target, size, level))| {
                variant(sample, *target, n as u64 + 1, 1 << (size * 8), levels[*level])
            })
            .collect();
        let mut catalog = catalog(backups.clone());
        catalog.runs = failing.map(|t| failed_run(t, 1000, RunState::Failed)).into_iter().collect();
        let plan = plan_prune(&catalog, keep_last, now()).unwrap();
        let mut decided: Vec<_> = plan.keep.iter().chain(&plan.remove).map(|(id, _)| id.clone()).collect();
        decided.sort();
        let mut all: Vec<_> = backups.iter().map(|m| m.id.clone()).collect();
        all.sort();
        proptest::prop_assert_eq!(decided, all);
        for target in 0..3_u64 {
            let of_target: Vec<_> = catalog
                .backups
                .iter()
                .filter(|m| m.target.server.system_identifier == Some(target.to_string()))
                .collect();
            let kept = |m: &&&Manifest| plan.keep.iter().any(|(id, _)| *id == m.id);
            proptest::prop_assert!(of_target.iter().take(keep_last).all(|m| kept(&m)));
            let verified = of_target.iter().find(|m| m.verified == VerifyLevel::Read);
            proptest::prop_assert!(verified.is_none_or(|m| kept(&m)));
            if failing == Some(target) {
                proptest::prop_assert!(of_target.iter().all(|m| kept(&m)));
            }
        }
    }
}

async fn sample_with_time() -> Manifest {
    let mut manifest = sample().await;
    manifest.finished_at = Timestamp::UNIX_EPOCH;
    manifest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_applied_and_nothing_else() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script::default());
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(home.run(&fake).await.unwrap().manifest.id);
    }
    let plan = plan_prune(&home.repo.catalog().await.unwrap(), 2, home.clock.now()).unwrap();
    apply_prune(&home.repo, &plan, &home.events).await.unwrap();
    let left: Vec<_> = home
        .repo
        .catalog()
        .await
        .unwrap()
        .backups
        .into_iter()
        .map(|m| m.id)
        .collect();
    assert_eq!(left, [ids[4].clone(), ids[3].clone()]);
    let dirs = std::fs::read_dir(home.backups()).unwrap().count();
    assert_eq!(dirs, 2);
    // A second time there is nothing to do.
    apply_prune(&home.repo, &plan, &home.events).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_42_a_prune_waits_for_no_run_and_an_old_plan_is_refused() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script::default());
    let first = home.run(&fake).await.unwrap().manifest;
    let second = home.run(&fake).await.unwrap().manifest;
    let plan = plan_prune(&home.repo.catalog().await.unwrap(), 1, home.clock.now()).unwrap();
    assert_eq!(plan.remove[0].0, first.id);
    let slow = FakeExecutor::new(Script {
        pause: Duration::from_secs(2),
        ..Script::default()
    });
    let (run, pruned) = tokio::join!(home.run(&slow), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        apply_prune(&home.repo, &plan, &home.events).await
    });
    let third = run.unwrap().manifest;
    assert_eq!(pruned.unwrap_err().code(), backup::codes::TARGET_LOCKED);
    // What was to stay vanished meanwhile: the rest must not go as well.
    std::fs::remove_dir_all(home.backups().join(second.id.as_str())).unwrap();
    let refused = apply_prune(&home.repo, &plan, &home.events)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, BackupError::PruneRefused { .. }),
        "{refused}"
    );
    let left = home.repo.catalog().await.unwrap().backups;
    assert_eq!(left, [third, first]);
}

/// Killed at any step of a prune: each backup is there whole or not listed at all, and the next
/// run removes what is left.
#[tokio::test(flavor = "multi_thread")]
async fn bar_02_a_prune_killed_at_any_step() {
    for at in 0..40 {
        let home = Home::new();
        let fake = FakeExecutor::new(Script::default());
        let mut made = Vec::new();
        for _ in 0..3 {
            made.push(home.run(&fake).await.unwrap().manifest);
        }
        let plan = plan_prune(&home.repo.catalog().await.unwrap(), 1, home.clock.now()).unwrap();
        let store = LocalStore::open_with_hook(home.backups(), StepFaults::crash_at(at)).unwrap();
        let repo = home.with_store(Arc::new(store));
        let done = apply_prune(&repo, &plan, &home.events).await.is_ok();
        let catalog = home.repo.catalog().await.unwrap();
        assert!(
            catalog.damaged.is_empty(),
            "step {at}: {:?}",
            catalog.damaged
        );
        assert_eq!(catalog.backups[0], made[2], "step {at}");
        for manifest in &catalog.backups {
            assert!(made.contains(manifest));
        }
        let options = BackupOptions::default();
        home.run_with(&home.repo, &fake, &options).await.unwrap();
        let listed = home.repo.catalog().await.unwrap();
        assert!(listed.runs.is_empty(), "step {at}: {:?}", listed.runs);
        for path in home.files() {
            assert!(
                listed.backups.iter().any(|m| path.contains(m.id.as_str())),
                "step {at}: {path} is left"
            );
        }
        if done {
            assert_eq!(catalog.backups.len(), 1);
            return;
        }
    }
    panic!("the prune never ended");
}

#[tokio::test]
async fn bar_47_safety_backups_never_push_out_others() {
    let sample = sample().await;
    let mut backups: Vec<_> = (1..=6)
        .map(|n| variant(&sample, 1, n, 100, VerifyLevel::Read))
        .collect();
    // The newest four were made by restores of what they replaced.
    for manifest in &mut backups[2..] {
        let restore = manifest.id.to_string();
        manifest.tags.insert("safety".to_owned(), restore);
    }
    let plan = plan_prune(&catalog(backups), 1, now()).unwrap();
    let ids = |list: &[(BackupId, String)]| -> Vec<String> {
        list.iter()
            .map(|(id, _)| id.as_str()[9..15].to_owned())
            .collect()
    };
    assert_eq!(ids(&plan.keep), ["000006", "000002"]);
    assert_eq!(ids(&plan.remove), ["000005", "000004", "000003", "000001"]);
}
