//! The contract of [`crate::Store`] as tests: every implementation runs all of them.

use tokio::io::AsyncReadExt;

use crate::{Store, StoreError};

/// Runs the whole contract over an empty store. Panics where the contract is broken.
pub async fn contract(store: &dyn Store) {
    committed_streams_are_listed_whole(store).await;
    uncommitted_streams_are_never_listed(store).await;
    names_are_never_replaced(store).await;
    unsafe_names_are_refused(store).await;
    deleting_is_idempotent(store).await;
    prefixes_are_respected(store).await;
}

async fn put(store: &dyn Store, name: &str, bytes: &[u8]) {
    let mut writer = store.create(name).await.expect("create");
    writer.write(bytes).await.expect("write");
    assert_eq!(
        writer.commit().await.expect("commit"),
        bytes.len() as u64,
        "commit returns the size"
    );
}

async fn get(store: &dyn Store, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reader = store.open(name).await.expect("open");
    reader.read_to_end(&mut bytes).await.expect("read");
    bytes
}

async fn names(store: &dyn Store, prefix: &str) -> Vec<String> {
    let listed = store.list(prefix).await.expect("list");
    listed.into_iter().map(|entry| entry.name).collect()
}

async fn committed_streams_are_listed_whole(store: &dyn Store) {
    let big: Vec<u8> = (0..3_000_001_u32).map(|i| (i % 251) as u8).collect();
    put(store, "whole/empty", b"").await;
    put(store, "whole/big.bin", &big).await;
    let listed = store.list("whole/").await.expect("list");
    let sizes: Vec<_> = listed.iter().map(|e| (e.name.as_str(), e.bytes)).collect();
    assert_eq!(
        sizes,
        [("whole/big.bin", big.len() as u64), ("whole/empty", 0)]
    );
    assert!(
        get(store, "whole/big.bin").await == big,
        "bytes come back equal"
    );
    assert!(get(store, "whole/empty").await.is_empty());
}

async fn uncommitted_streams_are_never_listed(store: &dyn Store) {
    let mut writer = store.create("open/a").await.expect("create");
    writer.write(b"half").await.expect("write");
    assert!(names(store, "open/").await.is_empty());
    assert!(matches!(
        store.open("open/a").await.err(),
        Some(StoreError::NotFound { .. })
    ));
    writer.abort().await.expect("abort");
    assert!(names(store, "open/").await.is_empty());
    store.remove_leftovers("open/").await.expect("leftovers");
}

async fn names_are_never_replaced(store: &dyn Store) {
    put(store, "once/a", b"first").await;
    assert!(matches!(
        store.create("once/a").await.err(),
        Some(StoreError::Exists { .. })
    ));
    // Two writers of one name at once: one wins, whole.
    let mut one = store.create("once/b").await.expect("create");
    let mut two = store.create("once/b").await.expect("create");
    one.write(b"one").await.expect("write");
    two.write(b"two").await.expect("write");
    one.commit().await.expect("commit");
    assert!(matches!(
        two.commit().await.err(),
        Some(StoreError::Exists { .. })
    ));
    assert_eq!(get(store, "once/b").await, b"one");
    assert_eq!(get(store, "once/a").await, b"first");
    assert_eq!(names(store, "once/").await, ["once/a", "once/b"]);
}

async fn unsafe_names_are_refused(store: &dyn Store) {
    let long = "x".repeat(201);
    for name in [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/../b",
        ".a",
        "a/.b",
        "a b",
        "a\nb",
        "a\0b",
        "ä",
        "a\\b",
        long.as_str(),
    ] {
        assert!(
            matches!(
                store.create(name).await.err(),
                Some(StoreError::BadName { .. })
            ),
            "create {name:?}"
        );
        assert!(
            matches!(
                store.open(name).await.err(),
                Some(StoreError::BadName { .. })
            ),
            "open {name:?}"
        );
        assert!(store.local_path(name).is_none(), "path of {name:?}");
    }
}

async fn deleting_is_idempotent(store: &dyn Store) {
    put(store, "gone/a", b"x").await;
    store.delete("gone/a").await.expect("delete");
    store.delete("gone/a").await.expect("delete again");
    store.delete("never/there").await.expect("delete nothing");
    assert!(names(store, "gone/").await.is_empty());
    store.remove_leftovers("gone/").await.expect("leftovers");
}

async fn prefixes_are_respected(store: &dyn Store) {
    put(store, "p/one/a", b"1").await;
    put(store, "p/one/b", b"2").await;
    put(store, "p/onetwo/a", b"3").await;
    assert_eq!(names(store, "p/one/").await, ["p/one/a", "p/one/b"]);
    assert_eq!(
        names(store, "p/one").await,
        ["p/one/a", "p/one/b", "p/onetwo/a"]
    );
    assert_eq!(names(store, "p/one/b").await, ["p/one/b"]);
    assert!(names(store, "nowhere/").await.is_empty());
    let all = names(store, "").await;
    assert!(all.contains(&"p/onetwo/a".to_owned()));
}
