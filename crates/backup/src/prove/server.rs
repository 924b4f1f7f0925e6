//! What a throw-away server has to be like, so that a backup can be restored into it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dbexec::{PgExecutor, Sandbox};
use tokio_util::io::SyncIoBridge;

use crate::manifest::DatabaseRecord;
use crate::{DumpFormat, Manifest, Repository};

/// Room beside the data: write-ahead log, catalogues, temporary files; bytes.
const BESIDE: u64 = 512 << 20;
/// A restored database may be larger than its source was: fill factors, indexes built anew.
const GROWTH: f64 = 1.2;
/// Role of the throw-away server where the source does not say who its superuser was.
const SUPERUSER: &str = "postgres";

/// A throw-away server, as a proof uses it.
pub struct ProveServer<'a> {
    /// Runs programs on it, as its superuser.
    pub executor: Arc<dyn PgExecutor>,
    /// Where it runs, for the record: image with its digest, or programs of the host.
    pub place: String,
    /// Why it is there no more, when it ended by itself.
    pub lost: Box<dyn Fn() -> Option<String> + Send + Sync + 'a>,
}

impl<'a> From<&'a Sandbox> for ProveServer<'a> {
    fn from(sandbox: &'a Sandbox) -> Self {
        let digest = sandbox.image_digest();
        Self {
            executor: sandbox.executor(),
            place: match digest {
                Some(digest) => format!("{}, image {digest}", sandbox.describe()),
                None => sandbox.describe(),
            },
            lost: Box::new(|| sandbox.lost()),
        }
    }
}

/// What a throw-away server needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxNeeds {
    /// Major version.
    pub major: u32,
    /// Parameters of the source that its databases and extensions need.
    pub settings: BTreeMap<String, String>,
    /// Name of its superuser: the one who owned the source's server, where that is known.
    pub superuser: String,
    /// Disk space, bytes: the largest database (they are restored one after the other), its
    /// archive where it has to be copied, and what is beside.
    pub disk_bytes: u64,
}

/// What a throw-away server for a backup needs.
#[must_use]
pub fn sandbox_needs(manifest: &Manifest) -> SandboxNeeds {
    let largest = manifest
        .databases
        .iter()
        .map(|database| {
            let bytes = (database.size_bytes as f64 * GROWTH) as u64;
            bytes.saturating_add(database.archive.bytes())
        })
        .max()
        .unwrap_or_default();
    SandboxNeeds {
        major: manifest.target.server.major(),
        settings: manifest.target.settings.clone(),
        superuser: superuser(manifest),
        disk_bytes: largest.saturating_add(BESIDE),
    }
}

/// initdb gives the databases that it makes to the superuser.
fn superuser(manifest: &Manifest) -> String {
    let owner = |name: &str| {
        let mut databases = manifest.databases.iter();
        let database = databases.find(|database| database.name == name)?;
        Some(database.owner.clone())
    };
    owner("template1")
        .or_else(|| owner("postgres"))
        .or_else(|| {
            let target = &manifest.target;
            target.server.is_superuser.then(|| target.user.clone())
        })
        .unwrap_or_else(|| SUPERUSER.to_owned())
}

/// Tablespaces that a database of a backup and its objects are in; those of a plain dump are not
/// known.
pub(crate) async fn tablespaces(
    repo: &Repository,
    manifest: &Manifest,
    record: &DatabaseRecord,
) -> BTreeSet<String> {
    let mut found = BTreeSet::from([record.tablespace.clone()]);
    match table_of_contents(repo, manifest, record).await {
        Ok(toc) => {
            let entries = toc.iter().flat_map(|toc| &toc.entries);
            found.extend(entries.filter_map(|entry| entry.tablespace.map(str::to_owned)));
        }
        // The restore reads the archive whole and says what is wrong with it.
        Err(problem) => tracing::debug!(problem, "no table of contents"),
    }
    found.retain(|name| !matches!(name.as_str(), "" | "pg_default" | "pg_global"));
    found
}

async fn table_of_contents(
    repo: &Repository,
    manifest: &Manifest,
    record: &DatabaseRecord,
) -> Result<Option<archive::Toc>, String> {
    let file = match record.archive.format {
        DumpFormat::Plain => return Ok(None),
        DumpFormat::Custom => record.archive.files.first(),
        DumpFormat::Directory => record
            .archive
            .files
            .iter()
            .find(|file| file.name.ends_with("/toc.dat")),
    };
    let file = file.ok_or("the archive has no files")?;
    let stored = repo
        .store
        .open(&Repository::stored_name(&manifest.id, file))
        .await
        .map_err(|error| error.to_string())?;
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let stored = SyncIoBridge::new_with_handle(stored, handle);
        archive::read_toc(std::io::BufReader::new(stored)).map(Some)
    })
    .await
    .map_err(|panic| panic.to_string())?
    .map_err(|error| error.to_string())
}
