//! How much of a run's rows is fingerprinted: the smallest tables first, until the budget of
//! bytes is used up.

use std::collections::HashSet;

use super::server::ServerTable;

/// What is fingerprinted in one database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Oids of tables.
    pub(crate) tables: HashSet<u32>,
    pub(crate) large_objects: bool,
}

/// Bytes that may still be fingerprinted in this run; 0 from the start: nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    left: u64,
    off: bool,
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self {
            left: bytes,
            off: bytes == 0,
        }
    }

    /// Chooses what is fingerprinted in one database and takes it off the budget. Large objects
    /// count as one table does.
    pub(crate) fn choose(&mut self, tables: &[ServerTable], large_object_bytes: u64) -> Chosen {
        let mut chosen = Chosen::default();
        if self.off {
            return chosen;
        }
        let mut sizes: Vec<_> = tables
            .iter()
            .filter(|table| !table.excluded)
            // A table whose size is not known may be of any size.
            .filter_map(|table| Some((table.bytes?, Some(table.oid))))
            .collect();
        sizes.push((large_object_bytes, None));
        sizes.sort_unstable();
        for (bytes, what) in sizes {
            if bytes > self.left {
                break;
            }
            self.left -= bytes;
            match what {
                Some(oid) => {
                    chosen.tables.insert(oid);
                }
                None => chosen.large_objects = true,
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tables(sizes: &[u64]) -> Vec<ServerTable> {
        sizes
            .iter()
            .zip(1..)
            .map(|(bytes, oid)| ServerTable {
                oid,
                bytes: Some(*bytes),
                ..ServerTable::default()
            })
            .collect()
    }

    #[test]
    fn the_smallest_come_first_and_the_rest_of_the_run_gets_what_is_left() {
        let mut budget = Budget::new(100);
        let chosen = budget.choose(&tables(&[50, 10, 30, 60]), 5);
        assert_eq!(chosen.tables, HashSet::from([1, 2, 3]));
        assert!(chosen.large_objects);
        assert_eq!(budget.left, 5);
        let chosen = budget.choose(&tables(&[6, 5]), 0);
        assert_eq!(chosen.tables, HashSet::from([2]));
    }

    #[test]
    fn nothing_without_a_budget_and_nothing_that_does_not_fit() {
        assert_eq!(Budget::new(0).choose(&tables(&[0]), 0), Chosen::default());
        let chosen = Budget::new(10).choose(&tables(&[1]), 11);
        assert_eq!(chosen.tables, HashSet::from([1]));
        assert!(!chosen.large_objects);
        let mut unknown = tables(&[0]);
        unknown[0].bytes = None;
        assert!(Budget::new(10).choose(&unknown, 0).tables.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_chosen_fits(sizes in prop::collection::vec(0_u64..1000, 0..40), budget in 1_u64..5000, large in 0_u64..1000) {
            let tables = tables(&sizes);
            let chosen = Budget::new(budget).choose(&tables, large);
            let (inside, outside): (Vec<_>, Vec<_>) = tables.iter().partition(|t| chosen.tables.contains(&t.oid));
            let sizes = |tables: Vec<&ServerTable>| tables.iter().filter_map(|t| t.bytes).collect::<Vec<_>>();
            let (inside, outside) = (sizes(inside), sizes(outside));
            prop_assert!(inside.iter().sum::<u64>() <= budget);
            if let (Some(largest), Some(smallest)) = (inside.iter().max(), outside.iter().min()) {
                prop_assert!(largest <= smallest);
            }
        }
    }
}
