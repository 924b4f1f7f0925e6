//! Who restores which entry, and when: pg_restore before the rows, our sessions, pg_restore after
//! the rows. A function of the table of contents.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use archive::{Entry, Section, TableData, Toc};

/// From so many large objects on they are not made statement by statement by pg_restore.
const MANY_OBJECTS: usize = 1_000;

/// How the rows of an entry are dealt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// In pieces to several sessions.
    Split,
    /// By one session, whichever has the least to do.
    Whole,
    /// As [`Way::Whole`], and nobody has to look at its rows' transactions again.
    Frozen,
    /// By the first session, in the order of the archive: members of extensions may refer to each
    /// other, and their constraints are there already.
    InOrder,
}

/// Who restores which entry; lists are in the order of the archive.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// pg_restore, before the rows.
    pub(super) before: Vec<i32>,
    /// Our sessions: rows.
    pub(super) rows: HashMap<i32, Way>,
    /// Our sessions: contents of large objects.
    pub(super) contents: HashSet<i32>,
    /// Large objects that our sessions make, by their owners.
    pub(super) make: BTreeMap<Option<String>, Vec<u32>>,
    /// pg_restore, after the rows: the rest of the data.
    pub(super) rest: Vec<i32>,
    /// pg_restore in several jobs, after that: indexes, constraints, triggers, privileges.
    pub(super) after: Vec<i32>,
}

/// Sorts the chosen entries. `large_from`: bytes from which a table is `large`: cut, or frozen.
pub(super) fn sort(
    toc: &Toc,
    tables: &[TableData],
    chosen: &dyn Fn(i32) -> bool,
    keep_owner: bool,
    (large_from, large): (u64, Way),
) -> Lists {
    let bytes: HashMap<i32, u64> = tables.iter().map(|t| (t.dump_id, t.bytes)).collect();
    let ordinary: BTreeSet<_> = toc
        .entries
        .iter()
        .filter(|entry| entry.kind == "TABLE")
        .map(table_of)
        .collect();
    let foreign: BTreeSet<_> = toc
        .entries
        .iter()
        .filter(|entry| entry.kind == "FOREIGN TABLE")
        .map(table_of)
        .collect();
    let mut entries_of: HashMap<_, u32> = HashMap::new();
    for entry in toc.entries.iter().filter(|entry| entry.has_data) {
        *entries_of.entry(table_of(entry)).or_default() += 1;
    }
    let mut lists = Lists {
        make: objects_to_make(toc, chosen, keep_owner),
        ..Lists::default()
    };
    let mut section = Section::PreData;
    for entry in &toc.entries {
        if entry.section != Section::None {
            section = entry.section;
        }
        let id = entry.dump_id;
        if !chosen(id) {
            continue;
        }
        match entry.kind {
            "TABLE DATA" => {
                if entry.has_data {
                    let size = bytes.get(&id).copied().unwrap_or_default();
                    let way = match (
                        ordinary.contains(&table_of(entry)),
                        foreign.contains(&table_of(entry)),
                    ) {
                        (true, _) if size >= large_from => match large {
                            // What another entry brought would be lost.
                            Way::Frozen if entries_of.get(&table_of(entry)) != Some(&1) => {
                                Way::Whole
                            }
                            large => large,
                        },
                        (true, _) | (_, true) => Way::Whole,
                        (false, false) => Way::InOrder,
                    };
                    lists.rows.insert(id, way);
                }
            }
            "BLOBS" => {
                lists.contents.insert(id);
            }
            "BLOB" | "BLOB METADATA" if !lists.make.is_empty() => {}
            "BLOB" | "BLOB METADATA" => lists.before.push(id),
            // As pg_restore does it: after everything else.
            "ACL" => lists.after.push(id),
            _ if entry.section == Section::None && entry.name.starts_with("LARGE OBJECT ") => {
                lists.after.push(id);
            }
            _ => match section {
                Section::Data => lists.rest.push(id),
                Section::PostData => lists.after.push(id),
                Section::PreData | Section::None => lists.before.push(id),
            },
        }
    }
    lists
}

