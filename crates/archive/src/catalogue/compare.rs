//! Two catalogues compared.

use std::collections::BTreeMap;

use super::model::{Catalogue, CatalogueObject};

/// An object that is not the same in two catalogues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueDifference {
    /// The object in words, for example `TABLE s.t`.
    pub object: String,
    /// In what it differs.
    pub kind: DifferenceKind,
}

/// In what an object differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferenceKind {
    /// Only the first catalogue has it.
    Missing,
    /// Only the second catalogue has it.
    Added,
    /// Its definition (or its tablespace or access method) is another.
    Changed,
    /// It belongs to another role.
    Owner,
}

/// What names an object. Several can have one name: default privileges of several roles.
type Key<'a> = (&'a str, &'a str, &'a str);

impl Catalogue {
    /// What is not the same in `other`, in the order of kind, schema and name. Definitions count
    /// only when both archives are of one major version, because each major writes them in its
    /// own way.
    #[must_use]
    pub fn differences(&self, other: &Self, same_major: bool) -> Vec<CatalogueDifference> {
        let mut pairs: BTreeMap<Key<'_>, [Vec<&CatalogueObject>; 2]> = BTreeMap::new();
        // Before major 14 a partition's own definition attached it.
        let attaches = |object: &CatalogueObject| object.kind == "TABLE ATTACH";
        let older = !same_major && !self.objects.iter().any(attaches);
        for (side, catalogue) in [self, other].into_iter().enumerate() {
            for object in &catalogue.objects {
                if older && attaches(object) {
                    continue;
                }
                pairs.entry(key(object)).or_default()[side].push(object);
            }
        }
        let mut differences = Vec::new();
        for [mut first, mut second] in pairs.into_values() {
            // From the best match to the worst; what is left has no match.
            let equal = |a: &CatalogueObject, b: &CatalogueObject| {
                a.strict == b.strict || (a.owner == b.owner && (!same_major || a.loose == b.loose))
            };
            matched(&mut first, &mut second, equal);
            let mut report = |object: &CatalogueObject, kind| {
                differences.push(CatalogueDifference {
                    object: object.describe(),
                    kind,
                });
            };
            for (object, _) in matched(&mut first, &mut second, |a, b| a.owner == b.owner) {
                report(object, DifferenceKind::Changed);
            }
            for (object, found) in matched(&mut first, &mut second, |_, _| true) {
                report(object, DifferenceKind::Owner);
                if same_major && object.loose != found.loose {
                    report(object, DifferenceKind::Changed);
                }
            }
            first
                .into_iter()
                .for_each(|object| report(object, DifferenceKind::Missing));
            second
                .into_iter()
                .for_each(|object| report(object, DifferenceKind::Added));
        }
        differences
    }
}

fn key(object: &CatalogueObject) -> Key<'_> {
    (
        &object.kind,
        object.schema.as_deref().unwrap_or_default(),
        &object.name,
    )
}

/// Takes pairs that match out of both lists.
fn matched<'a>(
    first: &mut Vec<&'a CatalogueObject>,
    second: &mut Vec<&'a CatalogueObject>,
    matches: impl Fn(&CatalogueObject, &CatalogueObject) -> bool,
) -> Vec<(&'a CatalogueObject, &'a CatalogueObject)> {
    let mut pairs = Vec::new();
    first.retain(|object| {
        let found = second.iter().position(|other| matches(object, other));
        if let Some(at) = found {
            pairs.push((*object, second.remove(at)));
        }
        found.is_none()
    });
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, owner: &str, strict: u128, loose: u128) -> CatalogueObject {
        CatalogueObject {
            kind: "TABLE".into(),
            schema: Some("s".into()),
            name: name.into(),
            owner: Some(owner.into()),
            strict,
            loose,
        }
    }

    fn catalogue(objects: &[CatalogueObject]) -> Catalogue {
        Catalogue {
            objects: objects.to_vec(),
        }
    }

    fn kinds(first: &Catalogue, second: &Catalogue, same_major: bool) -> Vec<DifferenceKind> {
        first
            .differences(second, same_major)
            .into_iter()
            .map(|difference| difference.kind)
            .collect()
    }

    #[test]
    fn each_kind_of_difference() {
        use DifferenceKind::{Added, Changed, Missing, Owner};
        let first = catalogue(&[object("a", "x", 1, 1), object("b", "x", 2, 2)]);
        assert_eq!(kinds(&first, &first, true), []);
        let second = catalogue(&[object("b", "x", 2, 2), object("a", "x", 1, 1)]);
        assert_eq!(
            kinds(&first, &second, true),
            [],
            "the order does not matter"
        );
        assert_eq!(first.fingerprint(), second.fingerprint());
        for (changed, same_major, expected) in [
            (vec![object("a", "x", 1, 1)], true, vec![Missing]),
            (
                vec![
                    object("a", "x", 1, 1),
                    object("b", "x", 2, 2),
                    object("c", "x", 3, 3),
                ],
                true,
                vec![Added],
            ),
            (
                vec![object("a", "x", 9, 1), object("b", "x", 2, 2)],
                true,
                vec![],
            ),
            (
                vec![object("a", "x", 9, 9), object("b", "x", 2, 2)],
                true,
                vec![Changed],
            ),
            (
                vec![object("a", "x", 9, 9), object("b", "x", 2, 2)],
                false,
                vec![],
            ),
            (
                vec![object("a", "y", 9, 1), object("b", "x", 2, 2)],
                false,
                vec![Owner],
            ),
            (
                vec![object("a", "y", 9, 9), object("b", "x", 2, 2)],
                true,
                vec![Owner, Changed],
            ),
        ] {
            let second = catalogue(&changed);
            assert_eq!(kinds(&first, &second, same_major), expected, "{changed:?}");
        }
    }

    #[test]
    fn objects_of_one_name_are_told_apart_by_their_owners() {
        let first = catalogue(&[object("d", "x", 1, 1), object("d", "y", 2, 2)]);
        let second = catalogue(&[object("d", "y", 2, 2), object("d", "x", 3, 3)]);
        assert_eq!(
            kinds(&first, &second, true),
            [DifferenceKind::Changed],
            "the one of x"
        );
    }
}
