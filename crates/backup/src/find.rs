//! One backup among many: only as many manifests are read as it takes to be sure.

use std::fmt;

use futures_util::{StreamExt, stream};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use storage::{Entry, Store};
use tokio::io::AsyncReadExt;

use crate::catalog::{AT_ONCE, load};
use crate::manifest_file::{self, Depth};
use crate::repository::DamagedBackup;
use crate::{BackupError, BackupId, Manifest, Repository, manifest};

/// Bytes of a manifest in which its sequence number is looked for first. It is one of the first
/// fields that this program writes.
const HEAD: u64 = 4 << 10;

impl Repository {
    /// Largest sequence number of a backup, 0 where there is none.
    pub(crate) async fn newest_sequence(&self) -> Result<u64, BackupError> {
        let newest = self.newest(Depth::WithoutTables, |_| true).await?;
        Ok(newest.map_or(0, |manifest| manifest.sequence))
    }

    /// One backup: by id, by a prefix that only one has, or `latest`.
    ///
    /// # Errors
    /// [`BackupError::NotFound`], [`BackupError::Ambiguous`]; [`BackupError::Manifest`] when the
    /// one that is meant is damaged.
    pub async fn find(&self, wanted: &str) -> Result<Manifest, BackupError> {
        self.find_to(wanted, Depth::Whole).await
    }

    /// As [`Repository::find`], the attestations without their tables: of 100,000 they are much.
    ///
    /// # Errors
    /// As [`Repository::find`].
    pub async fn find_without_tables(&self, wanted: &str) -> Result<Manifest, BackupError> {
        self.find_to(wanted, Depth::WithoutTables).await
    }

    /// The id of one backup, found as by [`Repository::find`].
    ///
    /// # Errors
    /// As [`Repository::find`].
    pub async fn find_id(&self, wanted: &str) -> Result<BackupId, BackupError> {
        let found = self.find_to(wanted, Depth::WithoutTables).await?;
        Ok(found.id)
    }

    async fn find_to(&self, wanted: &str, depth: Depth) -> Result<Manifest, BackupError> {
        let not_found = |reason: String| BackupError::NotFound {
            wanted: wanted.to_owned(),
            reason,
        };
        if wanted == "latest" {
            // What a restore replaced is not what the next one is to bring back.
            let newest = self.newest(depth, |manifest| !manifest.is_safety()).await?;
            return match newest {
                Some(manifest) => Ok(manifest),
                None => Err(not_found(self.no_latest().await?)),
            };
        }
        if wanted.is_empty() {
            return Err(not_found("the id is empty".to_owned()));
        }
        let mut complete = self.directories().await?.complete;
        complete.retain(|(id, _)| id.as_str().starts_with(wanted));
        match complete.as_slice() {
            [] => Err(not_found(self.what_is_there().await?)),
            [(id, entries)] => match load(self.store.as_ref(), id, entries, depth).await {
                Ok((manifest, _)) => Ok(manifest),
                Err(problem) => Err(BackupError::Manifest {
                    id: id.to_string(),
                    problem,
                }),
            },
            several => Err(BackupError::Ambiguous {
                wanted: wanted.to_owned(),
                ids: several.iter().map(|(id, _)| id.to_string()).collect(),
            }),
        }
    }

    /// The newest backup that is not damaged and that is wanted.
    async fn newest(
        &self,
        depth: Depth,
        wanted: impl Fn(&Manifest) -> bool,
    ) -> Result<Option<Manifest>, BackupError> {
        let store = self.store.as_ref();
        let complete = self.directories().await?.complete;
        let mut ordered: Vec<(Option<u64>, BackupId, Vec<Entry>)> = stream::iter(complete)
            .map(|(id, entries)| async move { (sequence(store, &id).await, id, entries) })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        ordered.sort_by(|(a, a_id, _), (b, b_id, _)| (b, b_id).cmp(&(a, a_id)));
        for (_, id, entries) in ordered {
            // A damaged one is passed over here; whoever lists the backups is told of it.
            if let Ok((manifest, _)) = load(store, &id, &entries, depth).await
                && wanted(&manifest)
            {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    /// Which backups there are, for somebody who asked for another.
    async fn what_is_there(&self) -> Result<String, BackupError> {
        let backups = self.stored(Depth::WithoutTables).await?.backups;
        Ok(match backups.first() {
            Some(newest) => format!(
                "{} holds {} backups, the newest is {}",
                self.store.describe(),
                backups.len(),
                newest.id
            ),
            None => format!("{} holds no backup", self.store.describe()),
        })
    }

    /// Why nothing is `latest`.
    async fn no_latest(&self) -> Result<String, BackupError> {
        let found = self.stored(Depth::WithoutTables).await?;
        let safety = found.backups.len();
        let mut reason = format!("{} holds no backup", self.store.describe());
        if safety > 0 {
            reason.push_str(&format!(
                " but {safety} safety backups, which hold what restores replaced and are named by \
                 their ids"
            ));
        }
        let damaged = found.damaged.iter().map(|DamagedBackup { id, .. }| id);
        if let Some(newest) = damaged.max() {
            reason.push_str(&format!("; {newest} is damaged"));
        }
        Ok(reason)
    }
}

/// The sequence number that a manifest names; `None` for a damaged one. The rest of the manifest is
/// not looked at, so it may be damaged all the same.
async fn sequence(store: &dyn Store, id: &BackupId) -> Option<u64> {
    let name = format!("{id}/{}", manifest::FILE_NAME);
    let mut head = Vec::new();
    let stored = store.open(&name).await.ok()?;
    stored.take(HEAD).read_to_end(&mut head).await.ok()?;
    if let Some(sequence) = sequence_in(&head) {
        return Some(sequence);
    }
    let stored = manifest_file::read_to(store, id, Depth::WithoutTables).await;
    let manifest = stored.and_then(|stored| stored.manifest).ok()?;
    Some(manifest.sequence)
}

/// The sequence number in the first bytes of a manifest.
fn sequence_in(head: &[u8]) -> Option<u64> {
    let mut found = None;
    let mut json = serde_json::Deserializer::from_slice(head);
    // Ends with an error wherever the head ends; what counts is what was found before.
    let _ = Sequence(&mut found).deserialize(&mut json);
    found
}

struct Sequence<'a>(&'a mut Option<u64>);

impl<'de> DeserializeSeed<'de> for Sequence<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Sequence<'_> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key != "sequence" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let sequence = map.next_value()?;
            // What follows shows that the number was not cut.
            map.next_key::<IgnoredAny>()?;
            *self.0 = Some(sequence);
            return Err(de::Error::custom("the rest is not of interest"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::sequence_in;

    #[test]
    fn the_sequence_is_read_from_the_beginning_of_a_manifest() {
        let text = br#"{"format_version": 2, "id": {"of": [1]}, "sequence": 1234, "target": "a"}"#;
        assert_eq!(sequence_in(text), Some(1234));
        // Wherever the beginning ends, it is this number or none.
        let whole = text.windows(4).position(|w| w == b"1234").unwrap() + 4;
        for end in 0..text.len() {
            let expected = (end >= whole + b", \"target\"".len()).then_some(1234);
            assert_eq!(sequence_in(&text[..end]), expected, "{end}");
        }
        for other in [
            &b"{\"id\": 1}"[..],
            b"{\"sequence\": -1, \"id\": 1}",
            b"{\"sequence\": \"1\", \"id\": 1}",
            b"[1, 2]",
            b"\xff\xfe",
        ] {
            assert_eq!(sequence_in(other), None, "{other:?}");
        }
    }
}