fn table_of(entry: Entry<'_>) -> (&str, &str) {
    (entry.schema.unwrap_or_default(), entry.name)
}

/// Large objects by owner, when there are many and everything about them is known; else none.
fn objects_to_make(
    toc: &Toc,
    chosen: &dyn Fn(i32) -> bool,
    keep_owner: bool,
) -> BTreeMap<Option<String>, Vec<u32>> {
    let mut objects: BTreeMap<_, Vec<u32>> = BTreeMap::new();
    for entry in toc.entries.iter().filter(|entry| chosen(entry.dump_id)) {
        let oids: Option<Vec<u32>> = match entry.kind {
            "BLOB" => entry.name.parse().ok().map(|oid| vec![oid]),
            "BLOB METADATA" => entry.definition.and_then(|list| {
                list.split_whitespace()
                    .map(|oid| oid.parse().ok())
                    .collect()
            }),
            _ => continue,
        };
        let owner = entry.owner.filter(|_| keep_owner).map(str::to_owned);
        let Some(oids) = oids.filter(|oids| !oids.is_empty() && !entry.lossy) else {
            return BTreeMap::new();
        };
        if keep_owner && owner.is_none() {
            return BTreeMap::new();
        }
        objects.entry(owner).or_default().extend(oids);
    }
    let number: usize = objects.values().map(Vec::len).sum();
    if number <= MANY_OBJECTS {
        return BTreeMap::new();
    }
    objects
}

#[cfg(test)]
pub(super) mod tests {
    use archive::{DataPosition, DumpTime, Header, TocEntry};

    use super::*;

    pub(in super::super) fn entry(
        dump_id: i32,
        kind: &str,
        name: &str,
        section: Section,
    ) -> TocEntry {
        TocEntry {
            dump_id,
            table_oid: 0,
            oid: 0,
            has_data: matches!(kind, "TABLE DATA" | "BLOBS"),
            kind: kind.into(),
            name: name.into(),
            schema: Some("s".into()),
            tablespace: None,
            access_method: None,
            owner: Some("app".into()),
            section,
            definition: None,
            copy_statement: None,
            dependencies: Box::default(),
            position: DataPosition::NoData,
            file_name: None,
            lossy: false,
        }
    }

    fn toc(entries: Vec<TocEntry>) -> Toc {
        Toc {
            header: header(),
            entries: entries.into_iter().collect(),
            utf8: true,
        }
    }

    pub(in super::super) fn header() -> Header {
        Header {
            version: archive::ArchiveVersion {
                major: 1,
                minor: 16,
                revision: 0,
            },
            kind: archive::ArchiveKind::Custom,
            compression: archive::Compression::None,
            created: DumpTime {
                second: 0,
                minute: 0,
                hour: 0,
                day: 1,
                month: 0,
                year: 126,
            },
            database: "d".to_owned(),
            server_version: "17.1".to_owned(),
            dump_version: "17.1".to_owned(),
        }
    }

    pub(in super::super) fn rows(dump_id: i32, bytes: u64) -> TableData {
        TableData {
            dump_id,
            oid: 1,
            schema: "s".into(),
            name: "t".into(),
            bytes,
            rows: Some(1),
            fingerprint: None,
            lossy: false,
        }
    }

