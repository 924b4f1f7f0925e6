//! Records of proof beside a manifest: listed, verified, and a reason for prune to keep.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod support;

use backup::event::NoEvents;
use backup::{
    DatabaseProof, Manifest, Proof, ProofResult, VerifyLevel, apply_prune, plan_prune, verify,
};
use sha2::{Digest, Sha256};
use support::fake::Script;
use support::{FakeExecutor, Home};
use tokio_util::sync::CancellationToken;

/// Writes a proof of a backup as `prove` does; `change` falsifies it first. Returns its file.
fn put(home: &Home, manifest: &Manifest, time: &str, result: ProofResult) -> std::path::PathBuf {
    let dir = home.backups().join(manifest.id.as_str());
    let bytes = std::fs::read(dir.join("manifest.json")).unwrap();
    let mut database = DatabaseProof {
        name: "shop".to_owned(),
        ..DatabaseProof::default()
    };
    database.comparison.tables_total = 4;
    database.comparison.tables_equal = if result == ProofResult::Passed { 4 } else { 3 };
    let proof = Proof {
        format_version: 1,
        tool_version: "0".to_owned(),
        backup: manifest.id.clone(),
        manifest_sha256: hex::encode(Sha256::digest(&bytes)),
        level: VerifyLevel::Restore,
        started_at: time.parse().unwrap(),
        finished_at: time.parse().unwrap(),
        place: "image postgres:17".to_owned(),
        server_version: "17.4".to_owned(),
        result,
        databases: vec![database],
        globals: Vec::new(),
        checks: Vec::new(),
        warnings: Vec::new(),
    };
    let bytes = serde_json::to_vec_pretty(&proof).unwrap();
    let stamp = proof.finished_at.strftime("%Y%m%dT%H%M%SZ");
    let hash = hex::encode(Sha256::digest(&bytes));
    let path = dir.join(format!("proof-{stamp}-{}.json", &hash[..16]));
    std::fs::write(&path, bytes).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

async fn problems(home: &Home, manifest: &Manifest) -> Vec<(String, String)> {
    let cancel = CancellationToken::new();
    let level = VerifyLevel::Hash;
    let report = verify(&home.repo, &manifest.id, level, &NoEvents, &cancel);
    let problems = report.await.unwrap().problems;
    problems
        .into_iter()
        .map(|p| (p.object, p.problem))
        .collect()
}

#[tokio::test]
async fn the_newest_proof_is_listed_and_every_proof_is_verified() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script::default());
    let manifest = home.run(&fake).await.unwrap().manifest;
    assert!(home.repo.catalog().await.unwrap().proofs.is_empty());

    put(
        &home,
        &manifest,
        "2026-02-01T00:00:00Z",
        ProofResult::Failed,
    );
    let newest = put(
        &home,
        &manifest,
        "2026-03-01T00:00:00Z",
        ProofResult::Passed,
    );
    assert_eq!(problems(&home, &manifest).await, []);
    let catalog = home.repo.catalog().await.unwrap();
    let proof = catalog.proof(&manifest.id).unwrap();
    assert_eq!(proof.result, ProofResult::Passed);
    assert_eq!((proof.tables_equal, proof.tables_total), (4, 4));
    let (file, whole) = home.repo.proof(&manifest.id).await.unwrap().unwrap();
    assert_eq!(file, newest.file_name().unwrap().to_str().unwrap());
    assert_eq!(whole.place, "image postgres:17");

    // A changed record is named, and the one before it counts.
    let mut bytes = std::fs::read(&newest).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&newest, &bytes).unwrap();
    let found = problems(&home, &manifest).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, file);
    let catalog = home.repo.catalog().await.unwrap();
    assert_eq!(
        catalog.proof(&manifest.id).unwrap().result,
        ProofResult::Failed
    );
    assert!(catalog.damaged.is_empty());
    std::fs::remove_file(&newest).unwrap();

    // A proof of another manifest proves nothing here.
    let other = home.run(&fake).await.unwrap().manifest;
    let foreign = put(&home, &other, "2026-03-01T00:00:00Z", ProofResult::Passed);
    let moved = home
        .backups()
        .join(manifest.id.as_str())
        .join(foreign.file_name().unwrap());
    std::fs::rename(&foreign, &moved).unwrap();
    let found = problems(&home, &manifest).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1.contains(other.id.as_str()), "{found:?}");
}

#[tokio::test]
async fn bar_47_the_newest_proven_backup_is_kept() {
    let home = Home::new();
    let fake = FakeExecutor::new(Script::default());
    let mut manifests = Vec::new();
    for _ in 0..4 {
        manifests.push(home.run(&fake).await.unwrap().manifest);
    }
    put(
        &home,
        &manifests[0],
        "2026-01-02T00:00:00Z",
        ProofResult::Passed,
    );
    put(
        &home,
        &manifests[1],
        "2026-01-02T00:00:00Z",
        ProofResult::Passed,
    );
    put(
        &home,
        &manifests[2],
        "2026-01-02T00:00:00Z",
        ProofResult::Failed,
    );
    let catalog = home.repo.catalog().await.unwrap();
    let plan = plan_prune(&catalog, 1, "2026-06-01T00:00:00Z".parse().unwrap()).unwrap();
    let kept: Vec<_> = plan.keep.iter().map(|(id, _)| id).collect();
    assert_eq!(kept, [&manifests[3].id, &manifests[1].id]);
    assert!(plan.keep[1].1.contains("proven"), "{:?}", plan.keep);

    // What goes, goes with its proofs.
    apply_prune(&home.repo, &plan, &NoEvents).await.unwrap();
    for gone in [&manifests[0], &manifests[2]] {
        assert!(!home.backups().join(gone.id.as_str()).exists());
    }
    assert_eq!(home.repo.catalog().await.unwrap().proofs.len(), 1);
}
