//! The objects of an archive with hashes of their definitions.

use std::io::Read;

use crate::{
    error::ArchiveError,
    fingerprint::{Fingerprint, ItemHash, ItemHasher},
    name::Name,
    options::CatalogueDetail,
    primitives::ArchiveReader,
    toc::{TOC_LIMIT, TocEntry, TocReader},
};

use super::reduce::reduced;

/// Kinds that say something of the database itself, or that are data.
const LEFT_OUT: &[&str] = &[
    "ENCODING",
    "STDSTRINGS",
    "SEARCHPATH",
    "DATABASE",
    "DATABASE PROPERTIES",
    "TABLE DATA",
    "SEQUENCE SET",
    "BLOBS",
    "BLOB",
    "BLOB METADATA",
    "STATISTICS DATA",
    "MATERIALIZED VIEW DATA",
];
/// Kinds that are attached to other objects, the database among them.
const ATTACHED: &[&str] = &["ACL", "COMMENT", "SECURITY LABEL"];

/// All objects of an archive but its rows, large objects, sequence values and what belongs to the
/// database itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// Objects in the order of the table of contents.
    pub objects: Vec<CatalogueObject>,
}

/// One object, or something attached to one (privileges, a comment).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueObject {
    /// Kind, as [`TocEntry::kind`].
    pub kind: Name,
    /// Schema.
    pub schema: Option<Name>,
    /// Name, as [`TocEntry::name`].
    pub name: Name,
    /// Owner.
    pub owner: Option<Name>,
    /// Hash of all that pg_dump wrote of it: kind, schema, name, owner, tablespace, access
    /// method, definition.
    pub strict: u128,
    /// Hash of kind, schema, name, tablespace, access method and the definition without what the
    /// server writes differently when the object was made from its own dump (parentheses, white
    /// space, casts between types of text).
    pub loose: u128,
}

impl Catalogue {
    /// Fingerprint of all objects by SHA-256, in whatever order they are.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        for object in &self.objects {
            fingerprint.add_hash(object.strict);
        }
        fingerprint
    }
}

/// See [`CatalogueObject::strict`].
fn strict(entry: &TocEntry) -> u128 {
    let definition = entry.definition.as_deref().unwrap_or_default();
    hash(entry, entry.owner.as_deref(), definition)
}

fn hash(entry: &TocEntry, owner: Option<&str>, definition: &str) -> u128 {
    let mut hasher = ItemHasher::new(ItemHash::Sha256);
    let parts = [
        Some(entry.kind.as_str()),
        entry.schema.as_deref(),
        Some(entry.name.as_str()),
        owner,
        entry.tablespace.as_deref(),
        entry.access_method.as_deref(),
        Some(definition),
    ];
    for part in parts {
        // With lengths, so that no text can stand in two fields.
        let part = part.unwrap_or_default();
        hasher.push(&(part.len() as u64).to_be_bytes());
        hasher.push(part.as_bytes());
    }
    hasher.finish()
}

impl CatalogueObject {
    fn of(entry: &TocEntry) -> Self {
        let loose = reduced(entry.definition.as_deref().unwrap_or_default());
        Self {
            strict: strict(entry),
            loose: hash(entry, None, &loose),
            kind: entry.kind.clone(),
            schema: entry.schema.clone(),
            name: entry.name.clone(),
            owner: entry.owner.clone(),
        }
    }

    /// The object in words.
    #[must_use]
    pub fn describe(&self) -> String {
        crate::toc::describe(&self.kind, self.schema.as_deref(), &self.name)
    }

    fn size(&self) -> u64 {
        let optional = |text: &Option<Name>| text.as_ref().map_or(0, |name| name.len());
        let texts =
            self.kind.len() + self.name.len() + optional(&self.schema) + optional(&self.owner);
        (size_of::<Self>() + texts) as u64
    }
}

/// Collects objects while a table of contents is read.
#[derive(Default)]
pub(crate) struct CatalogueBuilder {
    /// `None` where only the fingerprint is wanted.
    objects: Option<Vec<CatalogueObject>>,
    fingerprint: Fingerprint,
    kept: u64,
}

impl CatalogueBuilder {
    pub(crate) fn new(detail: CatalogueDetail) -> Option<Self> {
        let objects = match detail {
            CatalogueDetail::None => return None,
            CatalogueDetail::Fingerprint => None,
            CatalogueDetail::Objects => Some(Vec::new()),
        };
        Some(Self {
            objects,
            ..Self::default()
        })
    }

    /// Whether an entry is an object of the catalogue, so that its definition is needed.
    pub(crate) fn wants(kind: &str, name: &str) -> bool {
        let of_database = ATTACHED.contains(&kind) && name.starts_with("DATABASE ");
        !(of_database || LEFT_OUT.contains(&kind))
    }

    pub(crate) fn take(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        if !Self::wants(&entry.kind, &entry.name) {
            return Ok(());
        }
        let Some(objects) = &mut self.objects else {
            self.fingerprint.add_hash(strict(entry));
            return Ok(());
        };
        let object = CatalogueObject::of(entry);
        self.fingerprint.add_hash(object.strict);
        self.kept += object.size();
        if self.kept > TOC_LIMIT {
            return Err(ArchiveError::TooLarge {
                subject: "the table of contents".to_owned(),
                limit: TOC_LIMIT,
            });
        }
        objects.push(object);
        Ok(())
    }

    /// The objects, where they were wanted, and the fingerprint of all.
    pub(crate) fn finish(self) -> (Option<Catalogue>, Fingerprint) {
        let catalogue = self.objects.map(|objects| Catalogue { objects });
        (catalogue, self.fingerprint)
    }
}

/// Reads the catalogue of a custom archive, or of the `toc.dat` of a directory or tar archive.
/// Reads no data.
///
/// # Errors
/// [`ArchiveError`]; also when what would be kept exceeds 256 MiB.
pub fn read_catalogue(reader: impl Read) -> Result<Catalogue, ArchiveError> {
    let mut reader = ArchiveReader::new(reader, "the table of contents");
    let mut toc = TocReader::begin(&mut reader)?;
    let mut builder = CatalogueBuilder {
        objects: Some(Vec::new()),
        ..CatalogueBuilder::default()
    };
    while let Some(entry) = toc.next_entry(&mut reader, CatalogueBuilder::wants)? {
        builder.take(&entry)?;
    }
    Ok(builder.finish().0.unwrap_or_default())
}