    #[test]
    fn every_entry_has_one_place() {
        use Section::{Data, None as No, PostData, PreData};
        let toc = toc(vec![
            entry(1, "ENCODING", "ENCODING", PreData),
            entry(2, "TABLE", "big", PreData),
            entry(3, "COMMENT", "TABLE big", No),
            entry(4, "ACL", "TABLE big", No),
            entry(5, "TABLE", "small", PreData),
            entry(6, "FOREIGN TABLE", "far", PreData),
            entry(7, "BLOB METADATA", "1..2", Data),
            entry(8, "COMMENT", "LARGE OBJECT 1", No),
            entry(9, "TABLE DATA", "big", Data),
            entry(10, "TABLE DATA", "small", Data),
            entry(11, "TABLE DATA", "far", Data),
            entry(12, "TABLE DATA", "of_extension", Data),
            entry(13, "BLOBS", "1..2", Data),
            entry(14, "SEQUENCE SET", "q", Data),
            entry(15, "INDEX", "i", PostData),
            entry(16, "COMMENT", "INDEX i", No),
            entry(17, "TABLE", "left_out", PreData),
        ]);
        let tables = [rows(9, 9000), rows(10, 10), rows(11, 9000), rows(12, 9000)];
        let lists = sort(&toc, &tables, &|id| id != 17, true, (1000, Way::Split));
        assert_eq!(lists.before, [1, 2, 3, 5, 6, 7]);
        assert_eq!(lists.rest, [14]);
        assert_eq!(lists.after, [4, 8, 15, 16]);
        let ways = [
            (9, Way::Split),
            (10, Way::Whole),
            (11, Way::Whole),
            (12, Way::InOrder),
        ];
        assert_eq!(lists.rows, HashMap::from(ways));
        assert_eq!(lists.contents, HashSet::from([13]));
        assert!(lists.make.is_empty(), "few");
    }

    #[test]
    fn a_table_with_two_entries_is_not_frozen() {
        let mut entries = vec![
            entry(1, "TABLE", "t", Section::PreData),
            entry(2, "TABLE DATA", "t", Section::Data),
        ];
        let tables = [rows(2, 9000), rows(3, 9000)];
        let way = |entries: &[TocEntry]| {
            let frozen = (1000, Way::Frozen);
            sort(&toc(entries.to_vec()), &tables, &|_| true, true, frozen).rows[&2]
        };
        assert_eq!(way(&entries), Way::Frozen);
        entries.push(entry(3, "TABLE DATA", "t", Section::Data));
        assert_eq!(way(&entries), Way::Whole);
    }

    #[test]
    fn many_large_objects_are_made_by_owner() {
        let mut entries: Vec<_> = (1..=1500)
            .map(|id| entry(id, "BLOB", &(id + 20_000).to_string(), Section::PreData))
            .collect();
        entries[3].owner = Some("other".into());
        let lists = sort(
            &toc(entries.clone()),
            &[],
            &|_| true,
            true,
            (1000, Way::Split),
        );
        assert!(lists.before.is_empty());
        assert_eq!(lists.make[&Some("other".to_owned())], [20_004]);
        assert_eq!(lists.make[&Some("app".to_owned())].len(), 1499);
        let without = sort(
            &toc(entries.clone()),
            &[],
            &|_| true,
            false,
            (1000, Way::Split),
        );
        assert_eq!(without.make[&None].len(), 1500);
        // One whose owner is not known for certain: pg_restore makes them all.
        entries[7].lossy = true;
        let lists = sort(&toc(entries), &[], &|_| true, true, (1000, Way::Split));
        assert_eq!(lists.before.len(), 1500);
        assert!(lists.make.is_empty());
    }

    #[test]
    fn lists_of_large_objects_of_one_entry() {
        let mut group = entry(1, "BLOB METADATA", "1..1001", Section::Data);
        let list: String = (1..=1001).map(|oid| format!("{oid}\n")).collect();
        group.definition = Some(list.into());
        let lists = sort(
            &toc(vec![group.clone()]),
            &[],
            &|_| true,
            true,
            (1000, Way::Split),
        );
        assert_eq!(lists.make[&Some("app".to_owned())].len(), 1001);
        group.definition = Some("1\nx\n".into());
        let lists = sort(&toc(vec![group]), &[], &|_| true, true, (1000, Way::Split));
        assert_eq!(lists.before, [1]);
    }
}
