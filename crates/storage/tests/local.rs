//! The local store: contract, durability order, faults at every step, hostile directories.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use storage::faulty::{Fault, FaultKind, FaultyStore, StepFaults};
use storage::{LocalStore, Step, Store, StoreError};
use tokio::io::AsyncReadExt;

fn files_below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

async fn put(store: &dyn Store, name: &str, bytes: &[u8]) -> Result<u64, StoreError> {
    let mut writer = store.create(name).await?;
    for part in bytes.chunks(700_000) {
        if let Err(error) = writer.write(part).await {
            writer.abort().await?;
            return Err(error);
        }
    }
    writer.commit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn local_store_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path().join("backups")).unwrap();
    storage::suite::contract(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_store_keeps_the_contract_when_every_write_is_short() {
    let dir = tempfile::tempdir().unwrap();
    let hook = StepFaults::short_writes();
    let store = LocalStore::open_with_hook(dir.path().join("backups"), hook).unwrap();
    storage::suite::contract(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faulty_store_without_a_fault_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path().join("backups")).unwrap();
    let store = FaultyStore::new(Arc::new(store), Fault::Crash(u64::MAX));
    storage::suite::contract(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_39_modes_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b/backups");
    let store = LocalStore::open(&root).unwrap();
    put(&store, "x/y/z", b"1").await.unwrap();
    for path in ["", "x", "x/y"] {
        let mode = std::fs::metadata(root.join(path))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o700, "directory {path:?}");
    }
    let mode = std::fs::metadata(root.join("x/y/z"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_39_links_fifos_and_loose_modes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("backups");
    let elsewhere = dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("secret"), b"secret").unwrap();
    let store = LocalStore::open(&root).unwrap();
    put(&store, "good/a", b"1").await.unwrap();

    symlink(&elsewhere, root.join("linked")).unwrap();
    symlink(elsewhere.join("secret"), root.join("good/linked")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("good/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    std::fs::create_dir(root.join("loose")).unwrap();
    std::fs::write(root.join("loose/a"), b"1").unwrap();
    std::fs::set_permissions(root.join("loose"), PermissionsExt::from_mode(0o777)).unwrap();

    for name in ["linked/secret", "good/linked", "good/fifo", "loose/a"] {
        let refused = store.open(name).await.err().unwrap();
        assert!(
            matches!(refused, StoreError::Unsafe { .. }),
            "{name}: {refused}"
        );
    }
    for name in ["linked/new", "loose/new"] {
        let refused = store.create(name).await.err().unwrap();
        assert!(
            matches!(refused, StoreError::Unsafe { .. }),
            "{name}: {refused}"
        );
    }
    assert!(matches!(
        store.delete("linked/secret").await.err(),
        Some(StoreError::Unsafe { .. })
    ));
    assert!(elsewhere.join("secret").exists());
    // What must not be trusted is not listed, and hides nothing else.
    let listed = store.list("").await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].name, "good/a");

    symlink(&root, dir.path().join("root-link")).unwrap();
    assert!(matches!(
        LocalStore::open(dir.path().join("root-link")).err(),
        Some(StoreError::Unsafe { .. })
    ));
    let loose = dir.path().join("loose-root");
    std::fs::create_dir(&loose).unwrap();
    std::fs::set_permissions(&loose, PermissionsExt::from_mode(0o770)).unwrap();
    assert!(matches!(
        LocalStore::open(&loose).err(),
        Some(StoreError::Unsafe { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_39_a_foreign_owner_is_refused() {
    if !rustix::process::geteuid().is_root() {
        // Only root can give a directory away; the suite of this repository runs as root.
        panic!("this test needs root");
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("backups");
    let store = LocalStore::open(&root).unwrap();
    put(&store, "a/b", b"1").await.unwrap();
    std::os::unix::fs::chown(root.join("a/b"), Some(12345), None).unwrap();
    assert!(matches!(
        store.open("a/b").await.err(),
        Some(StoreError::Unsafe { .. })
    ));
    std::os::unix::fs::chown(&root, Some(12345), None).unwrap();
    assert!(matches!(
        LocalStore::open(&root).err(),
        Some(StoreError::Unsafe { .. })
    ));
}

/// The steps of one committed stream come in the order that survives a power cut.
#[tokio::test(flavor = "multi_thread")]
async fn bar_03_a_name_is_given_only_to_synced_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let hook = StepFaults::record();
    let store = LocalStore::open_with_hook(dir.path().join("s"), hook.clone()).unwrap();
    put(&store, "a/b", &vec![7; 2_500_000]).await.unwrap();
    let kinds: Vec<_> = hook
        .steps()
        .iter()
        .map(|step| match step {
            Step::Create { .. } => "create",
            Step::Write { .. } => "write",
            Step::SyncFile { .. } => "sync",
            Step::Rename { .. } => "rename",
            Step::SyncDir { .. } => "sync dir",
            Step::Unlink { .. } => "unlink",
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "create", "write", "write", "write", "sync", "rename", "sync dir"
        ]
    );
}

/// Every step of a commit fails once, with every kind: an error, nothing listed, nothing left.
#[tokio::test(flavor = "multi_thread")]
async fn bar_06_every_failing_step_is_surfaced() {
    for kind in [FaultKind::Full, FaultKind::Io] {
        for step in 0..7 {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("s");
            let hook = StepFaults::fail_at(step, kind);
            let store = LocalStore::open_with_hook(&root, hook.clone()).unwrap();
            let error = put(&store, "a/b", &vec![7; 2_500_000]).await.err();
            let error = error.unwrap_or_else(|| panic!("step {step} {kind:?}: no error"));
            assert_eq!(
                matches!(error, StoreError::Full { .. }),
                kind == FaultKind::Full,
                "step {step}: {error}"
            );
            assert!(store.list("").await.unwrap().is_empty(), "step {step}");
            assert_eq!(files_below(&root), Vec::<String>::new(), "step {step}");
            // A failed fsync is not tried again.
            let syncs = hook
                .steps()
                .iter()
                .filter(|s| matches!(s, Step::SyncFile { .. }))
                .count();
            assert!(syncs <= 1, "step {step}");
        }
    }
}

/// Killed before any step: never a listed stream that is not whole; leftovers can be removed.
#[tokio::test(flavor = "multi_thread")]
async fn bar_02_killed_between_any_two_steps_of_a_commit() {
    for step in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("s");
        let first = LocalStore::open(&root).unwrap();
        put(&first, "earlier/a", b"earlier").await.unwrap();
        let hook = StepFaults::crash_at(step);
        let store = LocalStore::open_with_hook(&root, hook).unwrap();
        let bytes = vec![7; 2_500_000];
        let done = put(&store, "a/b", &bytes).await.is_ok();
        let after = LocalStore::open(&root).unwrap();
        for entry in after.list("").await.unwrap() {
            let whole = match entry.name.as_str() {
                "earlier/a" => 7,
                "a/b" => bytes.len() as u64,
                other => panic!("step {step}: {other} is listed"),
            };
            assert_eq!(entry.bytes, whole, "step {step}: {}", entry.name);
        }
        let left = after.remove_leftovers("").await.unwrap();
        if done {
            assert_eq!(left, 0);
        }
        let listed = after.list("").await.unwrap().len();
        assert_eq!(
            files_below(&root).len(),
            listed,
            "step {step}: only listed files remain"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_04_full_at_byte_n() {
    for at in [0_u64, 1, 699_999, 700_000, 1_048_576, 2_499_999] {
        for kind in [FaultKind::Full, FaultKind::Io, FaultKind::Short] {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("s");
            let local = LocalStore::open(&root).unwrap();
            put(&local, "earlier/a", b"earlier").await.unwrap();
            let store = FaultyStore::new(Arc::new(local.clone()), Fault::AtByte(at, kind));
            let error = put(&store, "a/b", &vec![7; 2_500_000]).await.err().unwrap();
            assert_eq!(
                matches!(error, StoreError::Full { .. }),
                kind == FaultKind::Full
            );
            assert_eq!(files_below(&root).len(), 1, "byte {at} {kind:?}");
            let mut text = String::new();
            let mut earlier = local.open("earlier/a").await.unwrap();
            earlier.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "earlier");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_writer_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = LocalStore::open(&root).unwrap();
    let mut writer = store.create("a/b").await.unwrap();
    writer.write(&vec![1; 3_000_000]).await.unwrap();
    drop(writer);
    for _ in 0..200 {
        if files_below(&root).is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("left behind: {:?}", files_below(&root));
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_are_removed_below_their_prefix_only() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("s");
    let store = LocalStore::open(&root).unwrap();
    put(&store, "one/a", b"1").await.unwrap();
    for name in [
        "one/.b.0123456789abcdef.partial",
        "two/.b.0123456789abcdef.partial",
    ] {
        std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        std::fs::write(root.join(name), b"half").unwrap();
    }
    // Hidden files of somebody else are not ours to remove.
    std::fs::write(root.join("one/.keep"), b"").unwrap();
    std::fs::set_permissions(root.join("two"), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(store.remove_leftovers("two/").await.unwrap(), 1);
    assert!(!root.join("two").exists());
    assert!(root.join("one/.b.0123456789abcdef.partial").exists());
    assert_eq!(store.remove_leftovers("").await.unwrap(), 1);
    assert!(root.join("one/.keep").exists());
    assert!(root.join("one/a").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn free_space_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path().join("s")).unwrap();
    assert!(store.free_bytes().await.unwrap().unwrap() > 0);
}

proptest::proptest! {
    /// No committed name can look like a temporary one, and no name leaves the root.
    #[test]
    fn checked_names_stay_below_the_root(name in "\\PC{0,40}") {
        if storage::check_name(&name).is_ok() {
            proptest::prop_assert!(!name.split('/').any(|part| part.starts_with('.')));
            proptest::prop_assert!(!name.starts_with('/'));
        }
    }
}
